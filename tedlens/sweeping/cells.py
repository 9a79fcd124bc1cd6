"""One clip of a sweep, cell by cell: probe, fuse, propagate, score, keep what is asked for, drop."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from torch import Tensor

from tedlens.analysis.pca import pca
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.metrics import evaluate
from tedlens.probing import Prepared, label_features
from tedlens.provenance import grouped
from tedlens.sweeping.grid import Grid, Models
from tedlens.ted import label_clip, label_clip_fused, label_masks, unit
from tedlens.ted.settings import SETTINGS
from tedlens.ted.tracking import clip_features, start_masks

Labels = npt.NDArray[np.uint8]
Kept = dict[str, xr.Dataset]  # by path below the cell: "labels", "features/up_2"
SCORES = ("J", "F", "JF", "identity")
OF_CLIP = ("HOTA", "DetA", "AssA", "IDF1")  # without object and frame
# What the score owes to the grid and size that features have: whole numbers over clip and, of cells, block.
GRID = dict.fromkeys(("rows", "columns"), ("clip", "block")) | {f"input_{side}": ("clip",) for side in "yx"}
# In the order of joined scores.
AXES = ("clip", "intervention", "block", "tau", "lam", "seed", *SETTINGS, "object", "frame")


def kept_cells(
    clip: Clip, models: Models, grid: Grid, wanted: Iterable[tuple[int, int]] | None = None
) -> Iterator[tuple[xr.Dataset, Kept]]:
    """Scores of one clip at each tau and seed, one cell after another; features live no longer than their cell.

    The clip is encoded once, appearance features that motion is fused with are computed once a seed, and one
    forward a window and intervention serves every block, lambda and setting of a cell.

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
        What `evaluate` gives over block, each of propagation's settings, (lam,) object and
        frame, with the cell's clip, tau and seed as scalar coordinates.
    dict of Datasets
        What the grid keeps of the cell beside its scores, by path below the cell.
    """
    cells = grid.cells if wanted is None else list(wanted)
    truth = start_masks(clip)
    stitch = grid.stitch or "first"
    swept = Prepared(models.swept, clip, overlap=grid.overlap, stitch=stitch, size=grid.size, progress=False)
    views = [swept]
    if grid.interventions is not None:
        views = [swept.intervened((*swept.model.interventions, *each)) for each in grid.interventions.values()]
    still = None
    if models.motion and models.appearance:
        still = Prepared(models.appearance, clip, size=grid.size, progress=False)
    for seed in dict.fromkeys(seed for _, seed in cells):
        clear = None
        if still is not None and grid.appearance is not None:
            clear = clip_features(still, grid.appearance.tau, seed, grid.appearance.block, grid.appearance.samples)
        taus = [tau for tau, its_seed in cells if its_seed == seed]
        for tau in taus:
            scores, labels = [], []
            for view in views:
                [(_, _, features)] = view.features([tau], [seed], grid.block, grid.samples)
                for tracked in _tracked(features, clear, truth, swept.input_size, grid):
                    scores.append(evaluate(tracked, truth, protocol=grid.protocol, objects=clip.objects))
                    if "labels" in grid.keep:
                        labels.append(tracked)
            kept = _kept_labels(labels, grid) if labels else {}
            if "features" in grid.keep:
                kept |= _kept_features(features, swept, tau, seed, grid.components)
            grids = np.array([features[block].shape[-2:] for block in grid.block])
            place: dict[str, Any] = {"clip": clip.name, "tau": tau, "seed": seed}
            place |= {name: ("block", grids[:, axis]) for axis, name in enumerate(("rows", "columns"))}
            place |= {f"input_{side}": size for side, size in zip("yx", swept.input_size, strict=True)}
            yield _labelled(scores, grid).assign_coords(place), kept


def _tracked(
    features: dict[str, Tensor], clear: Tensor | None, masks: Labels, input_size: tuple[int, int], grid: Grid
) -> Iterator[Labels]:
    """Masks (frame, H, W) of a cell, in the order of the grid's inner axes."""
    for block in grid.block:
        for how in grid.combinations:
            if clear is None or grid.lam is None:
                yield label_clip(unit(features[block]), masks, input_size, how)
            else:
                yield from label_clip_fused(features[block], clear, grid.lam, masks, input_size, how)


def _kept_labels(labels: Sequence[Labels], grid: Grid) -> Kept:
    """Masks of a cell over its inner axes."""
    shape = tuple(map(len, grid.inner.values()))
    masks = label_masks(np.stack(labels)[0], np.arange(len(labels[0])), {})
    values = np.stack(labels).reshape(*shape, *masks.shape)
    coords = {name: list(each) for name, each in grid.inner.items()} | dict(masks.coords)
    return {"labels": xr.Dataset({"labels": ((*grid.inner, *masks.dims), values)}, coords)}


