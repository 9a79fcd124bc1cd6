"""How often a cell finds its own object in other frames: one measure for queries and keys, and for features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

from tedlens.attending.watching import SLICE, Call, Layer, layers_of, watch
from tedlens.clip import Clip
from tedlens.interventions.sites import attentions_in, sites
from tedlens.labels import VOID, Labels, on_grid
from tedlens.models.acting import Moment
from tedlens.models.base import DiffusionModel
from tedlens.probing import Draw, Prepared, View

MEASURES = ("queries", "features", "chance")


@torch.no_grad()
def matching_accuracy(
    model: DiffusionModel,
    clip: Clip,
    features: xr.DataArray,
    *,
    overlap: int = 2,
    size: int | tuple[int, int] | None = None,
) -> xr.Dataset:
    """Share of objects' cells in a window's first frame whose best match in another frame is in the same object.

    Values are means over the other frames and all windows. Each match is the best among all cells of that frame, near
    and far: unlike in propagation, no search window limits it.

    Parameters
    ----------
    model, overlap, size
        What the features were probed with.
    clip
        The clip that was probed, with masks of all frames.
    features
        Features of one block and seed (tau, frame, channel, y, x), from `probe`; queries are those of the same block.

    Returns
    -------
    Dataset over tau
        ``queries``: matches of queries and keys, with all heads together and before rotary position embedding (as
        DiffTrack does); mean over the block's attentions. Attention to text does not count; NaN for a block without any
        other. ``features``: matches by the cosine of the features. ``chance``: the accuracy of cells drawn at random.
    """
    masks, block = clip.masks, str(features.attrs["block"])
    assert masks is not None
    inside = attentions_in(model, sites(model, [block]))
    layers = [layer for layer in (layers_of(model, [block]) if inside else []) if layer.kind != "cross"]
    view = (Prepared if layers else View)(model, clip, overlap=overlap, size=size)
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    for tau in features["tau"].values:
        by_features, chance = _of_features(features.sel(tau=tau), view.windows, masks)
        draw = Draw(int(tau), int(features["seed"]))
        queries = _of_queries(view, draw, layers, masks) if isinstance(view, Prepared) else np.nan
        for name, value in zip(MEASURES, (queries, by_features, chance), strict=True):
            found[name].append(value)
    return xr.Dataset({name: ("tau", values) for name, values in found.items()}, {"tau": features["tau"].values})


def _of_features(features: xr.DataArray, windows: Sequence[range], masks: Labels) -> tuple[float, float]:
    values = torch.from_numpy(features.transpose("frame", "channel", "y", "x").values).float()
    cells = F.normalize(values, dim=1).flatten(2).transpose(1, 2)[:, None]
    found = [matches(cells[list(part)], cells[list(part)], masks[list(part)], values.shape[2:]) for part in windows]
    pairs = sum(pairs for _, _, pairs in found) or np.nan
    return sum(float(matched[0]) for matched, _, _ in found) / pairs, sum(chance for _, chance, _ in found) / pairs


def _of_queries(prepared: Prepared, draw: Draw, layers: Sequence[Layer], masks: Labels) -> float:
    def take(layer: Layer, call: Call, moment: Moment) -> tuple[float, int]:
        # All heads as one: their dot products add up.
        query, key = (by_frame(layer, each).transpose(1, 2).flatten(2)[:, None] for each in (call.query, call.key))
        matched, _, pairs = matches(query, key, masks[[held.start for held in moment.covered]], layer.grid)
        return float(matched[0]), pairs

    windows = [by_name for _, by_name in watch(prepared, draw, layers, take, rotary=False)]
    matched, pairs = (np.array([[each[layer.name][k] for layer in layers] for each in windows]).sum(0) for k in (0, 1))
    return float(np.mean(matched / np.where(pairs, pairs, np.nan)))


def by_frame(layer: Layer, value: Tensor) -> Tensor:
    """Queries or keys of an attention, as (frame, head, cell, channel)."""
    if layer.kind == "joint":
        frames: Tensor = value[0].unflatten(1, (-1, layer.grid[0] * layer.grid[1]))
        return frames.transpose(0, 1)
    return value.transpose(0, 2) if layer.kind == "temporal" else value


def matches(query: Tensor, key: Tensor, masks: Labels, grid: Sequence[int]) -> tuple[Tensor, float, int]:
    """Count cells of objects in the first frame whose query is nearest, by dot product, to a key of the same object.

    Parameters
    ----------
    query, key
        (frame, head, cell, channel).
    masks
        Masks of the same frames.
    grid
        Rows and columns of cells.

    Returns
    -------
    The number of such cells per head, the number expected for cells drawn at random, and the number of all pairs of a
    cell and another frame that shows its object.
    """
    heads = query.shape[1]
    matched, expected, pairs = torch.zeros(heads), 0.0, 0
    ids = torch.from_numpy(on_grid(masks, (grid[0], grid[1])).reshape(len(masks), -1).astype(np.int64)).to(query.device)
    for frame in range(1, len(ids)):
        there = ids[frame]
        cells = ((ids[0] > 0) & (ids[0] != VOID) & torch.isin(ids[0], there)).nonzero()[:, 0]
        if not len(cells):
            continue
        for some in cells.split(max(1, SLICE // (heads * len(there)))):
            best = (query[0][:, some].float() @ key[frame].float().transpose(-1, -2)).argmax(-1)
            same = there[None] == ids[0][some, None]
            matched += (there[best] == ids[0][some]).sum(1).cpu()
            expected += float(same.float().mean(1).sum())
        pairs += len(cells)
    return matched, expected, pairs
