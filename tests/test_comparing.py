"""Models side by side on one axis of noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import xarray as xr
from typer.testing import CliRunner

import tedlens as tl
from tedlens.cli import app
from tedlens.comparing import LOG_SNR

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


def test_what_is_not_known_is_nan(found: xr.Dataset, clips: list[tl.Clip]) -> None:
    assert found["block"].values.tolist() == ["up_0", "down_0"]
    # Noise that it was not trained at: below the least that the toy has but for none.
    few = tl.compare([tiny.Toy()], clips[:2], log_snr=[1.0, -40.0], size=24)
    assert few["JF"].sel(log_snr=1.0).notnull().all()
    assert few["JF"].sel(log_snr=-40.0).isnull().all()
    assert few["velocity"].isnull().all()  # of two clips
    assert found["velocity"].sel(log_snr=LEVELS).notnull().all()
    assert (found["ceiling"] > found["JF"].max("log_snr") - 0.1).all()


def test_figure(found: xr.Dataset, clips: list[tl.Clip]) -> None:
    figure = tl.plots.comparison(found)
    assert {trace.name for trace in figure.data if trace.name} == {"toy", "other"}
    line = next(trace for trace in figure.data if trace.name == "toy")
    np.testing.assert_allclose(line.y, 100 * found["JF"].sel(model="toy").mean("clip"))
    assert len({trace.xaxis for trace in figure.data}) == 3
    few = tl.plots.comparison(tl.compare([tiny.Toy()], clips[:2], log_snr=[1.0], size=24))
    assert len({trace.xaxis for trace in few.data}) == 2  # without velocity
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
    assert len(LOG_SNR) > 1
