"""Stable Diffusion and other latent image models with a prompt (`UNet2DConditionModel`): DIFT's features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tedlens.errors import TedlensError
from tedlens.models.base import Condition, Frames
from tedlens.models.latent import LatentModel
from tedlens.models.points import first_tensor


class StableDiffusion(LatentModel):
    """Adapter for `StableDiffusionPipeline` and `StableDiffusionXLPipeline`; each frame is seen alone.

    DIFT's protocol for video labels: tau 51, block ``up_2``, the mean over 8 noise samples
    (``probe(..., samples=8)``), an empty prompt.
    """

    def __init__(self, pipeline: Any, **common: Any) -> None:
        super().__init__(pipeline, **common)
        config = pipeline.unet.config
        if config.in_channels != pipeline.vae.config.latent_channels:
            raise TedlensError(
                f"{self.name} has a UNet of {config.in_channels} input channels on latents of "
                f"{pipeline.vae.config.latent_channels}, so it wants more than a noisy picture (a mask, "
                "a depth map, ..); give a text-to-image model, or write an adapter (tedlens/models/README.md)."
            )
        if config.get("addition_embed_type") not in (None, "text_time"):
            raise TedlensError(
                f"{self.name} has a UNet with addition_embed_type={config.addition_embed_type!r}; tedlens knows None "
                "(Stable Diffusion) and 'text_time' (XL); write an adapter for others (tedlens/models/README.md)."
            )

    def condition(self, frames: Frames, clean: Tensor, window: range) -> Condition:
        if self.pipeline.unet.config.get("addition_embed_type") is None:
            return super().condition(frames, clean, window)
        return self._condition_xl((frames.shape[1], frames.shape[2]))

    def _condition_xl(self, size: tuple[int, int]) -> Condition:
        """The prompt, its pooled embedding, and the picture's size: uncropped, as large as it is."""
        pooled_width = self.pipeline.unet.config.projection_class_embeddings_input_dim
        pooled_width -= 6 * self.pipeline.unet.config.addition_time_embed_dim
        if self.pipeline.text_encoder_2 is None:
            text, pooled = self.text, torch.zeros(1, pooled_width, device=self.device, dtype=self.dtype)
        else:
            text, _, pooled, _ = self.pipeline.encode_prompt(
                self.prompt, device=self.device, do_classifier_free_guidance=False
            )
        time_ids = self.pipeline._get_add_time_ids(size, (0, 0), size, text.dtype, pooled_width).to(self.device)
        return {"encoder_hidden_states": text, "added_cond_kwargs": {"text_embeds": pooled, "time_ids": time_ids}}

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> Tensor:
        # One condition for all frames of the batch.
        for_each = expanded(condition, len(noisy))
        return first_tensor(self.unet(noisy, torch.tensor(tau, device=self.device), **for_each))


def expanded(condition: Condition, frames: int) -> Condition:
    """Every tensor of a condition repeated for each frame, without a copy."""
    return {
        key: expanded(value, frames) if isinstance(value, dict) else value.expand(frames, *value.shape[1:])
        for key, value in condition.items()
    }
