"""One clip of a sweep, cell by cell: probe, fuse, propagate, score, drop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from torch import Tensor

from tedlens.clip import Clip
from tedlens.metrics import evaluate
from tedlens.probing import Prepared
from tedlens.sweeping.grid import Grid, Models
from tedlens.ted import label_clip, label_clip_fused, unit
from tedlens.tracking import clip_features, first_mask

Labels = npt.NDArray[np.uint8]
SCORES = ("J", "F", "JF")


def clip_cells(
    clip: Clip, models: Models, grid: Grid, wanted: Iterable[tuple[int, int]] | None = None
) -> Iterator[xr.Dataset]:
    """Scores of one clip at each tau and seed, one cell after another; features live no longer than their cell.

    The clip is encoded once, appearance features that motion is fused with are computed once a seed, and one
    forward a window serves every block, lambda and setting of a cell.

    Parameters
    ----------
    clip
        With masks.
    models, grid
        Grid as `make_grid` gives it for these models.
    wanted
        (tau, seed) of the cells to compute, of those of the grid; by default all.

    Yields
    ------
    Dataset
        ``J``, ``F`` and ``JF`` over block, top_k, radius, n_last, temperature, convention, (lam,) object and
        frame, with the cell's clip, tau and seed as scalar coordinates.
    """
    cells = grid.cells if wanted is None else list(wanted)
    mask, truth = first_mask(clip), clip.masks
    assert truth is not None
    swept = Prepared(models.swept, clip, overlap=grid.overlap, size=grid.size, progress=False)
    still = None
    if models.motion and models.appearance:
        still = Prepared(models.appearance, clip, size=grid.size, progress=False)
    samples = 1 if models.motion else grid.appearance_samples
    for seed in dict.fromkeys(seed for _, seed in cells):
        clear = None
        if still is not None:
            assert grid.appearance_tau is not None
            assert grid.appearance_block is not None
            clear = clip_features(still, grid.appearance_tau, seed, grid.appearance_block, grid.appearance_samples)
        taus = [tau for tau, its_seed in cells if its_seed == seed]
        for tau, _, features in swept.features(taus, [seed], grid.block, samples):
            scores = [
                evaluate(labels, truth, protocol=grid.protocol)
                for labels in _tracked(features, clear, mask, swept.input_size, grid)
            ]
            yield _labelled(scores, grid).assign_coords(clip=clip.name, tau=tau, seed=seed)


def _tracked(
    features: dict[str, Tensor], clear: Tensor | None, mask: Labels, input_size: tuple[int, int], grid: Grid
) -> Iterator[Labels]:
    """Masks (frame, H, W) of a cell, in the order of the grid's inner axes."""
    for block in grid.block:
        for settings in grid.combinations:
            if clear is None or grid.lam is None:
                yield label_clip(unit(features[block]), mask, input_size, **settings)
            else:
                yield from label_clip_fused(features[block], clear, grid.lam, mask, input_size, **settings)


def _labelled(scores: list[xr.Dataset], grid: Grid) -> xr.Dataset:
    """Scores (object, frame) of each point of the inner axes as one Dataset over them."""
    first = scores[0]
    shape = (*map(len, grid.inner.values()), *first["J"].shape)
    dims = (*grid.inner, "object", "frame")
    values = {name: (dims, np.stack([one[name].values for one in scores]).reshape(shape)) for name in SCORES}
    coords: dict[str, Any] = {name: list(each) for name, each in grid.inner.items()}
    return xr.Dataset(values, coords | {"object": first["object"].values, "frame": first["frame"].values})


def join_cells(cells: Iterable[xr.Dataset], axes: Mapping[str, Sequence[Any]]) -> xr.Dataset:
    """Scores over all `axes` from cells in any order.

    NaN where a clip has fewer objects or frames than another, and where there is no cell.
    """
    coords = {name: list(values) for name, values in axes.items()}
    shape = tuple(map(len, coords.values()))
    joined = xr.Dataset({name: (tuple(coords), np.full(shape, np.nan)) for name in SCORES}, coords)
    indices = {name: joined.get_index(name) for name in coords}
    for cell in cells:
        where = np.ix_(*(index.get_indexer(pd.Index(np.atleast_1d(cell[n].values))) for n, index in indices.items()))
        whole = cell.expand_dims(["clip", "tau", "seed"])
        for name in SCORES:
            joined[name].values[where] = whole[name].transpose(*coords).values
    return joined
