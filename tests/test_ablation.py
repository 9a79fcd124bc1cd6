"""Models without layers or heads: what is removed is what was planted there, in every architecture and however run."""

from __future__ import annotations

import json
import threading
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
from tedlens.interventions.ablation import TEMPORAL, TEMPORAL_LAYERS
from tedlens.interventions.sites import inside
from tedlens.models.base import DiffusionModel
from tedlens.models.registry import ADAPTERS, as_model

SPATIAL_QUERIES = "up_2.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DiffusionModel]:
    return video_models(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def clip() -> tl.Clip:
    made = tl.datasets.similar(1, frames=6, size=32)
    return tl.Clip(made.frames, made.masks, name="six")


@pytest.fixture
def planted() -> Planted:
    return Planted()


# --- planted truths -------------------------------------------------------------------------------


def test_what_moves_goes_with_the_layer_that_carries_it_and_with_no_other(planted: Planted, clip: tl.Clip) -> None:
    clip = clip[:4]
    whole = features(planted, clip)
    before = features(planted, clip, "mid")
    np.testing.assert_allclose(whole, before - before.mean("frame"), atol=1e-5)
    assert np.abs(whole).max() > 0.1
    cut = tl.ablate(planted, "up_0.mix")
    np.testing.assert_array_equal(features(cut, clip), before)
    # The branch alone: its caller adds it, so without it nothing is added.
    np.testing.assert_array_equal(features(tl.ablate(planted, "up_0.mix.attn1"), clip), before)
    np.testing.assert_allclose(features(tl.ablate(planted, "up_0.mix", "mean"), clip), 0, atol=1e-5)
    assert not features(tl.ablate(planted, "up_0", "zero"), clip).any()
    for other in (["down_0.mix", "mid.mix"], ["down_0", "mid"]):
        np.testing.assert_array_equal(features(tl.ablate(planted, other), clip), whole)


def test_what_moves_goes_with_the_head_that_carries_it_and_with_no_other(planted: Planted, clip: tl.Clip) -> None:
    clip = clip[:4]
    whole, before = features(planted, clip), features(planted, clip, "mid")
    for layer in ("up_0.mix.attn1", "up_0", "**"):
        np.testing.assert_allclose(features(tl.ablate(planted, layer, heads=1), clip), before, atol=1e-6)
        np.testing.assert_allclose(features(tl.ablate(planted, layer, heads=[0]), clip), whole, atol=1e-6)
    # The head's output is the mean over frames already.
    np.testing.assert_allclose(features(tl.ablate(planted, "up_0", "mean", heads=1), clip), whole, atol=1e-6)


def test_frames_alone_are_cut_wherever_windows_lie(planted: Planted, clip: tl.Clip) -> None:
    """Frames 1 and 4 of six, in windows 0..3 and 2..5."""
    whole, before = features(planted, clip), features(planted, clip, "mid")
    for how in ({"heads": 1}, {}):
        cut = features(tl.ablate(planted, "up_0.mix", frames=[1, 4], **how), clip)
        for frame in range(6):
            np.testing.assert_allclose(
                cut.sel(frame=frame), (before if frame in (1, 4) else whole).sel(frame=frame), atol=1e-6
            )
    zero = features(tl.ablate(planted, "up_0", "zero", frames=4), clip)
    assert not zero.sel(frame=4).any()
    np.testing.assert_array_equal(zero.drop_sel(frame=4), whole.drop_sel(frame=4))


# --- every architecture ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", VIDEO)
def test_a_cut_model_shares_all_but_the_cut(models: dict[str, DiffusionModel], name: str, clip: tl.Clip) -> None:
    model, (layer, attention) = models[name], LAYER[name]
    whole = features(model, clip)
    for cut in (
        tl.ablate(model, layer),
        tl.ablate(model, layer, "mean"),
        tl.ablate(model, attention, "zero", heads=[1]),
        tl.ablate(model, layer, "zero", frames=[2]),
    ):
        assert cut.unet is model.unet
        changed = features(cut, clip)
        assert float(np.abs(changed - whole).max()) > 1e-6
        assert json.loads(changed.attrs["model_interventions"]) == [cut.interventions[0].said()]
        assert no_hooks(model)
    # Nothing is left, and what was never cut is the same to the bit.
    after = features(model, clip)
    xr.testing.assert_identical(after, whole)
    assert "model_interventions" not in after.attrs


@pytest.mark.parametrize("name", VIDEO)
def test_the_temporal_layers_are_those_of_the_network(models: dict[str, DiffusionModel], name: str) -> None:
    model = models[name]
    cut = tl.ablate(model, TEMPORAL)
    found = {id(module) for module, _ in cut.interventions[0].acts(cut, None, None)}
    assert found == {id(m) for m in model.unet.modules() if type(m).__name__ in TEMPORAL_LAYERS}


@pytest.mark.parametrize("name", ["i2vgen_xl", "svd"])
def test_by_hand(models: dict[str, DiffusionModel], name: str, clip: tl.Clip) -> None:
    """Without the layer over frames, by changing the module itself."""
    model, (_, attention) = models[name], LAYER[name]
    cut = features(tl.ablate(model, attention), clip)
    path = inside(model).point(attention).path
    projection: Any = model.unet.get_submodule(f"{path}.to_out.0")
    weight, bias = projection.weight.clone(), projection.bias.clone()
    try:
        projection.weight.zero_(), projection.bias.zero_()
        np.testing.assert_array_equal(features(model, clip), cut)
        projection.bias.copy_(bias)
        heads: Any = model.unet.get_submodule(path).heads
        headless = features(tl.ablate(model, attention, heads=range(heads)), clip)
        np.testing.assert_allclose(features(model, clip), headless, atol=1e-5)
    finally:
        projection.weight.copy_(weight), projection.bias.copy_(bias)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision(tmp_path: Path, clip: tl.Clip, dtype: torch.dtype) -> None:
    pipeline = tiny.i2vgen_xl(tmp_path).to(dtype)
    model = ADAPTERS["video"]["I2VGenXLUNet"](pipeline, name="half", size=32, offload=True)
    layer, attention = LAYER["i2vgen_xl"]
    whole = features(model, clip)
    for how in ({"layers": layer, "how": "mean", "frames": 1}, {"layers": attention, "heads": 1}):
        cut = features(tl.ablate(model, **how), clip)
        assert cut.dtype == whole.dtype
        assert (cut != whole).any()


def test_an_image_model_in_any_batch(clip: tl.Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tl.load_image_model("mini")
    layer = "mid.attentions.0"
    cut = tl.ablate(model, layer, frames=[1, 5])
    together = features(cut, clip, window=None)
    monkeypatch.setattr(tl.probing.windows, "__kwdefaults__", {"batch": 2})
    np.testing.assert_allclose(features(cut, clip, window=None), together, atol=1e-5)
    with pytest.raises(tl.TedlensError, match="mean over frames, and 'mini' is an image model"):
        tl.ablate(model, layer, "mean")


# --- composition, scopes, values ------------------------------------------------------------------


def test_interventions_compose(models: dict[str, DiffusionModel], clip: tl.Clip) -> None:
    model = models["i2vgen_xl"]
    first, second = LAYER["i2vgen_xl"][0], "up_2.temp_attentions.0"
    both = features(tl.ablate(tl.ablate(model, first), second), clip)
    np.testing.assert_array_equal(both, features(tl.ablate(model, [first, second]), clip))
    with tl.ablate(model, first), tl.ablate(model, second) as inside:
        assert inside is model
        np.testing.assert_array_equal(features(model, clip), both)


def test_a_scope_cuts_the_very_model_and_leaves_nothing(models: dict[str, DiffusionModel], clip: tl.Clip) -> None:
    model, (layer, _) = models["i2vgen_xl"], LAYER["i2vgen_xl"]
    whole, cut = features(model, clip), features(tl.ablate(model, layer), clip)
    heard = []

    def use(scope: DiffusionModel) -> None:
        with scope:
            xr.testing.assert_identical(features(model, clip), cut)
            other.start()
            other.join(0.5)
            assert not heard  # it waits
            raise RuntimeError

    other = threading.Thread(target=lambda: heard.append(features(model, clip)))
    with pytest.raises(RuntimeError):
        use(tl.ablate(model, layer))
    other.join()
    xr.testing.assert_identical(heard[0], whole)
    assert no_hooks(model)
    assert model.interventions == ()
    with pytest.raises(tl.TedlensError, match="was not made by an intervention"), model:
        pass


def test_a_scope_holds_for_the_pipeline_s_own_forwards(planted: Planted) -> None:
    sample = torch.rand(4, 3, 8, 8)
    whole = planted.unet(sample)
    with tl.ablate(planted, "up_0.mix"):
        assert not torch.equal(planted.unet(sample), whole)
    assert torch.equal(planted.unet(sample), whole)
    with (
        pytest.raises(tl.TedlensError, match="goes by the frames of a clip"),
        tl.ablate(planted, "up_0.mix", frames=1),
    ):
        planted.unet(sample)
    assert no_hooks(planted)


def test_the_lock_is_free_after_an_error_inside(planted: Planted, clip: tl.Clip) -> None:
    cut = tl.ablate(planted, "up_0.mix", frames=17)
    with pytest.raises(tl.TedlensError, match=r"frames=\[17\] goes beyond clip 'six' of 6"):
        features(cut, clip)
    free = threading.Thread(target=lambda: features(planted, clip))
    free.start()
    free.join(10)
    assert not free.is_alive()


def test_by_value_and_back_from_attributes(clip: tl.Clip) -> None:
    layers = "up_2.temp_attentions.*"
    model = tl.load_video_model("mini")
    expected = features(tl.ablate(model, layers), clip, "up_2", window=None)
    said: Any = {"name": "mini", "ablate": layers}
    found = tl.probe(said, clip, tau=200, blocks="up_2")["up_2"]["features"].isel(tau=0, seed=0)
    np.testing.assert_array_equal(found, expected)
    assert found.attrs["model_interventions"] == expected.attrs["model_interventions"]
    again = intervened(model, json.loads(expected.attrs["model_interventions"]))
    assert again.interventions == as_model({"name": "mini", "ablate": {"layers": [layers]}}).interventions


def test_a_store_never_takes_cut_for_whole(planted: Planted, clip: tl.Clip, tmp_path: Path) -> None:
    how: dict[str, Any] = {"tau": 100, "radius": 2, "store": tmp_path / "s.zarr", "progress": False}
    tl.sweep(clip, motion=tl.ablate(planted, "up_0.mix"), **how)
    for other in (planted, tl.ablate(planted, "up_0.mix", frames=1), tl.ablate(planted, "mid.mix")):
        with pytest.raises(tl.TedlensError, match="motion_model_interventions="):
            tl.sweep(clip, motion=other, **how)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": "down_0.conv"}, "has no block 'down_0.conv'"),
        ({"layers": []}, "names no layer"),
        ({"layers": "up_0", "how": "half"}, "how='half' is no way to cut"),
        ({"layers": "up_0", "heads": 2}, "which has 2; choose from 0 to 1"),
        ({"layers": "up_0", "heads": -1}, "are no numbers of heads"),
        ({"layers": "conv_in", "heads": 0}, "There is no attention in conv_in"),
        ({"layers": "conv_in"}, "'conv_in' changes the shape of its input"),
        ({"layers": "temporal layers"}, "no temporal layers to bypass"),
        ({"layers": "up_0", "frames": 0.5}, "frames=0.5 are no numbers of frames"),
    ],
)
def test_what_cannot_be_cut_is_said_at_once(planted: Planted, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(tl.TedlensError, match=message):
        tl.ablate(planted, **arguments)
    for value in ({"name": "mini", "ablate": {"layer": "up_0"}}, {"name": "mini", "ablate": 3}):
        with pytest.raises(tl.TedlensError, match="ablate"):
            as_model(value)


@pytest.mark.parametrize(
    "layer",
    ["up_2", "up_2.temp_convs.0.conv4.3", SPATIAL_QUERIES, "up_2.temp_attentions.0.transformer_blocks.0.norm1"],
)
def test_frames_and_means_in_every_layout(models: dict[str, DiffusionModel], clip: tl.Clip, layer: str) -> None:
    """Of a map, a video, tokens and tracks: zeros and means where they are meant, in the layer's own output."""
    model, clip = models["i2vgen_xl"], clip[:4]
    whole = features(model, clip, layer)
    zero = features(tl.ablate(model, layer, "zero", frames=[0, 3]), clip, layer)
    assert not zero.sel(frame=[0, 3]).any()
    np.testing.assert_array_equal(zero.sel(frame=[1, 2]), whole.sel(frame=[1, 2]))
    mean = features(tl.ablate(model, layer, "mean", frames=2), clip, layer)
    np.testing.assert_allclose(mean.sel(frame=2), whole.mean("frame"), atol=1e-5)
    np.testing.assert_array_equal(mean.sel(frame=[0, 1, 3]), whole.sel(frame=[0, 1, 3]))


def test_a_scope_holds_for_all_that_runs_the_model(models: dict[str, DiffusionModel], clip: tl.Clip) -> None:
    model, attention = models["modelscope"], LAYER["modelscope"][1]
    clip = clip[:4]
    runs: dict[str, Any] = {
        "track": lambda m: tl.track(clip, motion=m, lam=1, tau=300, block="up_1")["labels"],
        "predict": lambda m: tl.predict(m, clip, tau=300).frames,
        "attention": lambda m: tl.attention(m, clip, 300, attention),
    }
    cut = tl.ablate(model, "down_0.temp_attentions.0", "mean")
    alone = {name: np.asarray(run(cut)) for name, run in runs.items()}
    with tl.ablate(model, "down_0.temp_attentions.0", "mean"):
        for name, run in runs.items():
            np.testing.assert_array_equal(np.asarray(run(model)), alone[name])
        about = runs["track"](model).attrs
    assert "down_0" in about["motion_model_interventions"]
    assert not np.array_equal(np.asarray(runs["attention"](model)), alone["attention"])
