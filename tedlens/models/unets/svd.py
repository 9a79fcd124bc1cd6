"""Stable Video Diffusion (`UNetSpatioTemporalConditionModel`)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from tedlens.models.base import Condition, DiffusionModel, Frames, pictures
from tedlens.models.latent import (
    conditioning_frame,
    decoded,
    encode_with_vae,
    no_image,
    ready_vae,
    scaled_latents,
)
from tedlens.models.noise import CONDITIONING, frame_noise
from tedlens.models.points import first_tensor
from tedlens.models.schedules import KarrasNoise, Schedule

# The pipeline's own defaults.
FPS, MOTION_BUCKET_ID, NOISE_AUG_STRENGTH = 7, 127, 0.02


class StableVideoDiffusion(DiffusionModel):
    """Adapter for `StableVideoDiffusionPipeline`.

    tau to sigma: SVD has no training timesteps, only sigmas (Karras, 0.002 to 700). tau counts the
    1000 sigmas that its own scheduler lays out for 1000 steps, from the least to the largest:
    ``sigma(tau) == scheduler.sigmas[999 - tau]`` after ``scheduler.set_timesteps(1000)``, which for
    SVD's settings is ``(0.002 ** (1/7) + tau / 999 * (700 ** (1/7) - 0.002 ** (1/7))) ** 7``. The UNet
    is given the scheduler's own timestep for it, 0.25 ln(sigma). To compare with other models, use
    `log_snr`.

    The conditioning is the pipeline's, from one frame: its CLIP embedding, and its VAE latent (mode, not
    scaled) after noise in pixels, repeated for each frame. That noise depends on the frame alone, not on
    the probe's seed.

    Parameters
    ----------
    fps, motion_bucket_id, noise_aug_strength
        As in the pipeline, with its defaults (7, 127, 0.02).
    conditioning_frame
        Index in the clip of the frame to condition every window on; by default each window's first, as in
        generation.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        fps: int = FPS,
        motion_bucket_id: int = MOTION_BUCKET_ID,
        noise_aug_strength: float = NOISE_AUG_STRENGTH,
        conditioning_frame: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(pipeline, **common)
        self.fps, self.motion_bucket_id, self.noise_aug_strength = fps, motion_bucket_id, noise_aug_strength
        self.conditioning_frame = conditioning_frame
        self.window = int(pipeline.unet.config.num_frames)
        # A scheduler of our own: the pipeline's may be in use.
        self._scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
        self._scheduler.set_timesteps(1000)
        ready_vae(pipeline.vae, self.name, self.dtype)

    @property
    def options(self) -> dict[str, Any]:
        return {
            "fps": self.fps,
            "motion_bucket_id": self.motion_bucket_id,
            "noise_aug_strength": self.noise_aug_strength,
            "conditioning_frame": self.conditioning_frame,
        }

    @property
    def multiple(self) -> int:
        # This UNet cannot upsample to odd sizes, so latents must halve evenly at every level.
        levels: int = len(self.pipeline.unet.config.block_out_channels)
        scale: int = self.pipeline.vae_scale_factor
        return scale * int(2 ** (levels - 1))

    def encode(self, frames: Frames) -> Tensor:
        return scaled_latents(self.pipeline.vae, frames).to(self.device, self.dtype)

    def condition(self, frames: Frames, clean: Tensor, window: range) -> Condition:
        index = conditioning_frame(self.conditioning_frame, window, len(frames))
        picture = pictures(frames[index : index + 1])
        noise = frame_noise(0, [index], tuple(picture.shape[1:]), CONDITIONING)
        latent = encode_with_vae(self.pipeline.vae, picture + self.noise_aug_strength * noise)
        latent = latent.to(self.device, self.dtype)
        return {
            "encoder_hidden_states": self._embed_image(PIL.Image.fromarray(frames[index])),
            "image_latents": latent.expand(len(window), -1, -1, -1),
            "added_time_ids": self.pipeline._get_add_time_ids(
                self.fps - 1, self.motion_bucket_id, self.noise_aug_strength, self.dtype, 1, 1, False
            ).to(self.device),
        }

    def _embed_image(self, first: PIL.Image.Image) -> Tensor:
        if self.pipeline.image_encoder is None:
            return no_image(self.unet).to(self.device, self.dtype)
        embedding: Tensor = self.pipeline._encode_image(first, self.device, 1, False)
        return embedding

    @cached_property
    def schedule(self) -> Schedule:
        return KarrasNoise(self._scheduler.sigmas[:1000].flip(0), self.pipeline.scheduler.config["prediction_type"])

    def decode(self, clean: Tensor) -> Tensor:
        return decoded(self.pipeline.vae, clean)

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> Tensor:
        condition = dict(condition)
        # The scheduler's own scaling to unit variance (its c_in).
        sigma = self._scheduler.sigmas[999 - tau].to(self.device)
        sample = noisy / (sigma**2 + 1) ** 0.5
        sample = torch.cat([sample, condition.pop("image_latents")], dim=1)[None]
        output = self.unet(sample, self._scheduler.timesteps[999 - tau].to(self.device), **condition)
        return first_tensor(output)[0]
