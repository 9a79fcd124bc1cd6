"""TED's fusion of motion and appearance features. Tensors in and out, on any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def unit(features: Tensor) -> Tensor:
    """Features (frame, channel, y, x) normalised to length 1 at each cell."""
    return F.normalize(features.float(), dim=1)


def fuse_features(motion: Tensor, appearance: Tensor, lam: float) -> Tensor:
    """R_f = (lam R_m, (1 - lam) R_a), each of length 1 per cell: (frame, channel_m + channel_a, y, x).

    If the grids differ, appearance is resampled (bilinear) to the grid of motion before it is normalised.
    Source: TED (NeurIPS 2025), fusion.
    """
    motion, appearance = unit_parts(motion, appearance)
    return torch.cat([lam * motion, (1 - lam) * appearance], dim=1)


def unit_parts(motion: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
    """Both features normalised to length 1 at each cell, on the grid of motion."""
    if appearance.shape[-2:] != motion.shape[-2:]:
        appearance = F.interpolate(appearance.float(), motion.shape[-2:], mode="bilinear", antialias=True)
    return unit(motion), unit(appearance)
