"""An axis of interventions in sweeps: as by hand, in stores, grid files and workers; its effects and their map."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from planted import Planted

import tedlens as tl
from tedlens.gridfile import read_gridfile
from tedlens.sweeping import Models, make_grid
from tedlens.sweeping.clips import clip_sources, survey
from tedlens.sweeping.plan import make_plan

CUTS: dict[str, Any] = {
    "intact": None,
    "no mix": {"ablate": "up_0.mix"},
    "still, then steered": [
        {"patch": {"layers": "mid", "source": "still"}},
        {"steer": {"layer": "up_0", "direction": [1, 0, 0, 0], "strength": 2}},
    ],
}
HOW: dict[str, Any] = {"tau": [100, 600], "radius": 2, "progress": False}


def make_clip(number: int) -> tl.Clip:
    made = tl.datasets.similar(number, frames=5, size=32)
    return tl.Clip(made.frames, made.masks, name=f"clip-{number}")


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.fixture(scope="module")
def scores(planted: Planted) -> xr.Dataset:
    return tl.sweep([make_clip(n) for n in range(3)], motion=planted, interventions=CUTS, seeds=[0, 1], **HOW)


def test_an_axis_is_as_the_models_one_by_one(planted: Planted, scores: xr.Dataset) -> None:
    clips = [make_clip(n) for n in range(3)]
    models = {
        "intact": planted,
        "no mix": tl.ablate(planted, "up_0.mix"),
        "still, then steered": tl.steer(tl.patch(planted, "mid", "still"), "up_0", [1, 0, 0, 0], 2),
    }
    assert list(scores["intervention"].values) == list(models)
    for name, model in models.items():
        alone = tl.sweep(clips, motion=model, seeds=[0, 1], **HOW)
        for metric in ("J", "F", "HOTA"):
            np.testing.assert_array_equal(
                scores[metric].sel(intervention=name).transpose(*alone[metric].dims), alone[metric]
            )
    assert json.loads(scores.attrs["interventions"])["no mix"] == [models["no mix"].interventions[0].said()]
    assert not np.allclose(scores["J"].sel(intervention="intact"), scores["J"].sel(intervention="no mix"))


def test_what_it_costs(planted: Planted) -> None:
    """Encoded once a clip; a forward for each intervention, and one more for what is patched in."""
    clip = make_clip(0)
    counts = {"forward": 0, "encode": 0}
    encode, run = planted.encode, planted.run

    def counted(name: str, call: Any) -> Any:
        def wrapped(*given: Any) -> Any:
            counts[name] += 1
            return call(*given)

        return wrapped

    planted.encode, planted.run = counted("encode", encode), counted("forward", run)  # type: ignore[method-assign]
    try:
        tl.sweep(clip, motion=planted, interventions=CUTS, **HOW)
    finally:
        del planted.encode, planted.run
    assert counts == {"forward": 2 * 2 * 4, "encode": 1}  # taus x windows x (one each, and the patch's other)
    grid = make_grid(Models(planted), tau=[100, 600], interventions=CUTS)
    plan = make_plan(grid, [swept.facts for swept in survey(clip_sources(clip), "davis")], {clip.name: grid.cells})
    assert plan.forwards == counts["forward"]
    assert "3 intervention" in plan.grid


def test_a_store_goes_on_and_knows_what_names_mean(planted: Planted, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    clips = [make_clip(n) for n in range(2)]
    first = {name: CUTS[name] for name in ("intact", "no mix")}
    tl.sweep(clips, motion=planted, interventions=first, store=store, **HOW)
    counted = {"forwards": 0}
    handle = planted.unet.register_forward_pre_hook(lambda *_: counted.update(forwards=counted["forwards"] + 1))
    whole = tl.sweep(clips, motion=planted, interventions=CUTS, store=store, **HOW)
    again = tl.sweep(clips, motion=planted, interventions=CUTS, store=store, **HOW)
    handle.remove()
    assert counted["forwards"] == 2 * 2 * 2 * 2  # of the new one alone: clips, taus, windows, and the patch's other run
    xr.testing.assert_identical(again, whole)
    straight = tl.sweep(clips, motion=planted, interventions=CUTS, **HOW)
    xr.testing.assert_equal(whole.drop_attrs(), straight.drop_attrs())
    opened = tl.open_sweep(store)
    assert set(json.loads(opened.attrs["interventions"])) == set(CUTS)
    assert set(opened["intervention"].values) == set(CUTS)
    other = {"intact": None, "no mix": {"ablate": "mid.mix"}}
    with pytest.raises(tl.TedlensError, match="holds results of an intervention 'no mix' that is"):
        tl.sweep(clips, motion=planted, interventions=other, store=store, **HOW)
    with pytest.raises(tl.TedlensError, match="intervention_axis=True"):
        tl.sweep(clips, motion=planted, store=store, **HOW)


def test_labels_are_kept_of_all_interventions(planted: Planted, tmp_path: Path) -> None:
    how: dict[str, Any] = {"motion": planted, "store": tmp_path / "s.zarr", "keep": "labels"} | HOW
    tl.sweep(make_clip(0), interventions={"intact": None}, **how)
    tl.sweep(make_clip(0), interventions=CUTS, **how)
    kept = tl.open_kept(tmp_path / "s.zarr", clip="clip-0", tau=100)["labels"]["labels"]
    for name, model in (("intact", planted), ("no mix", tl.ablate(planted, "up_0.mix"))):
        tracked = tl.track(make_clip(0), motion=model, lam=1, tau=100, block="up_0", radius=2)["labels"]
        np.testing.assert_array_equal(kept.sel(intervention=name).squeeze(), tracked)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_in_a_grid_file_and_in_a_worker(client: Any, tmp_path: Path) -> None:
    """A cut model by value, and an axis of more cuts, through YAML to a worker: as here."""
    words = {
        "clips": [{"similar": {"seed": 0, "frames": 4, "size": 32}}],
        "tau": 300,
        "motion": {"name": "mini", "ablate": "down_1.temp_attentions.*"},
        "blocks": "up_1",
        "interventions": {
            "intact": None,
            "no head": {"ablate": {"layers": "up_1.temp_attentions.0", "heads": 0}},
            "still": {"patch": {"layers": "up_1.temp_attentions.1", "source": "still"}},
        },
        "radius": 2,
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(words))
    read = read_gridfile(tmp_path / "grid.yaml")
    there = tl.sweep(**read, client=client, progress=False)
    cut = tl.ablate("mini", "down_1.temp_attentions.*")
    here = tl.sweep(**(read | {"motion": cut}), progress=False)
    xr.testing.assert_identical(there, here)
    with pytest.raises(tl.TedlensError, match=r'workers load their own.*"ablate": \{"layers": \["down_1'):
        tl.sweep(**(read | {"motion": cut}), client=client, progress=False)


def test_effects_are_paired_differences(scores: xr.Dataset) -> None:
    found = tl.analysis.effects(scores, "J")
    assert list(found["intervention"].values) == ["no mix", "still, then steered"]
    for name in found["intervention"].values:
        for tau in (100, 600):
            each = scores["J"].mean("frame").mean("object").mean("seed").sel(tau=tau).squeeze("block")
            difference = each.sel(intervention=name) - each.sel(intervention="intact")
            cell = found.sel(intervention=name, tau=tau).squeeze("block")
            assert float(cell["mean"]) == pytest.approx(float(difference.mean()))
            assert float(cell["low"]) <= float(cell["mean"]) <= float(cell["high"])
    with pytest.raises(tl.TedlensError, match="baseline='whole' is to be compared with others"):
        tl.analysis.effects(scores, baseline="whole")
    with pytest.raises(tl.TedlensError, match="no axis intervention"):
        tl.analysis.effects(scores.isel(intervention=0))


def test_the_map_shows_every_effect(scores: xr.Dataset) -> None:
    found = tl.analysis.effects(scores, "J").squeeze("block", drop=True)
    figure = tl.plots.effect_map(found)
    heat, dots = figure.data
    assert list(heat.y) == ["no mix", "still, then steered"]
    assert list(heat.x) == ["100", "600"]
    np.testing.assert_allclose(heat.z, 100 * found["mean"].transpose("intervention", "tau"))
    assert heat.zmin == -heat.zmax
    unclear = (found["low"] <= 0) & (found["high"] >= 0)
    assert len(dots.x) == int(unclear.sum())
    with pytest.raises(tl.TedlensError, match="draws interventions against tau"):
        tl.plots.effect_map(tl.analysis.effects(scores, "J").expand_dims(lam=[0, 1]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cut": {"ablate": "nowhere"}}, "has no block 'nowhere'"),
        ({"cut": {"abate": "up_0"}}, "describes no intervention"),
        ({"cut": "up_0"}, "describes no intervention"),
        (["up_0"], "is no axis of interventions"),
        ({}, "is no axis of interventions"),
    ],
)
def test_what_is_no_axis_is_said_before_any_work(planted: Planted, given: Any, message: str) -> None:
    with pytest.raises(tl.TedlensError, match=message):
        tl.sweep(make_clip(0), motion=planted, interventions=given, **HOW)


def test_features_are_not_kept_of_interventions(planted: Planted, tmp_path: Path) -> None:
    with pytest.raises(tl.TedlensError, match="keeps no features"):
        tl.sweep(make_clip(0), motion=planted, interventions=CUTS, keep="features", store=tmp_path / "s.zarr", **HOW)
