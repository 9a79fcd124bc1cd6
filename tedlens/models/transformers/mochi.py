"""Mochi 1 (`MochiTransformer3DModel`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental import _config as fx_config

from tedlens.models.base import Condition, Frames
from tedlens.models.transformers.video_transformer import VideoTransformer

TEXT_TOKENS = 256  # the pipeline's own default


class Mochi(VideoTransformer):
    """Adapter for `MochiPipeline`; text and video meet in attention, the video's tokens before those of the text.

    Its own time runs from noise (0) to clean (1000); tau is, as with all models, 0 for clean.
    """

    text_first = False
    trained_frames = 163

    @property
    def ratio(self) -> int:
        return int(self.pipeline.vae_temporal_scale_factor)

    @property
    def scale(self) -> int:
        return int(self.pipeline.vae_spatial_scale_factor)

    def embed(self) -> dict[str, Tensor]:
        text, mask, _, _ = self.pipeline.encode_prompt(
            self.prompt, do_classifier_free_guidance=False, max_sequence_length=TEXT_TOKENS, device=self.device
        )
        return {"encoder_hidden_states": text, "encoder_attention_mask": mask}

    def no_text(self) -> dict[str, Tensor]:
        mask = torch.zeros(1, TEXT_TOKENS, dtype=torch.bool)
        mask[:, 0] = True  # its mean over what is not masked needs a token
        text = torch.zeros(1, TEXT_TOKENS, self.config.text_embed_dim, dtype=self.dtype)
        return {"encoder_hidden_states": text, "encoder_attention_mask": mask}

    def condition(self, frames: Frames, clean: Tensor, window: range) -> Condition:
        return dict(self.text)

    def time(self, tau: int) -> Tensor:
        return torch.tensor([1000 - tau], device=self.device, dtype=self.dtype)

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> Tensor:
        network: Any = self.denoiser
        with _shapes_alone(network.rope) if self.device.type == "meta" else nullcontext():
            return super().run(noisy, tau, condition)


@contextmanager
def _shapes_alone(rope: Any) -> Iterator[None]:
    """On the meta device, where neither its autocast works nor its search for what is not masked."""

    def turned(frequencies: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        angles = torch.einsum("nd,dhf->nhf", places.float(), frequencies.float())
        return angles, angles

    rope._create_rope = turned
    try:
        config: Any = fx_config
        with config.patch(meta_nonzero_assume_all_nonzero=True):
            yield
    finally:
        del rope._create_rope
