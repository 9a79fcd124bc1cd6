"""What scores are read against: the same tracks and scores by hand, on the grids and with the settings of a sweep."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
import xarray as xr

import tedlens as tl
from tedlens.analysis.references import CEILING
from tedlens.plots.against import apart
from tedlens.ted import full_size_labels, grid_masks

NAMES = ["place", "colour", "velocity", "masks", CEILING]


def make_clip(seed: int, size: int = 32) -> tl.Clip:
    return tl.datasets.similar(seed, frames=5, size=size)


@pytest.fixture(scope="module")
def swept() -> tuple[list[tl.Clip], xr.Dataset]:
    """Two clips of two sizes, two blocks, two windows; the model sees all in 64 rows."""
    clips = [make_clip(0), make_clip(1, size=48)]
    how: dict[str, Any] = {"tau": [100, 600], "blocks": ["up_1", "up_2"], "radius": [2, 5], "top_k": 4, "size": 64}
    return clips, tl.sweep(clips, motion="mini", progress=False, **how)


@pytest.fixture(scope="module")
def against(swept: tuple[list[tl.Clip], xr.Dataset]) -> xr.Dataset:
    return tl.reference_scores(*swept)


def test_a_sweep_says_on_which_grids_it_was_scored(swept: tuple[list[tl.Clip], xr.Dataset]) -> None:
    scores = swept[1]
    assert scores["rows"].dims == ("clip", "block")
    assert scores["rows"].values.tolist() == scores["columns"].values.tolist() == [[8, 16], [8, 16]]
    assert scores["input_y"].values.tolist() == scores["input_x"].values.tolist() == [64, 64]


def test_they_are_tracks_like_any_other(swept: tuple[list[tl.Clip], xr.Dataset], against: xr.Dataset) -> None:
    clips, _ = swept
    assert against["J"].dims == ("features", "clip", "block", "radius", "object", "frame")
    assert against["features"].values.tolist() == NAMES
    assert against["AssA"].dims == ("features", "clip", "block", "radius")
    for clip in clips:
        assert clip.masks is not None
        for block, rows in (("up_1", 8), ("up_2", 16)):
            for name, features in tl.analysis.references(clip, (rows, rows)).items():
                for radius in (2, 5):
                    seen = features.assign_attrs(input_size=[64, 64])
                    labels = tl.propagate(seen, clip.masks, radius=radius, top_k=4)
                    by_hand = tl.evaluate(labels, clip.masks, objects=clip.objects)
                    found = against.sel(features=name, clip=clip.name, block=block, radius=radius)
                    for metric in ("JF", "identity", "HOTA"):
                        np.testing.assert_array_equal(found[metric], by_hand[metric])


def test_the_ceiling_is_the_truth_in_cells() -> None:
    """Each frame's shares of cells, enlarged as soft labels are; frames that are given stay as they are."""
    clip = make_clip(3)
    assert clip.masks is not None
    shares = tl.analysis.references(clip, (8, 8))["masks"].values
    labels = grid_masks(clip.masks, (8, 8), (16, 16), "argmax")
    by_hand = full_size_labels(torch.from_numpy(shares), (16, 16), (32, 32), "argmax").numpy()
    np.testing.assert_array_equal(labels[1:], by_hand[1:])
    np.testing.assert_array_equal(labels[0], clip.masks[0])
    fine = grid_masks(clip.masks, (32, 32), (32, 32))
    np.testing.assert_array_equal(fine, clip.masks)  # cells of one pixel show all there is


def test_an_object_that_enters_late_has_a_ceiling() -> None:
    masks = np.zeros((5, 12, 12), np.uint8)
    masks[0] = 255  # not annotated
    masks[1:, 2:5, 3:6] = 4
    masks[3:, 8:10, 8:11] = 9
    tracked = grid_masks(masks, (12, 12), (12, 12))
    np.testing.assert_array_equal(tracked, np.where(masks == 255, 0, masks))
    assert set(np.unique(grid_masks(masks, (2, 2), (12, 12), "argmax")[4])) == {
        0
    }  # no cell is an object's for the most part


