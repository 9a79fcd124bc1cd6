"""CogVideoX, 1.0 and 1.5, text to video and image to video (`CogVideoXTransformer3DModel`)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tedlens.errors import TedlensError
from tedlens.models.base import Condition, Frames, pictures
from tedlens.models.latent import conditioning_frame
from tedlens.models.points import first_tensor
from tedlens.models.schedules import Schedule, VariancePreservingNoise
from tedlens.models.transformers.video_transformer import VideoTransformer


class CogVideoX(VideoTransformer):
    """Adapter for `CogVideoXPipeline` and `CogVideoXImageToVideoPipeline`; text and video are one sequence.

    Image to video is told the first latent and zeros, as further channels. A token of 1.5 holds two latents in time;
    where their number is odd, the first stands twice, as in its training.

    Parameters
    ----------
    conditioning_frame
        Of image to video: index in the clip of the frame to condition every window on; by default each window's first.
    """

    matching = 16

    def __init__(self, pipeline: Any, *, conditioning_frame: int | None = None, **common: Any) -> None:
        super().__init__(pipeline, **common)
        self.conditioning_frame = conditioning_frame
        if self.config.use_learned_positional_embeddings:
            self.fixed_size = self.config.sample_height * self.scale, self.config.sample_width * self.scale

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"conditioning_frame": self.conditioning_frame}

    @cached_property
    def _schedule(self) -> Schedule:
        return VariancePreservingNoise.of(self.pipeline.scheduler, self.name)

    @property
    def trained_frames(self) -> int:  # type: ignore[override]
        return int(self.config.sample_frames)

    @property
    def patch(self) -> tuple[int, int]:
        return self.config.patch_size_t or 1, self.config.patch_size

    def embed(self) -> dict[str, Tensor]:
        return {"encoder_hidden_states": self.pipeline.encode_prompt(self.prompt, None, False, device=self.device)[0]}

    def no_text(self) -> dict[str, Tensor]:
        shape = 1, self.config.max_text_seq_length, self.config.text_embed_dim
        return {"encoder_hidden_states": torch.zeros(shape, dtype=self.dtype)}

    def condition(self, frames: Frames, clean: Tensor, window: range) -> Condition:
        height, width = frames.shape[1:3]
        if self.fixed_size not in (None, (height, width)):
            raise TedlensError(
                f"{self.name} has learnt places for frames of {self.fixed_size} only; give size={self.fixed_size}."
            )
        told: Condition = dict(self.text)
        count = len(self.latent_frames(window))
        if self.config.use_rotary_positional_embeddings:
            told["image_rotary_emb"] = self.pipeline._prepare_rotary_positional_embeddings(
                height, width, count, self.device
            )
        if self.config.ofs_embed_dim is not None:
            told["ofs"] = clean.new_full((1,), 2.0)
        if self.config.in_channels > clean.shape[1]:
            told["image_latents"] = self._image_latents(
                frames, conditioning_frame(self.conditioning_frame, window, len(frames)), count
            )
        return told

    def _image_latents(self, frames: Frames, index: int, count: int) -> Tensor:
        vae = self.pipeline.vae
        image = pictures(frames[index : index + 1])[:, :, None].to(next(vae.parameters()))
        latent = vae.encode(image).latent_dist.mode()[:, :, 0].to(self.device, self.dtype)
        factor = self.pipeline.vae_scaling_factor_image
        latent = latent / factor if vae.config.invert_scale_latents else latent * factor
        return torch.cat([latent, latent.new_zeros(count - 1, *latent.shape[1:])])

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> Tensor:
        condition = dict(condition)
        if "image_latents" in condition:
            noisy = torch.cat([noisy, condition.pop("image_latents")], dim=1)
        return first_tensor(self.denoiser(noisy[None], timestep=self.time(tau), **condition))[0]
