"""The explorers without a browser: what their controls show, from stored results alone, and what they say."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import IPython
import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from stored_results import TAUS, labelled, store_all, tree_of

import tedlens as tl
from tedlens.clip import Clip
from tedlens.plots import export

ipywidgets = pytest.importorskip("ipywidgets")
pytest.importorskip("anywidget")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Clip]:
    folder = tmp_path_factory.mktemp("stored")
    return folder, store_all(folder)


def traces(figure: Any, kind: str) -> list[Any]:
    return [trace for trace in figure.data if trace.type == kind]


def sentence(explorer: Any) -> str:
    return explorer.message.value.removeprefix("<b>").removesuffix("</b>")


# --- what is shown ----------------------------------------------------------------------------------


def test_pca_explorer_shows_the_chosen_cell_and_frame(stored: tuple[Path, Clip]) -> None:
    folder, clip = stored
    explorer = tl.widgets.pca_explorer(folder / "feats.zarr", clip)
    assert (explorer.block.value, explorer.tau.value, sentence(explorer)) == ("up_2", 100, "")
    explorer.tau.value, explorer.frame.value = 900, 5
    expected = tl.plots.pca_map(labelled(clip, "up_2", TAUS).sel(seed=0), clip, tau=900, frames=[5])
    assert explorer.pictures.data[2].source == expected.data[1].source
    before = explorer.pictures.data[2].source
    for control, value in ((explorer.basis, "all τ"), (explorer.fit, "objects")):
        control.value = value
        assert explorer.pictures.data[2].source != before
        before = explorer.pictures.data[2].source
    assert {t.type for t in explorer.similarities.data} == {"image", "heatmap", "scatter"}
    assert len(traces(explorer.similarities, "heatmap")) == 6  # motion alone, in six frames


def test_all_taus_share_their_colours_only_where_asked(stored: tuple[Path, Clip]) -> None:
    """With two taus that hold the same features, but one shifted, one basis for both shows the shift."""
    _, clip = stored
    one = labelled(clip, "up_2", [100])
    other = (one + 3).assign_coords(tau=[600])
    feats = xr.concat([one, other], "tau", combine_attrs="override")
    explorer = tl.widgets.pca_explorer(tree_of({"up_2": feats}), clip)
    shown = {}
    for basis in ("this τ", "all τ"):
        for tau in (100, 600):
            explorer.basis.value, explorer.tau.value = basis, tau
            shown[basis, tau] = explorer.pictures.data[2].source
    assert shown["this τ", 100] == shown["this τ", 600]
    assert shown["all τ", 100] != shown["all τ", 600]


def test_a_click_shows_where_the_pixel_is_found_again(stored: tuple[Path, Clip]) -> None:
    folder, clip = stored
    explorer = tl.widgets.pca_explorer(folder / "feats.zarr", clip, appearance=folder / "appearance.zarr")
    explorer.tau.value, explorer.frame.value, explorer.lam.value = 600, 3, 0.2
    explorer.look_for(None, 20, 41)
    features = labelled(clip, "up_2", TAUS).sel(tau=600, seed=0)
    appearance = labelled(clip, "up_2", [51], seed=7).isel(tau=0, seed=0)
    expected = tl.analysis.similarity(features, appearance, frame=3, y=41, x=20, lam=0.2)
    maps = traces(explorer.similarities, "heatmap")
    np.testing.assert_allclose(maps[-1].z, expected.sel(part="fused", frame=7), atol=1e-6)
    explorer.lam.value = 1
    maps = traces(explorer.similarities, "heatmap")
    np.testing.assert_allclose(maps[-1].z, expected.sel(part="motion", frame=7), atol=1e-6)


def test_pca_explorer_reads_only_what_it_shows(stored: tuple[Path, Clip]) -> None:
    folder, clip = stored
    explorer = tl.widgets.pca_explorer(folder / "feats.zarr", clip)
    for tau in TAUS:
        explorer.tau.value = tau
    assert explorer.features.cache_info().currsize == 2  # of the three that were shown
    assert not explorer.feats["up_2"]["features"]._in_memory


def test_tau_explorer_opens_what_is_behind_a_point(stored: tuple[Path, Clip]) -> None:
    folder, clip = stored
    explorer = tl.widgets.tau_explorer(
        folder / "scores.zarr", clip=clip, labels=folder / "labels.zarr", feats=folder / "feats.zarr"
    )
    assert explorer.opened.children == ()
    explorer.x.value, explorer.metric.value = "log_snr", "J"
    line = next(t for t in explorer.curves.data if t.name == "up_1")
    explorer.open_point(line, line.x[1], line.y[1])  # 600, whatever the axis
    labels = xr.open_zarr(folder / "labels.zarr", consolidated=False)["labels"]
    expected = tl.plots.tracks(labels.sel(tau=600, block="up_1"), clip)
    assert [t.source for t in explorer.track.data] == [t.source for t in expected.data]
    assert explorer.opened.children[1:] == (explorer.track, explorer.pca)
    explorer.open_point(explorer.map.data[0], "900", "up_2")
    expected = tl.plots.tracks(labels.sel(tau=900, block="up_2"), clip)
    assert [t.source for t in explorer.track.data] == [t.source for t in expected.data]


def test_tau_explorer_has_a_control_for_every_further_axis(stored: tuple[Path, Clip]) -> None:
    folder, _ = stored
    scores = xr.open_zarr(folder / "scores.zarr", consolidated=False).load()
    more = xr.concat([scores, scores / 2], xr.Variable("lam", [0.0, 1.0]))
    kinds = xr.concat([more, more / 3], xr.Variable("features", ["motion", "fused"]))
    explorer = tl.widgets.tau_explorer(kinds)
    assert list(explorer.further) == ["lam"]
    of_one = explorer.map.data[0].z
    explorer.further["lam"].value = 1.0
    np.testing.assert_allclose(explorer.map.data[0].z, of_one / 2)
    explorer.kinds["features"].value = "fused"
    np.testing.assert_allclose(explorer.map.data[0].z, of_one / 6)
    explorer.open_point(explorer.map.data[0], "900", "up_2")
    assert "give tau_explorer() clip=, and labels= or feats=" in sentence(explorer)


def test_tau_explorer_of_several_models_on_their_common_axis() -> None:
    """Models at the same log-SNR have taus of their own; the map is of one, and of the blocks that it has."""
    clips = [tl.datasets.similar(seed, frames=4, size=32) for seed in (0, 1)]
    how: dict[str, Any] = {"motion": ["mini", "mini-svd"], "log_snr": [3.0, -3.0], "size": 32, "progress": False}
    scores = tl.sweep(clips, blocks={"mini": ["up_1", "up_2"], "mini-svd": ["up_2"]}, **how)
    explorer = tl.widgets.tau_explorer(scores, clip=clips[0], references=tl.reference_scores(clips, scores))
    assert explorer.x.value == "log_snr"
    assert len(explorer.curves.figure.layout.shapes) == 5  # place, colour, velocity, masks, ceiling
    assert list(explorer.map.data[0].y) == ["up_1", "up_2"]
    assert "of ceiling" in explorer.map.data[0].colorbar.title.text
    explorer.kinds["model"].value = "mini-svd"
    assert list(explorer.map.data[0].y) == ["up_2"]
    opened: list[dict[str, Any]] = []
    explorer._open = opened.append
    explorer.open_point(explorer.map.data[0], "-3", "up_2")
    line = next(t for t in explorer.curves.data if t.name and t.name.startswith("mini-svd"))
    explorer.open_point(line, -3.0, 0.0)
    tau = int(scores["tau"].sel(model="mini-svd", log_snr=-3.0))
    assert opened == [{"block": "up_2", "model": "mini-svd", "tau": tau}] * 2


def test_decomposition_explorer_follows_lambda(stored: tuple[Path, Clip]) -> None:
    folder, clip = stored
    matches = xr.open_zarr(folder / "matches.zarr", consolidated=False).load()
    explorer = tl.widgets.decomposition_explorer(folder / "matches.zarr", clip)
    for lam, frame in ((0.5, 1), (0.83, 1), (0.83, 4)):
        explorer.lam.value, explorer.frame.value = lam, frame
        voted = tl.analysis.votes(matches, lam)
        np.testing.assert_allclose(traces(explorer.maps, "heatmap")[0].z, voted["share"].sel(frame=frame))
        bars = traces(explorer.margins, "bar")
        np.testing.assert_allclose(bars[0].y, voted["object_margin"].sel(object=1, part="motion"))
    explorer.go_to(None, 6, 0)
    assert explorer.frame.value == 6


def test_track_explorer_goes_through_the_frames(stored: tuple[Path, Clip]) -> None:
    folder, clip = stored
    labels = xr.open_zarr(folder / "labels.zarr", consolidated=False)["labels"].sel(tau=600, block="up_2")
    explorer = tl.widgets.track_explorer(labels.to_dataset(), clip)
    explorer.go_to(None, 4, 50)
    assert explorer.frame.value == 4
    expected = tl.plots.tracks(labels, clip, frames=[4])
    assert [t.source for t in explorer.pictures.data] == [t.source for t in expected.data]
    assert [shape.x0 for shape in explorer.curves.plot.layout.shapes] == [4]  # one mark, not one for each frame seen


@pytest.fixture(scope="module")
def looking(stored: tuple[Path, Clip]) -> tuple[Any, list[xr.DataArray]]:
    """A model, and its attention over frames and within them at two noise levels."""
    model = tl.load_video_model("mini")
    layers = ("up_2.temp_attentions.1", "up_2.attentions.1")
    return model, [tl.attention(model, stored[1], tau, layer) for layer in layers for tau in (200, 800)]


def test_attention_explorer_shows_the_clicked_query(
    stored: tuple[Path, Clip], looking: tuple[Any, list[xr.DataArray]]
) -> None:
    _, clip = stored
    over_frames, within = looking[1][1], looking[1][3]
    explorer = tl.widgets.attention_explorer(looking[1], clip)
    assert clip.masks is not None
    assert clip.masks[explorer.frame.value][*map(int, explorer.pixel)] == 1  # the first query is on an object
    explorer.tau.value, explorer.frame.value = 800, 5
    explorer.look_from(None, 20, 41)
    [chart] = explorer.maps.data
    cell = over_frames.sel(query_frame=5).sel(y=41, x=20, method="nearest")
    np.testing.assert_allclose(np.asarray(chart.z, float), cell)
    explorer.layer.value, explorer.head.value = within.attrs["layer"], 3
    [chart] = explorer.maps.data
    cell = within.sel(frame=5, head=3).sel(y=41, x=20, method="nearest")
    np.testing.assert_allclose(np.asarray(chart.z, float), cell)
    explorer.head.value = "mean of all"
    cell = within.sel(frame=5).sel(y=41, x=20, method="nearest").mean("head")
    np.testing.assert_allclose(np.asarray(explorer.maps.data[0].z, float), cell, rtol=1e-6)
    assert [(mark.x[0], mark.y[0]) for mark in traces(explorer.query, "scatter")] == [(20, 41)]


def test_attention_explorer_asks_a_model(
    stored: tuple[Path, Clip], looking: tuple[Any, list[xr.DataArray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, clip = stored
    model, (_, over_frames, *_) = looking
    layers = ["up_2.attentions.1", "up_2.temp_attentions.1"]
    explorer = tl.widgets.attention_explorer(model, clip, tau=800, layers=layers)
    heads = tl.head_statistics(model, clip, 800, layers)
    compared = heads["accuracy"].sel(tau=800).dropna("layer", how="all")  # not those to tokens
    np.testing.assert_allclose(explorer.heads.data[0].z.astype(float), compared)
    explorer.choose_head(None, "2", over_frames.attrs["layer"])  # of the map of heads
    explorer.frame.value = 4
    explorer.look_from(None, 30, 8)
    cell = over_frames.sel(query_frame=4, head=[2]).sel(y=8, x=30, method="nearest")
    np.testing.assert_allclose(np.asarray(explorer.maps.data[0].z, float), cell, atol=1e-6)
    assert sentence(explorer) == ""
    shown = explorer.maps.data[0].z
    monkeypatch.setattr(explorer.source, "model", None)  # which is not asked twice for the same
    explorer.look_from(None, 20, 8)
    assert sentence(explorer) != ""
    explorer.look_from(None, 30, 8)
    assert (explorer.maps.data[0].z == shown).all()


def test_prediction_explorer_shows_input_and_predictions(
    stored: tuple[Path, Clip], looking: tuple[Any, list[xr.DataArray]]
) -> None:
    _, clip = stored
    model = looking[0]
    models = {"intact": model, "cut": tl.ablate(model, "temporal layers")}
    explorer = tl.widgets.prediction_explorer(models, clip, tau=[0, 800])
    explorer.go_to(None, 800, 20)
    explorer.frame.value = 5
    assert [note.text for note in explorer.pictures.figure.layout.annotations] == [
        "frame 5", "clip", "noisy input", "intact", "cut",
    ]  # fmt: skip
    shown = [picture.source for picture in explorer.pictures.data]
    predictions = {name: tl.predict(each, clip, tau=800) for name, each in models.items()}
    expected = tl.plots.prediction_strip(clip, predictions, frames=[5])
    assert [shown[0], *shown[2:]] == [picture.source for picture in expected.data]
    scores = tl.prediction_scores(models["cut"], clip, tau=[0, 800])
    line = next(line for line in explorer.curves.data if line.name == "cut")
    np.testing.assert_allclose(line.y, scores["psnr"].mean(["seed", "frame"]))
    noisy = explorer.shown[800]["noisy input"].frames.astype(float)
    clean = explorer.shown[0]["noisy input"].frames.astype(float)
    assert np.abs(noisy - clip.frames).mean() > 3 * np.abs(clean - clip.frames).mean()


# --- saving -----------------------------------------------------------------------------------------


def test_a_view_is_saved_as_it_is(stored: tuple[Path, Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, clip = stored
    monkeypatch.chdir(tmp_path)
    drawn: dict[str, export.Drawing] = {}

    def draw(wanted: Any) -> None:
        for each in wanted:
            each.path.write_text("drawn")
            drawn[each.path.name] = each

    monkeypatch.setattr(export, "_draw", draw)
    explorer = tl.widgets.pca_explorer(folder / "feats.zarr", clip)
    explorer.frame.value = 3
    for number in (1, 2):
        explorer.save.click()
        assert sentence(explorer).startswith(f"Saved in view-{number}: pictures.png, pictures.pdf, similarities.png")
        assert len(list((tmp_path / f"view-{number}").iterdir())) == 4
    assert [p.source for p in drawn["pictures.pdf"].figure.data] == [p.source for p in explorer.pictures.data]
    shown = drawn["pictures.pdf"].figure.layout.width
    assert shown > export.COLUMN
    assert shown * drawn["pictures.pdf"].scale == pytest.approx(export.COLUMN)


def test_without_chrome_a_view_is_not_saved(
    stored: tuple[Path, Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, clip = stored
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export, "chrome_found", lambda: False)
    explorer = tl.widgets.pca_explorer(folder / "feats.zarr", clip)
    explorer.save.click()
    assert "No Chrome was found, so nothing was saved; install" in sentence(explorer)
    assert list(tmp_path.iterdir()) == []


# --- what does not fit ------------------------------------------------------------------------------


def test_what_does_not_fit_is_said_in_the_widget(
    stored: tuple[Path, Clip], looking: tuple[Any, list[xr.DataArray]], tmp_path: Path
) -> None:
    folder, clip = stored
    model, maps = looking
    bare, widgets = Clip(clip.frames), tl.widgets
    feats, scores = folder / "feats.zarr", folder / "scores.zarr"
    labels = xr.open_zarr(folder / "labels.zarr", consolidated=False)["labels"]
    one_tau = xr.open_zarr(scores, consolidated=False).isel(tau=[0])
    for explorer, said in (
        (widgets.track_explorer(labels[0, 0], bare), "has no masks"),
        (widgets.track_explorer(labels, clip), "dimensions"),
        (widgets.track_explorer(scores, clip), "holds no labels"),
        (widgets.pca_explorer(feats, clip[:3]), "8 frames do not fit"),
        (widgets.pca_explorer(feats, clip, appearance=feats), "3 values of tau"),
        (widgets.pca_explorer(tmp_path, clip), "no Zarr store of features"),
        (widgets.tau_explorer(one_tau), "one noise level only"),
        (widgets.tau_explorer(folder / "matches.zarr"), "no scores among"),
        (widgets.decomposition_explorer(scores, clip), "no matches by motion and appearance"),
        (widgets.decomposition_explorer(folder / "matches.zarr", clip[:4]), "do not fit clip"),
        (widgets.attention_explorer(maps, Clip(clip.frames[::-1])), "whose frames are not those"),
        (widgets.attention_explorer(maps[0].isel(y=0), clip), "not of all heads and queries"),
        (widgets.attention_explorer(labels, clip), "no maps of attention"),
        (widgets.attention_explorer(model, clip), "tau= and layers="),
        (widgets.prediction_explorer(model, clip, tau=[1000]), "tau=1000 is not a training timestep"),
        (widgets.attention_explorer(model, clip, tau=10, layers="up_2.resnets.0"), "no attention in up_2.resnets.0"),
    ):
        assert said in sentence(explorer)
        assert sentence(explorer).endswith(".")


def test_a_point_that_was_not_kept_is_said(stored: tuple[Path, Clip]) -> None:
    folder, clip = stored
    labels = xr.open_zarr(folder / "labels.zarr", consolidated=False)["labels"].sel(tau=[100])
    explorer = tl.widgets.tau_explorer(folder / "scores.zarr", clip=clip, labels=labels)
    explorer.open_point(explorer.map.data[0], "900", "up_2")
    assert sentence(explorer) == "The labels have no tau 900; those of 100 were kept."
    explorer.open_point(explorer.map.data[0], "100", "up_2")
    assert sentence(explorer) == ""


def test_without_ipywidgets_a_sentence_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['anywidget'] = None\n"
        "import tedlens as tl\n"
        "try: tl.widgets\n"
        "except tl.TedlensError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Widgets need anywidget; install them with: pip install 'tedlens[notebook]'."


def test_a_closed_explorer_frees_what_it_holds(stored: tuple[Path, Clip]) -> None:
    folder, clip = stored
    before = len(ipywidgets.Widget.widgets)
    seen = []
    for _ in range(3):
        explorer: Any = tl.widgets.pca_explorer(folder / "feats.zarr", clip)
        explorer.frame.value = 1
        seen.append(weakref.ref(explorer.feats))
        explorer.close()
        assert not hasattr(explorer, "feats")
    gc.collect()
    assert [each() for each in seen] == [None] * 3
    assert len(ipywidgets.Widget.widgets) - before <= 3 * 12  # what plotly leaves


def test_a_cell_that_is_run_again_closes_what_it_made(
    stored: tuple[Path, Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, clip = stored
    shell = SimpleNamespace(execution_count=1)
    shell.kernel = SimpleNamespace(get_parent=lambda: {"metadata": {"cellId": "a"}})
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    first: Any = tl.widgets.pca_explorer(folder / "feats.zarr", clip)
    twin: Any = tl.widgets.pca_explorer(folder / "feats.zarr", clip)  # of the same run
    assert hasattr(first, "feats")
    shell.execution_count = 2
    again: Any = tl.widgets.pca_explorer(folder / "feats.zarr", clip)
    assert [hasattr(each, "feats") for each in (first, twin, again)] == [False, False, True]
    shell.kernel = SimpleNamespace(get_parent=lambda: {"metadata": {"cellId": "b"}})
    tl.widgets.pca_explorer(folder / "feats.zarr", clip)
    assert hasattr(again, "feats")


def test_figures_share_one_copy_of_plotly_js() -> None:
    from tedlens.widgets.plotly_once import Figure

    one, other = Figure(go.Figure(go.Scatter(y=[1, 2]))), Figure(go.Figure())
    script = one._script
    assert script is other._script
    assert len(script.source) > 1_000_000
    assert all(len(str(figure.get_state())) < 20_000 for figure in (one, other))
    script.close()  # as ipywidgets.Widget.close_all() does
    assert Figure(go.Figure())._script is not script
