"""What latent diffusion models share: a VAE before the UNet, and a prompt beside it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tedlens.errors import TedlensError
from tedlens.models.base import Condition, Frames, VariancePreserving, pictures

ENCODE_BATCH = 8  # frames through the VAE at once, where memory allows


class LatentModel(VariancePreserving):
    """A UNet on a VAE's latents with a prompt in its cross-attention.

    A pipeline without text encoder gets `blank_tokens` text tokens of zeros.

    Parameters
    ----------
    prompt
        Text for the cross-attention; empty by default, since a probe describes nothing.
    """

    blank_tokens = 1

    def __init__(self, pipeline: Any, *, prompt: str = "", **common: Any) -> None:
        super().__init__(pipeline, **common)
        self.prompt = prompt
        ready_vae(pipeline.vae, self.name, self.dtype)

    @property
    def options(self) -> dict[str, Any]:
        return {"prompt": self.prompt}

    @property
    def multiple(self) -> int:
        return int(self.pipeline.vae_scale_factor)

    def encode(self, frames: Frames) -> Tensor:
        return scaled_latents(self.pipeline.vae, frames).to(self.device, self.dtype)

    def decode(self, clean: Tensor) -> Tensor:
        return decoded(self.pipeline.vae, clean)

    def condition(self, frames: Frames, clean: Tensor, window: range) -> Condition:
        return {"encoder_hidden_states": self.text}

    @cached_property
    def text(self) -> Tensor:
        """The prompt's embedding (1, token, channel), computed once a model."""
        if self.pipeline.text_encoder is None:
            return torch.zeros(1, self.blank_tokens, text_width(self.unet), device=self.device, dtype=self.dtype)
        return self._encode_prompt()

    def _encode_prompt(self) -> Tensor:
        # One prompt, and no second half for guidance: the pipeline's own positional arguments.
        embedding: Tensor = self.pipeline.encode_prompt(self.prompt, self.device, 1, False)[0]
        return embedding


def text_width(unet: Any) -> int:
    """Channels of the tokens that a UNet's cross-attention takes."""
    width = unet.config.get("encoder_hid_dim") or unet.config.cross_attention_dim
    return int(width if isinstance(width, int) else width[0])


def no_image(unet: Any) -> Tensor:
    """Image embedding of a video model without image encoder: zeros, (1, 1, channel)."""
    return torch.zeros(1, 1, text_width(unet))


def ready_vae(vae: Any, name: str, dtype: torch.dtype) -> None:
    """See that there is a VAE; to float32 where its configuration says that float16 overflows (bfloat16 does not)."""
    if vae is None:
        raise TedlensError(f"Model {name!r} has no VAE that diffusers knows, and sees its clips through one.")
    if dtype == torch.float16 and vae.config.get("force_upcast", False):
        vae.to(torch.float32)


def encode_with_vae(vae: Any, images: Tensor) -> Tensor:
    """Mean of the VAE's posterior, unscaled: (frame, channel, y, x) from (frame, 3, y, x) in [-1, 1].

    The mean and not a sample, so that a probe is repeatable.
    """
    return some_at_once(vae, images, "encode", lambda part: vae.encode(part).latent_dist.mode())


def some_at_once(
    vae: Any, values: Tensor, work: str, do: Callable[[Tensor], Tensor], *, batch: int = ENCODE_BATCH
) -> Tensor:
    """A VAE's work on (frame, ..), a few frames at a time; where GPU memory runs out, half as many."""
    weight = next(vae.parameters())
    batch = min(batch, len(values))
    while True:
        try:
            return torch.cat([do(part.to(weight.device, weight.dtype)) for part in values.split(batch)])
        except torch.OutOfMemoryError as error:
            if batch == 1:
                height, width = values.shape[-2:]
                count = values.shape[2] if values.ndim == 5 else 1  # of a video, all at once
                raise TedlensError(
                    f"The GPU has no room to {work} {'one frame' if count == 1 else f'{count} frames'} of "
                    f"{height}x{width} {'pixels' if work == 'encode' else 'latents'}; give a smaller size, "
                    "dtype='bfloat16' or device='cpu'"
                    + ("." if count == 1 else ", a shorter window, or call model.pipeline.vae.enable_tiling() first.")
                ) from error
            batch //= 2
            warnings.warn(f"GPU memory ran out; the VAE goes on with {batch} frames at once.", stacklevel=2)


def scaled_latents(vae: Any, frames: Frames) -> Tensor:
    """Latents as a UNet was trained on them: shifted where the VAE's configuration has means, and scaled."""
    latents = encode_with_vae(vae, pictures(frames))
    mean, std = _shift(vae, latents)
    return (latents - mean) / std * float(vae.config.scaling_factor)


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """Pictures (frame, 3, y, x) in about [-1, 1], float32, of latents as a UNet was trained on them."""
    mean, std = _shift(vae, latents)
    latents = latents / float(vae.config.scaling_factor) * std + mean
    # SVD's decoder mixes neighbouring frames, and is told how many it gets.
    by_frames = "num_frames" in inspect.signature(vae.decode).parameters

    def decode(part: Tensor) -> Tensor:
        pictures_of: Tensor = vae.decode(part, **({"num_frames": len(part)} if by_frames else {})).sample
        return pictures_of.float()

    return some_at_once(vae, latents, "decode", decode)


def _shift(vae: Any, latents: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """Mean and standard deviation of each channel of a VAE's latents, where its configuration has them."""
    mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if mean is None or std is None:
        return 0.0, 1.0
    of_channels = (torch.tensor(v, device=latents.device).view(1, -1, 1, 1) for v in (mean, std))
    return next(of_channels), next(of_channels)


def conditioning_frame(chosen: int | None, window: range, frames: int) -> int:
    """Index in the clip of the frame that a window is conditioned on: `chosen`, or the window's first."""
    if chosen is None:
        return window.start
    if not 0 <= chosen < frames:
        raise TedlensError(
            f"conditioning_frame={chosen} is not a frame of this clip; choose 0 to {frames - 1}, or None for "
            "the first frame of each window."
        )
    return chosen
