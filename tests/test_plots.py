"""Figures: pure functions of labelled results, whose traces hold the numbers that were asked for."""

from __future__ import annotations

import re
import warnings
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from PIL import Image
from sklearn.decomposition import PCA

import tedlens as tl
from tedlens.analysis import clip_statistics, pca
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.plots import export, overlay, pca_map, save_figures, tau_curve
from tedlens.plots.printing import printed

KINDS = ["motion", "appearance", "fused"]
COLOURS = {"motion": "#D55E00", "appearance": "#0072B2", "fused": "#009E73"}


@pytest.fixture(scope="module")
def clip() -> Clip:
    return tl.datasets.similar(0, frames=5, size=(16, 24))


@pytest.fixture(scope="module")
def feats() -> xr.DataTree:
    rng = np.random.default_rng(0)

    def features(channels: int, cells: tuple[int, int]) -> xr.Dataset:
        values = rng.normal(size=(2, 2, 5, channels, *cells)).astype(np.float32)
        coords = {"tau": [600, 100], "seed": [4, 7], "frame": range(5), "sigma": ("tau", [2.0, 0.5])}
        return xr.Dataset(
            {"features": (("tau", "seed", "frame", "channel", "y", "x"), values)},
            coords={**coords, "y": 2.0 * np.arange(cells[0]), "x": 2.0 * np.arange(cells[1])},
        )

    return xr.DataTree.from_dict({"up_0": features(4, (2, 3)), "up_1": features(6, (4, 6))})


def one_sentence(caught: pytest.ExceptionInfo[TedlensError], *named: str) -> None:
    message = str(caught.value)
    assert all(name in message for name in named), message
    assert message.endswith(".")
    assert ". " not in message.replace("xr.concat(..., ", "")
    assert "\n" not in message


# --- tau_curve --------------------------------------------------------------------------------------


def scores_of(kinds: list[str]) -> xr.Dataset:
    """Scores over features, tau (unsorted), clip, seed, object and frame."""
    values = np.random.default_rng(3).random((len(kinds), 2, 3, 2, 2, 4))
    axes = ("features", "tau", "clip", "seed", "object", "frame")
    coords = {"features": kinds, "tau": [900, 100], "clip": ["a", "b", "c"], "seed": [0, 1]}
    return xr.Dataset({name: (axes, values**power) for power, name in enumerate(("J", "F", "JF"), 1)}, coords=coords)


def lines_and_bands(figure: go.Figure) -> tuple[list[go.Scatter], list[go.Scatter]]:
    return [t for t in figure.data if t.fill is None], [t for t in figure.data if t.fill == "toself"]


@pytest.mark.parametrize("metric", ["J", "F", "JF"])
def test_tau_curve_draws_means_over_clips_with_their_standard_errors(metric: str) -> None:
    scores = scores_of(KINDS)
    lines, bands = lines_and_bands(tau_curve(scores, metric=metric))
    assert len(lines) == len(bands) == 3
    for number, (line, band) in enumerate(zip(lines, bands, strict=True)):
        for place, tau in enumerate((100, 900)):  # sorted, whatever the order in the scores
            each = scores[metric].values[number, {900: 0, 100: 1}[tau]].mean(axis=(1, 2, 3))
            mean = sum(each) / 3
            error = (sum((e - mean) ** 2 for e in each) / 2) ** 0.5 / 3**0.5
            assert line.x[place] == tau
            assert line.y[place] == pytest.approx(100 * mean)
            assert line.customdata[place] == pytest.approx(100 * error)
            assert band.y[place] == pytest.approx(100 * (mean + error))
            assert band.y[3 - place] == pytest.approx(100 * (mean - error))
        np.testing.assert_array_equal(band.x, [100, 900, 900, 100])


@pytest.mark.parametrize("kinds", [KINDS, KINDS[::-1], ["fused"], ["appearance", "motion"]])
def test_motion_appearance_and_fused_keep_their_colours(kinds: list[str]) -> None:
    lines, bands = lines_and_bands(tau_curve(scores_of(kinds)))
    assert [line.line.color for line in lines] == [COLOURS[kind] for kind in kinds]
    assert [line.name.split()[0] for line in lines] == kinds
    for line, band in zip(lines, bands, strict=True):
        rgb = ",".join(str(int(line.line.color[i : i + 2], 16)) for i in (1, 3, 5))
        assert band.fillcolor.startswith(f"rgba({rgb},")


