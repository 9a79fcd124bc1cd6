"""SFC (ECCV 2022): features of its fine-grained ResNet-18 beside those of MoCo's ResNet-50."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from tedlens.models.encoders.encoder import Network
from tedlens.models.encoders.resnet import ResNet

WEIGHT = 1.75  # of the fine-grained features, SFC's lambd


class Joined(nn.Module):
    """Unit features (frame, channel, y, x) of both, the fine-grained by `WEIGHT`, in one unit vector a cell."""

    def forward(self, fine: Tensor, semantic: Tensor) -> Tensor:
        return normalize(torch.cat([WEIGHT * normalize(fine, dim=1), normalize(semantic, dim=1)], 1), dim=1)


class SFC(Network):
    """Blocks: ``fine_layer1`` .., then ``semantic_layer1`` .., and ``out``, the two together.

    Parameters
    ----------
    fine, semantic
        Of three layers each and the same stride.
    """

    def __init__(self, fine: ResNet, semantic: ResNet) -> None:
        super().__init__()
        self.fine, self.semantic, self.joined = fine, semantic, Joined()

    def blocks(self) -> dict[str, nn.Module]:
        named = {"fine": self.fine.blocks(), "semantic": self.semantic.blocks()}
        each = {f"{part}_{name}": module for part, modules in named.items() for name, module in modules.items()}
        return each | {"out": self.joined}

    def forward(self, x: Tensor) -> Tensor:
        joined: Tensor = self.joined(self.fine(x), self.semantic(x))
        return joined
