"""Frame encoders compute what their architectures' definitions say, from the names that their makers' files have."""

from __future__ import annotations

import argparse
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

import tedlens as tl
from tedlens.cli import app
from tedlens.models.encoders import FrameEncoder, encoder_names, is_encoder, load_encoder
from tedlens.models.encoders.encoder import to_lab
from tedlens.models.points import first_tensor
from tedlens.models.structure import outline
from tedlens.probing import Tap, record

State = dict[str, Tensor]
# Largest error of a block relative to its norm; seen: 7e-7.
TOLERANCE = 1e-5
SIZES = [(37, 51), (64, 40)]  # of which the first is no multiple of a stride or patch
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LAYERS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


def frames_of(size: tuple[int, int], count: int = 2) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def seen_as(frames: np.ndarray[Any, Any], mean: Any, std: Any) -> Tensor:
    return torch.from_numpy((frames / 255 - np.array(mean)) / np.array(std)).permute(0, 3, 1, 2).float()


def features(encoder: FrameEncoder, frames: np.ndarray[Any, Any]) -> State:
    """All blocks of an encoder, as a probe takes them."""
    taps = {name: Tap(encoder.module(name), first_tensor) for name in encoder.blocks}
    with torch.no_grad(), record(taps, encoder.blocks[-1]) as seen:
        encoder.run(encoder.encode(frames), 0, {})
    return seen


def assert_close(ours: State, theirs: State) -> None:
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert ours[name].shape == value.shape, name
        error = float((ours[name] - value).norm() / value.norm())
        assert error < TOLERANCE, f"{name}: relative error {error:.1e}"


def random(*shape: int) -> Tensor:
    """Weights under which features neither vanish nor grow."""
    return torch.randn(shape) * (2 / max(math.prod(shape[1:]), 1)) ** 0.5


# --- ResNets --------------------------------------------------------------------------------------


def resnet_state(depth: int, width: int = 8, names: str = "torchvision") -> State:
    """Random tensors under the names that torchvision, or mmcv, has for them; with the head, which none uses."""
    torch.manual_seed(depth)
    state: State = {}

    def both(place: str, number: str, shape: tuple[int, ...]) -> None:
        """A convolution and its normalisation."""
        if names == "mmcv":
            conv, norm = f"{place}{'downsample' if number == '' else f'conv{number}'}", ""
            conv, norm = f"{conv}.conv", f"{conv}.bn"
        elif number == "":
            conv, norm = f"{place}downsample.0", f"{place}downsample.1"
        else:
            conv, norm = f"{place}conv{number}", f"{place}bn{number}"
        state[f"{conv}.weight"] = random(*shape)
        for key, value in {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}.items():
            state[f"{norm}.{key}"] = value + 0.2 * torch.rand(shape[0])
        state[f"{norm}.num_batches_tracked"] = torch.tensor(1234)

    both("", "1", (width, 3, 7, 7))
    channels = width
    for layer, count in enumerate(LAYERS[depth]):
        wide = width * 2**layer
        out = 4 * wide if depth == 50 else wide
        for block in range(count):
            place = f"layer{layer + 1}.{block}."
            if depth == 50:
                shapes = [(wide, channels, 1, 1), (wide, wide, 3, 3), (out, wide, 1, 1)]
            else:
                shapes = [(wide, channels, 3, 3), (wide, wide, 3, 3)]
            for number, shape in enumerate(shapes):
                both(place, str(number + 1), shape)
            if channels != out:
                both(place, "", (out, channels, 1, 1))
            channels = out
    return state | {"fc.weight": random(10, channels), "fc.bias": torch.zeros(10)}