def test_lines_of_other_axes_can_be_told_apart() -> None:
    scores = scores_of(["a"]).isel(features=0, drop=True)
    blocks = xr.concat([scores, scores / 2], dim=xr.IndexVariable("block", ["up_1", "up_2"]))
    lines, _ = lines_and_bands(tau_curve(blocks))
    assert [line.name for line in lines] == ["up_1", "up_2"]
    assert lines[0].line.color != lines[1].line.color


def test_one_clip_has_no_error() -> None:
    statistics = clip_statistics(scores_of(KINDS).isel(clip=0), "J")
    assert (statistics["error"] == 0).all()
    assert set(statistics["mean"].dims) == {"features", "tau"}


def test_tau_curve_needs_tau_and_a_known_metric() -> None:
    with pytest.raises(TedlensError) as caught:
        tau_curve(scores_of(KINDS).isel(tau=0))
    one_sentence(caught, "tau", "clip", "xr.concat")
    with pytest.raises(TedlensError) as caught:
        tau_curve(scores_of(KINDS), metric="G")
    one_sentence(caught, "metric='G'", "J, F, JF")


# --- pca --------------------------------------------------------------------------------------------


def planted(sign: float = 1.0) -> tuple[xr.DataArray, np.ndarray, np.ndarray]:
    """Features that are mostly one known direction, the direction, and how much of it each cell has."""
    rng = np.random.default_rng(5)
    direction = np.array([0.1, -0.9, 0.3, 0.3])
    direction /= -np.linalg.norm(direction)  # so that the largest is positive
    amount = rng.normal(size=(3, 4, 5))
    values = sign * 10 * amount[:, None] * direction[None, :, None, None] + 0.01 * rng.normal(size=(3, 4, 4, 5))
    coords = {"frame": [2, 1, 0], "y": [6.0, 4.0, 2.0, 0.0], "tau": 600}
    return xr.DataArray(values + 3, dims=("frame", "channel", "y", "x"), coords=coords), direction, amount


def test_pca_finds_a_planted_component() -> None:
    features, direction, amount = planted()
    found = pca(features, 2)
    np.testing.assert_allclose(found["loading"].values[0], direction, atol=0.01)
    assert found["explained"].values[0] > 0.99
    assert found["score"].dims == ("frame", "component", "y", "x")
    score = found["score"].sel(component=0).values
    np.testing.assert_allclose(score, 10 * (amount - amount.mean()), atol=0.1)


def test_pca_fixes_signs() -> None:
    plus, minus = pca(planted()[0], 3), pca(planted(-1.0)[0], 3)
    np.testing.assert_allclose(plus["loading"][0], minus["loading"][0], atol=0.01)
    for found in (plus, minus):
        loading = found["loading"].values
        assert (loading[np.arange(3), np.abs(loading).argmax(axis=1)] > 0).all()


def test_pca_loadings_are_orthonormal_and_give_the_scores() -> None:
    features, _, _ = planted()
    found = pca(features, 4)
    loading = found["loading"].values
    np.testing.assert_allclose(loading @ loading.T, np.eye(4), atol=1e-9)
    centred = features - features.mean(["frame", "y", "x"])
    np.testing.assert_allclose(np.einsum("fcyx,kc->fkyx", centred, loading), found["score"], atol=1e-4)
    assert found["explained"].sum() == pytest.approx(1)
    assert (np.diff(found["explained"]) <= 0).all()


def test_pca_keeps_the_coordinates(feats: xr.DataTree) -> None:
    features = feats["up_1"]["features"].sel(seed=7)
    score = pca(features)["score"]
    for name in ("tau", "sigma", "seed", "frame", "y", "x"):
        assert score[name].dims == features[name].dims
        np.testing.assert_array_equal(score[name], features[name])


@pytest.mark.parametrize("count", [0, 5])
def test_pca_refuses_more_components_than_channels(count: int) -> None:
    with pytest.raises(TedlensError) as caught:
        pca(planted()[0], count)
    one_sentence(caught, f"n_components={count}", "4 channels", "1 to 4")


