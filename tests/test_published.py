"""The benchmarks of the field: the paper's tables beside one's own, resumed where a run was stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from distributed import Client
from published_data import write_davis, write_jhmdb, write_tapvid, write_vip
from transformers import ViTConfig, ViTModel
from typer.testing import CliRunner

import tedlens as tl
from tedlens import cli
from tedlens.benchmark import field
from tedlens.benchmark.field import published, running, tables
from tedlens.benchmark.field.suite import BENCHMARKS

MINI = ["--motion", "mini", "--appearance", "mini", "--samples", "1", "--appearance-samples", "1", "--radius", "4"]


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("made-up") / "DAVIS"
    write_davis(root)
    return root


def run(*words: object, code: int = 0) -> str:
    outcome = CliRunner().invoke(cli.app, [str(word) for word in words])
    if code == 2 and isinstance(outcome.exception, tl.TedlensError):
        return str(outcome.exception)
    assert outcome.exit_code == code, outcome.output + repr(outcome.exception)
    return outcome.output


@pytest.fixture(scope="module")
def made(davis: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("tables") / "davis"
    said = run("benchmark", "davis", davis, *MINI, "--clips", 3, "--out", out, "--part", "main", "--part", "blocks")
    return out, said


def read(out: Path, name: str) -> Any:
    return pd.read_csv(out / f"{name}.csv", index_col=0)


# --- what was printed -----------------------------------------------------------------------------


def test_published_figures_are_the_papers() -> None:
    assert published.mask_figures("DAVIS", "TED") == {"J&F": 77.6, "J": 74.4, "F": 80.8}
    assert published.mask_figures("MOSE", "DIFT") == {"J&F": 34.5, "J": 28.9, "F": 40.1}
    assert published.mask_figures("MOSE", "CRW") == {}
    assert published.row(6, method="TED") == {
        "method": "TED",
        "JHMDB PCK@0.1": 68.3,
        "JHMDB PCK@0.2": 85.8,
        "VIP mIoU": 44.2,
    }
    assert published.row(2, block=3)["J&F_m"] == 66.3  # type: ignore[index]


# --- masks ----------------------------------------------------------------------------------------


def test_the_table_is_what_track_and_evaluate_give(made: tuple[Path, str], davis: Path) -> None:
    """By hand: each clip tracked and scored, and the mean over the objects of all clips."""
    table = read(made[0], "table_1")
    words: dict[str, Any] = {"tau": 300, "top_k": 10, "radius": 4, "n_last": 28, "temperature": 0.2}
    every = []
    for clip in tl.datasets.davis(davis)[:3]:
        labels = tl.track(clip, motion="mini", appearance="mini", lam=0.4, **words)
        assert clip.masks is not None
        scores = tl.evaluate(labels, clip.masks)
        every += [scores[["J", "F"]].sel(object=number).mean("frame") for number in scores["object"]]
    j, f = (100 * float(np.mean([one[name] for one in every])) for name in ("J", "F"))
    ours = table.loc["TED"]
    assert (ours["J"], ours["F"], ours["J&F"]) == pytest.approx((j, f, (j + f) / 2))
    assert ours["low"] <= ours["J&F"] <= ours["high"]
    assert (ours["paper J&F"], ours["less paper"]) == pytest.approx((77.6, ours["J&F"] - 77.6))


def test_every_row_of_the_paper_stands_there_and_controls_beside(made: tuple[Path, str]) -> None:
    table = read(made[0], "table_1")
    printed = [row["method"] for row in published.rows(1)]
    assert table.index.tolist()[: len(printed)] == printed
    own = ["TED", "appearance alone", "motion alone", "place", "colour", "true masks"]
    assert table.index[table["J&F"].notna()].tolist() == own
    assert table.loc["true masks", "J&F"] > 80 > 30 > table.loc["place", "J&F"]
    assert np.isnan(table.loc["CRW", "J&F"])


def test_blocks_are_table_2(made: tuple[Path, str]) -> None:
    table = read(made[0], "table_2")
    assert table.index.tolist() == ["1 (up_0)", "2 (up_1)", "3 (up_2)", "4 (up_3)"]
    assert table["paper J&F"].tolist() == [24.8, 47.6, 66.3, 31.5]
    assert table.loc["3 (up_2)", "J&F"] == pytest.approx(read(made[0], "table_1").loc["motion alone", "J&F"])


def test_report_and_terminal(made: tuple[Path, str]) -> None:
    out, said = made
    page = (out / "report.md").read_text()
    assert "preset ted-davis, tau=300" in page
    assert "| Spa-then-Temp | – |" in page
    assert "prints neither the number of last frames nor of noise draws" in page
    assert "Table 1: DAVIS" in said
    assert "place" in said
    assert "InstDis" not in said  # which has no figure of one's own
    assert r"\begin{tabular}" in (out / "table_1.tex").read_text()


def test_a_second_run_computes_nothing(made: tuple[Path, str], davis: Path, monkeypatch: Any) -> None:
    """All is in the sweeps beside the folder: only tables are made again."""
    again = made[0].with_name("again")
    os.symlink(f"{made[0]}-sweeps", f"{again}-sweeps")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("tedlens.sweeping.engine.kept_cells", refuse)
    monkeypatch.setattr(running, "score", refuse)
    run("benchmark", "davis", davis, *MINI, "--clips", 3, "--out", again)
    pd.testing.assert_frame_equal(read(again, "table_1"), read(made[0], "table_1"))
    assert read(again, "table_5").loc["TED (efficient)", "ms a frame"] > 0


def test_other_settings_are_not_taken_for_the_same(davis: Path) -> None:
    said = {"samples": 1, "appearance_samples": 1}
    keys = {
        running.Method.of({"TED": 0.4}, "mini", "mini", "ted-davis", {**said, **more}).key
        for more in ({}, {"radius": 3}, {"tau": 200})
    }
    assert len(keys) == 3


def test_a_block_that_the_model_lacks_is_its_own() -> None:
    method = running.Method.of({"DIFT": 0.0}, None, "mini", "dift-adm", {})
    assert method.words["appearance_block"] == "up_0"
    assert "tau" not in method.words
    said = running.Method.of({"DIFT": 0.0}, None, "mini", "dift-adm", {"appearance_block": "up_1"})
    assert said.words["appearance_block"] == "up_1"


def test_figures_6_to_8(davis: Path, tmp_path: Path) -> None:
    clips = tl.datasets.davis(davis)[:1]
    said = {"samples": 1, "appearance_samples": 1, "radius": 4}
    asked = field.Asked(
        BENCHMARKS["davis"], clips, ["mini"], ["mini"], [], None, "ted-davis", said, ["noise", "overlap"], tmp_path
    )
    found = field.run(asked)
    assert set(found.figures) == {"figure_6", "figure_8"}
    assert found.scores["noise"].sizes["tau"] == 10
    assert found.scores["noise"]["features"].values.tolist() == ["motion", "appearance"]
    assert found.scores["overlap"]["overlap"].values.tolist() == [0, 1, 2, 4]


def scored(values: Any) -> xr.Dataset:
    """The same as J, F and their mean, (clip, object, frame)."""
    each = xr.DataArray(values, dims=("clip", "object", "frame"))
    return xr.Dataset({"J": each, "F": each, "JF": each})


def test_interval_is_over_clips() -> None:
    davis = BENCHMARKS["davis"]
    assert np.isnan(tables.interval(davis, scored([[[0.5]]]))).all()
    low, high = tables.interval(davis, scored([[[0.2]], [[0.4]], [[0.9]], [[0.5]]]))
    assert 20 < low < 50 < high < 90


def test_objects_count_not_clips() -> None:
    """DAVIS averages over the objects of all clips at once."""
    scores = scored([[[0.2, 0.4], [np.nan, np.nan]], [[0.6, 0.6], [0.9, 0.9]]])
    weights = xr.DataArray([[1.0, 1.0], [2.0, 0.0], [0.0, 1.0]], dims=("resample", "clip"))
    found = tables.figures_of(BENCHMARKS["davis"], scores, weights)["J"]
    assert found == pytest.approx([100 * (0.3 + 0.6 + 0.9) / 3, 30, 75])


# --- joints, parts, points ------------------------------------------------------------------------

SAID: dict[str, Any] = {"tau": 300, "lam": 0.4, "radius": 4, "size": 64, "top_k": 10, "n_last": 28, "temperature": 0.2}


def main_table(name: str, data: Path, out: Path) -> Any:
    run("benchmark", name, data, *MINI, "--size", 64, "--part", "main", "--out", out)
    [table] = out.glob("*.csv")
    return read(out, table.stem)


def test_joints_are_followed_from_the_first_frame(tmp_path: Path) -> None:
    write_jhmdb(tmp_path / "JHMDB")
    table = main_table("jhmdb", tmp_path / "JHMDB", tmp_path / "out")
    every: dict[str, list[xr.Dataset]] = {"vfs": [], "crw": []}
    for clip in tl.datasets.jhmdb(tmp_path / "JHMDB"):
        assert clip.joints is not None
        points = tl.track_points(clip, clip.joints.isel(frame=0), motion="mini", appearance="mini", **SAID)
        for how, scores in every.items():
            scores.append(tl.evaluate_pose(points["position"], clip.joints, convention=how))  # type: ignore[arg-type]
    for column, how, alpha in (("PCK@0.1", "vfs", 0.1), ("crw@0.2", "crw", 0.2)):
        pck = tl.combine_pose(xr.concat(every[how], "clip"))["PCK"].sel(alpha=alpha)
        np.testing.assert_allclose(table.loc["TED", column], 100 * float(pck))
    assert np.isnan(table.loc["TED", "PCK@0.1"])  # a joint that is out of the picture in all clips has no share
    assert table.loc["TED", "paper PCK@0.1"] == 68.3


def test_parts_are_given_in_the_first_frame_alone(tmp_path: Path) -> None:
    write_vip(tmp_path / "VIP_Fine")
    table = main_table("vip", tmp_path / "VIP_Fine", tmp_path / "out")
    every = []
    for clip in tl.datasets.vip(tmp_path / "VIP_Fine"):
        assert clip.masks is not None
        first = tl.Clip(clip.frames, clip.masks[0], name=clip.name)
        labels = tl.track(first, motion="mini", appearance="mini", **SAID)["labels"]
        assert 13 not in labels
        every.append(tl.evaluate_parts(labels, clip.masks))
    miou = float(tl.combine_parts(xr.concat(every, "clip"))["mIoU"])
    assert table.loc["TED", "mIoU"] == pytest.approx(100 * miou)
    assert table.loc["place", "mIoU"] < table.loc["true masks", "mIoU"]
    assert table.loc["TED", "paper mIoU"] == 44.2


def test_points_are_followed_from_where_they_first_show(tmp_path: Path) -> None:
    write_tapvid(tmp_path / "points.npz")
    table = main_table("tapvid", tmp_path / "points.npz", tmp_path / "out")
    figures = []
    for clip in tl.datasets.tapvid(tmp_path / "points.npz"):
        assert clip.points is not None
        queries = tl.point_queries(clip.points)
        assert queries["frame"].values.tolist() == [0, 2]
        points = tl.track_points(clip, queries, motion="mini", appearance="mini", **SAID)
        figures.append(tl.evaluate_points(points, clip.points)["AJ"])
    assert table.loc["TED", "AJ"] == pytest.approx(100 * float(np.mean(figures)))
    assert table.loc["stays where it was", "AJ"] < table.loc["TED", "AJ"]


def test_workers_give_the_same(tmp_path: Path) -> None:
    write_tapvid(tmp_path / "points.npz", frames=3)
    found = []
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        for place, worker in (("here", None), ("there", client)):
            asked = field.Asked(
                BENCHMARKS["tapvid"],
                tl.datasets.tapvid(tmp_path / "points.npz"),
                *(["mini"], [], [], None, "ted-davis", {"samples": 1, "radius": 4, "size": 64}, ["main"]),
                tmp_path / place,
                worker,
            )
            found.append(field.run(asked).tables["points"])
    pd.testing.assert_frame_equal(*found)


def test_only_masks_have_all_parts(tmp_path: Path) -> None:
    write_tapvid(tmp_path / "points.npz", clips=1, frames=3)
    said = run(
        "benchmark", "tapvid", tmp_path / "points.npz", *MINI, "--part", "noise", "--out", tmp_path / "o", code=2
    )
    assert said == "The paper has no 'noise' of TAP-Vid; it has main and cost."


def test_encoders_and_sam_2_stand_beside(davis: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vit = ViTModel(
        ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, patch_size=8)
    )
    vit.save_pretrained(tmp_path / "vit")
    words = ["--encoder", tmp_path / "vit", "--size", 64, "--clips", 1, "--part", "main", "--out", tmp_path / "out"]
    run("benchmark", "davis", davis, *words)
    table = read(tmp_path / "out", "table_1")
    assert table.loc[str(tmp_path / "vit"), "J&F"] > 0
    assert np.isnan(table.loc["TED", "J&F"])
    said = run(
        "benchmark", "davis", davis, "--sam2", tmp_path / "vit", "--part", "main", "--out", tmp_path / "o", code=2
    )
    assert "which is no SAM 2" in said


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_data_that_are_not_there_are_said_where_to_get(name: str, tmp_path: Path) -> None:
    words = ["--names", tmp_path / "names.txt"] if name == "youtube-similar" else []
    said = run("benchmark", name, tmp_path / "nowhere", "--out", tmp_path / "out", *words, code=2)
    assert "get " in said or "render scenes with Kubric" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["youtube-similar", "{}"], "did not publish; give one with --names"),
        (["davis", "{}", "--part", "colours"], "part='colours' is not known; choose from main, cost"),
        (["davis", "{}", "--names", "x.txt"], "takes no list of names"),
        (["kubric-similar", "{}", "--split", "val"], "has no splits"),
        (["davis", "{}", "--preset", "best"], "preset='best' is not known"),
        (["davis", "{}", "--motion", "mini", "--appearance", "adm"], "'adm' and a checkpoint go together"),
        (["davis", "{}", "--scheduler", "nowhere"], "No Dask scheduler answers"),
    ],
)
def test_wrong_words_are_one_sentence(words: list[str], sentence: str, davis: Path, tmp_path: Path) -> None:
    said = run("benchmark", *[word.format(davis) for word in words], "--out", tmp_path / "out", code=2)
    assert sentence in said
    assert "\n" not in said


# --- stopped on the way ---------------------------------------------------------------------------


@pytest.mark.release
def test_a_run_that_is_killed_twice_ends_in_the_same_table(davis: Path, tmp_path: Path) -> None:
    words = ["benchmark", "davis", str(davis), *MINI, "--part", "main", "--out"]
    killed = tmp_path / "killed"
    for cells in (2, 5):
        command = [sys.executable, "-m", "tedlens.cli", *words, str(killed)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while len(list(tmp_path.glob("killed-sweeps/ted-*.zarr/cells/*"))) < cells and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert not killed.exists()
    for out in (killed, tmp_path / "straight"):
        run(*words, out)
    for name in ("table_1.csv", "table_1.tex", "report.md"):
        assert (killed / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
