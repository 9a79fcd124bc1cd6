"""LTX-Video, from text or from a first frame (`LTXVideoTransformer3DModel`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tedlens.models.base import Condition, Frames
from tedlens.models.latent import conditioning_frame
from tedlens.models.points import first_tensor
from tedlens.models.transformers.video_transformer import VideoTransformer

TEXT_TOKENS = 128  # the pipeline's own default


class LTXVideo(VideoTransformer):
    """Adapter for `LTXPipeline` and `LTXImageToVideoPipeline`, which share one transformer.

    From an image, the first latent is that of the image, without noise, and its tokens are told time 0.

    Parameters
    ----------
    from_image
        Whether it is given the first frame as it is; by default as the pipeline's class says.
    frame_rate
        Frames a second that it is told (25, the pipeline's default).
    conditioning_frame
        From an image: index in the clip of the frame to condition every window on; by default each window's first.
    """

    trained_frames = 161

    def __init__(
        self,
        pipeline: Any,
        *,
        from_image: bool | None = None,
        frame_rate: int = 25,
        conditioning_frame: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(pipeline, **common)
        self.from_image = "ImageToVideo" in type(pipeline).__name__ if from_image is None else from_image
        self.frame_rate, self.conditioning_frame = frame_rate, conditioning_frame

    @property
    def options(self) -> dict[str, Any]:
        own = {"from_image": self.from_image, "frame_rate": self.frame_rate}
        return super().options | own | {"conditioning_frame": self.conditioning_frame}

    @property
    def ratio(self) -> int:
        return int(self.pipeline.vae_temporal_compression_ratio)

    @property
    def scale(self) -> int:
        return int(self.pipeline.vae_spatial_compression_ratio)

    @property
    def patch(self) -> tuple[int, int]:
        return self.config.patch_size_t, self.config.patch_size

    def _pictures(self, latents: Tensor) -> Tensor:
        vae = self.pipeline.vae
        # Later VAEs denoise a last time; the pipeline's default is to tell them that there is no noise.
        time = torch.zeros(len(latents)).to(latents) if vae.config.timestep_conditioning else None
        found: Tensor = vae.decode(latents, time).sample
        return found

    def embed(self) -> dict[str, Tensor]:
        text, mask, _, _ = self.pipeline.encode_prompt(
            self.prompt, do_classifier_free_guidance=False, max_sequence_length=TEXT_TOKENS, device=self.device
        )
        return {"encoder_hidden_states": text, "encoder_attention_mask": mask}

    def no_text(self) -> dict[str, Tensor]:
        return {
            "encoder_hidden_states": torch.zeros(1, TEXT_TOKENS, self.config.caption_channels, dtype=self.dtype),
            "encoder_attention_mask": torch.ones(1, TEXT_TOKENS, dtype=torch.int64),
        }

    def condition(self, frames: Frames, clean: Tensor, window: range) -> Condition:
        height, width = clean.shape[-2:]
        places: Condition = {
            "num_frames": len(self.latent_frames(window)),
            "height": height,
            "width": width,
            "rope_interpolation_scale": (self.ratio / self.frame_rate, self.scale, self.scale),
        }
        if self.from_image:
            index = conditioning_frame(self.conditioning_frame, window, len(frames))
            places["first"] = self.encode(frames[index : index + 1])
        return self.text | places

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> Tensor:
        condition, time = dict(condition), self.time(tau).float()
        given = noisy.new_zeros(1, 1, len(noisy), *noisy.shape[2:])
        if "first" in condition:
            noisy = torch.cat([condition.pop("first"), noisy[1:]])
            given[:, :, 0] = 1
            time = time[:, None] * (1 - self._packed(given)[..., 0])
        tokens = self._packed(noisy.transpose(0, 1)[None])
        output = first_tensor(self.denoiser(hidden_states=tokens, timestep=time, **condition))
        by_latent = self.pipeline._unpack_latents(output, len(noisy), *noisy.shape[2:], *reversed(self.patch))
        found: Tensor = by_latent[0].transpose(0, 1)
        return found

    def _packed(self, video: Tensor) -> Tensor:
        tokens: Tensor = self.pipeline._pack_latents(video, *reversed(self.patch))
        return tokens