def test_pca_refuses_more_components_than_cells() -> None:
    with pytest.raises(TedlensError) as caught:
        pca(planted()[0].isel(frame=[0], y=[0], x=[0, 1]), 3)
    one_sentence(caught, "n_components=3", "2 cells")


def test_pca_agrees_with_scikit_learn() -> None:
    features = xr.DataArray(
        np.random.default_rng(8).normal(5, 2, size=(2, 3, 7, 4, 5)), dims=("t", "f", "channel", "y", "x")
    )
    found = pca(features, 3)
    cells = features.values.transpose(0, 1, 3, 4, 2).reshape(-1, 7)
    model = PCA(3, svd_solver="full").fit(cells)
    signs = np.sign((model.components_ * found["loading"].values).sum(1))
    np.testing.assert_allclose(found["loading"], model.components_ * signs[:, None], atol=1e-9)
    np.testing.assert_allclose(found["explained"], model.explained_variance_ratio_, rtol=1e-9)
    scores = found["score"].transpose("t", "f", "y", "x", "component").values.reshape(-1, 3)
    np.testing.assert_allclose(scores, model.transform(cells) * signs, atol=1e-5)


def test_pca_of_objects_only_is_fitted_to_them() -> None:
    features, direction, _ = planted()
    masks = np.zeros((3, 8, 10), np.uint8)  # twice the grid
    masks[1, 2:6, 2:6], masks[2, 0:4, 4:8], masks[0] = 1, 2, 255  # frame 0 is not annotated
    chosen = [(1, y, x) for y in (1, 2) for x in (1, 2)] + [(2, y, x) for y in (0, 1) for x in (2, 3)]
    other = np.array([1.0, 0, 0, 0])
    values = features.values.copy()
    for place in chosen:
        values[place[0], :, place[1], place[2]] = 3 + other * np.random.default_rng(place).normal()
    features = features.copy(data=values)
    found = pca(features, 1, masks=masks)
    np.testing.assert_allclose(np.abs(found["loading"][0]), other, atol=1e-9)
    assert found["score"].notnull().all()
    assert found["score"].sizes == {"frame": 3, "component": 1, "y": 4, "x": 5}
    assert np.abs(pca(features, 1)["loading"][0].values @ direction) > 0.99
    several = pca(features.expand_dims(tau=[1, 2]), 1, masks=masks)
    np.testing.assert_allclose(several["score"].isel(tau=1), found["score"], atol=1e-6)


def test_pca_holds_a_frame_at_a_time(feats: xr.DataTree, tmp_path: Path) -> None:
    with xr.open_datatree(tl.save(feats, tmp_path / "feats.zarr"), engine="zarr", consolidated=False) as stored:
        lazy = stored["up_1"]["features"]
        found = pca(lazy)
        assert not lazy._in_memory
    xr.testing.assert_allclose(found, pca(feats["up_1"]["features"]), atol=1e-5)


def test_pca_refuses_masks_that_do_not_fit() -> None:
    with pytest.raises(TedlensError) as caught:
        pca(planted()[0], masks=np.zeros((2, 8, 10), np.uint8))
    one_sentence(caught, "(2, 8, 10)", "'frame': 3")
    with pytest.raises(TedlensError) as caught:
        pca(planted()[0], masks=np.zeros((3, 8, 10), np.uint8))
    one_sentence(caught, "no object")


# --- pictures ---------------------------------------------------------------------------------------


def images(figure: go.Figure) -> list[np.ndarray]:
    """The pictures' pixels, which plotly keeps as PNG in a data URI."""
    data = [b64decode(trace.source.split(",", 1)[1]) for trace in figure.data]
    return [np.asarray(Image.open(BytesIO(png)).convert("RGB")) for png in data]


