"""The inputs of metrics: labels and truth, matched by their coordinates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from tedlens.align import check_same_clip, labels_in, listed
from tedlens.errors import TedlensError
from tedlens.labels import VOID

Masks = npt.NDArray[np.uint8]
Given = xr.Dataset | xr.DataArray | npt.ArrayLike


def matched(labels: Given, truth: Given) -> tuple[xr.DataArray | npt.ArrayLike, Masks, Masks]:
    """The given labels, in the order of their coordinates; then labels and truth as arrays (T, H, W), frames matched.

    Raises
    ------
    TedlensError
        For frames, rows or columns that one of the two lacks, different sizes or clips, or ids out of range.
    """
    labels, truth = labels_in(labels), labels_in(truth)
    if isinstance(labels, xr.DataArray) and isinstance(truth, xr.DataArray):
        check_same_clip(labels=labels, truth=truth)
        for axis in ("frame", "y", "x"):
            if axis not in labels.coords or axis not in truth.coords:
                continue
            ours, theirs = labels[axis].values, truth[axis].values
            if not np.array_equal(ours, theirs):
                missing, spare = np.setdiff1d(theirs, ours), np.setdiff1d(ours, theirs)
                only, others = (missing, "the truth alone") if len(missing) else (spare, "the labels alone")
                raise TedlensError(
                    f"The labels and the truth differ along {axis}: {others} has {axis} {listed(only)}; "
                    "give both of the same part of one clip."
                )
    given, wanted = _frames_of(labels), _frames_of(truth)
    if given is not None and wanted is not None and given != wanted:
        few, many = sorted((given, wanted))
        raise TedlensError(
            f"labels have {given} frames and the truth {wanted}: of frames {listed(range(few, many))} there is no "
            f"{'prediction' if given < wanted else 'truth'}; give as many of both."
        )
    predicted, true = _as_masks(labels, "labels"), _as_masks(truth, "truth")
    if predicted.shape != true.shape:
        raise TedlensError(
            f"labels have the shape {predicted.shape} and the truth {true.shape} (frames, height, width),"
            " but they must agree; resize the labels with nearest neighbour, or take the same frames."
        )
    return labels, predicted, true


def _frames_of(masks: xr.DataArray | npt.ArrayLike) -> int | None:
    """Number of frames of (T, H, W); None for other shapes, which are refused later."""
    if isinstance(masks, xr.DataArray):
        return int(masks.sizes["frame"]) if "frame" in masks.dims else None
    shape = np.shape(masks)
    return int(shape[0]) if len(shape) == 3 else None


def _as_masks(given: xr.DataArray | npt.ArrayLike, name: str) -> Masks:
    """Ids as a uint8 array (T, H, W)."""
    if isinstance(given, xr.DataArray):
        if set(given.dims) != {"frame", "y", "x"}:
            raise TedlensError(
                f"{name} has the dimensions {', '.join(map(str, given.dims))}, but needs frame, y, x;"
                " select one value of every other dimension."
            )
        given = given.transpose("frame", "y", "x")
    array = np.asarray(given)
    if array.ndim != 3 or array.dtype.kind not in "iub" or array.size == 0:
        raise TedlensError(
            f"{name} is {array.dtype} of shape {array.shape}, but needs whole-number ids of shape"
            " (frames, height, width) with at least one pixel; convert or reshape it."
        )
    extremes = () if array.dtype == np.uint8 else (int(array.min()), int(array.max()))
    for extreme in extremes:
        if not 0 <= extreme <= VOID:
            raise TedlensError(
                f"{name} holds the id {extreme}, but ids are 0 (background), 1 to 254 and,"
                " in the truth, 255 (void); number the objects anew."
            )
    return array.astype(np.uint8, copy=False)
