"""Models side by side on one axis of noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import xarray as xr
from typer.testing import CliRunner

import tedlens as tl
from tedlens.attending.matching import matching_accuracy
from tedlens.cli import app
from tedlens.comparing import LOG_SNR
from tedlens.plots.comparison import KEYS

LEVELS = [4.0, -1.0]


@pytest.fixture(scope="module")
def clips() -> list[tl.Clip]:
    return [tl.datasets.similar(i, frames=4, size=24) for i in range(5)]


@pytest.fixture(scope="module")
def found(clips: list[tl.Clip]) -> xr.Dataset:
    other = tiny.Toy()
    other.name = "other"
    return tl.compare([tiny.Toy(), other], clips, log_snr=[*LEVELS, 40.0], blocks=["up_0", "down_0"], size=24)


def test_each_cell_is_that_of_track(found: xr.Dataset, clips: list[tl.Clip]) -> None:
    model = tiny.Toy()
    assert found["JF"].dims == ("model", "log_snr", "clip")
    for level in LEVELS:
        tau = int(found["tau"].sel(model="toy", log_snr=level))
        assert tau == model.nearest_tau(log_snr=level)
        labels = tl.track(clips[1], motion=model, tau=tau, block="up_0", lam=1, size=24)["labels"]
        cell = found.sel(model="toy", log_snr=level, clip=clips[1].name)
        assert float(cell["JF"]) == pytest.approx(float(tl.evaluate(labels, clips[1].masks)["JF"].mean()))
        expected = tl.evaluate_identity(labels, clips[1].masks)["AssA"].mean()
        assert float(cell["AssA"]) == pytest.approx(float(expected))


def test_what_needs_no_model_stands_beside(found: xr.Dataset, clips: list[tl.Clip]) -> None:
    for number, clip in enumerate(clips):
        expected = tl.analysis.score_references(clip, (24, 24))
        for name in ("JF", "AssA"):
            cell = found[f"reference_{name}"].sel(model="toy").isel(clip=number)
            for kind in ("place", "colour", "velocity", "masks"):
                assert float(cell.sel(features=kind)) == pytest.approx(float(expected[kind][name].mean()))


def test_what_is_not_known_is_nan(found: xr.Dataset, clips: list[tl.Clip]) -> None:
    assert found["block"].values.tolist() == ["up_0", "down_0"]
    # Noise that it was not trained at: below the least that the toy has but for none.
    few = tl.compare([tiny.Toy()], clips[:2], log_snr=[1.0, -40.0], size=24)
    assert few["JF"].sel(log_snr=1.0).notnull().all()
    assert few["JF"].sel(log_snr=-40.0).isnull().all()
    assert few["velocity"].isnull().all()  # of two clips
    assert found["velocity"].sel(log_snr=LEVELS).notnull().all()
    assert (found["ceiling"] > found["JF"].max("log_snr") - 0.1).all()


def test_matching_is_the_best_of_all_cells_of_another_frame(found: xr.Dataset, clips: list[tl.Clip]) -> None:
    """Of the features, from the definition; a network without attention has no queries."""
    clip = clips[2]
    assert clip.masks is not None
    tau = int(found["tau"].sel(model="toy", log_snr=4.0))
    features = tl.probe(tiny.Toy(), clip, tau=tau, blocks="up_0", size=24)["up_0"]["features"].values[0, 0]
    ids = clip.masks.reshape(4, -1)  # the toy's grid is that of the pixels
    cells = features.reshape(4, features.shape[1], -1)
    cells = cells / np.linalg.norm(cells, axis=1, keepdims=True)
    pairs = [
        (ids[frame][np.argmax(cells[0][:, cell] @ cells[frame])] == ids[0][cell], (ids[frame] == ids[0][cell]).mean())
        for frame in (1, 2, 3)
        for cell in np.flatnonzero(ids[0])
        if (ids[frame] == ids[0][cell]).any()
    ]
    by = found["matching"].sel(model="toy", log_snr=4.0, clip=clip.name)
    assert float(by.sel(by="features")) == pytest.approx(np.mean([hit for hit, _ in pairs]), abs=1e-6)
    assert float(by.sel(by="chance")) == pytest.approx(np.mean([chance for _, chance in pairs]), abs=1e-6)
    assert found["matching"].sel(by="queries").isnull().all()


def test_matching_by_queries_is_that_of_all_heads_together(clips: list[tl.Clip]) -> None:
    """From what the attention of a block makes of its tokens after its norms, and before their places turn it."""
    model, clip = tl.load_video_model("mini-dit", size=24), clips[2]
    assert clip.masks is not None
    made: dict[str, torch.Tensor] = {}
    hooks = [
        getattr(model.denoiser.transformer_blocks[2].attn1, name).register_forward_hook(  # type: ignore[union-attr]
            lambda module, given, found, name=name: made.update({name: found.clone()})
        )
        for name in ("norm_q", "norm_k")
    ]
    features = tl.probe(model, clip, tau=300, blocks="block_2", size=24)["block_2"]["features"]
    for hook in hooks:
        hook.remove()
    cells = 6 * 6
    query, key = (value[0, :, 1:].transpose(0, 1).flatten(1).unflatten(0, (4, cells)) for value in made.values())
    ids = torch.from_numpy(clip.masks[:, 2::4, 2::4].reshape(4, cells))
    hits = [
        bool(ids[frame][(key[frame] @ query[0, cell]).argmax()] == ids[0, cell])
        for frame in (1, 2, 3)
        for cell in ids[0].nonzero()[:, 0]
        if (ids[frame] == ids[0, cell]).any()
    ]
    got = matching_accuracy(model, clip, features.sel(seed=0), size=24)["queries"]
    assert 0 < np.mean(hits) < 1
    assert float(got[0]) == pytest.approx(np.mean(hits))


def test_figure(found: xr.Dataset, clips: list[tl.Clip]) -> None:
    figure = tl.plots.comparison(found)
    keys = [trace for trace in figure.data if len(trace.x) and trace.x[0] is None]
    assert [trace.name for trace in keys] == [*KEYS.values()]
    assert {trace.name for trace in figure.data} - {trace.name for trace in keys} == {"toy", "other"}
    line = next(trace for trace in figure.data if trace.name == "toy")
    np.testing.assert_allclose(line.y, 100 * found["JF"].sel(model="toy").mean("clip"))
    assert len({trace.xaxis for trace in figure.data}) == 4
    few = tl.plots.comparison(tl.compare([tiny.Toy()], clips[:2], log_snr=[1.0], size=24))
    assert len({trace.xaxis for trace in few.data}) == 3  # without velocity
    with pytest.raises(tl.TedlensError, match=r"draws what tl\.compare gives"):
        tl.plots.comparison(xr.Dataset())


def test_what_is_refused(clips: list[tl.Clip]) -> None:
    with pytest.raises(tl.TedlensError, match="names that differ"):
        tl.compare([tiny.Toy(), tiny.Toy()], clips)
    with pytest.raises(tl.TedlensError, match="3 blocks do not fit 1 models"):
        tl.compare([tiny.Toy()], clips, blocks=["a", "b", "c"])


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tedlens.plots.save_figures", lambda figures, folder: None)  # which has tests of its own
    told = ["compare", "mini", "--out", str(tmp_path / "out"), "--clips", "1", "--log-snr", "1", "--size", "32"]
    result = CliRunner().invoke(app, told)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert table["model"].tolist() == ["mini"]
    assert table["log_snr"].tolist() == [1.0]
    assert 0 < table["JF"][0] < 1
    assert tl.load(tmp_path / "out" / "comparison.zarr")["JF"].sizes == {"model": 1, "log_snr": 1, "clip": 1}
    assert 0 < table["matching_features"][0] < 1
    assert 0 < table["reference_JF_place"][0] < table["reference_JF_masks"][0] <= table["ceiling"][0] + 0.1
    assert 0 <= table["matching_queries"][0] < 1
    assert len(LOG_SNR) > 1


def test_command_with_ones_own_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tedlens.plots.save_figures", lambda figures, folder: None)
    (tmp_path / "clips.yaml").write_text("clips: [{similar: {seed: 3, frames: 4, size: 32}}]")
    told = ["compare", "mini", "--out", str(tmp_path / "out"), "--log-snr", "1", "--size", "32", "--clips"]
    result = CliRunner().invoke(app, [*told, str(tmp_path / "clips.yaml")])
    assert result.exit_code == 0, result.output
    assert tl.load(tmp_path / "out" / "comparison.zarr")["clip"].values.tolist() == ["similar-cross-3"]
    for given, said in (("0", "0 clips: give some"), (str(tmp_path / "none.yaml"), "give a YAML file")):
        again = CliRunner().invoke(app, [*told[:3], str(tmp_path / "other"), *told[4:], given])
        assert said in str(again.exception)
    (tmp_path / "tau.yaml").write_text("tau: [1]")
    again = CliRunner().invoke(app, [*told[:3], str(tmp_path / "other"), *told[4:], str(tmp_path / "tau.yaml")])
    assert "lacks clips" in str(again.exception)
