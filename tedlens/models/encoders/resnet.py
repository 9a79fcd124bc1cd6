"""ResNets as MoCo, CRW, SFC, VFS and Spa-then-Temp run them, and those of transformers.

The network is torchvision's (the stride of a ResNet-50 is in its convolutions of width 3), whose names for tensors most
of the checkpoints have too. What differs from baseline to baseline is strides, padding and pooling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tedlens.models.encoders.checkpoint import State, fill
from tedlens.models.encoders.encoder import Network

Padding = Literal["zeros", "reflect"]
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}  # residual blocks a layer, by depth
# Names of mmcv, which holds a convolution and its normalisation as one module.
MMCV = ((r"\bconv(\d)\.", r"conv\1.conv."), (r"\bbn(\d)\.", r"conv\1.bn."))
MMCV_DOWNSAMPLE = (("downsample.0.", "downsample.conv."), ("downsample.1.", "downsample.bn."))


@dataclass(frozen=True)
class Shape:
    """What baselines make of a ResNet.

    Attributes
    ----------
    strides
        Of the four layers. With 2 for each of the stem's convolution and pooling, (1, 2, 1, 1) has layer3 at 8.
    padding
        Around every convolution: torch's names.
    pool
        Of the stem: the largest of 3 x 3, or their mean.
    """

    strides: tuple[int, int, int, int] = (1, 2, 1, 1)
    padding: Padding = "zeros"
    pool: Literal["max", "mean"] = "max"


class Residual(nn.Module):
    """Convolutions beside a shortcut: 3, 3 (ResNet-18), or 1, 3, 1 with four times the channels out (ResNet-50)."""

    def __init__(self, channels: int, width: int, stride: int, padding: Padding, bottleneck: bool) -> None:
        super().__init__()
        out = 4 * width if bottleneck else width
        widths = (channels, width, width, out) if bottleneck else (channels, width, out)
        sides, strided = ((1, 3, 1), 1) if bottleneck else ((3, 3), 0)
        for i, side in enumerate(sides):
            step = stride if i == strided else 1
            setattr(self, f"conv{i + 1}", convolution(widths[i], widths[i + 1], side, step, padding))
            setattr(self, f"bn{i + 1}", nn.BatchNorm2d(widths[i + 1]))
        self.convolutions = len(sides)
        self.downsample = nn.Sequential()  # nothing, where the shortcut fits
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(convolution(channels, out, 1, stride, padding), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.downsample(x)
        for i in range(1, self.convolutions + 1):
            x = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x))
            x = torch.relu(x if i < self.convolutions else x + shortcut)
        return x


def convolution(channels: int, out: int, side: int, stride: int, padding: Padding) -> nn.Conv2d:
    return nn.Conv2d(channels, out, side, stride, side // 2, bias=False, padding_mode=padding)


class ResNet(Network):
    """A ResNet without its head; blocks are ``layer1`` .., as many as `layers`.

    Parameters
    ----------
    depth
        18 or 50.
    width
        Channels of the stem: 64 as published.
    shape
        Strides, padding and pooling.
    """

    def __init__(self, depth: int, width: int, layers: int, shape: Shape) -> None:
        super().__init__()
        self.conv1 = convolution(3, width, 7, 2, shape.padding)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, 1) if shape.pool == "max" else nn.AvgPool2d(3, 2, 1)
        channels, bottleneck = width, depth == 50
        for i in range(layers):
            wide = width * 2**i
            layer = nn.Sequential()
            for number in range(BLOCKS[depth][i]):
                stride = shape.strides[i] if number == 0 else 1
                layer.append(Residual(channels, wide, stride, shape.padding, bottleneck))
                channels = 4 * wide if bottleneck else wide
            setattr(self, f"layer{i + 1}", layer)
        self.layers = layers

    def blocks(self) -> dict[str, nn.Module]:
        return {name: self.get_submodule(name) for name in (f"layer{i + 1}" for i in range(self.layers))}

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        for layer in self.blocks().values():
            x = layer(x)
        return x


def resnet_of(state: State, prefix: str, shape: Shape, *, mmcv: bool = False, layers: int = 4) -> ResNet:
    """The ResNet in a checkpoint, whose tensors begin with `prefix`; depth and width are read off them.

    `layers` is the most that are taken; one without layer4 has three.

    Raises
    ------
    TedlensError
        As `fill`.
    """
    # CRW was trained with the padding as a layer of its own, before the convolution.
    state = {re.sub(r"\b(conv\d)\.1\.weight$", r"\1.weight", name): value for name, value in state.items()}
    depth = 50 if any(name.startswith(prefix) and ".conv3." in name for name in state) else 18

    def source(name: str) -> tuple[str, None]:
        if mmcv:
            for ours, theirs in MMCV:
                name = re.sub(ours, theirs, name)
            for ours, theirs in MMCV_DOWNSAMPLE:
                name = name.replace(ours, theirs)
        return prefix + name, None

    stem = state.get(source("conv1.weight")[0])
    whole = any(name.startswith(f"{prefix}layer4.") for name in state)
    network = ResNet(depth, 64 if stem is None else len(stem), min(layers, 4 if whole else 3), shape)
    fill(network, state, source, f"a ResNet-{depth}")
    return network


class Stages(Network):
    """transformers' `ResNetBackbone`; blocks are its stages, ``layer1`` .."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.stem: nn.Module = backbone.embedder
        self.stages = nn.ModuleList(backbone.encoder.stages)

    def blocks(self) -> dict[str, nn.Module]:
        return {f"layer{i + 1}": stage for i, stage in enumerate(self.stages)}

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x
