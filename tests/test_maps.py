"""Maps of votes and similarities, tracks against the truth, and the main table."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr

import tedlens as tl
from tedlens.analysis import decomposition, similarity, swaps, votes
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.plots import latex_table, main_table, margin_curves, similarity_map, track_curves, tracks
from tedlens.plots.tables import plain_table

FRAMES = 6
GRID = (8, 8)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return tl.datasets.similar(0, frames=FRAMES, size=16)


def features(seed: int, channels: int = 6, grid: tuple[int, int] = GRID) -> xr.DataArray:
    values = np.random.default_rng(seed).normal(size=(FRAMES, channels, *grid)).astype(np.float32)
    step = 16 / grid[0]
    centres = (np.arange(grid[0]) + 0.5) * step - 0.5
    coords = {"frame": range(FRAMES), "y": centres, "x": centres}
    return xr.DataArray(values, dims=("frame", "channel", "y", "x"), coords=coords)


@pytest.fixture(scope="module")
def voted(clip: Clip) -> xr.Dataset:
    return votes(decomposition(features(0), features(1), clip.masks, radius=3), 0.6)


def maps_of(figure: go.Figure) -> list[go.Heatmap]:
    return [trace for trace in figure.data if trace.type == "heatmap"]


# --- decomposition ----------------------------------------------------------------------------------


def test_decomposition_shows_the_votes_of_its_frames(clip: Clip, voted: xr.Dataset) -> None:
    figure = tl.plots.decomposition(voted, clip, frames=[2, 5])
    share, lead, outcome, error = (maps_of(figure)[i : i + 2] for i in (0, 2, 4, 6))
    margin = voted["margin"].sel(part="motion") - voted["margin"].sel(part="appearance")
    for column, frame in enumerate((2, 5)):
        np.testing.assert_array_equal(share[column].z, voted["share"].sel(frame=frame))
        shown = np.array(lead[column].z, float)  # None, where there is no margin, becomes NaN
        np.testing.assert_array_equal(shown, margin.sel(frame=frame))
        np.testing.assert_array_equal(outcome[column].z, voted["outcome"].sel(frame=frame))
        np.testing.assert_array_equal(error[column].z, voted["error"].sel(frame=frame))
    assert (share[0].x0, share[0].dx) == (0.5, 2)  # cells lie over the clip's pixels
    # A colour for each number, in the order of the flags.
    for maps, name in ((outcome, "outcome"), (error, "error")):
        names = voted[name].attrs["flag_meanings"].split()
        assert len(maps[0].colorscale) == 2 * len(names)
        legend = [t.name.split()[0] for t in figure.data if t.type == "scatter" and t.name.split()[0] in names]
        assert set(legend) == set(names)
    shares = [float(t.name.split()[1]) for t in figure.data if t.legend == maps_legend(figure, "boundary")]
    assert sum(shares) == pytest.approx(100, abs=3)  # rounded each


def maps_legend(figure: go.Figure, name: str) -> str:
    return next(t.legend for t in figure.data if t.name and t.name.startswith(name))


def test_decomposition_without_truth_has_no_judgement(clip: Clip) -> None:
    assert clip.masks is not None
    found = votes(decomposition(features(0), features(1), clip.masks[0], radius=3), 0.6)
    figure = tl.plots.decomposition(found, clip)
    assert len(maps_of(figure)) == 2 * 5  # five frames have votes
    assert [t for t in figure.data if t.type == "scatter"] == []


def test_decomposition_needs_votes_and_their_clip(clip: Clip, voted: xr.Dataset) -> None:
    with pytest.raises(TedlensError, match=r"frames=\[0, 2\] hold the first.*1 to 5"):
        tl.plots.decomposition(voted, clip, frames=[0, 2])
    with pytest.raises(TedlensError, match="Votes in 5 frames do not fit"):
        tl.plots.decomposition(voted, clip[:4])


def test_margins_are_stacked_parts_with_their_sum(voted: xr.Dataset) -> None:
    figure = margin_curves(voted, frame=3)
    assert [a.text for a in figure.layout.annotations] == ["object 1", "object 2"]
    motion, appearance, total = (t for t in figure.data if t.xaxis == "x2")
    np.testing.assert_array_equal(motion.y, voted["object_margin"].sel(object=2, part="motion"))
    np.testing.assert_allclose(np.add(motion.y, appearance.y), total.y, rtol=1e-6)
    assert list(total.x) == [1, 2, 3, 4, 5]
    assert figure.layout.barmode == "relative"
    assert any(shape.x0 == shape.x1 == 3 for shape in figure.layout.shapes)
    with pytest.raises(TedlensError, match="only for the background"):
        margin_curves(voted.sel(object=[0]))


# --- similarity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("appearance_grid", [GRID, (4, 4)])
def test_similarity_is_the_cosine_of_fused_features(appearance_grid: tuple[int, int]) -> None:
    m, a = features(0), features(1, channels=4, grid=appearance_grid)
    found = similarity(m, a, frame=2, y=6.4, x=1.0, lam=0.3)
    assert (found.attrs["frame"], found.attrs["y"], found.attrs["x"]) == (2, 6.5, 0.5)
    fused = tl.fuse(m, a, lam=0.3).values
    one = fused[2, :, 3, 0]
    cosine = np.einsum("fcyx,c->fyx", fused, one) / np.linalg.norm(fused, axis=1) / np.linalg.norm(one)
    np.testing.assert_allclose(found.sel(part="fused"), cosine, atol=1e-6)
    assert float(found.sel(part="motion", frame=2, y=6.5, x=0.5)) == pytest.approx(1)
    alone = similarity(m, frame=2, y=6.4, x=1.0)
    np.testing.assert_allclose(alone.sel(part="motion"), found.sel(part="motion"), atol=1e-6)
    assert alone["part"].values.tolist() == ["motion"]


def test_similarity_needs_a_frame_that_is_there() -> None:
    with pytest.raises(TedlensError, match="frame=6 is not among the features'; choose from 0 to 5"):
        similarity(features(0), frame=6, y=0, x=0)


def test_similarity_map_marks_the_cell_and_its_best_matches(clip: Clip) -> None:
    found = similarity(features(0), features(1), frame=2, y=6.5, x=4.5)
    figure = similarity_map(found, clip, frames=[1, 2])
    drawn = maps_of(figure)
    assert len(drawn) == 3 * 2
    np.testing.assert_array_equal(drawn[3].z, found.sel(part="appearance", frame=2))
    marks = [t for t in figure.data if t.type == "scatter"]
    assert [t.marker.symbol for t in marks] == ["circle-open", *["x-thin", "circle-open"] * 3]
    assert all((t.x[0], t.y[0]) == (4.5, 6.5) for t in marks if t.marker.symbol == "circle-open")
    best = found.sel(part="fused", frame=1)
    assert float(best.sel(y=marks[5].y[0], x=marks[5].x[0])) == float(best.max())
    assert "frame 2" in [a.text for a in similarity_map(found, clip).layout.annotations]  # its own frame is shown


# --- tracks -----------------------------------------------------------------------------------------


def swapped_track(clip: Clip) -> xr.DataArray:
    """The truth, but from frame 3 on object 2 is called 1 and the other way round; in frame 5 object 1 is lost."""
    labels = np.array(clip.masks)
    late = labels[3:]
    late[...] = np.array([0, 2, 1], np.uint8)[late]
    labels[5][labels[5] == 1] = 0
    return tl.ted.label_masks(labels, np.arange(FRAMES), {})


def test_swaps_name_the_object_that_a_label_lies_on(clip: Clip) -> None:
    assert clip.masks is not None
    found = swaps(swapped_track(clip), clip.masks)
    assert found.sel(object=1).values.tolist() == [0, 0, 0, 2, 2, 0]
    assert found.sel(object=2).values.tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(TedlensError, match="labels have 6 frames and the truth 5"):
        swaps(swapped_track(clip), clip.masks[1:])
    with pytest.raises(TedlensError, match="holds no object"):
        swaps(swapped_track(clip), np.zeros_like(clip.masks))


def test_track_curves_mark_the_swaps(clip: Clip) -> None:
    assert clip.masks is not None
    labels = swapped_track(clip)
    scores = tl.evaluate(labels, clip.masks, protocol="all")
    figure = track_curves(scores, swaps(labels, clip.masks), frame=4)
    drawn = {trace.name: trace for trace in figure.data}
    np.testing.assert_allclose(drawn["J of object 1"].y, 100 * scores["J"].sel(object=1))
    np.testing.assert_allclose(drawn["F of object 2"].y, 100 * scores["F"].sel(object=2))
    marks = drawn["object 1 swapped"]
    assert (list(marks.x), list(marks.customdata)) == ([3, 4], [2, 2])
    assert figure.layout.shapes[0].x0 == 4
    few = track_curves(tl.evaluate(labels, clip.masks), swaps(labels, clip.masks))  # DAVIS leaves the last frame out
    assert list({t.name: t for t in few.data}["object 2 swapped"].x) == [3, 4]
    with pytest.raises(TedlensError, match="no J over object and frame"):
        track_curves(scores.mean("frame"))


def test_tracks_show_truth_over_track(clip: Clip) -> None:
    figure = tracks(swapped_track(clip), clip, frames=[1, 4])
    sources = [trace.source for trace in figure.data]
    assert sources[0] == sources[2]  # before the swap
    assert sources[1] != sources[3]
    with pytest.raises(TedlensError, match="no masks"):
        tracks(swapped_track(clip), Clip(clip.frames))
    with pytest.raises(TedlensError, match="do not fit masks"):
        tracks(swapped_track(clip), clip[:3])


# --- the main table ---------------------------------------------------------------------------------


def table_scores() -> xr.Dataset:
    values = np.random.default_rng(0).random((2, 2, 4, 2, 3))
    axes = ("features", "set", "clip", "object", "frame")
    coords = {"features": ["motion_only", "fused"], "set": ["identical", "A&B"], "clip": list("abcd")}
    return xr.Dataset({"J": (axes, values), "F": (axes, values), "JF": (axes, values)}, coords=coords)


def test_main_table_has_means_and_errors() -> None:
    scores = table_scores()
    table = main_table(scores, metric="J", columns="set")
    assert list(table.columns) == [(s, k) for s in ("identical", "A&B") for k in ("mean", "error")]
    assert list(table.index) == ["motion_only", "fused"]  # as they are swept
    each = 100 * scores["J"].sel(features="fused", set="A&B").mean(["object", "frame"]).values
    assert table.loc["fused", ("A&B", "mean")] == pytest.approx(each.mean())
    assert table.loc["fused", ("A&B", "error")] == pytest.approx(each.std(ddof=1) / 2)
    down = main_table(scores)
    assert down.shape == (4, 2)
    assert list(down.columns) == [("J&F", "mean"), ("J&F", "error")]
    assert main_table(scores.isel(features=0, set=0, drop=True)).shape == (1, 2)
    assert main_table(scores.isel(features=0, drop=True), columns="set").shape == (1, 4)
    with pytest.raises(TedlensError, match=r"columns='model' was not swept, but features, set"):
        main_table(scores, columns="model")


def test_names_with_letters_that_mean_something_to_latex() -> None:
    values = np.ones((1, 1, 1, 1))
    coords = {"block": [r"up_2 100% #1 ^a&b~{c}\input$"], "clip": ["x"], "object": [1], "frame": [1]}
    text = latex_table(main_table(xr.Dataset({"J": (tuple(coords), values)}, coords), metric="J"))
    name = r"up\_2 100\% \#1 \textasciicircum{}a\&b\textasciitilde{}\{c\}\textbackslash{}input\$"
    assert name in text


def test_a_single_clip_has_no_error() -> None:
    table = main_table(table_scores().isel(clip=[0]), columns="set")
    assert (table.xs("error", axis=1, level=1) == 0).all(axis=None)
    assert "±" not in plain_table(table).to_string()
    assert "pm" not in latex_table(table)
    assert plain_table(main_table(table_scores(), columns="set")).map(lambda text: "±" in text).all(axis=None)


def test_latex_table_sets_the_best_in_bold() -> None:
    table = main_table(table_scores(), columns="set")
    text = latex_table(table)
    best = table[("identical", "mean")].idxmax()
    row = next(line for line in text.splitlines() if line.startswith(best.replace("_", r"\_")))
    mean, error = table.loc[best, ("identical", "mean")], table.loc[best, ("identical", "error")]
    assert rf"\textbf{{{mean:.1f}}} $\pm$ {error:.1f}" in row
    assert text.count(r"\textbf") == 2  # one a column
    assert r"A\&B" in text
    assert r"\toprule" in text
