"""Reference scores for a sweep: features that need no model, on the grids of its blocks."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from tedlens.analysis.references import score_references
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.sweeping.cells import GRID, OF_CLIP, SCORES
from tedlens.sweeping.clips import Clips, clip_sources
from tedlens.ted import Propagation
from tedlens.ted.settings import SETTINGS

FILL = {**dict.fromkeys((*SCORES, *OF_CLIP), np.nan), **dict.fromkeys(GRID, 0)}


def reference_scores(clips: Clips, scores: xr.Dataset) -> xr.Dataset:
    """Scores of place, colour, true velocity, true masks and the grid's ceiling, to compare a sweep with.

    They use the grid of each block, and the settings and the protocol of the sweep: see `tedlens.analysis.references`
    and `tedlens.analysis.score_references`. No model runs.

    Parameters
    ----------
    clips
        The clips that were swept, as `sweep` takes them.
    scores
        From `sweep` or `open_sweep`.

    Returns
    -------
    Dataset
        Scores as a sweep has them, over ``features`` (place, colour, velocity if all clips have it, masks, ceiling),
        (model,) clip, block, the settings of propagation that are axes of `scores`, object and frame. ``rows`` and
        ``columns`` of the grids lie along clip and block.

    Raises
    ------
    TedlensError
        For scores without the sizes of their grids, or a clip that differs from the swept clip of the same name.

    Examples
    --------
    >>> scores = tl.sweep(clips, motion="mini", tau=range(0, 1000, 100))  # doctest: +SKIP
    >>> against = tl.reference_scores(clips, scores)  # doctest: +SKIP
    >>> tl.plots.tau_curve(scores, references=against)  # doctest: +SKIP
    >>> tl.plots.tau_block_map(scores, references=against)  # doctest: +SKIP
    """
    if "model" in scores.dims:
        each = {name: _of_model(scores, name) for name in scores["model"].values}
        against = [reference_scores(clips, of_model) for of_model in each.values()]
        along = xr.Variable("model", list(each))
        how: dict[str, Any] = {"join": "outer", "coords": "different", "compat": "equals", "combine_attrs": "drop"}
        return xr.concat(against, along, fill_value=FILL, **how)
    if not {"clip", "block"} <= set(scores.dims) or not GRID.keys() <= set(scores.coords):
        raise TedlensError(
            "These scores do not say on which grids they were made (coordinates rows and columns over clip and block); "
            "give those of tl.sweep or tl.open_sweep, as they come."
        )
    scores = scores.transpose("clip", "block", ...)
    names = [str(name) for name in scores["clip"].values]
    found = {clip.name: _of_clip(clip, scores.sel(clip=clip.name)) for clip in _named(clips, names)}
    if missing := [name for name in names if name not in found]:
        raise TedlensError(
            f"The scores are of clips {', '.join(missing)}, too, which were not given; give all of them."
        )
    axes = [name for name in SETTINGS if name in scores.dims]
    common = [name for name in found[names[0]] if all(name in each for each in found.values())]
    by_features = [_joined([found[clip][name] for clip in names], xr.Variable("clip", names)) for name in common]
    joined = _joined(by_features, xr.Variable("features", common))
    kept = {name: scores[name] for name in (*GRID, *(s for s in SETTINGS if s in scores.coords))}
    order = ("features", "clip", "block", *axes, "object", "frame")
    return joined.transpose(*order, missing_dims="ignore").assign_coords(kept).assign_attrs(scores.attrs)


def _of_model(scores: xr.Dataset, name: str) -> xr.Dataset:
    """Scores of one model, only at the blocks that it has."""
    one = scores.sel(model=name)
    return one.isel(block=(one["rows"] > 0).any([d for d in one["rows"].dims if d != "block"]).values)


def _named(clips: Clips, names: list[str]) -> list[Clip]:
    read = [clip for clip in (source() for source in clip_sources(clips)) if clip.name in names]
    if not read:
        raise TedlensError(f"None of the clips given is in the scores, which are of {', '.join(names)}.")
    return read


def _of_clip(clip: Clip, scores: xr.Dataset) -> dict[str, xr.Dataset]:
    """Scores (block, settings, object, frame) by name of the reference; equal grids are scored once."""
    frames = scores["frame"].values[scores["JF"].notnull().any([d for d in scores["JF"].dims if d != "frame"]).values]
    if len(frames) and frames.max() >= len(clip):
        raise TedlensError(
            f"Clip {clip.name!r} has {len(clip)} frames and the scores have frame {frames.max()} of it: it is not the "
            "clip that was swept."
        )
    axes = [name for name in SETTINGS if name in scores.dims]
    size = (int(scores["input_y"]), int(scores["input_x"]))
    done: dict[tuple[int, int], dict[str, xr.Dataset]] = {}
    for block in scores["block"].values:
        grid = (int(scores["rows"].sel(block=block)), int(scores["columns"].sel(block=block)))
        if grid not in done:
            if min(*grid, *size) == 0:
                raise TedlensError(f"Nothing of clip {clip.name!r} is scored at block {block!r} yet; finish the sweep.")
            done[grid] = _of_grid(clip, grid, size, scores, axes)
    grids = list(zip(scores["rows"].values.tolist(), scores["columns"].values.tolist(), strict=True))
    along = xr.Variable("block", scores["block"].values)
    return {name: _joined([done[grid][name] for grid in grids], along) for name in done[grids[0]]}


def _of_grid(
    clip: Clip, grid: tuple[int, int], size: tuple[int, int], scores: xr.Dataset, axes: list[str]
) -> dict[str, xr.Dataset]:
    """Scores (settings, object, frame) by name of the reference, on one grid."""
    values = {name: np.atleast_1d(scores[name].values).tolist() for name in SETTINGS if name in scores.coords}
    protocol = scores.attrs.get("protocol", "davis")
    found: dict[str, list[xr.Dataset]] = {}
    for each in product(*values.values()):
        how = Propagation(**dict(zip(values, each, strict=True)))
        for name, one in score_references(clip, grid, how, input_size=size, protocol=protocol).items():
            found.setdefault(name, []).append(one[[*SCORES, *OF_CLIP]].reset_coords(drop=True))
    sizes = [len(values[name]) for name in axes]
    return {name: _over(each, {axis: values[axis] for axis in axes}, sizes) for name, each in found.items()}


def _over(each: list[xr.Dataset], axes: dict[str, list[object]], sizes: list[int]) -> xr.Dataset:
    """Scores of all combinations of the settings' values (last axis fastest), arranged over those axes."""
    if not axes:
        return each[0]
    *outer, (name, last) = axes.items()
    step = len(last)
    inner = [xr.concat(each[at : at + step], xr.Variable(name, last)) for at in range(0, len(each), step)]
    return _over(inner, dict(outer), sizes[:-1])


def _joined(each: list[xr.Dataset], along: xr.Variable) -> xr.Dataset:
    return xr.concat(each, along, join="outer", combine_attrs="drop")
