"""Wan 2.1 and 2.2, text to video and image to video (`WanTransformer3DModel`)."""

from __future__ import annotations

from typing import Any, Literal

import PIL.Image
import torch
from torch import Tensor

from tedlens.errors import TedlensError
from tedlens.models.base import Condition, Frames, pictures
from tedlens.models.latent import conditioning_frame
from tedlens.models.transformers.video_transformer import VideoTransformer

TEXT_TOKENS, IMAGE_TOKENS = 512, 257  # the transformer's own, and CLIP's
EXPERTS = {"high": "transformer", "low": "transformer_2"}


class Wan(VideoTransformer):
    """Adapter for `WanPipeline` and `WanImageToVideoPipeline`; text stands in attention of its own.

    2.2 A14B has two experts: one was trained for high noise (tau of 875 and more; from an image 900), one for low.
    Each is a model of its own here, at any tau, so that both can be compared over all of it. 2.2 TI2V (5B) has one
    network for both, from text and from an image, and is told the noise of each token: none where the image stands.

    Parameters
    ----------
    expert
        Of 2.2 A14B: ``"high"`` (default) or ``"low"``.
    from_image
        Of 2.2 TI2V: whether the first latent of a window is that of an image; by default as its pipeline does.
    conditioning_frame
        Of image to video: index in the clip of the frame to condition every window on; by default each window's first.
    """

    lists = ("blocks",)
    trained_frames = 81

    def __init__(
        self,
        pipeline: Any,
        *,
        expert: Literal["high", "low"] | None = None,
        from_image: bool | None = None,
        conditioning_frame: int | None = None,
        **common: Any,
    ) -> None:
        if expert is not None:
            if pipeline.config.boundary_ratio is None or expert not in EXPERTS:
                raise TedlensError(f"expert={expert!r}: choose 'high' or 'low', of Wan 2.2's two; others have one.")
            self.part = EXPERTS[expert]
        super().__init__(pipeline, **common)
        self.expert, self.conditioning_frame = expert, conditioning_frame
        made_so = "ImageToVideo" in type(pipeline).__name__
        if pipeline.config.expand_timesteps:  # TI2V
            self.trained_frames = 121
        elif from_image not in (None, made_so):
            raise TedlensError(
                f"from_image={from_image}: {self.name} runs from {'an image' if made_so else 'text'} only."
            )
        self.from_image = made_so if from_image is None else from_image

    @classmethod
    def part_for(cls, options: dict[str, Any]) -> str:
        return EXPERTS.get(options.get("expert") or "high", cls.part)

    @staticmethod
    def left_out(options: dict[str, Any]) -> tuple[str, ...]:
        """Parts of a pipeline that are not needed: the other expert."""
        return tuple(part for name, part in EXPERTS.items() if name != (options.get("expert") or "high"))

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {
            "expert": self.expert,
            "from_image": self.from_image,
            "conditioning_frame": self.conditioning_frame,
        }

    @property
    def patch(self) -> tuple[int, int]:
        return self.config.patch_size[0], self.config.patch_size[1]

    def embed(self) -> dict[str, Tensor]:
        text = self.pipeline.encode_prompt(
            self.prompt, None, False, max_sequence_length=TEXT_TOKENS, device=self.device
        )[0]
        return {"encoder_hidden_states": text.to(self.dtype)}

    def no_text(self) -> dict[str, Tensor]:
        return {"encoder_hidden_states": torch.zeros(1, TEXT_TOKENS, self.config.text_dim, dtype=self.dtype)}

    def condition(self, frames: Frames, clean: Tensor, window: range) -> Condition:
        told: Condition = dict(self.text)
        if self.from_image:
            index = conditioning_frame(self.conditioning_frame, window, len(frames))
            image = frames[index : index + 1]
            if self.pipeline.config.expand_timesteps:
                told["first"] = self.encode(image)
                return told
            told["image_latents"] = self._image_latents(image, window)
            if self.config.image_dim is not None:
                told["encoder_hidden_states_image"] = self._embed_image(frames[index])
        return told

    def _image_latents(self, image: Frames, window: range) -> Tensor:
        """Four channels that say which latents are given, and latents of the image followed by grey."""
        video = pictures(image).new_zeros(len(window), 3, *image.shape[1:3])
        video[0] = pictures(image)[0]
        latents = self.encoded(video)
        given = latents.new_zeros(len(latents), self.ratio, *latents.shape[2:])
        given[0] = 1
        return torch.cat([given, latents], dim=1)

    def _embed_image(self, image: Frames) -> Tensor:
        if self.pipeline.image_encoder is None:
            return torch.zeros(1, IMAGE_TOKENS, self.config.image_dim, device=self.device, dtype=self.dtype)
        embedding: Tensor = self.pipeline.encode_image(PIL.Image.fromarray(image), self.device).to(self.dtype)
        return embedding

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> Tensor:
        condition = dict(condition)
        if "image_latents" in condition:
            noisy = torch.cat([noisy, condition.pop("image_latents")], dim=1)
        if self.pipeline.config.expand_timesteps:
            times = torch.full(
                (len(noisy), noisy.shape[2] // self.patch[1], noisy.shape[3] // self.patch[1]), float(tau)
            )
            if "first" in condition:
                noisy, times[0] = torch.cat([condition.pop("first"), noisy[1:]]), 0
            condition["timestep"] = times.flatten()[None].to(self.device)
        return super().run(noisy, tau, condition)
