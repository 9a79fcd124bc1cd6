"""PCK of joints, against the definitions of the two evaluators written out joint by joint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import tedlens as tl

JOINTS = ["neck", "left_wrist", "right_ankle"]


def as_joints(position: Any) -> xr.DataArray:
    coords = {"joint": JOINTS, "frame": np.arange(np.shape(position)[1]), "axis": ["x", "y"]}
    return xr.DataArray(position, coords, ("joint", "frame", "axis"))


def clip_joints(seed: int, frames: int = 6) -> tuple[xr.DataArray, xr.Dataset]:
    """A prediction with joints lost, at x = 0, and outside; a truth that leaves the picture and ends early."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(-5, 60, (3, frames, 2))
    predicted = true + rng.normal(0, 12, true.shape)
    predicted[0, 1] = np.nan
    predicted[1, 2, 0] = 0
    predicted[2, 3, 0] = -4
    true[:, -1] = np.nan
    return as_joints(predicted), xr.Dataset({"position": as_joints(true)})


def defined(predicted: xr.DataArray, truth: xr.Dataset, convention: str) -> tuple[Any, Any]:
    """Frames that are right (joint, alpha), and that are scored (joint)."""
    p, t = predicted.values, truth["position"].values
    right, scored = np.zeros((3, 5), int), np.zeros(3, int)
    for frame in range(1 if convention == "crw" else 0, t.shape[1]):
        shown = []
        for joint in range(3):
            there = not np.isnan(t[joint, frame]).any() and not np.isnan(p[joint, frame]).any()
            x = p[joint, frame, 0]
            if there and (x >= 0 if convention == "crw" else x > 0):
                shown.append(joint)
        for joint in shown:
            box = t[shown, frame]
            width, height = box[:, 0].max() - box[:, 0].min(), box[:, 1].max() - box[:, 1].min()
            length = 0.6 * (width**2 + height**2) ** 0.5
            distance = ((p[joint, frame] - t[joint, frame]) ** 2).sum() ** 0.5
            scored[joint] += 1
            for k, alpha in enumerate((0.1, 0.2, 0.3, 0.4, 0.5)):
                right[joint, k] += length > 0 and distance / length <= alpha
    return right, scored


@pytest.mark.parametrize("convention", ["crw", "vfs"])
@pytest.mark.parametrize("seed", range(4))
def test_pck_is_its_definition(convention: Any, seed: int) -> None:
    clips = [clip_joints(seed), clip_joints(seed + 100, frames=4)]
    found = [tl.evaluate_pose(*clip, convention=convention) for clip in clips]
    wanted = [defined(*clip, convention) for clip in clips]
    for one, (right, scored) in zip(found, wanted, strict=True):
        assert one["right"].values.tolist() == right.tolist()
        assert one["scored"].values.tolist() == scored.tolist()
    both = tl.combine_pose(xr.concat(found, "clip"))
    right, scored = (sum(each) for each in zip(*wanted, strict=True))
    assert both["PCK"].values == pytest.approx((right / scored[:, None]).mean(0))
    assert both.attrs["convention"] == convention


def test_exactly_on_the_threshold_is_right() -> None:
    true = np.array([[[10.0, 0.0]], [[10.0, 50.0]], [[10.0, 20.0]]])  # 50 high: 30 is the length
    off = np.array([[3.0, 0], [6.0, 0], [6.1, 0]])[:, None]
    found = tl.evaluate_pose(as_joints(true + off), xr.Dataset({"position": as_joints(true)}))
    assert found["right"].sel(alpha=0.1).values.tolist() == [1, 0, 0]
    assert found["right"].sel(alpha=0.2).values.tolist() == [1, 1, 0]


def test_a_joint_that_is_never_scored_leaves_no_figure() -> None:
    predicted, truth = clip_joints(0)
    predicted[1] = np.nan
    assert tl.evaluate_pose(predicted, truth)["PCK"].isnull().all()


def test_joints_are_matched_by_their_names() -> None:
    predicted, truth = clip_joints(1)
    mixed = predicted.isel(joint=[2, 0, 1], frame=slice(None, None, -1), axis=[1, 0]).transpose(
        "axis", "frame", "joint"
    )
    xr.testing.assert_equal(tl.evaluate_pose(mixed, truth), tl.evaluate_pose(predicted, truth))


def test_propagated_joints_are_scored_as_they_come() -> None:
    centres = {"y": (np.arange(6) + 0.5) * 8 - 0.5, "x": (np.arange(8) + 0.5) * 8 - 0.5}
    values = np.random.default_rng(0).normal(size=(1, 9, 6, 8)).repeat(3, 0).astype(np.float32)
    features = xr.DataArray(values, {"frame": range(3), **centres}, ("frame", "channel", "y", "x"))
    true = as_joints(np.array([[11.5, 11.5], [43.5, 35.5], [19.5, 27.5]])[:, None].repeat(3, 1))
    truth = xr.Dataset({"position": true})
    points = tl.propagate_points(features, truth.isel(frame=0), top_k=1)
    assert float(tl.evaluate_pose(points["position"], truth)["PCK"].sel(alpha=0.1)) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"convention": "coco"}, "convention='coco' is not known; choose 'vfs' or 'crw'"),
        ({"joints": clip_joints(0)[0].isel(frame=slice(1, None))}, "have frame 1 to 5 and the truth 0 to 5"),
        ({"joints": clip_joints(0)[0].isel(joint=[0, 1])}, "have joint neck, left_wrist and the truth neck"),
        ({"joints": clip_joints(0)[0].isel(axis=0)}, "give positions"),
        ({"joints": clip_joints(0)[0].drop_vars("frame").isel(frame=slice(2))}, "have 2 along frame and the truth 6"),
        ({"truth": xr.Dataset()}, "holds no position of joints"),
    ],
)
def test_what_cannot_be_is_said(change: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = dict(zip(("joints", "truth"), clip_joints(0), strict=True)) | change
    with pytest.raises(tl.TedlensError, match=said):
        tl.evaluate_pose(given.pop("joints"), given.pop("truth"), **given)