def resnet_reference(
    state: State, x: Tensor, strides: tuple[int, ...] = (1, 2, 1, 1), reflect: bool = False, mean_pool: bool = False
) -> State:
    """Outputs of the layers of a ResNet with torchvision's names."""

    def conv(x: Tensor, name: str, norm: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        pad = weight.shape[-1] // 2
        if reflect and pad:
            x = F.conv2d(F.pad(x, (pad,) * 4, mode="reflect"), weight, stride=stride)
        else:
            x = F.conv2d(x, weight, stride=stride, padding=pad)
        kept = [state[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *kept)

    x = conv(x, "conv1", "bn1", 2).relu()
    x = F.avg_pool2d(x, 3, 2, 1) if mean_pool else F.max_pool2d(x, 3, 2, 1)
    found: State = {}
    depth = 50 if "layer1.0.conv3.weight" in state else 18
    for layer, count in enumerate(LAYERS[depth]):
        for block in range(count):
            place, stride = f"layer{layer + 1}.{block}.", strides[layer] if block == 0 else 1
            y = x
            if depth == 50:
                y = conv(y, f"{place}conv1", f"{place}bn1").relu()
                y = conv(y, f"{place}conv2", f"{place}bn2", stride).relu()
                y = conv(y, f"{place}conv3", f"{place}bn3")
            else:
                y = conv(y, f"{place}conv1", f"{place}bn1", stride).relu()
                y = conv(y, f"{place}conv2", f"{place}bn2")
            if f"{place}downsample.0.weight" in state:
                x = conv(x, f"{place}downsample.0", f"{place}downsample.1", stride)
            x = (x + y).relu()
        found[f"layer{layer + 1}"] = x
    return found


def moco_file(state: State) -> dict[str, Any]:
    query = {f"module.encoder_q.{name}": value for name, value in state.items()}
    key = {f"module.encoder_k.{name}": torch.zeros_like(value) for name, value in state.items()}
    return {"epoch": 200, "arch": "resnet50", "state_dict": OrderedDict(query | key), "optimizer": {"state": {}}}


def crw_file(state: State) -> dict[str, Any]:
    """With the padding as a layer of its own before each convolution that has one, and a training's settings."""
    named = {}
    for name, value in state.items():
        padded = value.ndim == 4 and value.shape[-1] > 1
        named["encoder.model." + (name.replace(".weight", ".1.weight") if padded else name)] = value
    head = {"selfsim_fc.0.weight": torch.zeros(2, 2)}
    return {"model": named | head, "args": argparse.Namespace(dropout=0.1, clip_len=4), "epoch": 10}


def sfc_file(state: State) -> dict[str, Any]:
    both = {f"{part}_encoder.{name}": value for name, value in state.items() for part in ("target", "online")}
    return {"model": both, "args": argparse.Namespace(lr=1e-3)}


def mmcv_file(state: State) -> dict[str, Any]:
    return {"meta": {"mmcv_version": "1.0"}, "state_dict": {f"backbone.{name}": v for name, v in state.items()}}


def lab_as(frames: np.ndarray[Any, Any]) -> Tensor:
    """Spa-then-Temp's input, from the definitions of sRGB and CIE Lab."""
    rgb = frames / 255
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    xyz = linear @ np.array(to_xyz).T / [0.950456, 1, 1.088754]
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])
    return (
        torch.from_numpy((lab - [[[[50]]], [[[0]]], [[[0]]]]) / [[[[50]]], [[[127]]], [[[127]]]]).movedim(0, 1).float()
    )


def rgb_as(frames: np.ndarray[Any, Any]) -> Tensor:
    return seen_as(frames, *IMAGENET)


MEAN_AT_4: dict[str, Any] = {"strides": (1, 1, 1, 1), "mean_pool": True}
RESNETS: dict[str, tuple[int, str, Callable[[State], Any], dict[str, Any], int]] = {
    "moco": (50, "torchvision", moco_file, {}, 8),
    "crw": (18, "torchvision", crw_file, {"reflect": True}, 8),
    "vfs": (50, "mmcv", mmcv_file, {}, 8),
    "spa-then-temp": (50, "mmcv", mmcv_file, MEAN_AT_4, 4),
}


def saved_resnet(name: str, folder: Path, depth: int | None = None) -> Path:
    published, names, file, _, _ = RESNETS[name]
    torch.save(file(resnet_state(depth or published, names=names)), folder / "its.pth")
    return folder / "its.pth"


