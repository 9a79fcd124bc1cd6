"""Features without what stays: what Video Diffusion Models are Training-free Motion Interpreters calls MOFT."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from tedlens.align import check_finite
from tedlens.analysis.features import blocks_of
from tedlens.errors import TedlensError

AXES = ("frame", "channel", "y", "x")


def motion_filter(features: xr.DataTree | xr.DataArray, channels: int | None = None) -> xr.DataTree | xr.DataArray:
    """Features without their mean over frames, and only of those channels that differ most between frames.

    What a cell shows in all frames alike is taken away, so that what changes is left. After Xiao et al., Video
    Diffusion Models are Training-free Motion Interpreter and Controller (NeurIPS 2024), who choose channels by the
    loadings of principal components of clips that pan; here a channel is chosen by the share of its variance that lies
    between the frames of a cell, so that no further clips are needed and scale plays no part.

    Parameters
    ----------
    features
        From `probe`: a tree, or one block's features (.., frame, channel, y, x), of two frames or more.
    channels
        How many channels are kept, in their order; by default all.

    Returns
    -------
    DataArray or DataTree, as given and to use alike, in float32
        With the coordinate ``moving`` (channel): the share of each channel's variance that lies between frames, 0 to 1,
        pooled over noise levels and seeds, by which channels were chosen. The attribute ``motion_filter`` says so.

    Raises
    ------
    TedlensError
        For one frame, more channels than there are, or features with other axes.

    Examples
    --------
    >>> moving = tl.analysis.motion_filter(feats, channels=64)  # doctest: +SKIP
    >>> tl.plots.pca_map(moving, clip)  # doctest: +SKIP
    """
    if isinstance(features, xr.DataTree):
        every = blocks_of(features).items()
        nodes = {name: _filtered(each, channels).to_dataset(name="features") for name, each in every}
        tree = xr.DataTree.from_dict(nodes)
        tree.attrs = features.attrs | {"motion_filter": _said(channels)}
        return tree
    return _filtered(features, channels)


def _filtered(features: xr.DataArray, channels: int | None) -> xr.DataArray:
    if missing := [axis for axis in AXES if axis not in features.dims]:
        raise TedlensError(
            f"The features have axes {', '.join(map(str, features.dims))}; {', '.join(missing)} is missing."
        )
    if features.sizes["frame"] < 2:
        raise TedlensError("The features have one frame, so nothing moves in them; give those of two frames or more.")
    if channels is not None and not 1 <= channels <= features.sizes["channel"]:
        raise TedlensError(f"channels={channels} is out of range; choose 1 to {features.sizes['channel']}.")
    check_finite(features.values, features.attrs, "features")
    values = features.astype(np.float32)
    moved = values - values.mean("frame")
    others = [d for d in features.dims if d != "channel"]
    between = (moved**2).mean(others).values.astype(float)
    whole = ((values - values.mean(others)) ** 2).mean(others).values.astype(float)
    share = np.divide(between, whole, out=np.zeros_like(between), where=whole > 0)
    kept = np.arange(len(share)) if channels is None else _most(share, channels)
    found = moved.isel(channel=kept).assign_coords(moving=("channel", share[kept]), channel=kept)
    return found.transpose(*features.dims).assign_attrs(features.attrs | {"motion_filter": _said(channels)})


def _most(share: npt.NDArray[np.floating[Any]], channels: int) -> npt.NDArray[np.intp]:
    """Numbers of the channels of the greatest shares, in their order; of equal ones the first."""
    return np.sort(np.argsort(-share, kind="stable")[:channels])


def _said(channels: int | None) -> str:
    kept = "all channels" if channels is None else f"the {channels} channels that move most"
    return f"less the mean over frames; {kept}"
