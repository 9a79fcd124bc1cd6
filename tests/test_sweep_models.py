"""Several models in one sweep: each as if it were alone, side by side on one axis of noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import xarray as xr

import tedlens as tl

LEVELS = [4.0, 0.0, -4.0]


def make_clip(number: int) -> tl.Clip:
    made = tl.datasets.similar(number, frames=4, size=32)
    return tl.Clip(made.frames, made.masks, name=f"clip-{number}")


CLIPS = [make_clip(0), make_clip(1)]
HOW: dict[str, Any] = {"size": 32, "blocks": ["up_1", "up_2"], "progress": False}
BOTH = ["mini", "mini-svd"]  # of two schedules


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, xr.Dataset]:
    path = tmp_path_factory.mktemp("models") / "both.zarr"
    return path, tl.sweep(CLIPS, motion=BOTH, log_snr=LEVELS, store=path, **HOW)


def test_each_model_as_if_alone_at_the_same_noise(stored: tuple[Path, xr.Dataset]) -> None:
    scores = stored[1]
    assert scores["JF"].dims == ("model", "clip", "block", "log_snr", "seed", "object", "frame")
    assert scores["log_snr"].values.tolist() == LEVELS
    assert scores["tau"].dims == ("model", "log_snr")
    for name in BOTH:
        alone = tl.sweep(CLIPS, motion=name, log_snr=LEVELS, **HOW)
        np.testing.assert_array_equal(scores["tau"].sel(model=name), alone["tau"])
        assert np.abs(alone["log_snr"].values - LEVELS).max() < 0.1
        for metric in ("J", "F", "identity", "AssA"):
            np.testing.assert_array_equal(scores[metric].sel(model=name), alone[metric])
        own = json.loads(scores.attrs["models"])[name]
        assert own["motion_model"] == name
        assert own | {key: alone.attrs[key] for key in scores.attrs if key != "models"} == alone.attrs
    assert len(set(scores["tau"].sel(log_snr=0.0).values.tolist())) == 2  # the same noise is another tau


def test_by_tau_the_log_snr_is_each_models_own() -> None:
    scores = tl.sweep(CLIPS[0], motion=BOTH, tau=[100, 600], **HOW)
    assert scores["JF"].sizes["tau"] == 2
    assert scores["log_snr"].dims == ("model", "tau")
    lines = [t for t in tl.plots.tau_curve(scores.sel(block="up_2"), x="log_snr").data if t.fill is None]
    assert [line.name for line in lines] == BOTH
    for line in lines:
        one = scores.sel(model=line.name, block="up_2")
        np.testing.assert_allclose(line.x, one["log_snr"])
        np.testing.assert_allclose(line.y, 100 * one["JF"].mean(["frame", "object", "seed"]).squeeze("clip"))


def test_curves_maps_and_tables_take_them(stored: tuple[Path, xr.Dataset]) -> None:
    scores = stored[1]
    figure = tl.plots.tau_curve(scores.sel(block="up_2"))
    assert figure.layout.xaxis.title.text == "noise level (log SNR)"
    assert [list(t.x) for t in figure.data if t.fill is None] == [sorted(LEVELS)] * 2
    heat = tl.plots.tau_block_map(scores.sel(model="mini")).data[0]
    assert list(heat.x) == ["-4", "0", "4"]
    with pytest.raises(tl.TedlensError, match="swept over model too"):
        tl.plots.tau_block_map(scores)
    table = tl.plots.main_table(scores, columns="log_snr")
    assert table.index.names == ["model", "block"]
    assert len(table) == 4


def test_references_are_of_each_models_grid(stored: tuple[Path, xr.Dataset]) -> None:
    scores = stored[1]
    np.testing.assert_array_equal(
        tl.reference_scores(CLIPS, scores)["J"].isel(model=0),
        tl.reference_scores(CLIPS, tl.sweep(CLIPS, motion="mini", tau=0, **HOW))["J"],
    )
    apart = tl.sweep(CLIPS, motion=BOTH, tau=100, **(HOW | {"blocks": {"mini": ["up_1", "up_2"], "mini-svd": "up_2"}}))
    assert apart["JF"].sel(model="mini-svd", block="up_1").isnull().all()
    assert apart["JF"].sel(model="mini", block="up_1").notnull().any()
    against = tl.reference_scores(CLIPS, apart)
    assert against["J"].sel(model="mini-svd", block="up_1").isnull().all()
    assert against["J"].sel(model="mini-svd", block="up_2").notnull().any()


def test_a_store_of_several(stored: tuple[Path, xr.Dataset], capsys: pytest.CaptureFixture[str]) -> None:
    path, scores = stored
    xr.testing.assert_identical(tl.open_sweep(path), scores.sortby("model"))
    xr.testing.assert_identical(tl.load(path), tl.open_sweep(path))
    again = tl.sweep(CLIPS, motion=BOTH, log_snr=LEVELS, store=path, **(HOW | {"progress": True}))
    assert capsys.readouterr().out.count("To do: 0 UNet windows") == 2
    xr.testing.assert_identical(again, scores)
    from tedlens.sweeping import describe_sweep

    said = describe_sweep(path)
    assert said is not None
    assert "mini: " in said
    assert said.count("done: 6 of 6 cells") == 2


def test_a_store_grows_by_models_and_levels(tmp_path: Path) -> None:
    path = tmp_path / "grows.zarr"
    tl.sweep(CLIPS[0], motion=["mini"], log_snr=[0.0], store=path, **HOW)
    both = tl.sweep(CLIPS[0], motion=BOTH, log_snr=[0.0, -4.0], store=path, **HOW)
    assert both["JF"].notnull().any(["object", "frame"]).all()
    tl.sweep(CLIPS[0], motion=["mini-svd"], log_snr=[3.0], store=path, **HOW)
    opened = tl.open_sweep(path)
    assert opened["log_snr"].values.tolist() == [3.0, 0.0, -4.0]
    done = opened["JF"].notnull().any(["clip", "block", "seed", "object", "frame"])
    assert done.sel(model="mini").values.tolist() == [False, True, True]
    assert done.sel(model="mini-svd").all()
    with pytest.raises(tl.TedlensError, match="holds noise levels by log-SNR, and now they are given by tau"):
        tl.sweep(CLIPS[0], motion=BOTH, tau=100, store=path, **HOW)


def test_models_of_ones_own_names(tmp_path: Path) -> None:
    mini = tl.load_video_model("mini")
    cut = tl.ablate(mini, "up_2.temp_attentions.*")
    path = tmp_path / "cut.zarr"
    how = HOW | {"tau": 600, "keep": "labels", "store": path}
    scores = tl.sweep(CLIPS[0], motion={"whole": mini, "no temporal attention": cut}, **how)
    assert scores["model"].values.tolist() == ["whole", "no temporal attention"]
    xr.testing.assert_equal(
        scores["JF"].sel(model="no temporal attention", drop=True),
        tl.sweep(CLIPS[0], motion=cut, tau=600, **HOW)["JF"].drop_vars([]),
    )
    own = json.loads(scores.attrs["models"])
    assert "motion_model_interventions" not in own["whole"]
    kept = tl.open_kept(path, clip="clip-0", tau=600, model="whole")
    assert "labels" in kept.children
    with pytest.raises(tl.TedlensError, match=r"model=None is not what to open .* it holds 'whole', 'no temporal"):
        tl.open_kept(path, clip="clip-0", tau=600)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"motion": []}, "no model in an empty list"),
    ({"motion": ["mini", "mini"]}, "Two of the models are 'mini'"),
    ({"motion": BOTH, "appearance": ["mini", "adm"]}, "both hold several models"),
    ({"motion": BOTH, "blocks": {"mini": "up_2"}}, "names mini and the models are mini, mini-svd"),
    ({"motion": BOTH, "tau": None, "sigma": [0.0, 1.0]}, "no place on a common axis"),
    ({"motion": ["mini", "no-such-model"]}, "no-such-model"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG)
def test_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(tl.TedlensError, match=words):
        tl.sweep(CLIPS[0], **(HOW | {"tau": 100} | wrong))


def test_nothing_of_others_is_touched(tmp_path: Path) -> None:
    one = tmp_path / "one.zarr"
    tl.sweep(CLIPS[0], motion=tiny.Toy(), tau=100, store=one, progress=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for path in (one, tmp_path / "mine"):
        with pytest.raises(tl.TedlensError, match="is not the store of a sweep"):
            tl.sweep(CLIPS[0], motion=BOTH, tau=100, store=path, **HOW)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]
