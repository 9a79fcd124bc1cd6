"""`tedlens figures`: all that stores allow, each figure with the numbers of the store; what is left out is said."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import tiny
import xarray as xr
from rich.console import Console

import tedlens as tl
from tedlens.cli import main, rich_table
from tedlens.figures import Made, write_figures
from tedlens.figures.drawing import draw_all
from tedlens.figures.stores import known_clips, open_sweeps, read_against
from tedlens.plots import export
from tedlens.plots.export import Drawing

CLIPS, TAUS = 6, [100, 500, 900]
SEEN = {"radius": 2, "top_k": 2, "progress": False}


def make_clip(number: int, frames: int = 6) -> tl.Clip:
    return tl.datasets.similar(number, frames=frames, size=16)


def sweep(store: Path, clips: int = CLIPS, frames: int = 6, **how: Any) -> None:
    tl.sweep([make_clip(number, frames) for number in range(clips)], store=store, **(SEEN | how))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Motion and appearance alone, fused, and two overlaps; and a grid file for the clips of the first three."""
    folder = tmp_path_factory.mktemp("stores")
    video, image = tiny.Toy(), tiny.Toy(window=None)
    blocks = list(video.blocks)
    sweep(folder / "motion.zarr", motion=video, tau=TAUS, blocks=blocks, keep="features")
    sweep(folder / "appearance.zarr", appearance=image, tau=[100, 500], blocks=blocks, keep="features", components=6)
    sweep(folder / "fused.zarr", 2, motion=video, appearance=image, tau=500, lam=[0, 0.5, 1], **{"radius": [1, 2]})
    for overlap in (0, 2):
        sweep(folder / f"overlap-{overlap}.zarr", 2, 10, motion=video, tau=500, overlap=overlap)
    lines = [f"  - similar: {{seed: {number}, frames: 6, size: 16}}" for number in range(CLIPS)]
    (folder / "grid.yaml").write_text("\n".join(["clips:", *lines, "tau: 500", ""]))
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTML alone, without a browser, and two probes to fit."""
    monkeypatch.setattr("tedlens.figures.drawing.TARGETS", ("position", "identity"))
    monkeypatch.setattr("tedlens.plots.save_figures", lambda *given, **how: export.save_figures(*given, (), **how))


def clips() -> list[tl.Clip]:
    return [make_clip(number) for number in range(CLIPS)]


def drawn(stores: Path, *names: str, given: Any = (), shown: str | None = None) -> tuple[dict[str, go.Figure], Any]:
    sweeps = list(open_sweeps([stores / f"{name}.zarr" for name in names], "J"))
    figures, left_out = draw_all(sweeps, known_clips(given, sweeps), shown or make_clip(0).name)
    return {name: figure for name, (figure, _) in figures.items()}, left_out


def lines(figure: go.Figure) -> dict[str, list[float]]:
    """Heights of the lines by name."""
    return {trace.name: list(trace.y) for trace in figure.data if trace.type == "scatter" and trace.name}


def mean(scores: xr.Dataset, **cell: Any) -> np.ndarray:
    """J_m in percent."""
    return 100 * scores["J"].sel(cell).mean("frame").mean("object").mean(["seed", "clip"]).values.squeeze()


def test_figures_hold_the_numbers_of_the_store(stores: Path) -> None:
    figures, _ = drawn(stores, "motion")
    scores = tl.open_sweep(stores / "motion.zarr")
    for block, heights in lines(figures["tau_curve"]).items():
        np.testing.assert_allclose(heights, mean(scores, block=block))
    np.testing.assert_allclose(figures["tau_block_map"].data[0].z, mean(scores))
    assert [note.text for note in figures["pca_map"].layout.annotations if "τ" in note.text] == ["τ = 100", "τ = 900"]


def on_others(each: xr.DataArray, along: str) -> xr.DataArray:
    """Scores (clip, ..) along an axis, each clip's at what is best on the others, by hand."""
    parts = []
    for clip in each["clip"].values:
        others = each.sel(clip=[c for c in each["clip"].values if c != clip]).mean("clip")
        best = others.where(others == others.max(), drop=True).squeeze()
        parts.append(
            each.sel(clip=clip, **{d: best[d].item() for d in others.dims if d != along}).reset_coords(drop=True)
        )
    return 100 * xr.concat(parts, "clip").mean("clip")


def test_what_a_figure_does_not_show_is_chosen_on_other_clips(stores: Path) -> None:
    figures, _ = drawn(stores, "fused")
    scores = tl.open_sweep(stores / "fused.zarr").squeeze(["tau"])
    each = scores["J"].mean("frame").mean("object").mean("seed")
    (curve,) = (trace for trace in figures["lambda_curve"].data if trace.mode == "lines+markers")
    np.testing.assert_allclose(curve.y, on_others(each, "lam"))
    np.testing.assert_allclose(figures["radius_bars"].data[0].y, on_others(each, "radius"))


