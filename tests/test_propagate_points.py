"""Points along features: planted motion is followed, and the whole equals its definition written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tedlens as tl
from tedlens.ted import points as tensors
from tedlens.ted.propagation import propagate_labels

GRID, CELL = (9, 12), 8
SETTINGS: dict[str, Any] = {"top_k": 3, "radius": 4, "n_last": 2, "temperature": 0.05}


def labelled(values: np.ndarray[Any, Any]) -> xr.DataArray:
    """Features (frame, channel, y, x) with the places of their cells, 8 pixels each."""
    centres = {axis: (np.arange(size) + 0.5) * CELL - 0.5 for axis, size in zip("yx", values.shape[-2:], strict=True)}
    frames = {"frame": np.arange(len(values))}
    return xr.DataArray(values, dims=("frame", "channel", "y", "x"), coords=frames | centres)


def drifting(frames: int = 6, step: int = 1) -> xr.DataArray:
    """A texture without repetition that goes to the right by whole cells."""
    wide = np.random.default_rng(0).normal(size=(16, GRID[0], GRID[1] + frames * step))
    starts = [(frames - t) * step for t in range(frames)]
    return labelled(np.stack([wide[..., s : s + GRID[1]] for s in starts]).astype(np.float32))


def at(x: Any, y: Any, frame: Any) -> xr.Dataset:
    each = {"x": x, "y": y, "frame": frame}
    return xr.Dataset({name: ("query", np.atleast_1d(value)) for name, value in each.items()})


@pytest.mark.parametrize("locate", ["peak", "top"])
def test_what_drifts_is_followed_forwards_and_backwards(locate: Any) -> None:
    queries = at([43.5, 51.5], [35.5, 27.5], [0, 2])  # both in the middle of a cell
    points = tl.propagate_points(drifting(), queries, locate=locate, **SETTINGS)
    wanted = np.array([43.5 + 8 * np.arange(6), 51.5 + 8 * (np.arange(6) - 2)])
    assert points["position"].dims == ("query", "frame", "axis")
    assert points["position"].sel(axis="x").values == pytest.approx(wanted, abs=0.5)
    assert points["position"].sel(axis="y").values == pytest.approx(np.array([[35.5] * 6, [27.5] * 6]), abs=0.5)
    assert points["similarity"].values == pytest.approx(1, abs=0.02)
    assert points["visible"].all()
    assert points["position"].isel(query=1, frame=2).values.tolist() == [51.5, 27.5]


def test_the_whole_is_its_definition() -> None:
    features = labelled(np.random.default_rng(1).normal(size=(4, 5, *GRID)).astype(np.float32))
    x, y, start = 37.0, 18.0, 1
    found = tl.propagate_points(features, at(x, y, start), **SETTINGS).isel(query=0)
    cx, cy = (x + 0.5) / CELL - 0.5, (y + 0.5) / CELL - 0.5
    first = np.array(
        [[np.exp(-((i - cy) ** 2 + (j - cx) ** 2) / (2 * 0.5**2)) for j in range(GRID[1])] for i in range(GRID[0])]
    )
    first = torch.from_numpy(first / first.sum()).float()[None]
    feats = torch.nn.functional.normalize(torch.from_numpy(features.values), dim=1)
    forwards = propagate_labels(feats[1:], first, **SETTINGS)[1:, 0].numpy()
    backwards = propagate_labels(feats[[1, 0]], first, **SETTINGS)[1:, 0].numpy()
    for t, heat in [(0, backwards[0]), (2, forwards[0]), (3, forwards[1])]:
        best = np.unravel_index(heat.argmax(), GRID)
        total = place = 0.0
        for i in range(GRID[0]):
            for j in range(GRID[1]):
                if (i - best[0]) ** 2 + (j - best[1]) ** 2 <= 2.5**2:
                    total += heat[i, j]
                    place = place + heat[i, j] * np.array([j, i])
        wanted = (place / total + 0.5) * CELL - 0.5
        assert found["position"].isel(frame=t).values == pytest.approx(wanted, abs=1e-3)


def test_similarity_is_one_at_home_and_nought_at_half_of_the_cells() -> None:
    features = labelled(np.random.default_rng(2).normal(size=(2, 5, *GRID)).astype(np.float32))
    found = tl.propagate_points(features, at(43.5, 35.5, 0), **SETTINGS)["similarity"][0]
    unit = features.values / np.linalg.norm(features.values, axis=1, keepdims=True)
    own = unit[0, :, 4, 5]
    usual = np.sort((own[:, None] * unit[0].reshape(5, -1)).sum(0))[(GRID[0] * GRID[1] - 1) // 2]
    assert float(found[0]) == pytest.approx(1, abs=1e-5)
    assert usual < 0.5  # else the next line would say nothing
    assert float(found[1]) < 1
    assert np.isfinite(found).all()
    still = tl.propagate_points(features[[0, 0]].assign_coords(frame=[0, 1]), at(43.5, 35.5, 0), visible_above=0.99)
    assert still["visible"].values.tolist() == [[True, True]]


def test_pixels_are_counted_from_the_edge_where_the_queries_say_so() -> None:
    features = drifting()
    centre = at(43.5, 35.5, 0)
    edge = at(44.0, 36.0, 0)
    for name in ("x", "y"):
        edge[name].attrs["origin"] = "edge of the first pixel"
    ours = tl.propagate_points(features, centre, **SETTINGS)["position"]
    theirs = tl.propagate_points(features, edge, **SETTINGS)["position"]
    assert (theirs - ours).values == pytest.approx(0.5)
    assert theirs.attrs["origin"] == "edge of the first pixel"


def test_queries_of_tap_vid_keep_their_origin() -> None:
    attrs = {"units": "pixel", "origin": "edge of the first pixel"}
    position = np.array([[(44 + 8 * t, 36) for t in range(6)]], float)
    truth = xr.Dataset(
        {
            "position": (("point", "frame", "axis"), position, attrs),
            "visible": (("point", "frame"), np.ones((1, 6), bool)),
        }
    )
    points = tl.propagate_points(drifting(), tl.point_queries(truth), **SETTINGS)
    assert points["position"].attrs == attrs
    assert float(tl.evaluate_points(points, truth, size=(72, 96))["AJ"]) == 1
    off = truth.assign(position=truth["position"] + 4)
    assert float(tl.evaluate_points(points, off, size=(72, 96))["AJ"]) < 0.5


def test_joints_keep_their_names() -> None:
    joints = xr.Dataset(
        {"position": (("joint", "frame", "axis"), np.array([[[43.5, 35.5]], [[np.nan, np.nan]], [[-9.0, 20.0]]]))},
        {"joint": ["neck", "belly", "face"], "frame": [0], "axis": ["x", "y"]},
    )
    points = tl.propagate_points(drifting(), joints.isel(frame=0), **SETTINGS)
    assert points["position"].dims == ("joint", "frame", "axis")
    assert points["joint"].values.tolist() == ["neck", "belly", "face"]
    assert points["position"].sel(joint="neck").notnull().all()
    lost = points.sel(joint=["belly", "face"])  # nowhere, and out of the picture
    assert lost["position"].isnull().all()
    assert not lost["visible"].any()


def test_order_of_axes_and_parts_at_a_time_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features, queries = drifting(), at([43.5, 20, 60], [35.5, 12, 50], [0, 0, 0])
    whole = tl.propagate_points(features, queries, **SETTINGS)
    monkeypatch.setattr(tensors, "MAPS", 1)
    xr.testing.assert_allclose(tl.propagate_points(features, queries, **SETTINGS), whole)
    xr.testing.assert_allclose(
        tl.propagate_points(features.transpose("y", "frame", "x", "channel"), queries, **SETTINGS), whole
    )


def test_fused_features_keep_their_weights() -> None:
    motion, appearance = drifting(), drifting(step=2)
    queries = at(19.5, 35.5, 0)
    for lam, alone in ((1.0, motion), (0.0, appearance)):
        fused = tl.propagate_points(tl.fuse(motion, appearance, lam), queries, **SETTINGS)
        assert fused["position"].values == pytest.approx(
            tl.propagate_points(alone, queries, **SETTINGS)["position"].values, abs=1e-3
        )


def test_no_query_is_no_point() -> None:
    found = tl.propagate_points(drifting(), at([], [], []), **SETTINGS)
    assert dict(found.sizes) == {"query": 0, "frame": 6, "axis": 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"queries": at(1.0, 1.0, 9)}, "have frames 0 to 5 and queries are on frame 9"),
        ({"queries": at(1.0, 1.0, 0).drop_vars("frame")}, "no place and frame"),
        ({"queries": xr.Dataset({"frame": ("query", [0])})}, "no place and frame"),
        ({"locate": "best"}, "locate='best' is not known; choose 'top' or 'peak'"),
        ({"features": drifting().drop_vars(["y", "x"])}, "do not say where their cells are"),
        ({"top_k": 0}, "top_k=0 is out of range"),
    ],
)
def test_what_cannot_be_is_said(change: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"features": drifting(), "queries": at(1.0, 1.0, 0), **SETTINGS} | change
    with pytest.raises(tl.TedlensError, match=said):
        tl.propagate_points(given.pop("features"), given.pop("queries"), **given)


def test_track_points_is_probe_fuse_and_propagate_points() -> None:
    clip, queries = tl.datasets.similar(seed=900_001)[:4], at([60.0, 30.0], [60.0, 20.0], [2, 0])
    video, image = tl.load_video_model("mini"), tl.load_image_model("mini")
    motion = tl.probe(video, clip, tau=200, blocks="up_2")["up_2"]["features"]
    appearance = tl.probe(image, clip, tau=51, blocks="up_0")["up_0"]["features"]
    whole = tl.track_points(clip, queries, motion=video, appearance=image, tau=200, lam=0.4, top_k=4)
    xr.testing.assert_allclose(whole, tl.propagate_points(tl.fuse(motion, appearance, 0.4), queries, top_k=4))
    assert (whole.attrs["motion_tau"], whole.attrs["lam"], whole.attrs["top_k"]) == (200, 0.4, 4)
    alone = tl.track_points(clip, queries, appearance=image, preset="dift-adm", appearance_block="up_0", radius=4)
    how = {"top_k": 10, "radius": 4, "n_last": 28, "temperature": 0.1}
    assert {name: alone.attrs[name] for name in how} == how
    with pytest.raises(tl.TedlensError, match=r"tl\.track has no such word; its words are motion"):
        tl.track_points(clip, queries, motion=video, lambda_=1)
