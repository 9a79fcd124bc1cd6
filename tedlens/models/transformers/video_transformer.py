"""What transformers on latents of a video share: blocks on one sequence of tokens, a VAE over frames, a prompt."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tedlens.errors import TedlensError
from tedlens.models.base import Between, Condition, DiffusionModel, Frames, Latents, pictures
from tedlens.models.latent import ready_vae, some_at_once
from tedlens.models.points import first_tensor
from tedlens.models.schedules import FlowNoise, Schedule


class VideoTransformer(DiffusionModel):
    """A transformer on a video's latents; blocks are ``block_0`` .., in the order in which they run.

    A window's latents are made in one of two ways. ``latents="frame"``: each frame is encoded alone, as a latent of
    its own (as DiffTrack does): features at the clip's frame rate, of a model that was trained on fewer latents a
    second. ``latents="video"``: the window is encoded as a whole, as the model was trained; its first frame is a latent
    of its own, each further one holds as many frames as the VAE makes one of. A window that does not fill its last
    latent is filled up with its last frame. A latent's noise is that of its first frame, so two windows agree about a
    latent that begins at the same frame in both.

    Parameters
    ----------
    prompt
        Text; empty by default, since a probe describes nothing.
    embeddings
        File of safetensors that `save_text` wrote, in place of a text encoder.
    latents, between
        See `DiffusionModel`.
    """

    part = "transformer"
    lists: tuple[str, ...] = ("transformer_blocks",)  # of the denoiser, its lists of blocks in their order
    matching: int | None = None  # number of the block that DiffTrack found to match frames best
    latents: Latents = "frame"

    def __init__(
        self,
        pipeline: Any,
        *,
        prompt: str = "",
        embeddings: str | Path | None = None,
        latents: Latents = "frame",
        between: Between = "repeat",
        **common: Any,
    ) -> None:
        super().__init__(pipeline, **common)
        if latents not in get_args(Latents) or between not in get_args(Between):
            raise TedlensError(
                f"latents={latents!r}, between={between!r}: choose latents from 'frame' and 'video', and between from "
                "'repeat' and 'interpolate'."
            )
        if latents == "video" and self.ratio == 1:
            raise TedlensError(f"{self.name} encodes each frame alone, so latents='frame' is all it has.")
        self.prompt, self.latents, self.between = prompt, latents, between
        self.embeddings = None if embeddings is None else str(embeddings)
        if common.get("block") is None:
            count = len(self.blocks)
            self.block = f"block_{count // 2 if self.matching is None or self.matching >= count else self.matching}"
        ready_vae(pipeline.vae, self.name, self.dtype)

    # --- what an adapter says -------------------------------------------------------------------

    trained_frames: int  # of a clip, at once

    @property
    def ratio(self) -> int:
        """Frames of a clip that a latent holds, but for the first."""
        return int(self.pipeline.vae_scale_factor_temporal)

    @property
    def scale(self) -> int:
        """Pixels a latent, on a side."""
        return int(self.pipeline.vae_scale_factor_spatial)

    @property
    def patch(self) -> tuple[int, int]:
        """Latents that one token holds: of frames, and on a side."""
        return 1, int(self.config.patch_size)

    @abstractmethod
    def embed(self) -> dict[str, Tensor]:
        """What the transformer is told of the prompt, by the pipeline's text encoders."""

    @abstractmethod
    def no_text(self) -> dict[str, Tensor]:
        """The same without text encoders: zeros."""

    # --- what all share -------------------------------------------------------------------------

    @property
    def schedule(self) -> Schedule:
        return self._schedule

    @cached_property
    def _schedule(self) -> Schedule:
        return FlowNoise.of(self.pipeline.scheduler, self.name)

    @property
    def dtype(self) -> torch.dtype:
        """That of its input: some keep single layers in float32 whatever they are loaded in."""
        network: Any = self.denoiser
        found: torch.dtype = network.dtype
        return found

    @property
    def config(self) -> Any:
        return self.denoiser.config

    @property
    def options(self) -> dict[str, Any]:
        between = self.between if self.latents == "video" or self.patch[0] > 1 else None
        return {"prompt": self.prompt, "embeddings": self.embeddings, "latents": self.latents, "between": between}

    @property
    def window(self) -> int:  # type: ignore[override]
        return self.trained_frames if self.latents == "video" else (self.trained_frames - 1) // self.ratio + 1

    @property
    def multiple(self) -> int:
        return self.scale * self.patch[1]

    def token_grid(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[0] // self.multiple, size[1] // self.multiple

    @cached_property
    def block_modules(self) -> dict[str, nn.Module]:
        found = [block for name in self.lists for block in getattr(self.denoiser, name)]
        return {f"block_{number}": block for number, block in enumerate(found)}

    def latent_frames(self, window: range) -> list[range]:
        if self.latents == "frame":
            held = super().latent_frames(window)
        else:
            starts = range(window.start + 1, window.stop, self.ratio)
            held = [range(window.start, window.start + 1)]
            held += [range(start, min(start + self.ratio, window.stop)) for start in starts]
        missing = -len(held) % self.patch[0]
        return [range(window.start, window.start)] * missing + held

    def covered(self, window: range) -> list[range]:
        held, count = self.latent_frames(window), self.patch[0]
        return [range(held[i].start, held[i + count - 1].stop) for i in range(0, len(held), count)]

    def encode(self, frames: Frames) -> Tensor:
        return self.encoded(pictures(frames))

    def encoded(self, images: Tensor) -> Tensor:
        """Latents (latent, channel, y, x) of pictures (frame, 3, y, x) in [-1, 1], one by one or as a video."""
        vae = self.pipeline.vae
        if self.latents == "frame":
            videos = images[:, :, None]
        else:
            filled = torch.cat([images, images[-1:].expand(-(len(images) - 1) % self.ratio, -1, -1, -1)])
            videos = filled.transpose(0, 1)[None]
        # One by one: a VAE of videos that finds its input large cuts it in time, and a frame has none to cut.
        latents = some_at_once(vae, videos, "encode", lambda part: vae.encode(part).latent_dist.mode(), batch=1)
        return self.scaled(self._by_latent(latents)).to(self.device, self.dtype)

    def decode(self, clean: Tensor) -> Tensor:
        latents = self.unscaled(clean.float())
        batch = latents[:, :, None] if self.latents == "frame" else latents.transpose(0, 1)[None]
        decoded = some_at_once(self.pipeline.vae, batch, "decode", lambda part: self._pictures(part).float(), batch=1)
        return self._by_latent(decoded)

    def _pictures(self, latents: Tensor) -> Tensor:
        """Pictures (video, 3, frame, y, x) of latents as the VAE gives them."""
        found: Tensor = self.pipeline.vae.decode(latents).sample
        return found

    def _by_latent(self, videos: Tensor) -> Tensor:
        """(video, channel, 1, y, x), or (1, channel, frame, y, x), as (frame, channel, y, x)."""
        return videos[:, :, 0] if self.latents == "frame" else videos[0].transpose(0, 1)

    def scaled(self, latents: Tensor) -> Tensor:
        """Latents (frame, channel, y, x) of the VAE as the transformer was trained on them."""
        mean, std, factor = self._statistics(latents)
        return (latents - mean) / std * factor

    def unscaled(self, latents: Tensor) -> Tensor:
        mean, std, factor = self._statistics(latents)
        return latents / factor * std + mean

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor, float]:
        """Mean and standard deviation of each channel, and a factor, as the VAE has them."""
        vae = self.pipeline.vae
        known = dict(vae.named_buffers()) | {key: value for key, value in vae.config.items() if value is not None}
        mean, std = (
            torch.as_tensor(known.get(name, default)).to(latents).view(1, -1, 1, 1)
            for name, default in (("latents_mean", 0.0), ("latents_std", 1.0))
        )
        return mean, std, float(known.get("scaling_factor", 1.0))

    @cached_property
    def text(self) -> dict[str, Tensor]:
        """What the transformer is told of the prompt, by name; computed once a model."""
        if self.embeddings is not None:
            found = _read(self.embeddings)
        else:
            found = self.no_text() if self.pipeline.text_encoder is None else self.embed()
        return {key: value.to(self.device) for key, value in found.items()}

    def save_text(self, file: str | Path) -> None:
        """Write what the prompt comes to, so that the model can be loaded without text encoders (``embeddings=``)."""
        save_file({key: value.contiguous() for key, value in self.text.items()}, file)

    @property
    def text_tokens(self) -> int:
        return int(self.text["encoder_hidden_states"].shape[1])

    def time(self, tau: int) -> Tensor:
        """What the transformer is told of the noise."""
        return torch.tensor([tau], device=self.device)

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> Tensor:
        told = {"timestep": self.time(tau)} | condition  # some tell the time of each token
        output = self.denoiser(hidden_states=noisy.transpose(0, 1)[None].to(self.dtype), **told)
        return first_tensor(output)[0].transpose(0, 1)


def _read(file: str) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise TedlensError(
            f"{file} cannot be read as embeddings; give a file that a model's save_text wrote."
        ) from error
