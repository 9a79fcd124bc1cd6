"""Means over clips with their standard errors."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tedlens.errors import TedlensError


def clip_statistics(scores: xr.Dataset, metric: str = "JF") -> xr.Dataset:
    """Mean and standard error over clips of one metric, for each cell of whatever was swept.

    A clip counts once: its score is the mean over frames, then objects, then seeds.

    Parameters
    ----------
    scores
        From `evaluate`, with axes object and frame, and perhaps clip, seed, tau, block, ...
    metric
        ``"J"``, ``"F"`` or ``"JF"``.

    Returns
    -------
    Dataset ``mean`` and ``error`` (0 where there is one clip), as shares from 0 to 1.
    """
    if metric not in scores:
        raise TedlensError(f"metric={metric!r} is not among the scores; choose from {', '.join(map(str, scores))}.")
    each = scores[metric]
    for axis in ("frame", "object", "seed"):
        if axis in each.dims:
            each = each.mean(axis)
    if "clip" not in each.dims:
        each = each.expand_dims("clip")
    count = each.notnull().sum("clip")
    error = each.std("clip", ddof=1) / np.sqrt(count) if each.sizes["clip"] > 1 else xr.zeros_like(each.isel(clip=0))
    return xr.Dataset({"mean": each.mean("clip"), "error": error.fillna(0)}, attrs={"metric": metric})