def test_one_clip_has_no_others_and_that_is_said(stores: Path, tmp_path: Path) -> None:
    sweep(
        tmp_path / "one.zarr", 1, motion=tiny.Toy(), appearance=tiny.Toy(window=None), tau=500, lam=[0, 1], top_k=[1, 2]
    )
    [one] = open_sweeps([tmp_path / "one.zarr"], "J")
    assert one.held("lam").endswith("chosen on the same clip")
    assert "same clip" not in next(open_sweeps([stores / "fused.zarr"], "J")).held("lam")
    with pytest.raises(tl.TedlensError, match=r"one clip, so .* cannot be chosen on others"):
        tl.analysis.chosen_on_others(one.scores, ["lam"], "J")


def test_kinds_of_features_side_by_side(stores: Path) -> None:
    figures, left_out = drawn(stores, "motion", "appearance", "fused")
    curves = lines(figures["features_curve"])
    assert len(curves) == 2  # fused has one noise level
    for (name, heights), kind in zip(curves.items(), ("motion", "appearance"), strict=True):
        assert name.startswith(kind)
        each = tl.open_sweep(stores / f"{kind}.zarr")["J"].mean("frame").mean("object").mean("seed")
        np.testing.assert_allclose(heights, on_others(each, "tau"))
    assert not any("features_curve" in names for names in left_out.values())


