"""HunyuanVideo, text to video (`HunyuanVideoTransformer3DModel`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tedlens.errors import TedlensError
from tedlens.models.base import Condition, Frames
from tedlens.models.transformers.video_transformer import VideoTransformer

TEXT_TOKENS = 256  # the pipeline's own default


class HunyuanVideo(VideoTransformer):
    """Adapter for `HunyuanVideoPipeline`; the video's tokens stand before those of the text.

    Blocks of two streams come first (``block_0`` .. ``block_19``), then those of one.

    Parameters
    ----------
    guidance
        Scale of guidance that it is told, having been distilled with it (6, the pipeline's default).
    """

    lists = ("transformer_blocks", "single_transformer_blocks")
    matching = 15
    text_first = False
    trained_frames = 129

    def __init__(self, pipeline: Any, *, guidance: float = 6.0, **common: Any) -> None:
        super().__init__(pipeline, **common)
        self.guidance = guidance
        if self.config.image_condition_type is not None:
            raise TedlensError(f"{self.name} begins from an image, which tedlens does not know of HunyuanVideo yet.")

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"guidance": self.guidance}

    @property
    def patch(self) -> tuple[int, int]:
        return self.config.patch_size_t, self.config.patch_size

    def embed(self) -> dict[str, Tensor]:
        text, pooled, mask = (each.to(self.dtype) for each in self.pipeline.encode_prompt(self.prompt))
        return {"encoder_hidden_states": text, "pooled_projections": pooled, "encoder_attention_mask": mask}

    def no_text(self) -> dict[str, Tensor]:
        mask = torch.zeros(1, TEXT_TOKENS, dtype=self.dtype)
        mask[:, 0] = 1  # its mean over what is not masked needs a token
        return {
            "encoder_hidden_states": torch.zeros(1, TEXT_TOKENS, self.config.text_embed_dim, dtype=self.dtype),
            "pooled_projections": torch.zeros(1, self.config.pooled_projection_dim, dtype=self.dtype),
            "encoder_attention_mask": mask,
        }

    def condition(self, frames: Frames, clean: Tensor, window: range) -> Condition:
        return self.text | {"guidance": torch.tensor([self.guidance], device=self.device, dtype=self.dtype) * 1000.0}

    def time(self, tau: int) -> Tensor:
        return super().time(tau).float()
