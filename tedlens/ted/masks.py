"""Convert masks to labels on the feature grid and, after propagation, back. Tensors and arrays, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from tedlens.labels import VOID, ids_in, object_ids, on_grid
from tedlens.ted.fusion import unit_parts
from tedlens.ted.propagation import propagate_fused_labels, propagate_labels
from tedlens.ted.settings import Propagation, Upsample


def one_hot(
    mask: npt.NDArray[np.uint8], grid: tuple[int, int], ids: Sequence[int] | None = None
) -> tuple[Tensor, list[int]]:
    """First-frame mask (H, W) as labels (1 + object, y, x) on the feature grid, and the ids of the objects.

    Nearest neighbour at the centres of the cells; channel 0 is the background. Void (255) is in no channel. `ids`:
    objects to include, whether the mask contains them or not.
    """
    found = object_ids(mask) if ids is None else list(ids)
    small = on_grid(mask, grid)
    return torch.from_numpy(np.stack([small == i for i in [0, *found]])).float(), found


def full_size_labels(
    soft: Tensor, input_size: tuple[int, int], size: tuple[int, int], upsample: Upsample = "dift"
) -> Tensor:
    """Channel of the winning label (frame, H, W), uint8, from soft labels (frame, object, y, x).

    Bilinear to the input size of the model, argmax, nearest neighbour to the size of the clip. With ``"dift"``, as in
    DIFT, each channel of each frame is min-max normalised before the argmax; with ``"argmax"`` it is not.
    """
    Propagation(upsample=upsample)  # raises if it is unknown
    hard = []
    for frame in soft:  # one at a time: full-size soft labels of a long clip are large
        large = F.interpolate(frame[None], input_size, mode="bilinear", align_corners=False)[0]
        if upsample == "dift":
            low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
            # A channel without any positive value stays as it is: it cannot win.
            large = torch.where(high > 0, (large - low) / (high - low).clamp_min(1e-12), large)
        winner = large.argmax(0)[None, None].float()
        hard.append(F.interpolate(winner, size, mode="nearest-exact")[0, 0].to(torch.uint8))
    return torch.stack(hard)


def given_masks(masks: npt.NDArray[np.uint8]) -> dict[int, npt.NDArray[np.uint8]]:
    """The masks that propagation starts from, by frame: the first mask (H, W), and the first mask of later objects.

    `masks` are (H, W), for the first frame, or (T, H, W). The first mask is that of the first annotated frame. Later
    masks of an object that was already seen are not used.
    """
    if masks.ndim == 2:
        return {0: masks}
    start = next((t for t, mask in enumerate(masks) if (mask != VOID).any()), 0)
    given, known = {start: masks[start]}, {0, VOID} | ids_in(masks[start])
    for t, mask in enumerate(masks[start + 1 :], start=start + 1):
        if new := ids_in(mask) - known:
            given[t] = np.where(np.isin(mask, list(new)), mask, 0).astype(np.uint8)
            known |= new
    return given


class _Start(NamedTuple):
    """The given masks, from the first mask on; the frames before it are unknown."""

    frame: int  # of the first mask
    given: dict[int, npt.NDArray[np.uint8]]  # masks by frame, counted from that one
    ids: list[int]  # all objects
    labels: dict[int, Tensor]  # of `given` on the grid, (1 + object, y, x)

    @classmethod
    def of(cls, masks: npt.NDArray[np.uint8], like: Tensor) -> _Start:
        """On the grid and device of features (frame, channel, y, x)."""
        given = given_masks(masks)
        frame = min(given)
        given = {t - frame: mask for t, mask in given.items()}
        ids = sorted(set().union(*(object_ids(mask) for mask in given.values())))
        grid = (like.shape[-2], like.shape[-1])
        labels = {t: one_hot(mask, grid, ids)[0].to(like.device) for t, mask in given.items()}
        for t in labels.keys() - {0}:
            labels[t][0] = 0  # later masks say nothing new about the background
        return cls(frame, given, ids, labels)

    @property
    def entries(self) -> dict[int, Tensor]:
        """Labels of the objects that enter later."""
        return {t: labels for t, labels in self.labels.items() if t > 0}

    def masks(self, soft: Tensor, input_size: tuple[int, int], upsample: Upsample) -> npt.NDArray[np.uint8]:
        """Masks (frame, H, W) of the whole clip, from soft labels (frame, 1 + object, y, x) from the first mask on.

        The given masks are kept, except for void.
        """
        height, width = self.given[0].shape
        winner = full_size_labels(soft, input_size, (height, width), upsample).cpu().numpy()
        labels: npt.NDArray[np.uint8] = np.array([0, *self.ids], np.uint8)[winner]
        labels[0] = np.where(self.given[0] == VOID, 0, self.given[0])
        for t in self.given.keys() - {0}:
            labels[t] = np.where(self.given[t] > 0, self.given[t], labels[t])
        return np.concatenate([np.zeros((self.frame, height, width), np.uint8), labels])


def label_clip(
    feats: Tensor,
    masks: npt.NDArray[np.uint8],
    input_size: tuple[int, int],
    how: Propagation,
    *,
    keys: Tensor | None = None,
) -> npt.NDArray[np.uint8]:
    """Masks (frame, H, W) of all frames, from features (frame, channel, y, x) and given masks.

    `masks` are (H, W), for the first frame, or (frame, H, W). Then the first mask of each object is used, and frames
    before the first mask become background. `keys`: see `propagate_labels`.
    """
    how = how.on(feats.shape[-2], masks.shape[-2])
    start = _Start.of(masks, feats)
    known = slice(start.frame, None)
    soft = propagate_labels(
        feats[known],
        start.labels[0],
        entries=start.entries,
        keys=None if keys is None else keys[known],
        **how.said(),
    )
    return start.masks(soft, input_size, how.upsample)


def grid_masks(
    masks: npt.NDArray[np.uint8], grid: tuple[int, int], input_size: tuple[int, int], upsample: Upsample = "dift"
) -> npt.NDArray[np.uint8]:
    """Masks (frame, H, W) as well as a grid of cells can show them.

    The soft labels are the true shares of every cell in each frame; they are enlarged like the soft labels of a track.
    """
    start = _Start.of(masks, torch.empty(1, 1, *grid))
    return start.masks(cell_shares(masks[start.frame :], grid, start.ids), input_size, upsample)


def cell_shares(masks: npt.NDArray[np.uint8], grid: tuple[int, int], ids: Sequence[int]) -> Tensor:
    """Share of every cell (frame, 1 + object, y, x) that the background and each of the objects `ids` cover."""
    maps = [F.adaptive_avg_pool2d(torch.from_numpy(masks == number).float(), grid) for number in [0, *ids]]
    return torch.stack(maps, dim=1)


def label_clip_fused(
    motion: Tensor,
    appearance: Tensor,
    lams: Sequence[float],
    masks: npt.NDArray[np.uint8],
    input_size: tuple[int, int],
    how: Propagation,
) -> npt.NDArray[np.uint8]:
    """Masks (lam, frame, H, W) from motion and appearance features (frame, channel, y, x), fused at each lambda.

    Appearance is resampled to the grid of motion. `masks`: see `label_clip`.
    """
    how = how.on(motion.shape[-2], masks.shape[-2])
    start = _Start.of(masks, motion)
    r_m, r_a = (part[start.frame :] for part in unit_parts(motion, appearance))
    soft = propagate_fused_labels(r_m, r_a, lams, start.labels[0], entries=start.entries, **how.said())
    return np.stack([start.masks(one, input_size, how.upsample) for one in soft])