def test_pca_map_has_a_picture_for_each_row_and_frame(clip: Clip, feats: xr.DataTree) -> None:
    figure = pca_map(feats, clip, frames=[0, 2, 4])
    assert [trace.type for trace in figure.data] == ["image"] * 9  # the clip and two taus
    shown = images(figure)
    np.testing.assert_array_equal(shown[1], clip.frames[2])
    assert shown[3].shape == (4, 6, 3)  # the last block
    assert [a.text for a in figure.layout.annotations if "τ" in a.text] == ["τ = 600", "τ = 100"]
    assert len(pca_map(feats, clip, tau=100).data) == 2 * 5
    assert images(pca_map(feats, clip, block="up_0", frames=[0]))[1].shape == (2, 3, 3)
    assert len(pca_map(feats["up_0"]["features"].sel(tau=600, seed=4), clip, frames=[1]).data) == 2


def test_pca_map_takes_the_last_block_of_the_model(clip: Clip, feats: xr.DataTree) -> None:
    """Whatever the order of the groups, which is any in a store."""
    turned = xr.DataTree.from_dict({name: feats[name].to_dataset() for name in ("up_1", "up_0")})
    turned.attrs["blocks"] = ["up_0", "up_1"]
    assert images(pca_map(turned, clip, frames=[0]))[1].shape == (4, 6, 3)


def test_pca_map_shares_one_basis_over_frames(clip: Clip, feats: xr.DataTree) -> None:
    features = feats["up_1"]["features"].copy(deep=True)
    features[{"frame": 4}] = features.isel(frame=1).values
    shown = images(pca_map(features, clip, tau=100, seed=7))[5:]
    np.testing.assert_array_equal(shown[4], shown[1])  # the same features, the same colours
    score = pca(features.sel(tau=100, seed=7))["score"].transpose("frame", "y", "x", "component").values
    low, high = np.percentile(score, [1, 99], axis=(0, 1, 2))
    expected = np.round(255 * np.clip((score - low) / (high - low), 0, 1))
    np.testing.assert_allclose(np.stack(shown).astype(float), expected, atol=1)
    few = images(pca_map(features, clip, tau=100, seed=7, frames=[3]))  # whichever frames are shown
    np.testing.assert_array_equal(few[1], shown[3])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"block": "up_9"}, ("block 'up_9'", "up_0, up_1")),
        ({"tau": 500}, ("tau=500", "600, 100")),
        ({"tau": [600, 1]}, ("tau=1", "600, 100")),
        ({"seed": 5}, ("seed=5", "4, 7")),
        ({"frames": [0, 5]}, ("frames=[0, 5]", "0 to 4")),
        ({"frames": []}, ("frames=[]", "0 to 4")),
    ],
)
def test_pca_map_names_what_is_unknown(clip: Clip, feats: xr.DataTree, wrong: Any, named: tuple[str, ...]) -> None:
    with pytest.raises(TedlensError) as caught:
        pca_map(feats, clip, **wrong)
    one_sentence(caught, *named)


def test_pca_map_needs_the_clip_that_was_probed(clip: Clip, feats: xr.DataTree) -> None:
    with pytest.raises(TedlensError) as caught:
        pca_map(feats["up_0"]["features"].isel(frame=slice(3)), clip)
    one_sentence(caught, "3 frames", "of 5")


def test_overlay_tints_the_objects(clip: Clip) -> None:
    assert clip.masks is not None
    shown = images(overlay(clip, clip.masks, frames=[1, 3]))
    assert len(shown) == 2
    for image, t in zip(shown, (1, 3), strict=True):
        frame, mask = np.asarray(clip.frames[t]), np.asarray(clip.masks[t])
        assert image.shape == frame.shape
        assert (image[mask > 0] != frame[mask > 0]).any()
    assert len(overlay(clip, xr.DataArray(clip.masks, dims=("frame", "y", "x"))).data) == 5


def test_overlay_refuses_labels_of_another_shape(clip: Clip) -> None:
    assert clip.masks is not None
    for labels, shape in ((clip.masks[:, :8], "(5, 8, 24)"), (clip.masks[0], "(16, 24)")):
        with pytest.raises(TedlensError) as caught:
            overlay(clip, labels)
        one_sentence(caught, shape, "(5, 16, 24)", repr(clip.name))


# --- export -----------------------------------------------------------------------------------------


@pytest.fixture
def figure() -> go.Figure:
    return tau_curve(scores_of(["motion"]))


