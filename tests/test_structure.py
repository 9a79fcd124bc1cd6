"""Inside a UNet: what can be probed is listed without running it, and read in the right layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

import tedlens as tl
from tedlens.models.base import DiffusionModel
from tedlens.models.structure import hook_points, on_meta_device, outline
from tedlens.probing import Prepared

FRAMES = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DiffusionModel]:
    folder = tmp_path_factory.mktemp("tiny")
    adapters = tl.models.registry.ADAPTERS
    made = {
        "i2vgen_xl": adapters["video"]["I2VGenXLUNet"](tiny.i2vgen_xl(folder), name="i2vgen_xl"),
        "svd": adapters["video"]["UNetSpatioTemporalConditionModel"](tiny.svd(), name="svd"),
        "modelscope": adapters["video"]["UNet3DConditionModel"](tiny.modelscope(folder), name="modelscope"),
        "animatediff": adapters["video"]["UNetMotionModel"](tiny.animatediff(folder), name="animatediff"),
        "unet2d": adapters["image"]["UNet2DModel"](tiny.unet2d(), name="unet2d"),
        "sd": adapters["image"]["UNet2DConditionModel"](tiny.stable_diffusion(folder), name="sd"),
    }
    return made


@pytest.mark.parametrize("name", ["i2vgen_xl", "svd", "modelscope", "animatediff", "unet2d", "sd"])
def test_every_hook_point_is_read_as_listed(models: dict[str, DiffusionModel], name: str) -> None:
    """All submodules of every architecture: the shape that was listed is the shape that is read."""
    model = models[name]
    clip = tl.datasets.similar(1, frames=FRAMES, size=(32, 64))
    prepared = Prepared(model, clip, size=(32, 64))
    points = hook_points(model, prepared.input_size)
    assert set(outline(model, prepared.input_size).blocks.values()) <= set(points)
    _, _, features = next(prepared.features([300], [0], list(points)))
    assert features
    assert set(features) == set(points)
    for path, point in points.items():
        assert features[path].shape == (FRAMES, point.channels, *point.grid), path


def by_hand(model: DiffusionModel, clip: tl.Clip, path: str) -> torch.Tensor:
    """A submodule's raw output in a plain forward without early stop."""
    prepared = Prepared(model, clip, size=(32, 64))
    noise = tl.models.noise.frame_noise(0, range(len(clip)), tuple(prepared.clean.shape[1:]))
    seen: list[Any] = []
    handle = model.unet.get_submodule(path).register_forward_hook(lambda *a: seen.append(a[2]))
    with torch.no_grad():
        model.run(model.add_noise(prepared.clean, noise, 300), 300, prepared.conditions[0])
    handle.remove()
    (output,) = seen
    return output if isinstance(output, torch.Tensor) else output[0]


def rows(value: torch.Tensor, axis: int, grid: tuple[int, int]) -> torch.Tensor:
    """An axis of all cells, row after row, as two: y, x."""
    return torch.stack(value.split(grid[1], dim=axis), dim=axis)


READERS: dict[str, Callable[[torch.Tensor, tuple[int, int]], torch.Tensor]] = {
    "map": lambda v, grid: v,
    "video": lambda v, grid: torch.einsum("bcfyx->fcyx", v),
    "tokens": lambda v, grid: torch.einsum("fyxc->fcyx", rows(v, 1, grid)),
    "tracks": lambda v, grid: torch.einsum("yxfc->fcyx", rows(v, 0, grid)),
}


@pytest.mark.parametrize(
    ("name", "path", "layout"),
    [
        ("i2vgen_xl", "up_blocks.2.temp_convs.0", "map"),
        ("i2vgen_xl", "up_blocks.2.temp_convs.0.conv1.2", "video"),
        ("i2vgen_xl", "up_blocks.2.attentions.0.transformer_blocks.0.attn1.to_q", "tokens"),
        ("i2vgen_xl", "up_blocks.2.temp_attentions.0.transformer_blocks.0.attn1.to_k", "tracks"),
        ("svd", "up_blocks.2.resnets.0.temporal_res_block", "video"),
        ("svd", "up_blocks.2.attentions.0.temporal_transformer_blocks.0.attn1.to_q", "tracks"),
        ("animatediff", "up_blocks.1.motion_modules.0.transformer_blocks.0.attn1.to_q", "tracks"),
    ],
)
def test_layouts(models: dict[str, DiffusionModel], name: str, path: str, layout: str) -> None:
    clip = tl.datasets.similar(1, frames=FRAMES, size=(32, 64))
    [found] = tl.probe(models[name], clip, tau=300, blocks=path, size=(32, 64)).children.values()
    features = found["features"][0, 0]
    point = hook_points(models[name], (32, 64))[path]
    assert point.layout == layout
    expected = READERS[layout](by_hand(models[name], clip, path), point.grid)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_as_many_cells_as_frames_is_no_riddle(models: dict[str, DiffusionModel]) -> None:
    """At 8 frames and a grid of 2x4, spatial and temporal attention have the same shape."""
    clip = tl.datasets.similar(1, frames=8, size=(32, 64))
    inside = "up_1.{}.0.transformer_blocks.0.attn1.to_q"
    spatial, temporal = inside.format("attentions"), inside.format("temp_attentions")
    model = models["i2vgen_xl"]
    size = (16, 32)
    s, t = (outline(model, size).point(name) for name in (spatial, temporal))
    assert (s.layout, t.layout) == ("tokens", "tracks")
    features = tl.probe(model, clip, tau=300, blocks=[spatial, temporal], size=size)
    assert features[spatial]["features"].shape[2:] == (8, 16, *s.grid)


