"""I2VGen-XL (`I2VGenXLUNet`): the paper's motion model, and the embedded video model."""

from __future__ import annotations

import inspect
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from tedlens.models.base import Condition, Frames
from tedlens.models.latent import LatentModel, conditioning_frame, no_image, text_width
from tedlens.models.points import first_tensor


class I2VGenXL(LatentModel):
    """Adapter for `I2VGenXLPipeline`.

    The conditioning is that of the pipeline, from one frame: its CLIP embedding, its VAE latent followed
    by planes that count the frames, the prompt, and the frame rate. A pipeline saved without text or
    image encoder gets no text tokens and a zero image embedding.

    Parameters
    ----------
    prompt
        Text for the cross-attention; empty by default, since a probe describes nothing.
    fps
        The frame rate that the UNet is told (16, the pipeline's default).
    conditioning_frame
        Index in the clip of the frame to condition every window on; by default each window's first, as in
        generation.
    """

    window = 16
    blank_tokens = 0

    def __init__(self, pipeline: Any, *, fps: int = 16, conditioning_frame: int | None = None, **common: Any) -> None:
        super().__init__(pipeline, **common)
        self.fps, self.conditioning_frame = fps, conditioning_frame

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"fps": self.fps, "conditioning_frame": self.conditioning_frame}

    def condition(self, frames: Frames, clean: Tensor, window: range) -> Condition:
        index = conditioning_frame(self.conditioning_frame, window, len(frames))
        return super().condition(frames, clean, window) | {
            "image_embeddings": self._embed_image(PIL.Image.fromarray(frames[index])),
            "image_latents": image_latents(clean[index], len(window)),
            "fps": torch.tensor([self.fps], device=self.device),
        }

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> Tensor:
        output = self.unet(noisy.transpose(0, 1)[None], torch.tensor(tau, device=self.device), **condition)
        return first_tensor(output)[0].transpose(0, 1)

    def _encode_prompt(self) -> Tensor:
        self.pipeline._guidance_scale = 1.0  # the pipeline's own switch: no unconditional half
        # clip_skip=1 is the default of the pipeline's __call__.
        embedding: Tensor = self.pipeline.encode_prompt(self.prompt, self.device, 1, clip_skip=1)[0]
        return embedding

    def _embed_image(self, first: PIL.Image.Image) -> Tensor:
        if self.pipeline.image_encoder is None:
            return no_image(self.unet).to(self.device, self.dtype)
        self.pipeline._guidance_scale = 1.0
        # The pipeline's own cropping and resizing, two functions of its module.
        helpers: Any = inspect.getmodule(type(self.pipeline))
        cropped = helpers._center_crop_wide(first, (first.width, first.width))
        side = self.pipeline.feature_extractor.crop_size
        resized = helpers._resize_bilinear(cropped, (side["width"], side["height"]))
        embedding: Tensor = self.pipeline._encode_image(resized, self.device, 1)
        return embedding


def image_latents(first: Tensor, frames: int) -> Tensor:
    """The first frame's latent (channel, y, x), then planes i / (F - 1): (1, channel, F, y, x)."""
    planes = [first] + [torch.full_like(first, i / (frames - 1)) for i in range(1, frames)]
    return torch.stack(planes, dim=1)[None]


def no_text(unet: Any) -> Tensor:
    """Text tokens of a model without text: none, (1, 0, channel)."""
    return torch.zeros(1, I2VGenXL.blank_tokens, text_width(unet))
