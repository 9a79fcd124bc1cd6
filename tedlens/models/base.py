"""What tedlens asks of a model, and what all diffusers models share."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tedlens.errors import TedlensError

Condition = dict[str, Any]  # what a UNet is given besides the noisy sample and the time
Frames = npt.NDArray[np.uint8]  # (frame, y, x, 3), at the model's own input size
ENCODE_BATCH = 8  # frames through the VAE at once


class DiffusionModel(ABC):
    """A diffusion UNet with all it needs around it, behind one small protocol.

    A probe calls, in this order: `encode` and, for each window, `condition` (once a clip each); then,
    for every tau and seed, `add_noise` and `run`. Tensors are (frame, channel, y, x) throughout; the
    adapter alone knows in which layout its UNet wants them.

    Attributes
    ----------
    name, revision
        As given to the loader; the hub's commit where it is known.
    unet
        The torch module itself.
    blocks
        Names of the blocks, in the order in which they run: ``down_0`` .., ``mid``, ``up_0`` ..
    block
        The block whose features the paper's protocol takes.
    window
        Frames that the model was trained on at once; None for an image model, which sees each alone.
    size
        Short side, in pixels, that frames are resized to where the user does not say.
    multiple
        Both sides of the input are made multiples of this, in pixels.
    options
        Settings of the conditioning, as kept with the results.
    """

    window: int | None = None
    block: str = "up_2"

    def __init__(
        self, pipeline: Any, *, name: str, revision: str | None = None, size: int = 480, block: str | None = None
    ) -> None:
        self.pipeline = pipeline
        self.unet: nn.Module = pipeline.unet
        self.name = name
        self.revision = revision
        self.size = size
        if block is not None:
            self.block = block
        for module in self._modules():
            module.eval().requires_grad_(False)
        self.blocks: tuple[str, ...] = tuple(self._block_modules)

    # --- what an adapter says -------------------------------------------------------------------

    @property
    @abstractmethod
    def multiple(self) -> int:
        """Both sides of the input are multiples of this, in pixels."""

    @abstractmethod
    def encode(self, frames: Frames) -> Tensor:
        """What the UNet denoises, without noise: (frame, channel, y, x)."""

    def condition(self, frames: Frames, clean: Tensor, window: range) -> Condition:
        """What the UNet is told about one window of the clip, besides its noisy frames."""
        return {}

    @abstractmethod
    def sigma(self, tau: int) -> float:
        """Noise-to-signal ratio at tau; infinite where nothing of the signal is left."""

    @abstractmethod
    def add_noise(self, clean: Tensor, noise: Tensor, tau: int) -> Tensor:
        """The noisy sample at tau, as the UNet's own pipeline would hold it."""

    @abstractmethod
    def run(self, noisy: Tensor, tau: int, condition: Condition) -> None:
        """One forward of the UNet; features are taken by hooks."""

    @property
    def options(self) -> dict[str, Any]:
        return {}

    # --- what all share -------------------------------------------------------------------------

    def log_snr(self, tau: int) -> float:
        """Natural logarithm of the signal-to-noise power ratio: the axis on which schedules compare."""
        sigma = self.sigma(tau)
        return -2 * float(np.log(sigma)) if 0 < sigma < np.inf else float(np.inf if sigma == 0 else -np.inf)

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    @cached_property
    def _block_modules(self) -> dict[str, nn.Module]:
        unet: Any = self.unet
        named = {f"down_{i}": block for i, block in enumerate(unet.down_blocks)}
        if unet.mid_block is not None:
            named["mid"] = unet.mid_block
        return named | {f"up_{i}": block for i, block in enumerate(unet.up_blocks)}

    def module(self, block: str) -> nn.Module:
        """The module whose output is the feature of `block`."""
        if block not in self._block_modules:
            raise TedlensError(f"Model {self.name!r} has no block {block!r}; choose from {', '.join(self.blocks)}.")
        return self._block_modules[block]

    def check_tau(self, tau: int) -> int:
        if int(tau) != tau or not 0 <= tau <= 999:
            raise TedlensError(f"tau={tau} is not a training timestep; choose a whole number from 0 (clean) to 999.")
        return int(tau)

    def _modules(self) -> list[nn.Module]:
        parts = self.pipeline.components.values()
        return [part for part in parts if isinstance(part, nn.Module)]

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of all weights, in the order of their names."""
        digest = hashlib.sha256()
        for module in self._modules():
            for key, value in sorted(module.state_dict().items()):
                digest.update(key.encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def provenance(self) -> dict[str, Any]:
        """How to get this model again, for the attributes of results."""
        return {
            "model": self.name,
            "model_class": type(self.unet).__name__,
            "model_revision": self.revision or "",
            "weights_sha256": self.weights_sha256,
            "dtype": str(self.dtype).removeprefix("torch."),
            **{f"model_{key}": value for key, value in self.options.items()},
        }


class VariancePreserving(DiffusionModel):
    """Noise from the scheduler's `alphas_cumprod`: x = sqrt(a) x0 + sqrt(1 - a) noise."""

    def sigma(self, tau: int) -> float:
        alpha = float(self.pipeline.scheduler.alphas_cumprod[tau])
        return float(np.sqrt((1 - alpha) / alpha)) if alpha > 0 else float("inf")

    def add_noise(self, clean: Tensor, noise: Tensor, tau: int) -> Tensor:
        timesteps = torch.full((len(clean),), tau, device=clean.device)
        noisy: Tensor = self.pipeline.scheduler.add_noise(clean, noise, timesteps)
        return noisy


def encode_with_vae(vae: Any, pictures: Tensor) -> Tensor:
    """Mean of the VAE's posterior, unscaled, in small batches: (frame, channel, y, x).

    The mean and not a sample, so that a probe is repeatable.
    """
    weight = next(vae.parameters())
    latents = [
        vae.encode(part.to(weight.device, weight.dtype)).latent_dist.mode() for part in pictures.split(ENCODE_BATCH)
    ]
    return torch.cat(latents)


def pictures(frames: Frames) -> Tensor:
    """Frames as diffusers' own image processors hand them on: (frame, 3, y, x) float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255 * 2 - 1