def test_patterns(models: dict[str, DiffusionModel]) -> None:
    model = models["i2vgen_xl"]
    clip = tl.datasets.similar(1, frames=FRAMES, size=32)
    prepared = Prepared(model, clip, size=32)
    assert prepared.names("up_2.temp_attentions.*") == ["up_2.temp_attentions.0", "up_2.temp_attentions.1"]
    assert prepared.names("conv_*") == ["conv_in", "conv_norm_out", "conv_act", "conv_out"]
    features = tl.probe(model, clip, tau=300, blocks=["conv_*"], size=32)
    assert features["conv_in"]["features"].sizes["channel"] == 8
    assert prepared.names("up_blocks.2.attentions.1") == ["up_2.attentions.1"]
    queries = prepared.names("**.attn1.to_q")
    assert all(name.endswith("attn1.to_q") for name in queries)
    assert len(queries) > 8
    assert prepared.names(["up_1", "up_2.resnets.*", "up_1"]) == ["up_1", "up_2.resnets.0", "up_2.resnets.1"]


@pytest.mark.parametrize("pattern", ["up_2.atentions.0", "up_9.*", "up_blocks.2.resnets.0.time_emb_proj", "up_2.*"])
def test_a_place_without_a_map_is_refused(models: dict[str, DiffusionModel], pattern: str) -> None:
    clip = tl.datasets.similar(1, frames=FRAMES, size=32)
    with pytest.raises(tl.TedlensError, match=r"no block .*no submodule there .*tedlens info"):
        tl.probe(models["i2vgen_xl"], clip, tau=300, blocks=pattern, size=32)


def test_a_submodule_ends_the_forward_where_it_ran(models: dict[str, DiffusionModel]) -> None:
    model = models["i2vgen_xl"]
    ran: list[str] = []
    watched = {"up_2.resnets.1": model.unet.up_blocks[2].resnets[1], "up_3": model.unet.up_blocks[3]}  # type: ignore[union-attr, index]
    handles = [m.register_forward_pre_hook(lambda *_, n=n: ran.append(n)) for n, m in watched.items()]
    clip = tl.datasets.similar(1, frames=FRAMES, size=32)
    tl.probe(model, clip, tau=300, blocks=["up_2.temp_convs.0", "up_1", "down_2.resnets.0"], size=32)
    for handle in handles:
        handle.remove()
    assert ran == []


def test_the_twin_has_no_weights_and_the_model_keeps_its_own(models: dict[str, DiffusionModel]) -> None:
    model = models["i2vgen_xl"]
    before = model.weights_sha256
    twin = on_meta_device(model)
    assert {p.device.type for p in twin.unet.parameters()} == {"meta"}
    assert {p.device.type for p in model.unet.parameters()} == {"cpu"}
    del vars(model)["weights_sha256"]
    assert model.weights_sha256 == before


@pytest.mark.parametrize("name", ["i2vgen_xl", "svd", "modelscope", "animatediff", "sdxl", "unet2d"])
def test_outline_needs_configurations_only(tmp_path: Path, name: str) -> None:
    make = getattr(tiny, name)
    (make(tmp_path) if name not in ("svd", "unet2d") else make()).save_pretrained(tmp_path / "saved")
    kind: Any = "image" if name in ("sdxl", "unet2d") else "video"
    load = tl.load_image_model if kind == "image" else tl.load_video_model
    whole = hook_points(load(tmp_path / "saved"), (64, 64))
    for weights in (tmp_path / "saved").rglob("*.safetensors"):
        weights.unlink()
    outline = tl.models.outline_model(tmp_path / "saved", kind)
    assert hook_points(outline, (64, 64)) == whole
    with pytest.raises(tl.TedlensError, match="Cannot load"):
        load(tmp_path / "saved")


@pytest.mark.parametrize("name", ["i2vgen_xl", "svd", "modelscope", "animatediff", "unet2d", "sd"])
def test_a_probe_of_a_unet_is_its_plain_forward_to_the_bit(models: dict[str, DiffusionModel], name: str) -> None:
    """The clip encoded once as a whole, each window's frames noised and run: what tokens and latents of several
    frames brought changes nothing here.
    """
    model = models[name]
    clip = tl.datasets.similar(1, frames=6, size=32)
    block, window = model.blocks[-1], None if model.window is None else 4
    clean = model.encode(clip.frames)
    noise = tl.models.noise.frame_noise(3, range(6), tuple(clean.shape[1:]))
    seen: list[torch.Tensor] = []
    handle = model.unet.get_submodule(outline(model, (32, 32)).blocks[block]).register_forward_hook(
        lambda *a: seen.append(a[2] if isinstance(a[2], torch.Tensor) else a[2][0])
    )
    parts = [range(4), range(2, 6)] if window else [range(6)]
    with torch.no_grad():
        for part in parts:
            own = slice(part.start, part.stop)
            noisy = model.add_noise(clean[own], noise[own], 300)
            model.run(noisy, 300, model.condition(clip.frames, clean, part))
    handle.remove()
    expected = torch.cat([seen[0], seen[1][2:]]) if window else seen[0]
    found = tl.probe(model, clip, tau=300, blocks=block, seed=3, window=window, size=32)[block]["features"][0, 0]
    np.testing.assert_array_equal(found, expected)
