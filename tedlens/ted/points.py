"""Point tracking by feature similarity: each point is a heat map, propagated like a label. Tensors only."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from tedlens.errors import TedlensError
from tedlens.ted.fusion import unit
from tedlens.ted.propagation import propagate_labels
from tedlens.ted.settings import Propagation

Locate = Literal["top", "peak"]
SPREAD = 0.5  # cells: standard deviation of the first heat map of a point, as for joints in UVC and CRW
TOP = 5  # number of cells that `top` averages (VFS averages as many pixels)
AROUND = 2.5  # `peak` averages the cells within this distance, in cells, of the strongest one
MAPS = 2**29  # bytes of heat maps in memory at once


def carry_points(
    feats: Tensor, points: Tensor, start: int, how: Propagation, locate: Locate = "peak"
) -> tuple[Tensor, Tensor]:
    """Track points of one frame through all frames, before and after it.

    Parameters
    ----------
    feats : (frame, channel, y, x), as `propagate_labels` takes them
    points : (point, 2), y and x in cells of frame `start`, the centre of the first cell being 0
    start
        The frame on which the points are known.
    how
        Settings of propagation.
    locate
        See `tedlens.propagate_points`.

    Returns
    -------
    (point, frame, 2), y and x in cells, NaN where a heat map is empty; and (point, frame), how similar the features
    there are to those of the point on frame `start`: 1 means equal, 0 means the median similarity of the cells of
    frame `start`.
    """
    frames, _, height, width = feats.shape
    at_once = max(1, MAPS // (4 * frames * height * width))
    parts = [_carried(feats, some, start, how, locate) for some in points.split(at_once)]
    found = torch.cat(parts) if parts else points.new_zeros(0, frames, 2)
    found[:, start] = points
    return found, _similarity(feats, points, start, found)


def check_locate(locate: str) -> None:
    if locate not in get_args(Locate):
        raise TedlensError(f"locate={locate!r} is not known; choose {' or '.join(map(repr, get_args(Locate)))}.")


def _carried(feats: Tensor, points: Tensor, start: int, how: Propagation, locate: Locate) -> Tensor:
    first = heat_maps(points, (feats.shape[-2], feats.shape[-1]))
    found = points.new_zeros(len(points), len(feats), 2)
    for back in (False, True):
        # Backwards: the same propagation with the order of frames reversed.
        part = feats[: start + 1].flip(0) if back else feats[start:]
        if len(part) > 1:
            places = located(propagate_labels(part, first, **how.said())[1:], locate).transpose(0, 1)
            if back:
                found[:, :start] = places.flip(1)
            else:
                found[:, start + 1 :] = places
    return found


def heat_maps(points: Tensor, grid: tuple[int, int]) -> Tensor:
    """A Gaussian around each point (point, 2), as (point, y, x) that sum to 1; zero for a point outside the picture."""
    y, x = (torch.arange(size, device=points.device, dtype=points.dtype) for size in grid)
    dy, dx = points[:, :1] - y, points[:, 1:] - x
    maps = torch.exp(-(dy**2)[:, :, None] / (2 * SPREAD**2)) * torch.exp(-(dx**2)[:, None, :] / (2 * SPREAD**2))
    maps = maps / maps.sum((1, 2), keepdim=True)
    return torch.where(inside(points, grid)[:, None, None], maps, 0.0).float()


def inside(points: Tensor, grid: tuple[int, int]) -> Tensor:
    """Which points (.., 2) lie in the picture; NaN does not."""
    limits = points.new_tensor(grid) - 0.5
    return ((points >= -0.5) & (points <= limits)).all(-1)


def located(maps: Tensor, locate: Locate = "peak") -> Tensor:
    """Places (.., 2), y and x in cells, of heat maps (.., y, x); NaN where one is empty."""
    check_locate(locate)
    height, width = maps.shape[-2:]
    flat = maps.flatten(-2)
    if locate == "top":
        weights, cells = flat.topk(min(TOP, flat.shape[-1]), dim=-1)
        y, x = cells // width, cells % width
    else:
        best = flat.argmax(-1, keepdim=True)
        cells = torch.arange(height * width, device=maps.device)
        y, x = cells // width, cells % width
        near = (y - best // width) ** 2 + (x - best % width) ** 2 <= AROUND**2
        weights = flat * near
    # An empty map gives 0 / 0, which is NaN.
    return torch.stack([(weights * y).sum(-1), (weights * x).sum(-1)], -1) / weights.sum(-1, keepdim=True)


def _similarity(feats: Tensor, points: Tensor, start: int, found: Tensor) -> Tensor:
    own = _features_at(feats[start], points)  # point, channel
    cells = unit(feats[start][None].float())[0].flatten(1)
    usual = (own @ cells).median(1, keepdim=True).values
    there = torch.stack([_features_at(feats[t], found[:, t]) for t in range(len(feats))], 1)
    return ((there * own[:, None]).sum(-1) - usual) / (1 - usual).clamp(min=1e-6)


def _features_at(frame: Tensor, points: Tensor) -> Tensor:
    """Unit features (point, channel) of a frame (channel, y, x), interpolated at points; NaN where a point is NaN."""
    sides = points.new_tensor(frame.shape[-2:])
    shares = ((points + 0.5) / sides * 2 - 1).flip(-1).float()  # x before y, from -1 to 1
    places = shares.nan_to_num(0.0)[None, None]
    values = F.grid_sample(frame[None].float(), places, mode="bilinear", padding_mode="border", align_corners=False)
    units = F.normalize(values[0, :, 0].T, dim=-1)
    return torch.where(shares.isfinite().all(-1, keepdim=True), units, torch.nan)
