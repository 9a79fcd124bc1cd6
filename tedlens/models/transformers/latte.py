"""Latte (`LatteTransformer3DModel`): blocks within frames and blocks over frames by turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from tedlens.models.base import Condition, Frames
from tedlens.models.latent import decoded, scaled_latents
from tedlens.models.schedules import Schedule, VariancePreservingNoise
from tedlens.models.transformers.video_transformer import VideoTransformer

TEXT_TOKENS = 120  # the pipeline's own


class Latte(VideoTransformer):
    """Adapter for `LattePipeline`: ``block_0`` is within frames, ``block_1`` over them, and so on.

    It counts exactly as many frames as it was trained on (16); a shorter clip gets the first of its places in time.
    """

    ratio = 1
    temporal = ("temporal_transformer_blocks.*",)

    @property
    def trained_frames(self) -> int:  # type: ignore[override]
        return int(self.config.video_length)

    @property
    def longest_window(self) -> int:
        return self.trained_frames

    @property
    def scale(self) -> int:
        return int(self.pipeline.vae_scale_factor)

    @cached_property
    def _schedule(self) -> Schedule:
        return VariancePreservingNoise.of(self.pipeline.scheduler, self.name)

    @cached_property
    def block_modules(self) -> dict[str, nn.Module]:
        network: Any = self.denoiser
        by_turns = chain.from_iterable(
            zip(network.transformer_blocks, network.temporal_transformer_blocks, strict=True)
        )
        return {f"block_{number}": block for number, block in enumerate(by_turns)}

    def encode(self, frames: Frames) -> Tensor:
        return scaled_latents(self.pipeline.vae, frames).to(self.device, self.dtype)

    def decode(self, clean: Tensor) -> Tensor:
        return decoded(self.pipeline.vae, clean)

    def embed(self) -> dict[str, Tensor]:
        text = self.pipeline.encode_prompt(self.prompt, False, device=self.device)[0]
        return {"encoder_hidden_states": text}

    def no_text(self) -> dict[str, Tensor]:
        return {"encoder_hidden_states": torch.zeros(1, TEXT_TOKENS, self.config.caption_channels, dtype=self.dtype)}

    def condition(self, frames: Frames, clean: Tensor, window: range) -> Condition:
        return {**self.text, "enable_temporal_attentions": True}

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> Tensor:
        with self._places_of(len(noisy)):
            return super().run(noisy, tau, condition)

    @contextmanager
    def _places_of(self, frames: int) -> Iterator[None]:
        """The first places in time alone, while fewer frames than trained on are run."""
        network: Any = self.denoiser
        places = network.temp_pos_embed
        network.temp_pos_embed = places[:, :frames].to(self.device)  # where layers wait, the whole is on the CPU
        try:
            yield
        finally:
            network.temp_pos_embed = places
