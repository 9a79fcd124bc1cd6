"""The best match of a cell in an object, for every lambda: a few candidates instead of all cells.

The fused similarity lam^2 A_m + (1 - lam)^2 A_a of two cells is linear in (A_m, A_a). So its maximum over the cells of
an object is always at a corner of the upper right hull of all their (A_m, A_a). Tensors in, on any device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm.auto import tqdm

from tedlens.ted.propagation import keys_in_sight
from tedlens.ted.settings import Propagation


def best_matches(
    parts: tuple[Tensor, Tensor],
    labels: npt.NDArray[np.uint8],
    objects: Sequence[int],
    how: Propagation,
    *,
    unseen: float,
) -> npt.NDArray[np.float32]:
    """Similarities of each cell with its best match in each object, for every lambda.

    Parameters
    ----------
    parts : (frame, channel, y, x) of motion and of appearance, of length 1 at each cell
    labels : (frame, y, x)
        Labels of the reference frames.
    objects
        The labels to match.
    how
        Its `radius`, `n_last` and `convention` define which cells a cell sees.
    unseen
        Similarity with an object of which a cell sees no part.

    Returns
    -------
    (part, candidate, object, frame, y, x), for all frames except the first. Candidates are ordered from the best
    in motion to the best in appearance; the last one is repeated to fill the axis.
    """
    known = torch.from_numpy(labels).to(parts[0].device)
    frames = []
    # The progress bar shows only after two seconds.
    for t in tqdm(range(1, len(labels)), desc="matching", unit="frame", delay=2, leave=False):
        frame = torch.empty(2, 1, len(objects), *labels.shape[1:], device=known.device)
        for strip, (motion, appearance), label in keys_in_sight(parts, known, t, how):
            hulls = [_hull(motion, appearance, label == o, unseen) for o in objects]
            most = max(frame.shape[1], *(hull.shape[1] for hull in hulls))
            frame = _padded(frame, most)
            found = torch.stack([_padded(hull, most) for hull in hulls], 2)  # part, candidate, object, query
            strip.write(frame.flatten(0, 2), found.flatten(0, 2))
        frames.append(frame)
    most = max(frame.shape[1] for frame in frames)
    stacked = torch.stack([_padded(frame, most) for frame in frames], 3)
    return np.asarray(stacked.cpu())


def _hull(motion: Tensor, appearance: Tensor, member: Tensor, unseen: float) -> Tensor:
    """Corners (part, corner, query) of the upper right hull of an object's similarities (query, key).

    Ordered from the greatest in motion to the greatest in appearance. If a query has fewer corners than others, its
    last one is repeated.
    """
    motion, appearance = (part.masked_fill(~member, unseen) for part in (motion, appearance))
    first, last = (
        torch.stack([part.gather(1, at) for part in (motion, appearance)])
        for at in (motion.argmax(1, keepdim=True), appearance.argmax(1, keepdim=True))
    )
    # All other corners lie above the line from the first to the last. They are few.
    fall, rise = first[0] - last[0], last[1] - first[1]
    above = rise * (motion - first[0]) + fall * (appearance - first[1])
    kept = above.topk(int((above > 0).sum(1).max()), dim=1).indices
    few = torch.cat([torch.stack([motion.gather(1, kept), appearance.gather(1, kept)]), last], 2)
    corners = [first]
    while (ahead := few[1] > corners[-1][1]).any():
        # The next corner loses the least motion for its gain in appearance.
        slope = (few[0] - corners[-1][0]) / (few[1] - corners[-1][1])
        at = slope.masked_fill(~ahead, -torch.inf).argmax(1, keepdim=True)
        following = few.gather(2, at.expand(2, -1, -1))
        corners.append(torch.where(ahead.any(1, keepdim=True), following, corners[-1]))
    return torch.cat(corners, 2).transpose(1, 2)


def _padded(found: Tensor, candidates: int) -> Tensor:
    """Similarities (part, candidate, ...) with the last candidate repeated, up to `candidates` candidates."""
    missing = candidates - found.shape[1]
    return torch.cat([found, found[:, -1:].expand(-1, missing, *found.shape[2:])], 1) if missing else found