def test_nothing_reaches_the_ceiling(swept: tuple[list[tl.Clip], xr.Dataset], against: xr.Dataset) -> None:
    mean = against["J"].mean(["object", "frame"])
    assert (mean.sel(features=CEILING) >= mean).all()
    scores = swept[1]["J"].mean(["object", "frame"])
    assert (mean.sel(features=CEILING) >= scores).all()
    coarse, fine = (mean.sel(features=CEILING, block=block) for block in ("up_1", "up_2"))
    assert (fine > coarse + 0.05).all()  # a grid of larger cells shows less, whatever its features hold


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda clips, scores: (clips, scores.sel(block="up_2")), "do not say on which grids"),
        (lambda clips, scores: (clips, scores.drop_vars("rows")), "do not say on which grids"),
        (
            lambda clips, scores: (clips[:1], scores),
            "The scores are of clips similar-cross-1, too, which were not given",
        ),
        (lambda clips, scores: ([make_clip(7)], scores), "None of the clips given is in the scores"),
        (
            lambda clips, scores: ([tl.Clip(c.frames[:3], c.masks[:3], name=c.name) for c in clips], scores),
            "has 3 frames and the scores have frame 3 of it",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(
    swept: tuple[list[tl.Clip], xr.Dataset], change: Any, words: str
) -> None:
    with pytest.raises(tl.TedlensError, match=words):
        tl.reference_scores(*change(*swept))


# --- in figures and tables ------------------------------------------------------------------------


def levels(figure: go.Figure) -> list[float]:
    """Heights of horizontal lines."""
    return sorted(shape.y0 for shape in figure.layout.shapes if shape.y0 == shape.y1)


def test_curves_show_them_on_the_finest_grid(swept: tuple[list[tl.Clip], xr.Dataset], against: xr.Dataset) -> None:
    scores = swept[1].sel(radius=2)
    means = 100 * against.sel(radius=2)["J"].mean(["object", "frame"]).mean("clip")
    both = tl.plots.tau_curve(scores, metric="J", references=against)
    assert levels(both) == pytest.approx(sorted(means.sel(block="up_2").values))
    said = [annotation.text for annotation in both.layout.annotations]
    assert "<i>on the grid of up_2:</i>" in said
    assert f"ceiling of the grid {float(means.sel(block='up_2', features=CEILING)):.0f}" in said
    one = tl.plots.tau_curve(scores.sel(block="up_1"), metric="J", references=against)
    assert levels(one) == pytest.approx(sorted(means.sel(block="up_1").values))
    heights = [annotation.y for annotation in one.layout.annotations]
    assert min(np.diff(heights)) > 0  # names do not lie on one another
    bars = tl.plots.setting_bars(swept[1].sel(block="up_2", tau=100), "radius", metric="J", references=against)
    assert len(levels(bars)) == len(NAMES)


def test_names_of_references_do_not_lie_on_one_another() -> None:
    assert apart([10, 20, 30], 5, 100) == [10, 20, 30]
    assert apart([10, 11, 12], 5, 100) == [10, 15, 20]
    assert apart([90, 98, 100, 100], 5, 100) == [85, 90, 95, 100]


def test_a_map_shows_shares_and_greys_what_tells_nothing(
    swept: tuple[list[tl.Clip], xr.Dataset], against: xr.Dataset
) -> None:
    scores = swept[1].sel(radius=2)
    means = 100 * against.sel(radius=2)["J"].mean(["object", "frame"]).mean("clip")
    mean = 100 * scores["J"].mean(["object", "frame", "seed"]).mean("clip").transpose("block", "tau")
    [heat] = tl.plots.tau_block_map(scores, metric="J", references=against).data
    np.testing.assert_allclose(heat.z, 100 * mean / means.sel(features=CEILING).values[:, None])
    np.testing.assert_allclose(heat.customdata, mean)
    assert "% of ceiling" in heat.colorbar.title.text
    near = against.where(against["features"] != "place", against.sel(features=CEILING))  # place alone comes near
    near = xr.where(against["block"] == "up_1", near, against, keep_attrs=True)
    figure = tl.plots.tau_block_map(scores, metric="J", references=near)
    [heat] = figure.data
    assert np.isnan(heat.z[0]).all()
    assert np.isfinite(heat.z[1]).all()
    assert [(s.y0, s.y1) for s in figure.layout.shapes if s.fillcolor == "#D9D9D9"] == [(-0.5, 0.5)]
    assert "place alone comes near the ceiling" in figure.layout.annotations[0].text


def test_many_layers_are_legible() -> None:
    names = [f"block_{number}.attn" for number in range(42)]
    rng = np.random.default_rng(0)
    axes = {"block": names, "tau": [100, 600], "clip": ["a", "b"], "seed": [0], "object": [1], "frame": [1]}
    scores = xr.Dataset({"JF": (list(axes), rng.random([len(each) for each in axes.values()]))}, axes)
    figure = tl.plots.tau_block_map(scores)
    assert list(figure.data[0].y) == names
    assert figure.layout.yaxis.dtick == 1  # every row has its name
    assert figure.layout.yaxis.tickfont.size * len(names) < figure.layout.height
    curves = tl.plots.tau_curve(scores)
    assert curves.layout.legend.orientation == "v"
    assert curves.layout.height > 20 * len(names)
    colours = [trace.line.color for trace in curves.data if trace.fill is None]
    assert len(set(colours)) == len(names)


def test_tables_have_them_below(swept: tuple[list[tl.Clip], xr.Dataset], against: xr.Dataset) -> None:
    scores = swept[1]
    table = tl.plots.main_table(scores, metric="J", columns="tau", references=against)
    assert table.attrs["references"] == len(NAMES) * 4
    means = 100 * against["J"].mean(["object", "frame"]).mean("clip")
    for tau in (100, 600):
        found = table.loc[("ceiling of the grid, up_2", 5), (tau, "mean")]
        assert found == pytest.approx(float(means.sel(features=CEILING, block="up_2", radius=5)))
    lines = tl.plots.latex_table(table).splitlines()
    assert any(r"\textbf" in line for line in lines)
    assert not any(r"\textbf" in line for line in lines if "ceiling" in line or "true" in line or "place" in line)
    one = tl.plots.main_table(scores.sel(radius=2, block="up_2", tau=100), metric="J", references=against)
    assert one.index.tolist() == ["J", "place", "colour", "true velocity", "true masks", "ceiling of the grid"]


def test_references_of_other_scores_are_refused(swept: tuple[list[tl.Clip], xr.Dataset], against: xr.Dataset) -> None:
    scores = swept[1]
    with pytest.raises(tl.TedlensError, match=r"The references have no clip similar-cross-1"):
        tl.plots.tau_curve(scores, references=against.isel(clip=[0]))
    with pytest.raises(tl.TedlensError, match="have an axis radius, and the scores do not say theirs"):
        tl.plots.tau_curve(scores.isel(radius=0, drop=True), references=against)
    with pytest.raises(tl.TedlensError, match="no features"):
        tl.plots.main_table(scores, references=scores)
    with pytest.raises(tl.TedlensError, match="no axis block"):
        tl.plots.tau_block_map(scores.sel(block="up_2"))