def test_without_chrome_only_html_is_written(
    tmp_path: Path, figure: go.Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "chrome_found", lambda: False)
    with pytest.warns(UserWarning, match=r"chromium.*plotly_get_chrome"):
        written = save_figures({"one": figure, "two": figure}, tmp_path / "new")
    assert written == [tmp_path / "new" / "one.html", tmp_path / "new" / "two.html"]
    assert sorted((tmp_path / "new").iterdir()) == sorted(written)
    text = written[0].read_text(encoding="utf-8")
    assert len(text) > 1_000_000  # plotly.js is inside: it opens without network
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert save_figures({"one": figure}, tmp_path, formats=()) == [tmp_path / "one.html"]


def test_with_chrome_every_format_is_written(tmp_path: Path, figure: go.Figure) -> None:
    if not export.chrome_found():
        pytest.skip("no Chrome on this machine, so only HTML can be written")
    # Given as an iterator, which can be read only once.
    written = save_figures({"one": figure, "two": figure}, tmp_path, iter(("png", "svg", "pdf")))
    assert {p.name for p in written} == {
        f"{n}.{kind}" for n in ("one", "two") for kind in ("html", "png", "svg", "pdf")
    }
    assert all(path.stat().st_size > 0 for path in written)
    with Image.open(tmp_path / "two.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (2 * figure.layout.width, 2 * figure.layout.height)
        assert np.ptp(np.asarray(picture.convert("L"))) > 100
    assert b"<svg" in (tmp_path / "one.svg").read_bytes()[:500]
    assert (tmp_path / "one.pdf").read_bytes().startswith(b"%PDF")


def test_a_chrome_that_does_not_run_is_none(tmp_path: Path, figure: go.Figure, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "chrome"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(broken))
    with pytest.warns(UserWarning, match=r"does not run.*HTML only.*plotly_get_chrome"):
        written = save_figures({"one": figure}, tmp_path / "new")
    assert written == list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "one.html"]


def test_notebooks_are_live_or_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "chrome_found", lambda: True)
    assert export.notebook_renderer() == "plotly_mimetype+png"
    assert export.notebook_renderer(live=False) == "png"
    monkeypatch.setattr(export, "chrome_found", lambda: False)
    assert export.notebook_renderer(live=False) == "plotly_mimetype"


def test_a_chrome_that_never_answers(tmp_path: Path, figure: go.Figure, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = tmp_path / "chrome"
    silent.write_text("#!/bin/sh\nexec sleep 20\n")
    silent.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(silent))
    monkeypatch.setattr("tedlens.plots.export.START_LIMIT", 1)
    monkeypatch.setattr("tedlens.plots.export.PICTURE_LIMIT", 0.1)
    with pytest.warns(UserWarning, match="does not answer, so figures were saved as HTML only"):
        assert save_figures({"one": figure}, tmp_path / "out") == [tmp_path / "out" / "one.html"]


def test_one_figure_is_saved_as_it_is(tmp_path: Path, figure: go.Figure) -> None:
    assert save_figures(figure, tmp_path, formats=()) == [tmp_path / "figure.html"]
    for wrong in ([figure], {"a": 3}, "figure"):
        with pytest.raises(TedlensError, match="holds no figures by name"):
            save_figures(wrong, tmp_path)  # type: ignore[arg-type]


def test_overlay_takes_labels_by_their_frames() -> None:
    clip = tl.datasets.similar(0, frames=6, size=16)
    assert clip.masks is not None
    labels = xr.DataArray(clip.masks, dims=("frame", "y", "x"), coords={"frame": range(6)}, name="labels")
    whole = tl.plots.overlay(clip, clip.masks, frames=[2, 4])
    for given in (labels, labels.to_dataset(), labels.isel(frame=slice(None, None, -1)), labels.sel(frame=[2, 4, 5])):
        drawn = tl.plots.overlay(clip, given, frames=[2, 4])
        assert [trace.source for trace in drawn.data] == [trace.source for trace in whole.data]
    with pytest.raises(TedlensError, match="frame=3 has no labels; choose from 2, 4, 5"):
        tl.plots.overlay(clip, labels.sel(frame=[2, 4, 5]), frames=[3])
    with pytest.raises(TedlensError, match="do not fit clip"):
        tl.plots.overlay(clip, labels.assign_coords(frame=range(3, 9)))


