"""Unconditional image diffusion (`UNet2DModel`): the embedded appearance model, DDPM, latent diffusion."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tedlens.errors import TedlensError
from tedlens.models.base import Condition, Frames, VariancePreserving, pictures
from tedlens.models.points import first_tensor


class UNet2D(VariancePreserving):
    """Adapter for a `UNet2DModel` on pixels (`DDPMPipeline`, ..) or on a VQ-VAE's latents (`LDMPipeline`).

    Each frame is seen alone. Latents are the encoder's output before it is quantised.
    """

    def __init__(self, pipeline: Any, **common: Any) -> None:
        super().__init__(pipeline, **common)
        if pipeline.unet.config.get("num_class_embeds") or pipeline.unet.config.get("class_embed_type"):
            raise TedlensError(
                f"{self.name} is conditional on a class label, which a probe does not have; give an unconditional "
                "model, or write an adapter (tedlens/models/README.md)."
            )
        self.autoencoder = getattr(pipeline, "vqvae", None)

    @property
    def multiple(self) -> int:
        halvings = len(self.pipeline.unet.config.block_out_channels) - 1
        if self.autoencoder is not None:
            halvings += len(self.autoencoder.config.block_out_channels) - 1
        return int(2**halvings)

    def encode(self, frames: Frames) -> Tensor:
        images = pictures(frames).to(self.device, self.dtype)
        if self.autoencoder is None:
            return images
        scale = float(self.autoencoder.config.scaling_factor)
        # One frame at a time: only the UNet needs the room.
        return torch.cat([self.autoencoder.encode(image[None]).latents for image in images]) * scale

    def decode(self, clean: Tensor) -> Tensor:
        clean = clean.to(self.device, self.dtype)
        if self.autoencoder is None:
            return clean.float()
        scale = float(self.autoencoder.config.scaling_factor)
        return torch.cat([self.autoencoder.decode(latent[None] / scale).sample.float() for latent in clean])

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> Tensor:
        return first_tensor(self.unet(noisy, torch.tensor(tau, device=self.device)))
