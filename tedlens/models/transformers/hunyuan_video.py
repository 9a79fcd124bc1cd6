"""HunyuanVideo, from text or from an image (`HunyuanVideoTransformer3DModel`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tedlens.models.base import Condition, Frames
from tedlens.models.latent import conditioning_frame
from tedlens.models.transformers.video_transformer import VideoTransformer

TEXT_TOKENS = 256  # the pipelines' own default
INTERLEAVE = {"latent_concat": 2, "token_replace": 4}  # every so many of the image's tokens the prompt keeps


class HunyuanVideo(VideoTransformer):
    """Adapter for `HunyuanVideoPipeline` and `HunyuanVideoImageToVideoPipeline`; the video's tokens stand first.

    Blocks of two streams come first (``block_0`` .. ``block_19``), then those of one. From an image, the first latent
    is the image's (weights of ``token_replace``), or that and a mask are further channels (``latent_concat``); its
    text encoder sees the image, too.

    Parameters
    ----------
    guidance
        Scale of guidance that it is told, having been distilled with it; the pipelines' default: 6, or 1 from an image.
    conditioning_frame
        From an image: index in the clip of the frame to condition every window on; by default each window's first.
    """

    lists = ("transformer_blocks", "single_transformer_blocks")
    matching = 15
    text_first = False
    trained_frames = 129

    def __init__(
        self, pipeline: Any, *, guidance: float | None = None, conditioning_frame: int | None = None, **common: Any
    ) -> None:
        super().__init__(pipeline, **common)
        self.from_image: str | None = self.config.image_condition_type
        self.guidance = (6.0 if self.from_image is None else 1.0) if guidance is None else guidance
        self.conditioning_frame = conditioning_frame

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"guidance": self.guidance, "conditioning_frame": self.conditioning_frame}

    @property
    def patch(self) -> tuple[int, int]:
        return self.config.patch_size_t, self.config.patch_size

    def embed(self) -> dict[str, Tensor]:
        if self.from_image is None:
            return self._named(self.pipeline.encode_prompt(self.prompt))
        return self._beside(np.zeros((self.multiple, self.multiple, 3), np.uint8))

    def _beside(self, image: np.ndarray[Any, Any]) -> dict[str, Tensor]:
        """What the prompt comes to beside an image (y, x, 3)."""
        picture, interleave = Image.fromarray(image), INTERLEAVE[str(self.from_image)]
        return self._named(self.pipeline.encode_prompt(picture, self.prompt, image_embed_interleave=interleave))

    def _named(self, encoded: Any) -> dict[str, Tensor]:
        names = "encoder_hidden_states", "pooled_projections", "encoder_attention_mask"
        return {name: value.to(self.device, self.dtype) for name, value in zip(names, encoded, strict=True)}

    def no_text(self) -> dict[str, Tensor]:
        mask = torch.zeros(1, TEXT_TOKENS, dtype=self.dtype)
        mask[:, 0] = 1  # its mean over what is not masked needs a token
        return {
            "encoder_hidden_states": torch.zeros(1, TEXT_TOKENS, self.config.text_embed_dim, dtype=self.dtype),
            "pooled_projections": torch.zeros(1, self.config.pooled_projection_dim, dtype=self.dtype),
            "encoder_attention_mask": mask,
        }

    def condition(self, frames: Frames, clean: Tensor, window: range) -> Condition:
        told: Condition = {}
        sees_image = self.from_image is not None and self.embeddings is None and self.pipeline.text_encoder is not None
        if self.from_image is not None:
            index = conditioning_frame(self.conditioning_frame, window, len(frames))
            told["first"] = self.encode(frames[index : index + 1])
        told |= self._beside(frames[index]) if sees_image else self.text
        if self.from_image is None or self.config.guidance_embeds:
            told["guidance"] = torch.tensor([self.guidance], device=self.device, dtype=self.dtype) * 1000.0
        return told

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> Tensor:
        condition = dict(condition)
        first = condition.pop("first", None)
        if first is not None:
            if self.from_image == "token_replace":
                noisy = torch.cat([first, noisy[1:]])
            else:
                mask = torch.zeros_like(noisy[:, :1])
                mask[0] = 1
                noisy = torch.cat([noisy, first * mask, mask], dim=1)
        return super().run(noisy, tau, condition)

    def time(self, tau: int) -> Tensor:
        return super().time(tau).float()
