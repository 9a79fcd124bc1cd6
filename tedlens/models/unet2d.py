"""Unconditional image diffusion in pixels (`UNet2DModel`): the embedded appearance model."""

from __future__ import annotations

import torch
from torch import Tensor

from tedlens.models.base import Condition, Frames, VariancePreserving, pictures


class UNet2D(VariancePreserving):
    """Adapter for pipelines of a `UNet2DModel` and a scheduler; each frame is seen alone."""

    @property
    def multiple(self) -> int:
        return int(2 ** (len(self.pipeline.unet.config.block_out_channels) - 1))

    def encode(self, frames: Frames) -> Tensor:
        return pictures(frames).to(self.device, self.dtype)

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> None:
        self.unet(noisy, torch.tensor(tau, device=self.device))