def _kept_features(
    features: dict[str, Tensor], prepared: Prepared, tau: int, seed: int, components: int | None
) -> Kept:
    """Features of a cell in float16, as `probe` labels them, or their principal components, by block."""
    kept = {}
    for block, value in features.items():
        labelled = label_features(value.float().cpu().numpy()[None, None], prepared, [tau], [seed])
        if components is None:
            found = labelled.to_dataset(name="features")
        else:
            mean = labelled.mean(["tau", "seed", "frame", "y", "x"])
            found = pca(labelled, components).assign(mean=mean.drop_vars(["tau", "seed"], errors="ignore"))
        with np.errstate(over="ignore"):  # said below, in a sentence
            half = found.astype(np.float16)
        if not all(np.isfinite(values).all() for values in half.data_vars.values()):
            raise TedlensError(
                f"Features of {block!r} at tau={tau} are larger than float16 can hold (65504), so they cannot be kept; "
                'leave "features" out of keep.'
            )
        kept[f"features/{block}"] = half
    return kept


def _labelled(scores: list[xr.Dataset], grid: Grid) -> xr.Dataset:
    """Scores (object, frame) of each point of the inner axes as one Dataset over them."""
    first = scores[0]
    shape = (*map(len, grid.inner.values()), *first["J"].shape)
    dims = (*grid.inner, "object", "frame")
    values = {name: (dims, np.stack([one[name].values for one in scores]).reshape(shape)) for name in SCORES}
    inner = tuple(map(len, grid.inner.values()))
    values |= {
        name: (tuple(grid.inner), np.array([float(one[name]) for one in scores]).reshape(inner)) for name in OF_CLIP
    }
    coords: dict[str, Any] = {name: list(each) for name, each in grid.inner.items()}
    return xr.Dataset(values, coords | {"object": first["object"].values, "frame": first["frame"].values})


def join_cells(cells: Iterable[xr.Dataset], axes: Mapping[str, Sequence[Any]]) -> xr.Dataset:
    """Scores over all `axes` from cells in any order.

    NaN where a clip has fewer objects or frames than another, and where there is no cell; there the sizes of `GRID`
    are 0.
    """
    coords = {name: list(values) for name, values in axes.items()}
    dims = dict.fromkeys(SCORES, tuple(coords))
    dims |= dict.fromkeys(OF_CLIP, tuple(name for name in coords if name not in ("object", "frame")))
    empty = {name: (over, np.full([len(coords[axis]) for axis in over], np.nan)) for name, over in dims.items()}
    grids = {name: (over, np.zeros([len(coords[axis]) for axis in over], int)) for name, over in GRID.items()}
    joined = xr.Dataset(empty, coords | grids)
    dims |= GRID
    indices = {name: joined.get_index(name) for name in coords}
    for cell in cells:
        # One cell, or many that were joined before: with settings of one value as scalars.
        whole = cell.expand_dims([name for name in coords if name not in cell.dims])
        places = {name: index.get_indexer(pd.Index(whole[name].values)) for name, index in indices.items()}
        for name, over in dims.items():
            if name not in whole:
                continue  # written before there was such a score
            # A cell may hold more than is asked for: a block, a lambda or a setting of an earlier sweep.
            each = [places[axis] for axis in over]
            here, there = np.ix_(*(p[p >= 0] for p in each)), np.ix_(*(np.flatnonzero(p >= 0) for p in each))
            values = whole[name].expand_dims([axis for axis in over if axis not in whole[name].dims])
            joined[name].values[here] = values.transpose(*over).values[there]
    return joined


def interventions_said(cells: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What names of interventions mean, of several cells together, as scores say it."""
    union = {name: said for each in cells for name, said in each.items()}
    return {"interventions": json.dumps(union)} if union else {}


def label_scores(scores: xr.Dataset, noise: Mapping[int, tuple[float, float]], attrs: Mapping[str, Any]) -> xr.Dataset:
    """Scores with the other ways to say tau (`noise` is sigma and log-SNR of each), and how they came to be."""
    scores["tau"].attrs["long_name"] = "training timestep"
    sigma, log_snr = np.array([noise.get(int(tau), (np.nan, np.nan)) for tau in scores["tau"]]).reshape(-1, 2).T
    return scores.assign_coords(
        sigma=("tau", sigma, {"long_name": "noise-to-signal ratio"}),
        log_snr=("tau", log_snr, {"long_name": "log signal-to-noise power ratio"}),
    ).assign_attrs(grouped(attrs))
