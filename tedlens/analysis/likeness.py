"""How alike layers, noise levels, seeds and models are: centred kernel alignment of their features, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import xarray as xr

from tedlens.align import check_finite, check_same_clip, in_order, listed
from tedlens.errors import TedlensError

LEAST = 4  # cells, below which the unbiased estimate is not defined
Samples = npt.NDArray[np.float64]  # (cell, channel)


def cka(features: Mapping[str, xr.DataArray], *, cells: int = 2000, seed: int = 0) -> xr.DataArray:
    """Linear CKA of each two of several features of one clip: 1 the same but for turns and scale, 0 unrelated.

    The cells of all frames are the samples. Where grids differ all are averaged to the coarsest. The estimate of HSIC
    is the unbiased one (Song et al., JMLR 2012), so that many channels do not make features alike (Kornblith et al.,
    ICML 2019; Nguyen et al., ICLR 2021); it can come out a little below 0.

    Parameters
    ----------
    features
        By the names that they have in the result: (frame, channel, y, x), of the same frames of one clip.
    cells
        Samples at most; of more so many are drawn, the same for all.
    seed
        Of the draw.

    Returns
    -------
    DataArray (first, second), symmetric, with ones along its diagonal; NaN where features do not vary.

    Raises
    ------
    TedlensError
        For features with other axes, of different clips or frames, that are not finite, and fewer than four cells.

    Examples
    --------
    >>> tl.analysis.cka({b: feats[b]["features"].sel(tau=600, seed=0) for b in ("up_1", "up_2")})  # doctest: +SKIP
    """
    if not features:
        raise TedlensError("There are no features to compare; give a mapping of names to features of one clip.")
    ordered = {name: _one(name, each) for name, each in features.items()}
    check_same_clip(**{f"features {name!r}": each for name, each in ordered.items()})
    names = list(ordered)
    frames = ordered[names[0]].sizes["frame"]
    for name, each in ordered.items():
        first = ordered[names[0]]
        numbered = "frame" in each.coords and "frame" in first.coords
        if each.sizes["frame"] != frames or (numbered and not np.array_equal(each["frame"], first["frame"])):
            raise TedlensError(
                f"The features {name!r} are of other frames than {names[0]!r} ({_frames(each)} and {_frames(first)}); "
                "give both of the same."
            )
    grid = (min(each.sizes["y"] for each in ordered.values()), min(each.sizes["x"] for each in ordered.values()))
    total = frames * grid[0] * grid[1]
    if min(total, cells) < LEAST:
        raise TedlensError(f"{min(total, cells)} cells are too few to compare by; give at least {LEAST}.")
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:cells])
    grams = [_gram(_samples(each, grid)[chosen]) for each in ordered.values()]
    alike = np.array([[_hsic(one, other) for other in grams] for one in grams])
    own = np.diag(alike)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(np.outer(own > 0, own > 0), alike / np.sqrt(np.abs(np.outer(own, own))), np.nan)
    attrs = {"measure": "linear CKA, unbiased", "cells": len(chosen), "grid": list(grid), "seed": seed}
    return xr.DataArray(values, {"first": names, "second": names}, ("first", "second"), "cka", attrs)


def _one(name: str, features: xr.DataArray) -> xr.DataArray:
    axes = ("frame", "channel", "y", "x")
    single = [dim for dim in features.dims if dim not in axes and features.sizes[dim] == 1]
    features = features.squeeze(single)
    if set(features.dims) != set(axes):
        raise TedlensError(
            f"The features {name!r} have axes {dict(features.sizes)}; give (frame, channel, y, x), choosing one of "
            "each other axis with .sel."
        )
    check_finite(features.values, features.attrs, f"features {name!r}")
    return in_order(features).transpose(*axes)


def _frames(features: xr.DataArray) -> str:
    return listed(features["frame"].values) if "frame" in features.coords else f"{features.sizes['frame']} frames"


def _samples(features: xr.DataArray, grid: tuple[int, int]) -> Samples:
    """(cell of all frames, channel) on a grid."""
    values = torch.from_numpy(np.ascontiguousarray(features.values)).float()
    small = F.adaptive_avg_pool2d(values, grid)
    samples: Samples = small.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
    return samples


def _gram(samples: Samples) -> Samples:
    """Products of each two samples, without those of a sample with itself."""
    samples = samples - samples.mean(0)  # which changes nothing but the rounding
    scale = float(np.sqrt((samples**2).mean())) or 1.0
    gram: Samples = (samples / scale) @ (samples / scale).T / samples.shape[1]
    np.fill_diagonal(gram, 0)
    return gram


def _hsic(k: Samples, other: Samples) -> float:
    """The unbiased estimate of the Hilbert-Schmidt independence criterion, of Gram matrices without diagonals."""
    n = len(k)
    each, others = k.sum(0), other.sum(0)
    whole = each.sum() * others.sum() / ((n - 1) * (n - 2))
    return float(((k * other).sum() + whole - 2 / (n - 2) * (each @ others)) / (n * (n - 3)))
