"""Models as people have them: weights that are not whole, in variants, damaged; models in each other's place."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import xarray as xr
from safetensors.torch import load_file, save_file
from torch import nn

import tedlens as tl
from tedlens.analysis import without_temporal_layers
from tedlens.cli import about_model
from tedlens.models.base import DiffusionModel
from tedlens.models.hooks import hooked
from tedlens.models.unets.unet2d import UNet2D

State = Mapping[str, torch.Tensor]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sd")
    tiny.stable_diffusion(folder).save_pretrained(folder / "whole")
    return folder / "whole"


@pytest.fixture
def clip() -> tl.Clip:
    return tl.datasets.similar(1, frames=6, size=32)


@pytest.fixture(scope="module")
def image() -> DiffusionModel:
    return UNet2D(tiny.unet2d(), name="tiny-image", size=32, block="up_0")


def edited(saved: Path, folder: Path, part: str, edit: Callable[[State], State]) -> Path:
    """A copy of a pipeline with other tensors in one part."""
    copy = folder / "copy"
    shutil.copytree(saved, copy)
    [file] = (copy / part).glob("*.safetensors")
    save_file(dict(edit(load_file(file))), file, metadata={"format": "pt"})
    return copy


def without_third(state: State) -> State:
    left_out = sorted(state)[2]
    return {name: value for name, value in state.items() if name != left_out}


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_tensor_that_is_missing_is_named(saved: Path, tmp_path: Path, part: str) -> None:
    [file] = (saved / part).glob("*.safetensors")
    with pytest.raises(tl.TedlensError) as error:
        tl.load_image_model(edited(saved, tmp_path, part, without_third))
    assert f"1 of the {len(load_file(file))} tensors" in str(error.value)
    assert sorted(load_file(file))[2] in str(error.value)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_names_as_data_parallel_saves_them(saved: Path, tmp_path: Path, part: str) -> None:
    folder = edited(saved, tmp_path, part, lambda state: {f"module.{name}": v for name, v in state.items()})
    with pytest.raises(tl.TedlensError, match=r"begin with 'module\.'.*save model\.module"):
        tl.load_image_model(folder)


def test_a_variant(saved: Path, tmp_path: Path) -> None:
    whole = tl.load_image_model(saved)
    tiny.stable_diffusion(tmp_path).save_pretrained(tmp_path / "fp16", variant="fp16")
    with pytest.raises(tl.TedlensError, match="no weights without a variant; load the model with one: variant='fp16'"):
        tl.load_image_model(tmp_path / "fp16")
    with pytest.raises(tl.TedlensError, match="no weights of variant='bf16'; it has weights without a variant"):
        tl.load_image_model(saved, variant="bf16")
    assert tl.load_image_model(tmp_path / "fp16", variant="fp16").weights_sha256 == whole.weights_sha256


def mixed(saved: Path, folder: Path) -> Path:
    """A pipeline of which one part alone has a variant."""
    copy = folder / "mixed"
    shutil.copytree(saved, copy)
    file = copy / "vae" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    return copy


def test_a_variant_of_some_parts(saved: Path, tmp_path: Path) -> None:
    assert tl.load_image_model(mixed(saved, tmp_path), variant="fp16").blocks


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ("vae", ["diffusers", "NoSuchModel"]),
        ("vae", ["diffusers", "loaders"]),
        ("vae", ["nowhere", "NoSuchModel"]),
        ("text_encoder", ["transformers", "NoSuchModel"]),
        ("scheduler", ["diffusers", "NoSuchScheduler"]),
        ("unet", [None, None]),
        ("unet", "UNet2DConditionModel"),
        ("_class_name", "NoSuchPipeline"),
    ],
)
def test_an_index_that_names_classes_that_are_none(saved: Path, tmp_path: Path, part: str, place: Any) -> None:
    folder = shutil.copytree(saved, tmp_path / "copy")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {part: place}))
    with pytest.raises(tl.TedlensError):
        tl.load_image_model(folder)
    with pytest.raises(tl.TedlensError):
        about_model(str(folder), None, None)


def test_weights_that_are_no_numbers(saved: Path, tmp_path: Path, clip: tl.Clip) -> None:
    def spoilt(state: State) -> State:
        return {name: value * torch.nan if name == "conv_in.weight" else value for name, value in state.items()}

    model = tl.load_image_model(edited(saved, tmp_path, "unet", spoilt), size=32)
    with pytest.raises(tl.TedlensError, match=r"weights of .* hold NaN .* first in conv_in.weight of its UNet2DCond"):
        tl.probe(model, clip, tau=100)


def test_features_that_are_no_numbers(image: DiffusionModel, clip: tl.Clip) -> None:
    def overflow() -> Callable[..., Any]:
        return lambda module, inputs, output: output * torch.inf

    said = r"'tiny-image' in float32 gives NaN or infinite values \(features of up_0 at tau=300\); .*dtype='bfloat16'"
    with hooked([(image.module("up_0"), overflow())]), pytest.raises(tl.TedlensError, match=said):
        tl.probe(image, clip, tau=300)


def test_models_in_each_others_place(video: DiffusionModel, image: DiffusionModel, clip: tl.Clip) -> None:
    said = r"motion= wants a video model, and 'tiny-image' is an image model; give it as appearance="
    with pytest.raises(tl.TedlensError, match=said):
        tl.track(clip, motion=image, appearance=video)
    with pytest.raises(tl.TedlensError, match=said):
        tl.sweep(clip, motion=image, tau=100)
    with pytest.raises(tl.TedlensError, match=r"appearance= wants an image model"):
        tl.track(clip, appearance=video, lam=0)


def test_one_submodule_has_one_name(video: DiffusionModel, clip: tl.Clip) -> None:
    asked = ["up_2", "up_blocks.2", "up_blocks.2.resnets.*", "up_2.resnets.0", "conv_in"]
    tree = tl.probe(video, clip, tau=600, blocks=asked)
    assert tree.attrs["blocks"] == ["up_2", "up_2.resnets.0", "up_2.resnets.1", "conv_in"]
    whole = tl.probe(video, clip, tau=600, blocks="up_2")
    xr.testing.assert_equal(tree["up_2"]["features"], whole["up_2"]["features"])


def test_names_and_paths_are_taken_for_what_they_mean(clip: tl.Clip, tmp_path: Path) -> None:
    np.savez(tmp_path / "clip.npz", frames=clip.frames, masks=clip.masks)
    found = tl.probe("mini", tmp_path / "clip.npz", tau=100, blocks="up_1", size=32)
    expected = tl.probe(tl.load_video_model("mini"), clip, tau=100, blocks="up_1", size=32)
    np.testing.assert_array_equal(found["up_1"]["features"], expected["up_1"]["features"])
    labels = tl.track(str(tmp_path / "clip.npz"), motion="mini", appearance="mini", size=32)
    assert clip.masks is not None
    xr.testing.assert_equal(tl.evaluate(labels, clip.masks), tl.evaluate(labels["labels"], clip.masks))
    with pytest.raises(tl.TedlensError, match="is no clip"):
        tl.probe("mini", clip.frames, tau=100)  # type: ignore[arg-type]
    with pytest.raises(tl.TedlensError, match="is no model"):
        tl.probe(3, clip, tau=100)  # type: ignore[arg-type]


def test_what_was_cut_is_part_of_the_provenance(video: DiffusionModel, clip: tl.Clip, tmp_path: Path) -> None:
    with without_temporal_layers(video):
        cut = tl.probe(video, clip, tau=100, blocks="up_2")
        tl.sweep(clip, motion=video, tau=100, blocks="up_2", store=tmp_path / "s.zarr", progress=False)
    assert cut.attrs["model_without"] == "temporal layers"
    assert "model_without" not in tl.probe(video, clip, tau=100, blocks="up_2").attrs
    with pytest.raises(tl.TedlensError, match="motion_model_without='temporal layers', and now"):
        tl.sweep(clip, motion=video, tau=100, blocks="up_2", store=tmp_path / "s.zarr", progress=False)


def test_threads_that_share_a_model_take_turns(video: DiffusionModel, clip: tl.Clip) -> None:
    def probed(tau: int) -> xr.DataArray:
        return tl.probe(video, clip, tau=tau, blocks=["up_1", "up_2"], window=3, overlap=0)["up_2"]["features"]

    taus = [100, 300, 500, 700]
    expected = {tau: probed(tau) for tau in taus}
    with without_temporal_layers(video):
        expected_cut = probed(400)
    found: dict[int, xr.DataArray] = {}

    def whole(tau: int) -> None:
        for _ in range(3):
            found[tau] = probed(tau)

    def cut() -> None:
        for _ in range(3):
            with without_temporal_layers(video):
                found[400] = probed(400)

    threads = [threading.Thread(target=whole, args=(tau,)) for tau in taus] + [threading.Thread(target=cut)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for tau in taus:
        np.testing.assert_array_equal(found[tau], expected[tau])
    np.testing.assert_array_equal(found[400], expected_cut)


@pytest.mark.parametrize("after", [False, True])
def test_no_hook_stays_after_an_interrupt(
    video: DiffusionModel, clip: tl.Clip, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    placed = nn.Module.register_forward_hook
    left = 3

    def interrupted(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left > 0 or after:
            handle = placed(self, *args, **kwargs)
        if left <= 0:
            raise KeyboardInterrupt
        return handle

    monkeypatch.setattr(nn.Module, "register_forward_hook", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tl.probe(video, clip, tau=100, blocks=["up_0", "up_1", "up_2"])
    left = 3
    with pytest.raises(KeyboardInterrupt), without_temporal_layers(video):
        pass
    assert not any(module._forward_hooks or module._forward_hooks_with_kwargs for module in video.unet.modules())
    assert "model_without" not in video.provenance()
