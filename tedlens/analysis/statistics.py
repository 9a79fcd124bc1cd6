"""What scores say about clips not seen: means with their errors and intervals, paired comparisons, honest choices."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats
import xarray as xr

from tedlens.errors import TedlensError

WITHIN = ("frame", "object", "seed")  # a clip's own axes: its score is the mean over them, in this order
RESAMPLES = 9999


def clip_statistics(scores: xr.Dataset, metric: str = "JF", *, interval: float | None = None) -> xr.Dataset:
    """Mean and standard error over clips of one metric, for each cell of whatever was swept.

    A clip counts once: its score is the mean over frames, then objects, then seeds. So the error holds what
    differs from clip to clip and what is left of the seeds' noise.

    Parameters
    ----------
    scores
        From `evaluate` or `sweep`, with axes object and frame, and perhaps clip, seed, tau, block, ...
    metric
        ``"J"``, ``"F"``, ``"JF"``, ``"identity"``, ``"HOTA"``, ``"DetA"``, ``"AssA"`` or ``"IDF1"``.
    interval
        For example 0.95: adds the bootstrap interval of that confidence, over clips (BCa, 9999 resamples with a
        fixed seed). Needs at least two clips.

    Returns
    -------
    Dataset ``mean`` and ``error`` (0 where there is one clip), as shares from 0 to 1; with `interval`, ``low`` and
    ``high``.
    """
    return _statistics(_clip_scores(scores, metric), interval).assign_attrs(metric=metric)


def paired_difference(
    first: xr.Dataset, second: xr.Dataset, metric: str = "JF", *, interval: float = 0.95
) -> xr.Dataset:
    """First minus second, clip by clip: what differs between clips alike for both does not blur the comparison.

    Parameters
    ----------
    first, second
        Scores as for `clip_statistics`, with an axis clip; clips that only one of them has are left out. Of any
        other axis both have the same values, or one of them does not have it.
    metric, interval
        See `clip_statistics`.

    Returns
    -------
    Dataset ``mean``, ``error``, ``low`` and ``high`` of the difference over clips, and the number of ``clips``.
    An interval without 0 says that the one beats the other.

    Raises
    ------
    TedlensError
        For fewer than two clips in common, or axes with other values.

    Examples
    --------
    >>> tl.analysis.paired_difference(motion.sel(tau=600, block="up_2"), appearance.sel(tau=51))  # doctest: +SKIP
    """
    pair = [_clip_scores(scores, metric).reset_coords(drop=True) for scores in (first, second)]
    if any("clip" not in each.coords for each in pair):
        raise TedlensError("Scores without an axis clip cannot be paired; give those of the same clips for both.")
    try:
        xr.align(*pair, join="exact", exclude=["clip"])
    except ValueError as error:
        raise TedlensError(
            f"The two scores have different values on an axis ({' '.join(str(error).split())[:200]}); select the "
            "same of both, or one value of it with .sel."
        ) from error
    minuend, subtrahend = xr.align(*pair, join="inner")
    difference = minuend - subtrahend
    result = _statistics(difference, interval).assign(clips=difference.notnull().sum("clip"))
    return result.assign_attrs(metric=metric)


def best_cell(
    scores: xr.Dataset, validation: Sequence[str], metric: str = "JF", *, interval: float = 0.95
) -> xr.Dataset:
    """The best cell of a sweep on some clips, and how good it is on the others, which had no part in the choice.

    A tau or lambda that is chosen on the clips it is reported on looks better than it is.

    Parameters
    ----------
    scores
        Of a sweep over clips and whatever is to be chosen (tau, block, lam, ..).
    validation
        Names of the clips to choose on. All others are reported on.
    metric, interval
        See `clip_statistics`.

    Returns
    -------
    Dataset ``mean``, ``error``, ``low`` and ``high`` over the other clips at the cell that has the greatest mean
    over the validation clips, ``validation_mean``. What was chosen stands in its scalar coordinates.

    Raises
    ------
    TedlensError
        For unknown clips, none to choose on, or fewer than two left.
    """
    each = _clip_scores(scores, metric)
    names = [str(name) for name in each["clip"].values] if "clip" in each.coords else []
    unknown = [name for name in validation if name not in names]
    others = [name for name in names if name not in validation]
    if unknown or not len(validation):
        raise TedlensError(
            f"validation={list(validation)!r} names no clips of the scores; choose some of "
            f"{', '.join(names) or '(none)'}."
        )
    means = each.sel(clip=list(validation)).mean("clip")
    place = greatest(means)
    chosen = means.sel(place)
    return (
        _statistics(each.sel({"clip": others, **place}), interval)
        .assign(validation_mean=chosen)
        .assign_attrs(metric=metric, validation=list(validation), reported_on=others)
    )


def chosen_on_others(scores: xr.Dataset, along: Sequence[str], metric: str = "JF") -> xr.Dataset:
    """Scores along some axes, where every other axis has, for each clip, the value that is best on the other clips.

    A block that is chosen on the clips it is shown for looks better than it is; this uses all clips for both.

    Parameters
    ----------
    scores
        Of a sweep over clips and whatever is to be chosen.
    along
        Axes to keep, for example ``["tau"]``.
    metric
        See `clip_statistics`.

    Returns
    -------
    Dataset
        Scores over clip, seed, object, frame and `along`. What was chosen for a clip stands in coordinates along clip.

    Raises
    ------
    TedlensError
        For one clip alone, where there is something to choose.
    """
    each = _clip_scores(scores, metric)
    chosen = [str(d) for d in each.dims if d not in ("clip", *along)]
    if not any(each.sizes[axis] > 1 for axis in chosen):
        return scores.squeeze(chosen)
    if each.sizes["clip"] < 2:
        raise TedlensError(
            f"There is one clip, so {', '.join(chosen)} cannot be chosen on others; give more, or choose with .sel."
        )
    parts = []
    for number, clip in enumerate(each["clip"].values):
        best = greatest(each.drop_isel(clip=number).mean("clip"))
        parts.append(scores.sel({"clip": [clip]} | {axis: best[axis] for axis in chosen}))
    about = {axis: ("clip", [part[axis].item() for part in parts]) for axis in chosen}
    bare = [part.drop_vars(chosen) for part in parts]
    return xr.concat(bare, "clip", coords="different", compat="equals", join="outer").assign_coords(about)


def greatest(means: xr.DataArray) -> dict[str, Any]:
    """Where a mean is greatest: the value on each axis."""
    chosen = means.isel(means.fillna(-np.inf).argmax(...)) if means.ndim else means
    return {str(dim): chosen[dim].item() for dim in means.dims}


def _clip_scores(scores: xr.Dataset, metric: str) -> xr.DataArray:
    """One score a clip, for each cell of whatever was swept."""
    if metric not in scores:
        raise TedlensError(f"metric={metric!r} is not among the scores; choose from {', '.join(map(str, scores))}.")
    each = scores[metric]
    for axis in WITHIN:
        if axis in each.dims:
            each = each.mean(axis)
    return each if "clip" in each.dims else each.expand_dims("clip")


def _statistics(each: xr.DataArray, interval: float | None) -> xr.Dataset:
    """Mean, standard error and interval over clips of one score a clip."""
    number = each.sizes["clip"]
    if interval is not None and not 0 < interval < 1:
        raise TedlensError(f"interval={interval} is no confidence; choose a share between 0 and 1, such as 0.95.")
    if interval is not None and number < 2:
        raise TedlensError(f"An interval over clips needs at least two, and there are {number}; give more clips.")
    count = each.notnull().sum("clip")
    error = each.std("clip", ddof=1) / np.sqrt(count) if number > 1 else xr.zeros_like(each.isel(clip=0))
    found: dict[Hashable, Any] = {"mean": each.mean("clip"), "error": error.fillna(0)}
    if interval is not None:
        low, high = xr.apply_ufunc(
            _bootstrap,
            each,
            kwargs={"level": interval},
            input_core_dims=[["clip"]],
            output_core_dims=[[], []],
            vectorize=True,
        )
        found |= {"low": low, "high": high}
    return xr.Dataset(found).drop_vars("clip", errors="ignore")


def _bootstrap(values: npt.NDArray[np.float64], level: float) -> tuple[float, float]:
    """Interval of the mean of one cell's clips; NaN where a cell has fewer than two."""
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return np.nan, np.nan
    if np.ptp(values) == 0:  # no resample differs
        return float(values[0]), float(values[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        found = scipy.stats.bootstrap(
            (values,), np.mean, confidence_level=level, n_resamples=RESAMPLES, rng=np.random.default_rng(0)
        ).confidence_interval
    return float(found.low), float(found.high)
