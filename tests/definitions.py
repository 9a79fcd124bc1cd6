"""The definitions that tedlens is held against, as the field's own scripts compute them: plain and slow.

Written anew from those scripts. Tests compare with them and benchmarks are timed against them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import binary_dilation
from torch import Tensor

Mask = npt.NDArray[np.bool_]


def window_mask(height: int, width: int, radius: int) -> Tensor:
    """Which cells (query, key) lie within a square of +-radius cells of each other, as 0 and 1."""
    y, x = (g.flatten() for g in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    near = ((y[:, None] - y).abs() <= radius) & ((x[:, None] - x).abs() <= radius)
    return near.float()


def dense_labels(
    target: Tensor, sources: Tensor, labels: Tensor, mask: Tensor, top_k: int, temperature: float
) -> Tensor:
    """Labels (object, cell) of one frame in the field's way, step by step as in DIFT's and DINO's evaluation of DAVIS.

    The affinity of all cells with all cells of every reference is built whole, then masked.

    Parameters
    ----------
    target : (cell, channel), of length 1
    sources : (reference, channel, cell), of length 1
    labels : (reference, object, cell)
    mask : (reference, cell, cell), `window_mask` repeated
    """
    affinity = torch.exp(torch.bmm(target.repeat(len(sources), 1, 1), sources) / temperature)
    affinity *= mask
    affinity = affinity.transpose(2, 1).reshape(-1, len(target))  # key of every reference, query
    best, _ = torch.topk(affinity, dim=0, k=min(top_k, len(affinity)))
    least, _ = torch.min(best, dim=0)
    affinity[affinity < least] = 0
    affinity = affinity / affinity.sum(0, keepdim=True)
    return labels.transpose(2, 1).reshape(-1, labels.shape[1]).T @ affinity


def disc(radius: int) -> Mask:
    """The structuring element of F: pixels at a distance of at most `radius`."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(x * x + y * y <= radius * radius)


def scipy_dilation(mask: Mask, radius: int) -> Mask:
    return np.asarray(binary_dilation(mask, disc(radius)))


def boundary(mask: Mask) -> Mask:
    """DAVIS' `_seg2bmap` at the mask's own size."""
    east, south, south_east = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    east[:, :-1] = mask[:, 1:]
    south[:-1] = mask[1:]
    south_east[:-1, :-1] = mask[1:, 1:]
    edge = mask ^ east | mask ^ south | mask ^ south_east
    edge[-1] = mask[-1] ^ east[-1]
    edge[:, -1] = mask[:, -1] ^ south[:, -1]
    edge[-1, -1] = False
    return np.asarray(edge)


def davis_scores(
    predicted: Mask, true: Mask, dilated: Callable[[Mask, int], Any] = scipy_dilation
) -> tuple[float, float]:
    """J and F of one object in one frame (H, W): on the whole picture, as in `davis2017-evaluation`."""
    either = (predicted | true).sum()
    j = (predicted & true).sum() / either if either else 1.0
    radius = int(np.ceil(0.008 * np.linalg.norm(true.shape)))
    found, sought = boundary(predicted), boundary(true)
    found_match, sought_match = found * dilated(sought, radius), sought * dilated(found, radius)
    n_found, n_sought = found.sum(), sought.sum()
    if n_found == 0 and n_sought == 0:
        precision, recall = 1.0, 1.0
    elif n_found == 0:
        precision, recall = 1.0, 0.0
    elif n_sought == 0:
        precision, recall = 0.0, 1.0
    else:
        precision, recall = found_match.sum() / n_found, sought_match.sum() / n_sought
    f = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return float(j), float(f)
