"""The benchmark, on few clips and noise levels: its stages, its choices, its report."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import tedlens as tl
from tedlens.benchmark import Found, Setup, run, similar_clip, write_report
from tedlens.benchmark.report import REFERENCES, figures
from tedlens.benchmark.similar import (
    CHECKS,
    CUTS,
    DECODED,
    HARDEST,
    ONE_LOOK,
    ONLY_MOTION,
    OVERLAPS,
    SEEN,
    SETS,
    SIDES,
    Choice,
    _best,
    at_end,
    cuts,
    decoding,
    reference_scores,
)
from tedlens.interventions import intervened
from tedlens.models.mini import recipe

# All of it runs the benchmark, on a few clips and noise levels: two to three minutes.
pytestmark = pytest.mark.release


def setup(folder: Path, **other: Any) -> Setup:
    models = {"motion": tl.load_video_model("mini", size=32), "appearance": tl.load_image_model("mini", size=32)}
    few: Any = {"clips": 2, "decoded": 6, "taus": (0, 600), "lams": (0.0, 1.0)}
    return Setup(**(models | few | {"sweeps": folder / "sweeps"} | other))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def found(folder: Path) -> Found:
    return run(setup(folder))


def test_it_measures_what_it_says(found: Found) -> None:
    assert set(found.alone.sizes) == {"set", "features", "block", "tau", "clip", "seed", "object", "frame"}
    assert list(found.alone["set"].values) == list(SETS) == list(found.choices)
    assert list(found.alone["tau"].values) == [0, 600]
    assert list(found.alone["block"].values) == ["up_0", "up_1", "up_2", "up_3"]
    assert found.alone["J"].sel(features="motion").notnull().all()
    appearance = found.alone["J"].sel(features="appearance").dropna("block", how="all")
    assert appearance.notnull().all()
    assert list(appearance["block"].values) == ["up_0", "up_1"]  # the others have cells of one pixel
    assert list(found.overlap["overlap"].values) == list(OVERLAPS)
    assert found.overlap.sizes["frame"] == 38
    assert list(found.cut["check"].values) == list(CUTS)
    assert list(found.by_noise["check"].values) == list(CHECKS)
    assert list(found.by_noise["set"].values) == [SEEN, HARDEST]
    targets = [*DECODED, *(f"{target}{SIDES}" for target in DECODED), ONE_LOOK]
    assert list(found.decoding["target"].values) == targets
    assert found.decoding.attrs["clips"] == 6
    table = found.chosen()
    assert {*REFERENCES.values(), "appearance, motion's grid"} <= set(table["features"].values)
    assert table["J"].notnull().all()
    assert found.references["identity"].notnull().any()
    # The truth itself loses at the outlines only, or to a cell that holds too little of an object.
    by_kind = table["J"].mean(["clip", "seed", "object", "frame"])
    # On the cells that the motion features have; appearance features may have finer ones.
    assert (by_kind.sel(features="true masks") > by_kind.sel(features="motion")).all()
    assert (by_kind.sel(features="true masks") < 1).all()
    # lambda 1 is motion alone.
    for looks, choice in found.choices.items():
        motion = table["J"].sel(set=looks, features="motion")
        np.testing.assert_allclose(found.fused["J"].sel(set=looks, lam=1), motion)
        np.testing.assert_allclose(
            table["J"].sel(set=looks, features="fused"), found.fused["J"].sel(set=looks, lam=choice.lam)
        )


@pytest.mark.parametrize("name", [SEEN, HARDEST])
def test_cuts_change_what_the_model_sees(found: Found, name: str) -> None:
    """And over noise they are, at the chosen tau, what they are there."""
    cell = found.choices[name].motion
    as_it_is = found.alone["J"].sel(set=name, features="motion", **cell)
    by_noise = found.by_noise["J"].sel(set=name, tau=cell["tau"])
    np.testing.assert_array_equal(by_noise.sel(check=CHECKS[0]), as_it_is)
    for each in CUTS:
        cut = found.cut["J"].sel(set=name, check=each)
        assert not np.allclose(cut, as_it_is)
        np.testing.assert_allclose(by_noise.sel(check=each), cut)


@pytest.mark.parametrize("name", ONLY_MOTION)
def test_only_motion_tells_in_the_sets_that_say_so(folder: Path, name: str) -> None:
    """Identity at the end, on 24 clips: below 0.3 by place and by colour, above 0.85 by true velocity."""
    clips = [partial(similar_clip, name, seed) for seed in recipe.VALIDATION_SEEDS[5100:5124]]
    scores = at_end(reference_scores(setup(folder), clips, (recipe.LATENTS, recipe.LATENTS)))["identity"]
    found = scores.mean(["clip", "seed", "object", "frame"])
    place, colour, velocity, masks = (float(found.sel(features=kind)) for kind in REFERENCES)
    assert velocity > 0.85
    assert masks > 0.85
    assert max(place, colour) < 0.3


def test_checks_of_decoding_are_of_the_cells_that_were_chosen(found: Found, folder: Path) -> None:
    made = setup(folder, taus=(found.choices[SEEN].motion["tau"],))
    assert list(found.decoding_checks["check"].values) == [*CHECKS, "image model"]
    assert found.decoding_checks["score"].notnull().all()
    # The same clips, noise and probe as at that cell among all.
    same = decoding(made)["score"].sel(block=found.choices[SEEN].motion["block"]).squeeze("tau", drop=True)
    as_it_is = found.decoding_checks["score"].sel(check="as it is")
    np.testing.assert_allclose(as_it_is, same.sel(target=[f"{target}{SIDES}" for target in DECODED]), rtol=1e-3)


def test_frames_that_were_shuffled_are_back_in_their_order(folder: Path) -> None:
    """Of a model without layers that mix frames, features are nearly the same in any order."""
    motion, clip = setup(folder).motion, similar_clip("distinct", 0, motion="drift")
    how: Any = {"tau": 0, "blocks": "up_1", "seed": 0}
    shuffled, alone = (cuts("up_1")[name] for name in CUTS)
    straight = tl.probe(intervened(motion, alone), clip, **how)["up_1"]["features"]
    other_order = tl.probe(intervened(motion, [alone, shuffled]), clip, **how)["up_1"]["features"]
    # A frame's conditioning says where in the window it is, so that they are the same but for that.
    assert np.corrcoef(other_order.values.ravel(), straight.values.ravel())[0, 1] > 0.99
    whole = tl.probe(intervened(motion, shuffled), clip, **how)["up_1"]["features"]
    assert float(abs(whole - tl.probe(motion, clip, **how)["up_1"]["features"]).max()) > 0.1


def test_choices_are_made_on_other_clips_than_scores(folder: Path) -> None:
    made = setup(folder)
    assert not set(made.test_seeds) & set(made.validation_seeds)
    for seed in (*made.test_seeds, *made.validation_seeds):
        assert seed not in recipe.TRAINING_SEEDS
    kept = tl.open_sweep(folder / "sweeps" / "test-above-motion.zarr")
    assert list(kept["clip"].values) == [similar_clip("above", seed).name for seed in made.test_seeds]


def test_best_is_where_the_mean_is_greatest() -> None:
    values = np.zeros((2, 3, 2))
    values[1, 2], values[0, 1, 0] = 0.6, 1.0  # the greatest mean, the greatest single value
    scores = xr.Dataset({"J": (("block", "tau", "clip"), values)}, {"block": ["up_0", "up_1"], "tau": [0, 300, 600]})
    assert _best(scores, ["block", "tau"]) == {"block": "up_1", "tau": 600}


def test_report(found: Found, folder: Path) -> None:
    report = write_report(found, setup(folder), folder / "out")
    page = (folder / "out" / "report.md").read_text()
    for table in report.tables.values():
        for row in table.values:
            assert " | ".join(row) in page
    j = 100 * found.chosen()["J"].sel(set="similar", features="motion").mean(["frame", "object", "seed"])
    assert f"{float(j.mean()):.1f} ± {float(j.std(ddof=1) / np.sqrt(2)):.1f}" in page
    gain = found.chosen()["J"].sel(set="similar").mean(["frame", "object", "seed", "clip"])
    gain = 100 * float(gain.sel(features="fused") - gain.sel(features="appearance"))
    assert f"similar: fused - appearance | {gain:+.1f} [" in page
    ends = at_end(found.chosen().sel(set=HARDEST, features="place"))["identity"]
    assert f"| place | {100 * float(ends.mean(['frame', 'object', 'seed']).mean()):.0f} (" in page
    assert (folder / "out" / "main.tex").read_text().count(r"\\") >= 3
    for name in (
        "tau_above",
        "tau_identity_lane",
        "tau_block_similar",
        "by_noise",
        "by_noise_identity",
        "lambda",
        "overlap",
        "decoding",
        "pca",
    ):
        assert (folder / "out" / "figures" / f"{name}.html").stat().st_size > 0
    again = xr.open_zarr(folder / "out" / "scores" / "alone.zarr", consolidated=False)
    np.testing.assert_array_equal(again["J"], found.alone["J"])


def test_tau_curves_show_each_set_at_the_block_that_was_chosen_for_it(found: Found, folder: Path) -> None:
    blocks = dict(zip(SETS, ("up_1", "up_2", "up_3", "up_1", "up_2"), strict=True))
    choices = {
        looks: replace(found.choices[looks], motion={"block": block, "tau": 0}) for looks, block in blocks.items()
    }
    drawn = figures(replace(found, choices=choices), setup(folder))
    for looks, block in blocks.items():
        motion = next(trace for trace in drawn[f"tau_{looks}"].data if trace.mode and "motion" in (trace.name or ""))
        scores = found.alone["J"].sel(set=looks, features="motion", block=block)
        np.testing.assert_allclose(motion.y, 100 * scores.mean(["frame", "object"]).mean(["seed", "clip"]))


def test_a_run_goes_on_and_refuses_other_settings(found: Found, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = setup(folder)
    monkeypatch.setattr(type(made.motion), "run", lambda *_: pytest.fail("computed again"))
    clips = [lambda seed=seed: similar_clip("above", seed) for seed in made.test_seeds]
    cells: Any = {"motion": made.motion, "blocks": ["up_0", "up_1", "up_2", "up_3"], "tau": (0, 600), "seeds": (0,)}
    scores = made.sweep("test-above-motion", clips, **cells)
    np.testing.assert_array_equal(scores["J"], found.alone["J"].sel(set="above", features="motion"))
    with pytest.raises(tl.TedlensError, match="overlap"):
        made.sweep("test-above-motion", clips, **cells, overlap=3)


@pytest.mark.parametrize("clips", [1, 65])
def test_number_of_clips(tmp_path: Path, clips: int) -> None:
    with pytest.raises(tl.TedlensError, match=f"clips={clips} does not fit the benchmark; choose 2 to 64"):
        setup(tmp_path, clips=clips)


def test_choice_is_said_in_plain_values(found: Found) -> None:
    for choice in found.choices.values():
        assert isinstance(choice, Choice)
        assert {type(v) for v in (*choice.motion.values(), *choice.appearance.values())} == {int, str}
