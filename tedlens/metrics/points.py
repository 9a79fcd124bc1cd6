"""Scores of point tracks, by the definitions of TAP-Vid (Doersch et al., NeurIPS 2022)."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from tedlens.align import listed
from tedlens.errors import TedlensError

PointMode = Literal["first", "strided"]
THRESHOLDS = (1, 2, 4, 8, 16)  # pixels of the raster
RASTER = 256  # to which TAP-Vid resizes every video
STRIDE = 5  # frames between the queries of `strided`


def point_queries(truth: xr.Dataset, mode: PointMode = "first") -> xr.Dataset:
    """Query points, from which a tracker starts, in the order of TAP-Vid.

    Parameters
    ----------
    truth
        ``position`` (point, frame, axis) and ``visible`` (point, frame), as ``Clip.points``.
    mode
        ``"first"``: each point once, on the first frame where it is visible; points that are never visible are left
        out. ``"strided"``: on every fifth frame, all points that are visible there, frame by frame.

    Returns
    -------
    Dataset
        Over ``query``: ``point`` and ``frame``, numbers from 0, and ``x`` and ``y``, in the pixels of `truth`
        and with the attributes of its positions.

    Raises
    ------
    TedlensError
        For an unknown mode, or a truth without position and visible.
    """
    visible, position = _truth(truth, mode)
    if mode == "first":
        point = np.flatnonzero(visible.any(1))
        frame = visible[point].argmax(1)
    else:
        shown = visible[:, ::STRIDE].T  # frame by frame
        frame, point = np.nonzero(shown)
        frame = frame * STRIDE
    x, y = position[point, frame].T
    attrs = truth["position"].attrs
    return xr.Dataset(
        {
            "point": ("query", point),
            "frame": ("query", frame),
            "x": ("query", x, attrs),
            "y": ("query", y, attrs),
        }
    )


def evaluate_points(
    points: xr.Dataset, truth: xr.Dataset, *, mode: PointMode = "first", size: tuple[int, int] = (RASTER, RASTER)
) -> xr.Dataset:
    """Average Jaccard (AJ), delta and occlusion accuracy (OA) of one clip, as TAP-Vid's evaluator computes them.

    Counts of all queries are pooled. ``first`` scores the frames after the frame of the query, ``strided`` all frames
    except that one. A point is within a threshold if its distance, on the raster of 256 x 256, is strictly below it.
    delta is the share of truly visible points within the threshold, whatever visibility was predicted. In AJ, a point
    that is truly visible and predicted visible but too far away counts as a miss and as a false positive. The
    benchmark figure is the plain mean over clips: ``xr.concat(scores, "clip").mean("clip", skipna=False)``. If no
    point is visible on the scored frames, scores are NaN, as in the evaluator.

    Parameters
    ----------
    points
        ``position`` (query, frame, axis) with x before y, and ``visible`` (query, frame), in the order of
        `point_queries`.
    truth
        ``position`` (point, frame, axis) and ``visible`` (point, frame), as ``Clip.points``.
    mode
        The mode with which the queries were made.
    size
        Height and width of the picture in pixels. Positions of `points` and `truth` are in these pixels; 0 is the left
        or upper edge of the first pixel.

    Returns
    -------
    Dataset
        ``jaccard`` and ``within`` over ``threshold``, their means ``AJ`` and ``delta``, and ``OA``; 0 to 1.

    Raises
    ------
    TedlensError
        For an unknown mode, or points that do not match the queries one to one on all frames.
    """
    visible, position = _truth(truth, mode)
    queries = point_queries(truth, mode)
    which, own = queries["point"].values, queries["frame"].values
    wanted = {"query": len(which), "frame": visible.shape[1]}
    sizes = {str(name): dict(each.sizes) for name, each in points.data_vars.items()}
    if sizes.get("visible") != wanted or sizes.get("position") != {**wanted, "axis": 2}:
        raise TedlensError(
            f"The points are {sizes}; give visible {wanted} and position, with an axis of 2 besides: one for each "
            f"query of point_queries(truth, {mode!r}), on all frames."
        )
    numbered = "frame" in points.coords and "frame" in truth.coords
    if numbered and not np.array_equal(points["frame"], truth["frame"]):
        raise TedlensError(
            f"The points have frames {listed(points['frame'].values)} and the truth {listed(truth['frame'].values)}; "
            "give both of the same frames."
        )
    frames = np.arange(wanted["frame"])[None]
    scored = frames > own[:, None] if mode == "first" else frames != own[:, None]
    shown, said = visible[which], points["visible"].transpose("query", "frame").values.astype(bool)
    scale = np.array([RASTER / size[1], RASTER / size[0]])
    predicted = _x_and_y(points["position"].transpose("query", "frame", "axis"))
    off = np.square((predicted - position[which]) * scale).sum(-1)
    jaccard, within = [], []
    for threshold in THRESHOLDS:
        near = off < threshold**2
        hit = (scored & shown & said & near).sum()
        false = (scored & said & ~(shown & near)).sum()
        jaccard.append(_share(hit, (scored & shown).sum() + false))
        within.append(_share((scored & shown & near).sum(), (scored & shown).sum()))
    found = xr.Dataset(
        {"jaccard": ("threshold", jaccard), "within": ("threshold", within)},
        {"threshold": ("threshold", list(THRESHOLDS), {"units": f"pixels of {RASTER}"})},
        {"metric": "TAP-Vid", "mode": mode},
    )
    accuracy = _share((scored & (shown == said)).sum(), scored.sum())
    means = {"AJ": found["jaccard"], "delta": found["within"]}
    return found.assign({name: each.mean(skipna=False) for name, each in means.items()}).assign(OA=accuracy)


def _share(part: np.integer, whole: np.integer) -> float:
    return float(part / whole) if whole else float("nan")


def _truth(truth: xr.Dataset, mode: str) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """The arrays visible (point, frame) and position (point, frame, axis) of a truth."""
    if mode not in get_args(PointMode):
        raise TedlensError(f"mode={mode!r} is not known; choose {' or '.join(map(repr, get_args(PointMode)))}.")
    if not isinstance(truth, xr.Dataset) or not {"position", "visible"} <= set(truth.data_vars):
        raise TedlensError("The truth holds no position and visible of points; give Clip.points, as of a TAP-Vid clip.")
    visible = truth["visible"].transpose("point", "frame").values.astype(bool)
    return visible, _x_and_y(truth["position"].transpose("point", "frame", "axis"))


def _x_and_y(position: xr.DataArray) -> npt.NDArray[np.float64]:
    """Positions with x before y, ordered by the labels of ``axis`` if it has any."""
    ordered = position.sel(axis=["x", "y"]) if "axis" in position.coords else position
    return ordered.values.astype(np.float64)
