"""Activations of another run, and vectors, put into a model: what arrives is what was taken, in every architecture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import xarray as xr
from adapters import LAYER, VIDEO, features, no_hooks, video_models
from planted import Planted

import tedlens as tl
from tedlens.interventions import intervened
from tedlens.models.base import DiffusionModel
from tedlens.models.noise import frame_noise
from tedlens.models.registry import ADAPTERS, as_model
from tedlens.probing import Prepared

BRANCH = "up_0.mix.attn1"  # of the planted network: what it adds is minus the mean over frames


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DiffusionModel]:
    return video_models(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def clip() -> tl.Clip:
    made = tl.datasets.similar(1, frames=6, size=32)
    return tl.Clip(made.frames, made.masks, name="six")


@pytest.fixture(scope="module")
def other() -> tl.Clip:
    return tl.Clip(tl.datasets.similar(2, frames=8, size=32).frames, name="eight")


@pytest.fixture
def planted() -> Planted:
    return Planted()


# --- planted truths -------------------------------------------------------------------------------


def test_what_was_planted_is_carried_over_and_nothing_else(planted: Planted, clip: tl.Clip, other: tl.Clip) -> None:
    four = clip[:4]
    own, others = (features(planted, each[:4], "mid") for each in (clip, other))
    found = features(tl.patch(planted, BRANCH, other), four)
    np.testing.assert_allclose(found, own - others.mean("frame"), atol=1e-5)
    # What the other layers give is of this clip: they add nothing of their own.
    whole = features(planted, four)
    np.testing.assert_array_equal(
        features(tl.patch(planted, ["down_0.mix.attn1", "mid.mix.attn1"], other), four), whole
    )


def test_other_orders_of_the_same_frames(planted: Planted, clip: tl.Clip) -> None:
    """Without noise, so that a frame repeated is the frame."""
    clip = clip[:4]
    own, whole = features(planted, clip, "mid", tau=0), features(planted, clip, tau=0)
    still = features(tl.patch(planted, BRANCH, "still"), clip, tau=0)
    np.testing.assert_allclose(still, own - own.isel(frame=0), atol=1e-5)
    for order in ("reversed", "shuffled"):  # the mean does not know them, and frames come back to their places
        for layer in (BRANCH, "mid", "up_0"):
            np.testing.assert_allclose(features(tl.patch(planted, layer, order), clip, tau=0), whole, atol=1e-5)


def test_another_level_and_seed(planted: Planted, clip: tl.Clip) -> None:
    assert not np.allclose(features(planted, clip), features(planted, clip, tau=700))
    for source in ({"tau": 700}, {"seed": 5}, {"tau": 700, "seed": 5}):
        found = features(tl.patch(planted, "up_0", source), clip)
        expected = features(planted, clip, **({"tau": 200} | source))
        np.testing.assert_array_equal(found, expected)


def test_frames_and_cells(planted: Planted, clip: tl.Clip, other: tl.Clip) -> None:
    whole, patched = features(planted, clip, size=32), features(planted, other[:6], size=32)
    inside = xr.DataArray(clip.masks == 2, dims=("frame", "y", "x"))
    assert inside.any()
    found = features(tl.patch(planted, "up_0", other, cells=2), clip, size=32)
    np.testing.assert_array_equal(found, xr.where(inside.values[:, None], patched, whole))
    found = features(tl.patch(planted, "up_0", other, cells=2, frames=[3, 4]), clip, size=32)
    there = inside & xr.DataArray(np.isin(range(6), (3, 4)), dims="frame")
    np.testing.assert_array_equal(found, xr.where(there.values[:, None], patched, whole))


def test_a_patch_is_of_the_model_that_it_was_made_of(planted: Planted, clip: tl.Clip, other: tl.Clip) -> None:
    """The other run has the interventions that were there before, and none that come after."""
    cut = tl.ablate(planted, "up_0.mix")
    np.testing.assert_array_equal(features(tl.patch(cut, "up_0", other), clip), features(cut, other[:6]))
    after = tl.ablate(tl.patch(planted, "up_0", other), "up_0.mix")
    np.testing.assert_array_equal(features(after, clip), features(planted, other[:6]))


# --- every architecture ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", VIDEO)
def test_the_last_block_of_another_clip(
    models: dict[str, DiffusionModel],
    name: str,
    clip: tl.Clip,
    other: tl.Clip,
) -> None:
    """In windows: the other clip's features to the bit; and of a layer before, something of both."""
    model = models[name]
    whole, expected = features(model, clip), features(model, other[:6])
    found = features(tl.patch(model, model.blocks[-1], other), clip)
    np.testing.assert_array_equal(found, expected)
    partly = features(tl.patch(model, LAYER[name][0], other), clip)
    assert not np.allclose(partly, whole, atol=1e-7)
    assert not np.allclose(partly, expected, atol=1e-7)
    assert no_hooks(model)
    np.testing.assert_array_equal(features(model, clip), whole)