@pytest.mark.parametrize("call", ["pca", "pca_map", "similarity", "object_features", "fuse"])
def test_features_that_are_nan_are_said(call: str) -> None:
    clip = tl.datasets.similar(0, frames=3, size=16)
    values = np.random.default_rng(0).normal(size=(1, 1, 3, 8, 4, 4)).astype(np.float32)
    values[0, 0, 1, 2, 0, 0] = np.nan
    features = xr.DataArray(
        values,
        dims=("tau", "seed", "frame", "channel", "y", "x"),
        coords={"tau": [100], "seed": [0], "frame": range(3)},
        attrs={"model": "m", "block": "up_2", "dtype": "float16"},
    )
    one = features.isel(tau=0, seed=0)
    calls = {
        "pca": lambda: tl.analysis.pca(one),
        "pca_map": lambda: tl.plots.pca_map(features, clip),
        "similarity": lambda: tl.analysis.similarity(one.assign_coords(y=range(4), x=range(4)), frame=0, y=1, x=1),
        "object_features": lambda: tl.analysis.object_features(features, clip),
        "fuse": lambda: tl.fuse(one, one),
    }
    with pytest.raises(TedlensError, match=r"NaN or infinite values \(model m, block up_2.*dtype='bfloat16'"):
        calls[call]()


# --- for print --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "millimetres"), [("column", 82.55), ("text", 139.7), (120, 120)])
def test_a_figure_for_print_has_its_width_and_its_text_its_size(width: Any, millimetres: float) -> None:
    figure = tau_curve(scores_of(KINDS))
    before = figure.to_json()
    laid_out, scale = printed(figure, width, font_size=9)
    assert laid_out.layout.width * scale == pytest.approx(millimetres * 96 / 25.4)
    assert laid_out.layout.font.size * scale == pytest.approx(9 * 96 / 72)
    assert figure.to_json() == before


def test_a_legend_beside_a_plot_goes_beneath_where_a_column_has_no_room_for_it() -> None:
    names = [f"down_{number}" for number in range(8)]
    scores = xr.Dataset(
        {name: (("block", "tau", "object", "frame"), np.full((8, 3, 1, 2), 0.5)) for name in ("J", "F", "JF")},
        {"block": names, "tau": [0, 500, 900], "object": [1], "frame": [0, 1]},
    )
    figure = tl.plots.tau_curve(scores)
    assert (figure.layout.legend.orientation, figure.layout.legend.xref) == ("v", "container")
    wide, _ = printed(figure, "text")
    assert wide.layout.legend.orientation == "v"
    narrow, _ = printed(figure, "column")
    layout = narrow.layout
    assert (layout.legend.orientation, layout.legend.yref, layout.legend.y) == ("h", "container", 0)
    assert layout.width - layout.margin.l - layout.margin.r > 240
    # The plot keeps its height.
    assert layout.height - layout.margin.b == figure.layout.height - figure.layout.margin.b


@pytest.mark.skipif(not export.chrome_found(), reason="no Chrome")
def test_a_pdf_for_print_is_as_wide_as_it_says(tmp_path: Path) -> None:
    save_figures({"curve": tau_curve(scores_of(KINDS))}, tmp_path, ["pdf", "png"], width="column")
    [box] = re.findall(rb"/MediaBox\s*\[([^\]]*)\]", (tmp_path / "curve.pdf").read_bytes())
    assert float(box.split()[2]) == pytest.approx(82.55 / 25.4 * 72, abs=0.5)  # points of 1/72 inch
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.width == pytest.approx(82.55 / 25.4 * 300, abs=3)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ({"width": "page"}, "width='page' is no width of print; choose 'column', 'text', or millimetres"),
        ({"width": 5}, "width=5 is no width"),
        ({"width": 100, "font_size": 1}, "font_size=1 is no size of print"),
    ],
)
def test_sizes_that_are_none(tmp_path: Path, size: dict[str, Any], words: str) -> None:
    with pytest.raises(TedlensError, match=words):
        save_figures(tau_curve(scores_of(KINDS)), tmp_path / "out", **size)
    assert not (tmp_path / "out").exists()