@pytest.mark.parametrize("name", RESNETS)
def test_resnets(tmp_path: Path, name: str) -> None:
    depth, _, _, how, stride = RESNETS[name]
    encoder = load_encoder(name, saved_resnet(name, tmp_path))
    assert encoder.blocks == ("layer1", "layer2", "layer3", "layer4")
    assert encoder.block == "layer3"
    for size in SIZES:
        frames = frames_of(size)
        seen = features(encoder, frames)
        x = lab_as(frames) if name == "spa-then-temp" else rgb_as(frames)
        assert_close(seen, resnet_reference(resnet_state(depth), x, **how))
        assert tuple(seen["layer3"].shape[2:]) == tuple(-(-side // stride) for side in size)


def test_vfs_of_18_layers_and_a_crw_without_its_last(tmp_path: Path) -> None:
    frames = frames_of((37, 51))
    vfs = features(load_encoder("vfs", saved_resnet("vfs", tmp_path, 18)), frames)
    assert_close(vfs, resnet_reference(resnet_state(18), rgb_as(frames)))
    three = {name: value for name, value in resnet_state(18).items() if not name.startswith("layer4")}
    torch.save(crw_file(three), tmp_path / "three.pth")
    assert load_encoder("crw", tmp_path / "three.pth").blocks == ("layer1", "layer2", "layer3")


def sfc_files(folder: Path) -> list[Path]:
    torch.save(sfc_file(resnet_state(18)), folder / "pretrained_fc.pth")
    torch.save(moco_file(resnet_state(50)), folder / "moco_v1_200ep_pretrain.pth.tar")
    return [folder / "pretrained_fc.pth", folder / "moco_v1_200ep_pretrain.pth.tar"]


def test_sfc(tmp_path: Path) -> None:
    encoder = load_encoder("sfc", sfc_files(tmp_path))
    assert load_encoder("sfc", tmp_path).weights_sha256 == encoder.weights_sha256
    assert encoder.block == "out"
    frames = frames_of((37, 51))
    theirs: State = {}
    for part, depth in (("fine", 18), ("semantic", 50)):
        layers = resnet_reference(resnet_state(depth), rgb_as(frames))
        theirs |= {f"{part}_{name}": value for name, value in layers.items() if name != "layer4"}
    unit = [value / value.norm(dim=1, keepdim=True) for value in (theirs["fine_layer3"], theirs["semantic_layer3"])]
    joined = torch.cat([1.75 * unit[0], unit[1]], 1)
    assert_close(features(encoder, frames), theirs | {"out": joined / joined.norm(dim=1, keepdim=True)})


def test_lab_of_known_colours() -> None:
    """Values of OpenCV's documentation of its formula, as printed for sRGB under D65 (Lindbloom)."""
    known = {(255, 255, 255): (100, 0, 0), (0, 0, 0): (0, 0, 0), (255, 0, 0): (53.24, 80.09, 67.20)}
    known |= {(0, 255, 0): (87.74, -86.18, 83.18), (0, 0, 255): (32.30, 79.19, -107.86)}
    rgb = torch.tensor(list(known)).view(-1, 3, 1, 1) / 255
    assert np.abs(to_lab(rgb).flatten(1).numpy() - np.array(list(known.values()))).max() < 0.02


def test_a_resnet_of_transformers(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[16, 32, 64], depths=[1, 2, 1], layer_type="bottleneck"
    )
    state = saved(transformers.ResNetForImageClassification(config), tmp_path)

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.convolution.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        kept = [state[f"{name}.normalization.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *kept)

    encoder = load_encoder(str(tmp_path))
    assert encoder.block == "layer3"
    for size in SIZES:
        x = F.max_pool2d(conv(rgb_as(frames_of(size)), "resnet.embedder.embedder", 2).relu(), 3, 2, 1)
        theirs: State = {}
        for stage, count in enumerate(config.depths):
            for number in range(count):
                place = f"resnet.encoder.stages.{stage}.layers.{number}"
                stride = 2 if stage > 0 and number == 0 else 1
                y = conv(x, f"{place}.layer.0").relu()
                y = conv(y, f"{place}.layer.1", stride).relu()
                y = conv(y, f"{place}.layer.2")
                if f"{place}.shortcut.convolution.weight" in state:
                    x = conv(x, f"{place}.shortcut", stride)
                x = (x + y).relu()
            theirs[f"layer{stage + 1}"] = x
        assert_close(features(encoder, frames_of(size)), theirs)


# --- transformers ---------------------------------------------------------------------------------


def saved(model: transformers.PreTrainedModel, folder: Path, **preprocessor: Any) -> State:
    """The tensors that transformers saved, after weights under which each makes a difference."""
    torch.manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(random(*value.shape) if value.ndim > 1 else 1 + 0.2 * torch.randn(value.shape))
        for name, value in model.named_buffers():
            if "running" in name:
                value.copy_(torch.rand(value.shape) + 0.5)
    model.save_pretrained(folder)
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return load_file(folder / "model.safetensors")


class Names:
    """Where a transformer's layer has its tensors."""

    def __init__(self, state: State, place: str) -> None:
        self.state, self.place = state, place

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.state[f"{self.place}{name}.weight"], self.state.get(f"{self.place}{name}.bias"))

    def norm(self, x: Tensor, name: str, eps: float) -> Tensor:
        weight = self.state[f"{self.place}{name}.weight"]
        return F.layer_norm(x, weight.shape, weight, self.state[f"{self.place}{name}.bias"], eps)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, turn: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """Softmax attention over heads, of (frame, token, channel), with queries and keys turned within each head."""
    q, k, v = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (q, k, v))
    weights = torch.softmax(turn(q) @ turn(k).transpose(-1, -2) / q.shape[-1] ** 0.5, -1)
    return (weights @ v).transpose(1, 2).flatten(2)


def on_grid(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return tokens[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)


def patches_of(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Tokens of whole patches, by cutting a picture up."""
    side = weight.shape[-1]
    grid = (x.shape[2] // side, x.shape[3] // side)
    cut = x[:, :, : grid[0] * side, : grid[1] * side].unfold(2, side, side).unfold(3, side, side)
    return F.linear(cut.movedim(1, 3).flatten(3).flatten(1, 2), weight.flatten(1), bias), grid


def with_positions(tokens: Tensor, learned: Tensor, grid: tuple[int, int]) -> Tensor:
    """Class token and patches, plus positions that were learned on a square, resized to the grid."""
    side = math.isqrt(learned.shape[1] - 1)
    square = learned[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    fitted = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return tokens + torch.cat([learned[:, :1], fitted.flatten(2).transpose(1, 2)], 1)


def dino_state(width: int = 128, patch: int = 8, positions: int = 16) -> State:
    """Random tensors under the names of DINO's vision transformer: 12 layers, heads of 64 channels."""
    torch.manual_seed(2)
    state = {
        "cls_token": torch.randn(1, 1, width),
        "pos_embed": torch.randn(1, positions + 1, width),
        "patch_embed.proj.weight": random(width, 3, patch, patch),
        "patch_embed.proj.bias": torch.randn(width),
        "norm.weight": torch.rand(width) + 0.5,
        "norm.bias": torch.randn(width),
    }
    for layer in range(12):
        place = f"blocks.{layer}."
        for name, out, into in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 2 * width, width),
            ("mlp.fc2", width, 2 * width),
        ):
            state |= {f"{place}{name}.weight": random(out, into), f"{place}{name}.bias": 0.2 * torch.randn(out)}
        for name in ("norm1", "norm2"):
            state |= {
                f"{place}{name}.weight": torch.rand(width) + 0.5,
                f"{place}{name}.bias": 0.2 * torch.randn(width),
            }
    return state


def dino_reference(state: State, x: Tensor) -> State:
    """Each layer's patches, and the last's through the final normalisation."""
    tokens, grid = patches_of(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"])
    tokens = torch.cat([state["cls_token"].expand(len(x), -1, -1), tokens], 1)
    tokens = with_positions(tokens, state["pos_embed"], grid)
    found = {}
    for layer in range(12):
        its = Names(state, f"blocks.{layer}.")
        q, k, v = its.linear(its.norm(tokens, "norm1", 1e-6), "attn.qkv").chunk(3, -1)
        tokens = tokens + its.linear(attend(q, k, v, q.shape[-1] // 64), "attn.proj")
        hidden = F.gelu(its.linear(its.norm(tokens, "norm2", 1e-6), "mlp.fc1"))
        tokens = tokens + its.linear(hidden, "mlp.fc2")
        found[f"block_{layer}"] = on_grid(tokens, grid)
    return found | {"out": on_grid(Names(state, "").norm(tokens, "norm", 1e-6), grid)}


def smtc_file(state: State) -> dict[str, Any]:
    named = {f"encoder.{name}": value for name, value in state.items()}
    return {"model_state_dict": named | {"slot_attention.mu": torch.zeros(3)}, "loss": torch.tensor(1.0)}


@pytest.mark.parametrize("name", ["smtc", "dino"])
def test_checkpoints_of_dinos_names(tmp_path: Path, name: str) -> None:
    state = dino_state()
    torch.save(smtc_file(state) if name == "smtc" else state, tmp_path / "its.pth")
    encoder = load_encoder(name, tmp_path / "its.pth")
    # SMTC takes the last layer as it is.
    assert encoder.block == {"smtc": "block_11", "dino": "out"}[name]
    assert encoder.multiple == 8
    mean, std = IMAGENET if name == "smtc" else (IMAGENET[0], (0.228, 0.224, 0.225))
    for size in [*SIZES, (32, 32)]:
        frames = frames_of(size)
        assert_close(features(encoder, frames), dino_reference(state, seen_as(frames, mean, std)))


WIDTHS: dict[str, Any] = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}


def hf_reference(state: State, x: Tensor, names: Mapping[str, str], turn: Any, others: list[str], eps: float) -> State:
    """A pre-normalised transformer whose parts `names` names; `turn` of a grid turns queries and keys."""
    tokens, grid = patches_of(x, state[f"{names['patch']}.weight"], state[f"{names['patch']}.bias"])
    tokens = torch.cat([*(state[name].expand(len(x), -1, -1) for name in others), tokens], 1)
    if "positions" in names:
        tokens = with_positions(tokens, state[names["positions"]], grid)
    found = {}
    for layer in range(2):
        its = Names(state, names["layer"].format(layer))

        def scaled(x: Tensor, name: str, place: str = its.place) -> Tensor:
            return x * state.get(f"{place}{name}.lambda1", torch.ones(()))

        normed = its.norm(tokens, names["norm1"], eps)
        q, k, v = (its.linear(normed, names[each]) for each in "qkv")
        mixed = its.linear(attend(q, k, v, 2, turn(grid)), names["proj"])
        tokens = tokens + scaled(mixed, "layer_scale1")
        hidden = F.gelu(its.linear(its.norm(tokens, names["norm2"], eps), names["fc1"]))
        tokens = tokens + scaled(its.linear(hidden, names["fc2"]), "layer_scale2")
        found[f"block_{layer}"] = on_grid(tokens, grid)
    return found | {"out": on_grid(Names(state, "").norm(tokens, names["norm"], eps), grid)}


def unturned(grid: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    return lambda x: x


def turned_as_dinov3(grid: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """Rotary positions: centres of patches from -1 to 1, periods 100^(i / quarter), halves of a head together."""
    head, prefix = 24, 3  # one class token, two registers
    periods = 100.0 ** (torch.arange(head // 4) * 4 / head)
    y, x = (2 * (torch.arange(side) + 0.5) / side - 1 for side in grid)
    at = torch.cartesian_prod(y, x)  # (cell, 2)
    angles = (2 * torch.pi * at[:, :, None] / periods).flatten(1).tile(2)

    def turn(q: Tensor) -> Tensor:
        still, patches = q[:, :, :prefix], q[:, :, prefix:]
        half = torch.cat([-patches[..., head // 2 :], patches[..., : head // 2]], -1)
        return torch.cat([still, patches * angles.cos() + half * angles.sin()], 2)

    return turn


def turned_as_vjepa2(grid: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """Rotary positions of V-JEPA 2: a third of a head each by frame (0 here), row and column; the rest stays."""
    third = 2 * (24 // 3 // 2)
    rows, columns = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).T

    def turned(part: Tensor, at: Tensor) -> Tensor:
        angles = at[:, None] * 10000.0 ** (-torch.arange(third // 2) * 2 / third)
        cos, sin = angles.cos().tile(2), angles.sin().tile(2)  # theirs: tiled, while pairs are neighbours
        pairs = part.unflatten(-1, (-1, 2))
        return part * cos + torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2) * sin

    def turn(q: Tensor) -> Tensor:
        frame, y, x, rest = q.tensor_split([third, 2 * third, 3 * third], -1)
        return torch.cat([frame, turned(y, rows), turned(x, columns), rest], -1)

    return turn


VIT = {
    "patch": "embeddings.patch_embeddings.projection",
    "positions": "embeddings.position_embeddings",
    "layer": "encoder.layer.{}.",
    "norm1": "layernorm_before",
    "q": "attention.attention.query",
    "k": "attention.attention.key",
    "v": "attention.attention.value",
    "proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "norm": "layernorm",
}
DINOV2 = VIT | {"norm1": "norm1", "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
DINOV3 = {
    "patch": "embeddings.patch_embeddings",
    "layer": "layer.{}.",
    "norm1": "norm1",
    **{each: f"attention.{each}_proj" for each in "qkv"},
    "proj": "attention.o_proj",
    "norm2": "norm2",
    "fc1": "mlp.up_proj",
    "fc2": "mlp.down_proj",
    "norm": "norm",
}
VJEPA2 = {
    "patch": "encoder.embeddings.patch_embeddings.proj",
    "layer": "encoder.layer.{}.",
    "norm1": "norm1",
    "q": "attention.query",
    "k": "attention.key",
    "v": "attention.value",
    "proj": "attention.proj",
    "norm2": "norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
    "norm": "encoder.layernorm",
}
CLASS = ["embeddings.cls_token"]


def vit() -> transformers.PreTrainedModel:
    config = transformers.ViTConfig(**WIDTHS, intermediate_size=64, image_size=32)
    return transformers.ViTModel(config, add_pooling_layer=False)


def dinov2() -> transformers.PreTrainedModel:
    return transformers.Dinov2Model(transformers.Dinov2Config(**WIDTHS, mlp_ratio=2, image_size=32))


def dinov3() -> transformers.PreTrainedModel:
    config = transformers.DINOv3ViTConfig(**WIDTHS, intermediate_size=64, image_size=32, num_register_tokens=2)
    return transformers.DINOv3ViTModel(config)


def vjepa2() -> transformers.PreTrainedModel:
    config = transformers.VJEPA2Config(
        **WIDTHS, crop_size=32, frames_per_clip=4, mlp_ratio=2, pred_hidden_size=48, pred_num_attention_heads=2
    )
    return transformers.VJEPA2Model(config)


MODELS: dict[str, tuple[Callable[[], Any], Mapping[str, str], Any, list[str], float, int]] = {
    "vit": (vit, VIT, unturned, CLASS, 1e-12, 480),
    "dinov2": (dinov2, DINOV2, unturned, CLASS, 1e-6, 480),
    "dinov3": (dinov3, DINOV3, turned_as_dinov3, [*CLASS, "embeddings.register_tokens"], 1e-5, 960),
    "v-jepa-2": (vjepa2, VJEPA2, turned_as_vjepa2, [], 1e-6, 32),
}


@pytest.mark.parametrize("name", MODELS)
def test_transformers(tmp_path: Path, name: str) -> None:
    make, names, turn, others, eps, size = MODELS[name]
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    state = saved(make(), tmp_path, image_mean=mean, image_std=std)
    if name == "v-jepa-2":  # the two frames of a tubelet are one and the same
        key = "encoder.embeddings.patch_embeddings.proj.weight"
        state[key] = state[key].sum(2)
    encoder = load_encoder(tmp_path)
    assert encoder.blocks == ("block_0", "block_1", "out")
    assert (encoder.block, encoder.multiple, encoder.size) == ("out", 8, size)
    for pixels in [*SIZES, (32, 32)]:
        frames = frames_of(pixels)
        theirs = hf_reference(state, seen_as(frames, mean, std), names, turn, others, eps)
        assert_close(features(encoder, frames), theirs)
    model = transformers.AutoModel.from_pretrained(tmp_path)
    square = encoder.encode(frames_of((32, 32)))
    with torch.no_grad():
        hidden = model(square if name != "v-jepa-2" else square[:, None].repeat(1, 2, 1, 1, 1))[0]
    assert_close({"out": features(encoder, frames_of((32, 32)))["out"]}, {"out": on_grid(hidden, (4, 4))})


def test_a_layer_that_is_changed_changes_those_after_it(tmp_path: Path) -> None:
    saved(dinov2(), tmp_path)
    encoder = load_encoder(tmp_path)
    before = features(encoder, frames_of((32, 32)))

    def half(module: Any, inputs: Any, output: Any) -> Any:
        return output[0] / 2, output[1]

    with encoder.module("block_0").register_forward_hook(half):
        after = features(encoder, frames_of((32, 32)))
    assert not torch.allclose(before["out"], after["out"], atol=1e-3)


# --- files ----------------------------------------------------------------------------------------

# Name, its file, and a tensor with the name that its makers gave it.
LACKING: dict[str, tuple[Callable[[], Any], str, str]] = {
    "moco": (lambda: moco_file(resnet_state(50)), "state_dict", "module.encoder_q.layer2.1.bn3.running_var"),
    "crw": (lambda: crw_file(resnet_state(18)), "model", "encoder.model.conv1.weight"),
    "vfs": (lambda: mmcv_file(resnet_state(50, names="mmcv")), "state_dict", "backbone.layer3.0.downsample.bn.bias"),
    "spa-then-temp": (
        lambda: mmcv_file(resnet_state(50, names="mmcv")),
        "state_dict",
        "backbone.layer4.2.conv3.conv.weight",
    ),
    "smtc": (lambda: smtc_file(dino_state()), "model_state_dict", "encoder.blocks.11.attn.qkv.bias"),
    "dino": (lambda: {"state_dict": dino_state()}, "state_dict", "pos_embed"),
}


@pytest.mark.parametrize("name", LACKING)
def test_a_tensor_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    make, held, lacking = LACKING[name]
    file = make()
    file[held].pop(lacking.replace("conv1.weight", "conv1.1.weight") if name == "crw" else lacking)
    torch.save(file, tmp_path / "its.pth")
    with pytest.raises(tl.TedlensError, match=rf"^Cannot load the {name} checkpoint .*its\.pth: it lacks {lacking} of"):
        load_encoder(name, tmp_path / "its.pth")


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    state = resnet_state(50)
    state["layer2.0.conv1.weight"] = state["layer2.0.conv1.weight"][:, :4]
    torch.save(moco_file(state), tmp_path / "its.pth")
    with pytest.raises(tl.TedlensError, match=r"module\.encoder_q\.layer2\.0\.conv1\.weight has shape \(16, 4, 1, 1\)"):
        load_encoder("moco", tmp_path / "its.pth")


def test_a_tensor_that_a_folder_lacks_is_named(tmp_path: Path) -> None:
    state = saved(dinov3(), tmp_path)
    state.pop("norm.weight")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(tl.TedlensError, match=r"1 of the .* tensors of its DINOv3ViTModel are missing, norm\.weight;"):
        load_encoder(tmp_path)


class Harmful:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran-code"),))


def test_no_code_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(moco_file(resnet_state(50)) | {"meta": Harmful()}, "its.pth")
    with pytest.raises(tl.TedlensError, match=r"more than tensors \(.*\), which could run code and is not read"):
        load_encoder("moco", "its.pth")
    saved(dinov2(), tmp_path)
    torch.save(load_file("model.safetensors"), "pytorch_model.bin")
    Path("model.safetensors").unlink()
    with pytest.raises(tl.TedlensError, match="Cannot load"):
        load_encoder(tmp_path)
    assert not Path("ran-code").exists()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(tl.TedlensError, match="no such file"):
        load_encoder("moco", tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("<html>")
    with pytest.raises(tl.TedlensError, match=r"no file that torch\.save wrote"):
        load_encoder("moco", tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(tl.TedlensError, match="holds no tensors by name"):
        load_encoder("moco", tmp_path / "list.pth")
    whole = saved_resnet("moco", tmp_path)
    whole.write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(tl.TedlensError, match="download it again"):
        load_encoder("moco", whole)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("moco", {}, r"'moco' is read from moco_v1_200ep_pretrain\.pth\.tar; .*\(0 given\)"),
        ("sfc", {"checkpoint": "one.pth"}, r"pretrained_fc\.pth and moco_v1_200ep_pretrain\.pth\.tar; .*\(1 given\)"),
        ("dinov2", {"checkpoint": "one.pth"}, "'dinov2' takes no checkpoint; the encoders that do are moco, "),
        ("moco", {"checkpoint": "one.pth", "revision": "main"}, "revision='main' is of a hub id"),
        ("resnet", {}, "There is no encoder 'resnet'; choose moco, crw, sfc, "),
        ("somebody/something", {}, "Cannot load somebody/something"),
        ("dinov3", {"revision": "main"}, "Cannot load facebook/dinov3-"),
        ("moco", {"checkpoint": "one.pth", "dtype": "int8"}, "dtype='int8'"),
        ("moco", {"checkpoint": "one.pth", "device": "abacus"}, "no device 'abacus'"),
    ],
)
def test_what_is_refused(name: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(tl.TedlensError, match=said):
        load_encoder(name, **given)


def test_folders_that_are_no_encoders(tmp_path: Path) -> None:
    with pytest.raises(tl.TedlensError, match=r"config\.json cannot be read"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(tl.TedlensError, match="of type 'bert', which is no encoder of frames"):
        load_encoder(tmp_path)
    assert not is_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    assert is_encoder(tmp_path)
    assert is_encoder("moco")
    assert not is_encoder("mini")
    assert {"moco", "crw", "sfc", "spa-then-temp", "smtc", "vfs"} <= set(encoder_names())
    assert {"dino", "dinov2", "dinov2-small", "dinov3", "v-jepa-2"} <= set(encoder_names())


# --- as a model like any other --------------------------------------------------------------------


@pytest.fixture(scope="module")
def crw(tmp_path_factory: pytest.TempPathFactory) -> FrameEncoder:
    return load_encoder("crw", saved_resnet("crw", tmp_path_factory.mktemp("crw")))


@pytest.fixture
def clip() -> tl.Clip:
    whole = tl.datasets.similar(1, frames=9, size=64)
    return tl.Clip(whole.frames[:, :45, :51], whole.masks[:, :45, :51])


def test_probe(crw: FrameEncoder, clip: tl.Clip) -> None:
    found = tl.probe(crw, clip, tau=0, blocks="layer3", size=(45, 51), samples=2)
    values = found["layer3"]["features"]
    theirs = resnet_reference(resnet_state(18), rgb_as(clip.frames), reflect=True)["layer3"]
    assert_close({"layer3": torch.from_numpy(values.values[0, 0])}, {"layer3": theirs})
    assert values.sizes["y"] == 6
    assert values.sizes["x"] == 7
    assert float(values["sigma"][0]) == 0
    assert found.attrs["model"] == "crw"
    assert found.attrs["model_checkpoint"] == "its.pth"
    assert list(tl.probe(crw, clip, sigma=0, size=32).children) == ["layer1", "layer2", "layer3", "layer4"]


def test_probe_on_patches(tmp_path: Path, clip: tl.Clip) -> None:
    state = saved(dinov2(), tmp_path)
    found = tl.probe(load_encoder(tmp_path), clip, tau=0, size=(40, 48))
    assert list(found.children) == ["out"]  # what the baseline takes
    seen = [np.asarray(PIL.Image.fromarray(f).resize((48, 40), PIL.Image.Resampling.BICUBIC)) for f in clip.frames]
    theirs = hf_reference(state, rgb_as(np.stack(seen)), DINOV2, unturned, CLASS, 1e-6)["out"]
    assert_close({"out": torch.from_numpy(found["out"]["features"].values[0, 0])}, {"out": theirs})


@pytest.mark.parametrize("level", [{"tau": 51}, {"log_snr": 2.0}, {"sigma": 0.5}])
def test_noise_is_refused(crw: FrameEncoder, clip: tl.Clip, level: dict[str, Any]) -> None:
    with pytest.raises(tl.TedlensError, match=r"means nothing to the encoder 'crw', which has no noise; give tau=0\."):
        tl.probe(crw, clip, **level)


def test_track(crw: FrameEncoder, clip: tl.Clip) -> None:
    tracked = tl.track(clip, appearance=crw, preset="crw")
    assert tracked.attrs["appearance_tau"] == 0
    assert tracked.attrs["appearance_block"] == "layer3"
    assert tracked.attrs["appearance_input_size"] == [480, 544]  # a side of 480, and 51 / 45 of that
    assert tracked["labels"].shape == (9, 45, 51)


def test_track_with_motion(crw: FrameEncoder, clip: tl.Clip) -> None:
    both = tl.track(clip, motion="mini", appearance=crw, lam=0.5, size=32)
    assert both.attrs["motion_tau"] == 600
    assert both.attrs["appearance_model_class"] == "ResNet"


def test_by_name_as_any_other_model(tmp_path: Path, clip: tl.Clip) -> None:
    path = saved_resnet("crw", tmp_path)
    assert tl.load_encoder("crw", path).name == "crw"
    tracked = tl.track(clip, appearance={"name": "crw", "checkpoint": str(path)}, lam=0, size=32)
    assert tracked.attrs["appearance_model_class"] == "ResNet"
    saved(dinov2(), tmp_path / "vit")
    found = tl.probe({"name": tmp_path / "vit", "device": "cpu", "offload": False}, clip, tau=0, size=32)
    assert found.attrs["model_network"] == "Dinov2Model"
    with pytest.raises(tl.TedlensError, match="wants a video model"):
        tl.track(clip, motion=tl.load_encoder("crw", path), lam=1)
    with pytest.raises(tl.TedlensError, match=r"does not take these options: .*prompt"):
        tl.probe({"name": "crw", "checkpoint": path, "prompt": "a ball"}, clip, tau=0)


def test_sweep(crw: FrameEncoder, clip: tl.Clip, tmp_path: Path) -> None:
    scores = tl.sweep([clip], appearance=crw, tau=0, blocks=["layer2", "layer3"], size=32, store=tmp_path / "s.zarr")
    assert scores.sizes["block"] == 2
    assert np.isfinite(scores["JF"].isel(frame=1)).all()


def test_what_is_inside(crw: FrameEncoder, tmp_path: Path) -> None:
    found = outline(crw, (45, 51))
    assert found.blocks["layer3"] == "layer3"
    assert found.point("layer3").grid == (6, 7)
    assert "layer3.1.conv2" in found.points
    for name, (make, *_) in MODELS.items():
        saved(make(), tmp_path / name)
        inside = outline(load_encoder(tmp_path / name), (40, 48))
        assert inside.point("out").grid == inside.point("block_0").grid == (5, 6)


def test_in_bfloat16(tmp_path: Path) -> None:
    frames = frames_of((32, 40))
    saved(dinov3(), tmp_path)
    for name, where in ((tmp_path, None), ("moco", saved_resnet("moco", tmp_path))):
        whole, half = (load_encoder(name, where, dtype=dtype) for dtype in ("float32", "bfloat16"))
        seen, exact = features(half, frames)[half.block], features(whole, frames)[whole.block]
        assert seen.dtype == torch.bfloat16
        assert float((seen.float() - exact).norm() / exact.norm()) < 0.05


def test_a_checkpoint_on_the_command_line(tmp_path: Path) -> None:
    checkpoint, clip = saved_resnet("crw", tmp_path), tl.datasets.similar(seed=0)[:2]
    np.savez(tmp_path / "clip.npz", frames=clip.frames)
    words = ["probe", tmp_path / "clip.npz", "--model", f"crw={checkpoint}", "--tau", 0, "--block", "layer3"]
    outcome = CliRunner().invoke(app, [str(word) for word in [*words, "--size", 64, "--out", tmp_path / "f.zarr"]])
    assert outcome.exit_code == 0, outcome.output
    found = tl.load(tmp_path / "f.zarr")["layer3"]["features"]
    alone = tl.probe(load_encoder("crw", checkpoint), clip, tau=0, blocks="layer3", size=64)["layer3"]["features"]
    np.testing.assert_array_equal(found, alone)