def test_reversed_by_hand(models: dict[str, DiffusionModel], clip: tl.Clip) -> None:
    model = models["animatediff"]  # which counts frames
    clip = clip[:4]
    prepared = Prepared(model, clip)
    noise = frame_noise(0, range(4), tuple(prepared.clean.shape[1:]))
    seen: list[Any] = []
    handle = model.module("up_1").register_forward_hook(lambda *each: seen.append(each[2]))
    with torch.no_grad():
        model.run(model.add_noise(prepared.clean, noise, 200).flip(0), 200, prepared.conditions[0])
    handle.remove()
    found = features(tl.patch(model, "up_1", "reversed"), clip, "up_1")
    np.testing.assert_array_equal(found, seen[0].flip(0))
    assert not np.array_equal(found, features(model, clip, "up_1"))


@pytest.mark.parametrize(
    "layer",
    [
        "up_1",
        "up_1.temp_convs.0.conv4.3",
        "up_1.attentions.0.transformer_blocks.0.attn1.to_q",
        "up_1.temp_attentions.0.transformer_blocks.0.attn1.to_v",
    ],
)
def test_steering_in_every_layout(models: dict[str, DiffusionModel], clip: tl.Clip, layer: str) -> None:
    model = models["i2vgen_xl"]
    whole = features(model, clip, layer)
    direction = np.linspace(-1, 1, whole.sizes["channel"])
    steered = tl.steer(model, layer, direction, 0.5)
    np.testing.assert_allclose(
        features(steered, clip, layer), whole + xr.DataArray(0.5 * direction, dims="channel"), atol=1e-5
    )
    assert not np.allclose(features(steered, clip, "up_3"), features(model, clip, "up_3"), atol=1e-6)


def test_in_half_precision_on_loan(tmp_path: Path, clip: tl.Clip, other: tl.Clip) -> None:
    pipeline = tiny.svd().to(torch.bfloat16)
    model = ADAPTERS["video"]["UNetSpatioTemporalConditionModel"](pipeline, name="half", size=32, offload=True)
    found = features(tl.patch(model, "up_3", other), clip)
    np.testing.assert_array_equal(found, features(model, other[:6]))
    steered = tl.steer(model, "up_3", np.ones(found.sizes["channel"]), 1)
    assert float((features(steered, clip) - features(model, clip)).mean()) == pytest.approx(1, abs=0.02)


# --- values ---------------------------------------------------------------------------------------


def test_from_attributes_and_back(planted: Planted, other: tl.Clip, tmp_path: Path) -> None:
    np.savez(tmp_path / "eight.npz", frames=other.frames)
    path = str(tmp_path / "eight.npz")
    made = tl.steer(tl.patch(planted, "up_0", path, frames=range(2), cells=1), "mid", [0, 1, 0, 0], 2)
    said = made.provenance()["model_interventions"]
    again = intervened(planted, json.loads(said))
    assert again.provenance()["model_interventions"] == said
    assert np.array_equal(again.interventions[0].source.clip.frames, other.frames)  # type: ignore[attr-defined]
    np.savez(tmp_path / "eight.npz", frames=other.frames[::-1])
    with pytest.raises(tl.TedlensError, match="has other frames than the clip that was patched from"):
        intervened(planted, json.loads(said))
    loaded = as_model({"name": "mini", "patch": {"layers": "up_2", "source": "still"}})
    assert json.loads(loaded.provenance()["model_interventions"]) == [
        {"patch": {"layers": ["up_2"], "source": {"order": "still"}}}
    ]


def test_what_cannot_be_patched_or_steered_is_said(planted: Planted, clip: tl.Clip, other: tl.Clip) -> None:
    bare = tl.Clip(clip.frames)
    for source, how, given, message in (
        (clip, {}, other, "'six' of 6 frames is shorter than 'eight' of 8"),
        ("still", {"cells": 1}, bare, "'clip' has no masks of all its frames"),
        ("still", {"cells": 9}, clip, "has no object 9"),
        ("still", {"frames": 6}, clip, "goes beyond clip 'six'"),
    ):
        with pytest.raises(tl.TedlensError, match=message):
            features(tl.patch(planted, "up_0", source, **how), given)
    for source, message in (
        ({"order": "backwards"}, "order='backwards' is not known"),
        ({"noise": 3}, "is no other run"),
        ({"tau": 1000}, "tau=1000 is not a training timestep"),
        ({"seed": -1}, "seed=-1 cannot key the noise"),
    ):
        with pytest.raises(tl.TedlensError, match=message):
            tl.patch(planted, "up_0", source)
    for direction, strength, message in (
        (np.ones(3), 1, "direction has 3 numbers, and layer 'up_0' 4 channels"),
        (np.ones((2, 2)), 1, "are no vector"),
        ([1, np.nan, 0, 0], 1, "are no vector"),
        (np.ones(4), "much", "are no vector"),
    ):
        with pytest.raises(tl.TedlensError, match=message):
            tl.steer(planted, "up_0", direction, strength)  # type: ignore[arg-type]
