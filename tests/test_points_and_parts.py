"""TAP-Vid's figures of points and VIP's of parts, against the definitions written out and cases worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import tedlens as tl


def as_points(position: Any, visible: Any, over: str = "point") -> xr.Dataset:
    return xr.Dataset(
        {"position": ((over, "frame", "axis"), position), "visible": ((over, "frame"), np.asarray(visible, bool))}
    )


def defined(points: xr.Dataset, truth: xr.Dataset, mode: str) -> dict[str, float]:
    """Point by point and frame by frame."""
    queries = tl.point_queries(truth, mode)  # type: ignore[arg-type]
    jaccard, within, right, scored = [], [], 0, 0
    for threshold in (1, 2, 4, 8, 16):
        hit = false = shown = near_ones = 0
        right = scored = 0
        for q in range(queries.sizes["query"]):
            n, own = int(queries["point"][q]), int(queries["frame"][q])
            for t in range(truth.sizes["frame"]):
                if t == own or (mode == "first" and t < own):
                    continue
                there, said = bool(truth["visible"][n, t]), bool(points["visible"][q, t])
                d = points["position"][q, t].values - truth["position"][n, t].values
                near = bool((d * d).sum() < threshold**2)
                hit += there and said and near
                false += said and not (there and near)
                shown += there
                near_ones += there and near
                right += there == said
                scored += 1
        jaccard.append(hit / (shown + false) if shown + false else np.nan)
        within.append(near_ones / shown if shown else np.nan)
    return {
        "AJ": float(np.mean(jaccard)),
        "delta": float(np.mean(within)),
        "OA": right / scored if scored else np.nan,
    }


@pytest.mark.parametrize("mode", ["first", "strided"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_points_equal_the_definition(mode: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = as_points(rng.integers(0, 30, (4, 8, 2)), rng.random((4, 8)) > 0.4)
    count = tl.point_queries(truth, mode).sizes["query"]
    points = as_points(rng.integers(0, 30, (count, 8, 2)), rng.random((count, 8)) > 0.3, "query")
    found = tl.evaluate_points(points, truth, mode=mode)
    for name, value in defined(points, truth, mode).items():
        assert float(found[name]) == pytest.approx(value, abs=1e-12, nan_ok=True)


def test_where_points_are_started() -> None:
    visible = np.zeros((3, 7), bool)
    visible[0, [2, 5]] = visible[1, [0, 6]] = True  # the third never shows
    truth = as_points(np.arange(42).reshape(3, 7, 2), visible)
    first = tl.point_queries(truth)
    assert [tuple(map(int, q)) for q in zip(first["point"], first["frame"], strict=True)] == [(0, 2), (1, 0)]
    assert (int(first["x"][0]), int(first["y"][0])) == (4, 5)
    strided = tl.point_queries(truth, "strided")
    assert [tuple(map(int, q)) for q in zip(strided["point"], strided["frame"], strict=True)] == [(1, 0), (0, 5)]


def test_thresholds_are_strict_and_of_the_raster() -> None:
    truth = as_points(np.zeros((1, 2, 2)), np.ones((1, 2)))
    off_by_one = as_points([[[0, 0], [1, 0]]], np.ones((1, 2)), "query")
    assert list(tl.evaluate_points(off_by_one, truth)["within"].values) == [0, 1, 1, 1, 1]
    # On pictures of half the raster's width it is off by 2.
    assert list(tl.evaluate_points(off_by_one, truth, size=(256, 128))["within"].values) == [0, 0, 1, 1, 1]


def test_a_query_on_the_last_frame_leaves_nothing_to_score() -> None:
    truth = as_points(np.zeros((1, 3, 2)), [[0, 0, 1]])
    found = tl.evaluate_points(as_points(np.zeros((1, 3, 2)), np.ones((1, 3)), "query"), truth)
    assert all(np.isnan(float(found[name])) for name in ("AJ", "delta", "OA"))


def test_points_that_do_not_fit_are_refused() -> None:
    truth = as_points(np.zeros((2, 3, 2)), np.ones((2, 3)))
    with pytest.raises(tl.TedlensError, match=r"give visible \{'query': 2, 'frame': 3\} and position"):
        tl.evaluate_points(as_points(np.zeros((1, 3, 2)), np.ones((1, 3)), "query"), truth)
    with pytest.raises(tl.TedlensError, match="mode='all' is not known; choose 'first' or 'strided'"):
        tl.point_queries(truth, "all")  # type: ignore[arg-type]
    with pytest.raises(tl.TedlensError, match=r"give Clip\.points"):
        tl.point_queries(xr.Dataset())


def test_points_are_matched_by_their_labels() -> None:
    rng = np.random.default_rng(0)
    labels = {"frame": np.arange(4, 9), "axis": ["x", "y"]}
    truth = as_points(rng.integers(0, 9, (3, 5, 2)), np.ones((3, 5))).assign_coords(labels)
    points = as_points(rng.integers(0, 9, (3, 5, 2)), np.ones((3, 5)), "query").assign_coords(labels)
    wanted = tl.evaluate_points(points, truth)
    assert tl.evaluate_points(points.isel(axis=[1, 0]).transpose("axis", "frame", "query"), truth).equals(wanted)
    with pytest.raises(tl.TedlensError, match="points have frames 0 to 4 and the truth 4 to 8"):
        tl.evaluate_points(points.assign_coords(frame=np.arange(5)), truth)


def test_parts_are_counted_over_all_pixels() -> None:
    true = np.array([[[0, 0, 1, 1], [2, 2, 255, 255]]], np.uint8)
    predicted = np.array([[[0, 1, 1, 1], [3, 2, 7, 0]]], np.uint8)
    found = tl.evaluate_parts(predicted, true)
    wanted = {0: 1 / 2, 1: 2 / 3, 2: 1 / 2, 3: 0.0}  # 3 is predicted alone; 7 lies on what is no class
    assert {n: float(found["IoU"].sel(true=n)) for n in wanted} == pytest.approx(wanted)
    assert int(found["IoU"].notnull().sum()) == 4
    assert float(found["mIoU"]) == pytest.approx(sum(wanted.values()) / 4)
    assert float(found["mean_accuracy"]) == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    assert float(found["pixel_accuracy"]) == pytest.approx(4 / 6)


def test_parts_of_clips_are_combined_by_their_counts() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 20, (2, 6, 5, 4)).astype(np.uint8)
    each = xr.concat([tl.evaluate_parts(predicted[k], true[k]) for k in (slice(0, 1), slice(1, 6))], "clip")
    assert float(tl.combine_parts(each)["mIoU"]) == pytest.approx(float(tl.evaluate_parts(predicted, true)["mIoU"]))


def test_a_part_that_is_no_class_is_refused() -> None:
    with pytest.raises(tl.TedlensError, match="hold the class 20, but classes go from 0 to 19"):
        tl.evaluate_parts(np.full((1, 2, 2), 20), np.zeros((1, 2, 2), int))
