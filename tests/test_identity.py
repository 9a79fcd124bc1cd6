"""HOTA, Identity and CLEAR of label maps, against figures of TrackEval for the same maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import tedlens as tl

BIG, SMALL = slice(2, 10), slice(12, 18)


def scene(frames: int = 12) -> np.ndarray[Any, Any]:
    """Two objects that stand still, (frame, y, x)."""
    truth = np.zeros((frames, 20, 20), np.uint8)
    truth[:, BIG, BIG], truth[:, SMALL, SMALL] = 1, 2
    return truth


def means(scores: xr.Dataset) -> dict[str, float]:
    return {str(name): float(value.mean()) for name, value in scores.data_vars.items()}


def renamed(labels: np.ndarray[Any, Any], names: dict[int, int]) -> np.ndarray[Any, Any]:
    table = np.arange(256, dtype=np.uint8)
    for old, new in names.items():
        table[old] = new
    return table[labels]


def test_ids_that_swap_for_good() -> None:
    """TrackEval: DetA 1, AssA 1/3, HOTA sqrt(1/3), IDF1 1/2, IDSW 2, MOTA 22/24."""
    truth, labels = scene(), scene()
    labels[6:] = renamed(labels[6:], {1: 2, 2: 1})
    found = means(tl.evaluate_identity(labels, truth))
    expected = {"DetA": 1, "AssA": 1 / 3, "HOTA": 3**-0.5, "LocA": 1, "IDF1": 0.5, "IDSW": 2, "MOTA": 22 / 24, "MT": 2}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    identity = tl.evaluate(labels, truth, protocol="all")["identity"]
    assert identity.sel(object=1).values.tolist() == [1] * 6 + [0] * 6


def test_names_of_ids_mean_nothing_to_hota_and_all_to_identity() -> None:
    truth = scene()
    found = means(tl.evaluate_identity(renamed(truth, {1: 2, 2: 1}), truth))
    assert found["HOTA"] == found["IDF1"] == found["MOTA"] == 1
    assert tl.evaluate(renamed(truth, {1: 2, 2: 1}), truth)["identity"].max() == 0


def test_a_lost_object_breaks_a_track_and_a_new_id_switches_it() -> None:
    truth, labels = scene(), scene()
    labels[5:9] = renamed(labels[5:9], {2: 0})
    lost = means(tl.evaluate_identity(labels, truth))
    assert (lost["Frag"], lost["IDSW"], lost["CLR_FN"]) == (1, 0, 4)
    labels[9:] = renamed(labels[9:], {2: 5})
    changed = means(tl.evaluate_identity(labels, truth))
    assert (changed["Frag"], changed["IDSW"], changed["IDTP"]) == (1, 1, 12 + 5)


def test_overlaps_of_exact_twentieths_reach_their_threshold() -> None:
    truth = np.zeros((10, 10, 10), np.uint8)
    truth[:, 0] = 1
    labels = truth.copy()
    for t in range(10):
        labels[t, 0, 10 - t :] = 0  # intersection over union of 1 - t / 10
    tp = tl.evaluate_identity(labels, truth)["TP"].values
    assert tp.tolist() == [sum(1 - t / 10 >= k / 20 - 1e-9 for t in range(10)) for k in range(1, 20)]


@pytest.mark.parametrize("seen", ["labels", "truth", "neither"])
def test_nothing_to_match(seen: str) -> None:
    truth, labels = (scene() * (seen == name) for name in ("truth", "labels"))
    found = means(tl.evaluate_identity(labels, truth))
    assert [found[name] for name in ("HOTA", "DetA", "AssA", "IDF1", "MOTA", "MOTP")] == [0] * 6
    assert found["LocA"] == 1


def test_frames_without_detections_are_passed_over() -> None:
    truth, labels = scene(), scene()
    labels[4:6] = 0
    found = means(tl.evaluate_identity(labels, truth))
    assert (found["Frag"], found["CLR_FN"], found["IDSW"]) == (0, 4, 0)


def test_clips_are_combined_by_their_counts() -> None:
    swapped, lost = scene(), scene(6)
    swapped[6:] = renamed(swapped[6:], {1: 2, 2: 1})
    lost[2:] = renamed(lost[2:], {2: 0})
    each = [tl.evaluate_identity(swapped, scene()), tl.evaluate_identity(lost, scene(6))]
    both = tl.combine_identity(xr.concat(each, "clip"))
    one, other = (float(scores["TP"][0]) for scores in each)
    assert float(both["IDSW"]) == 2
    assert float(both["IDF1"]) == pytest.approx((12 + 8) / (12 + 8 + 0.5 * (12 + 4 + 12)))
    weighted = (each[0]["AssA"] * one + each[1]["AssA"] * other) / (one + other)
    np.testing.assert_allclose(both["AssA"], weighted)
    np.testing.assert_allclose(both["HOTA"], np.sqrt(both["DetA"] * both["AssA"]))


def test_frames_are_matched_by_their_labels() -> None:
    truth = xr.DataArray(scene(), dims=("frame", "y", "x"), coords={"frame": range(12)})
    backwards = truth.isel(frame=slice(None, None, -1))
    xr.testing.assert_equal(tl.evaluate_identity(backwards, truth), tl.evaluate_identity(truth, truth))
    with pytest.raises(tl.TedlensError, match="differ along frame"):
        tl.evaluate_identity(truth.assign_coords(frame=range(1, 13)), truth)


def test_identity_asks_whose_label_most_pixels_have() -> None:
    truth, labels = scene(4), scene(4)
    labels[1, BIG, 2:6] = 2  # half of it is called 2
    labels[2, BIG, 2:7] = 2
    labels[3] = 0
    truth[:, 0, :19] = 3  # too small to ask about
    identity = tl.evaluate(labels, truth, protocol="all")["identity"]
    assert identity.sel(object=1).values.tolist() == [1, 0.5, 0, 0]
    assert identity.sel(object=3).isnull().all()


def test_evaluate_gives_the_figures_of_the_scored_frames() -> None:
    clip = tl.datasets.similar(seed=3)
    assert clip.masks is not None
    labels = np.roll(clip.masks, 2, axis=2)
    labels[8:] = np.array([0, 2, 1], np.uint8)[labels[8:]]  # from there on taken for one another
    scores = tl.evaluate(labels, clip.masks)
    alone = tl.evaluate_identity(labels[1:-1], clip.masks[1:-1])
    for name in ("HOTA", "DetA", "AssA", "IDF1"):
        assert scores[name].dims == ()
        assert float(scores[name]) == pytest.approx(float(alone[name].mean()), abs=1e-15)
    right = tl.evaluate(np.roll(clip.masks, 2, axis=2), clip.masks)
    assert float(right["DetA"]) == pytest.approx(float(scores["DetA"]))
    assert float(right["AssA"]) > 1.5 * float(scores["AssA"])


def test_frames_that_are_not_annotated_are_left_out() -> None:
    clip = tl.datasets.similar(seed=3)
    assert clip.masks is not None
    truth = clip.masks.copy()
    truth[2:12] = 255
    labels = np.where(np.arange(len(truth))[:, None, None] < 12, 0, clip.masks).astype(np.uint8)
    assert float(tl.evaluate(labels, truth)["HOTA"]) < 1
    truth[1] = 255
    assert float(tl.evaluate(labels, truth)["HOTA"]) == pytest.approx(1)


def test_association_is_swept_drawn_and_tabled(tmp_path: Path) -> None:
    clips = [tl.datasets.similar(seed=seed)[:4] for seed in (3, 4)]
    kept = tl.sweep(clips, motion="mini", tau=[100, 600], blocks=["up_2"], store=tmp_path / "s.zarr", progress=False)
    assert set(kept["AssA"].dims) == {"clip", "block", "tau", "seed"}
    xr.testing.assert_identical(kept, tl.sweep(clips, motion="mini", tau=[100, 600], blocks=["up_2"], progress=False))
    xr.testing.assert_equal(kept["AssA"], tl.open_sweep(tmp_path / "s.zarr")["AssA"])
    assert tl.plots.tau_curve(kept, metric="AssA").layout.yaxis.title.text == "AssA (%)"
    assert tl.plots.main_table(kept, metric="HOTA").shape == (2, 2)
