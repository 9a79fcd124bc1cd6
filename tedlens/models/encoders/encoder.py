"""An encoder of single frames behind the protocol of diffusion models: no noise, so tau 0 alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tedlens.errors import TedlensError
from tedlens.models.base import Condition, DiffusionModel, Frames

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Linear sRGB to CIE XYZ, each row over the white point's (D65) share, as OpenCV has them.
XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.950456, 1.0, 1.088754)


class Network(nn.Module, ABC):
    """A network over pictures (frame, 3, y, x) that says in which modules its blocks end."""

    @abstractmethod
    def blocks(self) -> dict[str, nn.Module]:
        """Modules by name, in the order in which they run; each gives a map (frame, channel, y, x), alone or first."""


@dataclass(frozen=True)
class Look:
    """In which numbers an encoder sees a picture: less `mean`, in units of `std`.

    Attributes
    ----------
    mean, std
        One a channel: of red, green and blue from 0 to 1, or, with `lab`, of CIE L (0 to 100), a and b.
    lab
        Colours are CIE Lab.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    lab: bool = False

    def __call__(self, frames: Frames) -> Tensor:
        """Pictures (frame, 3, y, x) float32 from frames (frame, y, x, 3) uint8."""
        rgb = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
        colours = to_lab(rgb) if self.lab else rgb
        mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (self.mean, self.std))
        return (colours - mean) / std


def to_lab(rgb: Tensor) -> Tensor:
    """CIE Lab under D65 (L 0 to 100) of sRGB colours from 0 to 1, both (.., 3, y, x): OpenCV's ``COLOR_RGB2Lab``."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = torch.einsum("ij,...jyx->...iyx", torch.tensor(XYZ) / torch.tensor(WHITE)[:, None], linear)
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=0) ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -3)


class FrameEncoder(DiffusionModel):
    """Adapter for a network that sees each frame alone, as it is: seeds and samples make no difference.

    Parameters
    ----------
    network
        Blocks are its own.
    look
        How it wants its pictures.
    multiple
        Both sides of the input are made multiples of this, in pixels; 1 where it takes any.
    about
        What else identifies it, for the provenance of results.
    **common
        See `DiffusionModel`.
    """

    appearance_tau = 0

    def __init__(self, network: Network, *, look: Look, multiple: int, about: Mapping[str, Any], **common: Any) -> None:
        self.look = look
        self._multiple = multiple
        self._about = dict(about)
        super().__init__(SimpleNamespace(unet=network, components={"unet": network}), **common)

    @property
    def multiple(self) -> int:
        return self._multiple

    @property
    def options(self) -> dict[str, Any]:
        return self._about

    @property
    def levels(self) -> int:
        return 1

    @cached_property
    def block_modules(self) -> dict[str, nn.Module]:
        network: Any = self.unet
        modules: dict[str, nn.Module] = network.blocks()
        return modules

    def encode(self, frames: Frames) -> Tensor:
        return self.look(frames).to(self.device, self.dtype)

    def check_tau(self, tau: int) -> int:
        """Tau 0, or an error."""
        if tau != 0:
            raise self._without_noise(f"tau={tau}")
        return 0

    def nearest_tau(self, *, log_snr: float) -> int:
        """Tau 0 for a clean frame, whose `log_snr` is infinite; else an error."""
        if log_snr != np.inf:
            raise self._without_noise(f"log_snr={log_snr:.4g}")
        return 0

    def _without_noise(self, given: str) -> TedlensError:
        return TedlensError(f"{given} means nothing to the encoder {self.name!r}, which has no noise; give tau=0.")

    def sigma(self, tau: int) -> float:
        return 0.0

    def add_noise(self, clean: Tensor, noise: Tensor, tau: int) -> Tensor:
        return clean

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> None:
        self.unet(noisy)