def test_with_clips_scores_stand_beside_references(stores: Path, tmp_path: Path) -> None:
    made = write_figures(
        [stores / f"{name}.zarr" for name in ("motion", "appearance")], tmp_path / "out", clips=clips()
    )
    assert {"motion_tau_block_share.html", "features_curve.html"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    tables = list(made.tables.values())
    assert all(any("ceiling of the grid" in str(row) for row in table.index) for table in tables)
    sweeps = [read_against(sweep, {c.name: c for c in clips()}) for sweep in open_sweeps([stores / "motion.zarr"], "J")]
    figures, _ = draw_all(sweeps, {}, make_clip(0).name)
    said = [note.text for note in figures["tau_curve"][0].layout.annotations]
    assert any(text.startswith("ceiling of the grid") for text in said)
    assert any(text.startswith("place") for text in said)


def test_models_side_by_side(tmp_path: Path) -> None:
    """From one store of several models, on the axis that their schedules have in common."""
    other = tiny.Toy()
    other.unet.up_blocks[0].weight.data += 1
    sweep(tmp_path / "both.zarr", 2, motion={"a model": tiny.Toy(), "b": other}, tau=TAUS)
    figures, left_out = drawn(tmp_path, "both")
    assert {"both-a_model_tau_curve", "both-b_tau_curve", "models_curve"} <= figures.keys()
    scores = tl.open_sweep(tmp_path / "both.zarr")
    for (name, heights), model in zip(lines(figures["models_curve"]).items(), ("a model", "b"), strict=True):
        assert name.endswith(model.replace(" ", "_"))
        each = scores["J"].sel(model=model).mean("frame").mean("object").mean("seed")
        np.testing.assert_allclose(heights, on_others(each, "tau"))
    assert any("features_curve" in names for names in left_out.values())
    assert figures["models_curve"].layout.xaxis.title.text == "noise level (log SNR)"


def test_overlaps_side_by_side(stores: Path) -> None:
    figures, _ = drawn(stores, "overlap-0", "overlap-2")
    scores = [tl.open_sweep(stores / f"overlap-{overlap}.zarr") for overlap in (0, 2)]
    joined = xr.concat(scores, xr.Variable("overlap", [0, 2])).squeeze("tau")
    (bars,) = figures["overlap_bars"].data
    assert list(bars.x) == ["0", "2"]
    np.testing.assert_allclose(bars.y, on_others(joined["J"].mean("frame").mean("object").mean("seed"), "overlap"))


def test_with_clips_features_are_taken_apart(stores: Path) -> None:
    figures, left_out = drawn(stores, "motion", "appearance", given=clips())
    assert {"decomposition", "margin_curves", "motion_decoding_curves", "appearance_decoding_curves"} <= figures.keys()
    titles = [note.text for note in figures["motion_decoding_curves"].layout.annotations]
    assert titles == ["position", "identity"]
    assert figures["motion_pca_map"].layout.annotations[6].text == "clip"
    assert list(left_out.values()) == [["models_curve"], ["overlap_bars"]]


def test_components_that_were_kept_are_features_again(stores: Path) -> None:
    (kept,) = open_sweeps([stores / "appearance.zarr"], "J")
    again = kept.features(make_clip(0).name, 500, 0)["up_0"]  # of six channels, and six components were kept
    whole = tl.probe(tiny.Toy(window=None), make_clip(0), tau=500, blocks="up_0")["up_0"]["features"]
    np.testing.assert_allclose(again.transpose(*whole.dims), whole, atol=0.01 * float(abs(whole).max()))


def test_files_and_page(stores: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures"
    made = write_figures([stores / "motion.zarr"], out, metric="J")
    assert isinstance(made, Made)
    written = {path.name for path in out.iterdir()}
    tables = {"main.csv", "main.tex", "main.md"}
    assert written == {"figures.md", "tau_curve.html", "tau_block_map.html", "pca_map.html", *tables}
    numbers = pd.read_csv(out / "main.csv", header=[0, 1], index_col=0).xs("mean", axis=1, level=1)
    np.testing.assert_allclose(numbers, mean(tl.open_sweep(stores / "motion.zarr")))
    page = (out / "figures.md").read_text()
    for why, names in made.left_out.items():
        assert f"- `{'`, `'.join(names)}`: {why}." in page
    for row in next(iter(made.tables.values())).values:
        assert " | ".join(row) in page


def test_figures_for_print_and_the_page_that_shows_them(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a Chrome: what it is asked to draw, and how wide."""
    asked: list[Drawing] = []
    monkeypatch.setattr("tedlens.plots.save_figures", export.save_figures)
    monkeypatch.setattr("tedlens.plots.export._draw", asked.extend)
    options = ["--metric", "J", "--width", "column", "--font-size", "9", "--out", tmp_path / "out"]
    assert run(monkeypatch, capsys, stores / "motion.zarr", *options)[0] == 0
    widths = {each.figure.layout.width * each.scale for each in asked if each.path.suffix == ".pdf"}
    np.testing.assert_allclose(list(widths), 82.55 / 25.4 * 96)
    np.testing.assert_allclose([each.scale for each in asked if each.path.suffix == ".pdf"], 9 / 13 * 96 / 72)
    page = (tmp_path / "out" / "figures.md").read_text()
    assert page.count("](tau_curve.png)\n\n") == page.count("![") // len({each.path.stem for each in asked}) == 1
    for wrong, sentence in (
        (["--width", "page"], "tedlens: width='page' is no width of print; choose 'column', 'text', or millimetres"),
        (["--font-size", "1"], "tedlens: font_size=1.0 is no size of print; give 3 to 40 points."),
    ):
        code, _, complaint = run(monkeypatch, capsys, stores / "motion.zarr", *wrong, "--out", tmp_path / "no")
        assert code == 2
        assert complaint.startswith(sentence)
        assert not (tmp_path / "no").exists()


def test_an_unfinished_sweep_is_drawn_as_far_as_it_goes(stores: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.zarr"
    sweep(path, motion=tiny.Toy(), tau=[100, 500], blocks="up_0")
    for marker in list(path.glob("cells/*tau500*/zarr.json"))[:2]:
        marker.unlink()
    made = write_figures([path], tmp_path / "figures")
    assert "computed: 10 of 12 scores" in (tmp_path / "figures" / "figures.md").read_text()
    assert "nan" not in str(made.tables)


# --- from the command line ------------------------------------------------------------------------


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tedlens", "figures", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_command(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [stores / "motion.zarr", stores / "appearance.zarr"]
    options = ["--clips", stores / "grid.yaml", "--clip", make_clip(1).name, "--out", tmp_path / "out"]
    code, said, complaint = run(monkeypatch, capsys, *names, *options)
    assert code == 0, complaint
    assert "±" in said
    assert "Left out overlap_bars: It needs stores that differ in the overlap of windows alone." in said
    assert make_clip(1).name in (tmp_path / "out" / "figures.md").read_text()


def in_terminal(table: pd.DataFrame) -> str:
    shown = io.StringIO()
    Console(width=80, file=shown).print(rich_table(table))
    return shown.getvalue()


def test_tables_are_whole_in_a_narrow_terminal() -> None:
    wide = pd.DataFrame({f"{tau}": ["44.4 ± 2.3", "66.6 ± 3.3"] for tau in range(0, 1100, 100)}, ["up_0", "up_1"])
    text = in_terminal(wide.rename_axis("block").rename_axis("tau", axis=1))
    assert text.count("44.4 ± 2.3") == text.count("66.6 ± 3.3") == 11
    assert text.splitlines()[1].replace("┃", "").split() == ["tau", "up_0", "up_1"]
    rows = pd.MultiIndex.from_product([["velocity", "position"], ["up_0", "up_1", "up_2"]], names=["target", "block"])
    assert "…" not in in_terminal(pd.DataFrame({f"tau {tau}": ["-0.05 ± 0.03"] * 6 for tau in range(6)}, rows))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere.zarr"], "There is no sweep at nowhere.zarr"),
        (["motion.zarr", "--metric", "K"], "metric='K' is not known; choose from J, F, JF"),
        (["motion.zarr", "--clip", "bear"], "There is no clip 'bear' in the stores; choose from"),
        (["motion.zarr", "motion.zarr"], "each of its own name"),
        (["motion.zarr", "--clips", "other.yaml"], "is not the one that was swept"),
        (["motion.zarr", "--clips", "none.yaml"], "None of the clips given is in the stores"),
        (["motion.zarr", "--out", "grid.yaml"], "exists already"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    stores: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(stores)
    (stores / "other.yaml").write_text("clips: [{similar: {seed: 0, frames: 6, size: 32}}]\ntau: 500\n")
    (stores / "none.yaml").write_text("clips: [{similar: {seed: 99, frames: 6, size: 16}}]\ntau: 500\n")
    out = [] if "--out" in arguments else ["--out", tmp_path / "out"]
    code, _, complaint = run(monkeypatch, capsys, *arguments, *out)
    assert code == 2
    assert complaint.startswith("tedlens: ")
    assert sentence in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
