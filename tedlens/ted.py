"""TED: fuse motion and appearance features, and propagate the first frame's labels along them.

Tensor functions first (`fuse_features`, `propagate_labels`, `full_size_labels`), then the labelled
ones that users call (`fuse`, `propagate`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from tedlens.clip import VOID
from tedlens.errors import TedlensError

Convention = Literal["dift", "crw"]
TILE = 8  # side, in cells, of the square of queries that share one product with their keys


# --- tensors --------------------------------------------------------------------------------------


def unit(features: Tensor) -> Tensor:
    """Features (frame, channel, y, x) of length 1 at each cell."""
    return F.normalize(features.float(), dim=1)


def fuse_features(motion: Tensor, appearance: Tensor, lam: float) -> Tensor:
    """R_f = (lam R_m, (1 - lam) R_a), each of length 1 per cell: (frame, channel_m + channel_a, y, x).

    Where the grids differ, appearance is resampled (bilinear) to motion's before it is normalised.
    Source: TED (NeurIPS 2025), fusion.
    """
    if appearance.shape[-2:] != motion.shape[-2:]:
        appearance = F.interpolate(appearance.float(), motion.shape[-2:], mode="bilinear", antialias=True)
    return torch.cat([lam * unit(motion), (1 - lam) * unit(appearance)], dim=1)


def propagate_labels(
    feats: Tensor,
    first: Tensor,
    *,
    top_k: int = 10,
    radius: int = 12,
    n_last: int = 20,
    temperature: float = 0.1,
    convention: Convention = "dift",
) -> Tensor:
    """Soft labels of every frame, carried from the first along feature similarity.

    Each cell of frame t takes, over all reference frames together, the `top_k` cells of greatest
    similarity (dot product of `feats`, as given), weighs their soft labels by softmax(similarity /
    temperature), and becomes a reference in turn.

    Parameters
    ----------
    feats : (frame, channel, y, x)
    first : (object, y, x), soft labels of frame 0 on the same grid
    convention
        ``"dift"`` (DIFT, DINO): the window is a square of +-radius cells, on every reference; the
        references are frame 0 and the last `n_last` frames, frame 0 once.
        ``"crw"`` (CRW, SFC): the window is a disc (distance < radius); frame 0 as long-term reference
        is not restricted to it, and stands in again for each reference before the start.

    Returns
    -------
    (frame, object, y, x), float32, on the device of `feats`; frame 0 is `first`.

    Raises
    ------
    TedlensError
        For settings out of range, shapes that do not fit, or features that are not finite.
    """
    _check_propagation(feats, first, top_k, radius, n_last, temperature, convention)
    grid = (feats.shape[-2], feats.shape[-1])
    soft = torch.zeros(len(feats), *first.shape, device=feats.device)
    soft[0] = first
    tiles = [_Tile(y, x, grid, radius, convention, feats.device) for y, x in _tile_corners(grid)]
    # Only what takes over two seconds shows a bar.
    for t in tqdm(range(1, len(feats)), desc="propagating", unit="frame", delay=2, leave=False):
        references = _references(t, n_last, convention)
        for tile in tiles:
            query = feats[t, :, tile.y, tile.x].float().flatten(1)  # channel, query
            keys = feats[references][:, :, tile.key_y, tile.key_x].float().flatten(2)  # reference, channel, key
            labels = soft[references][:, :, tile.key_y, tile.key_x].flatten(2)  # reference, object, key
            scores = torch.einsum("cq,rck->qrk", query, keys)
            scores = scores.masked_fill(~tile.inside[:, None], -torch.inf).flatten(1)
            labels = labels.transpose(0, 1).flatten(1)
            if convention == "crw":  # the long-term reference, over the whole frame
                scores = torch.cat([query.T @ feats[0].float().flatten(1), scores], dim=1)
                labels = torch.cat([soft[0].flatten(1), labels], dim=1)
            soft[t, :, tile.y, tile.x] = _vote(scores, labels, top_k, temperature).unflatten(1, tile.shape)
    return soft


def _references(t: int, n_last: int, convention: Convention) -> list[int]:
    """Frames whose window frame t looks into."""
    if convention == "dift":
        return [0, *range(max(1, t - n_last), t)]
    return [max(0, s) for s in range(t - n_last, t)]


def _vote(scores: Tensor, labels: Tensor, top_k: int, temperature: float) -> Tensor:
    """Labels (object, key) weighed by softmax over the best `top_k` of scores (query, key): (object, query)."""
    best, where = scores.topk(min(top_k, scores.shape[1]), dim=1)
    weights = torch.softmax(best / temperature, dim=1)  # minus infinity, outside the window, weighs nothing
    return (labels[:, where] * weights).sum(-1)


def _tile_corners(grid: tuple[int, int]) -> Iterator[tuple[int, int]]:
    for y in range(0, grid[0], TILE):
        for x in range(0, grid[1], TILE):
            yield y, x


class _Tile:
    """A square of queries, the rectangle of keys that their windows span, and who sees whom."""

    def __init__(
        self, y: int, x: int, grid: tuple[int, int], radius: int, convention: Convention, device: torch.device
    ) -> None:
        height, width = grid
        self.y, self.x = slice(y, min(y + TILE, height)), slice(x, min(x + TILE, width))
        self.key_y = slice(max(0, y - radius), min(height, self.y.stop + radius))
        self.key_x = slice(max(0, x - radius), min(width, self.x.stop + radius))
        self.shape = (self.y.stop - y, self.x.stop - x)
        dy = _offsets(self.y, self.key_y, device)[:, None, :, None]
        dx = _offsets(self.x, self.key_x, device)[None, :, None, :]
        if convention == "dift":
            inside = (dy.abs() <= radius) & (dx.abs() <= radius)
        else:
            inside = dy * dy + dx * dx < radius * radius
        self.inside = inside.flatten(2).flatten(0, 1)  # query, key


def _offsets(queries: slice, keys: slice, device: torch.device) -> Tensor:
    query = torch.arange(queries.start, queries.stop, device=device)
    return torch.arange(keys.start, keys.stop, device=device)[None] - query[:, None]


def _check_propagation(
    feats: Tensor, first: Tensor, top_k: int, radius: int, n_last: int, temperature: float, convention: str
) -> None:
    if convention not in get_args(Convention):
        raise TedlensError(f"convention={convention!r} is not known; choose 'dift' or 'crw'.")
    for name, value, least in (("top_k", top_k, 1), ("radius", radius, 1), ("n_last", n_last, 1)):
        if int(value) != value or value < least:
            raise TedlensError(f"{name}={value} is out of range; choose a whole number of at least {least}.")
    if not temperature > 0:
        raise TedlensError(f"temperature={temperature} is out of range; choose a number above 0.")
    if feats.ndim != 4 or first.ndim != 3 or feats.shape[-2:] != first.shape[-2:]:
        raise TedlensError(
            f"Features {tuple(feats.shape)} and first labels {tuple(first.shape)} do not fit; "
            "give (frame, channel, y, x) and (object, y, x) on one grid."
        )
    finite = torch.isfinite(feats).flatten(1).all(1)
    if not finite.all():
        raise TedlensError(f"The features of frame {int((~finite).nonzero()[0])} hold NaN or infinite values.")


def one_hot(mask: npt.NDArray[np.uint8], grid: tuple[int, int]) -> tuple[Tensor, list[int]]:
    """First-frame mask (H, W) as labels (1 + object, y, x) on the feature grid, and the objects' ids.

    Nearest neighbour, at the cells' centres; channel 0 is the background. Void (255) is in no channel.
    """
    ids = [int(i) for i in np.unique(mask) if i not in (0, VOID)]
    rows, columns = (np.floor((np.arange(g) + 0.5) * s / g).astype(int) for g, s in zip(grid, mask.shape, strict=True))
    small = mask[rows][:, columns]
    return torch.from_numpy(np.stack([small == i for i in [0, *ids]])).float(), ids


def full_size_labels(soft: Tensor, input_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Channel of the winning label (frame, H, W) from soft labels (frame, object, y, x), as DIFT does it.

    Bilinear to the model's input size, each channel of each frame min-max normalised, argmax, nearest
    neighbour to the clip's own size.
    """
    hard = []
    for frame in soft:  # one at a time: full-size soft labels of a long clip are large
        large = F.interpolate(frame[None], input_size, mode="bilinear", align_corners=False)[0]
        low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
        # A channel that won nothing anywhere stays as it is: it cannot win.
        scaled = torch.where(high > 0, (large - low) / (high - low).clamp_min(1e-12), large)
        hard.append(F.interpolate(scaled.argmax(0)[None, None].float(), size, mode="nearest-exact")[0, 0])
    return torch.stack(hard).long()


def label_clip(
    feats: Tensor,
    mask: npt.NDArray[np.uint8],
    input_size: tuple[int, int],
    *,
    top_k: int,
    radius: int,
    n_last: int,
    temperature: float,
    convention: Convention,
) -> npt.NDArray[np.uint8]:
    """From features (frame, channel, y, x) and the first frame's mask (H, W) to masks (frame, H, W)."""
    first, ids = one_hot(mask, (feats.shape[-2], feats.shape[-1]))
    soft = propagate_labels(
        feats,
        first.to(feats.device),
        top_k=top_k,
        radius=radius,
        n_last=n_last,
        temperature=temperature,
        convention=convention,
    )
    winner = full_size_labels(soft, input_size, (mask.shape[0], mask.shape[1])).cpu().numpy()
    labels: npt.NDArray[np.uint8] = np.array([0, *ids], np.uint8)[winner]
    labels[0] = np.where(mask == VOID, 0, mask)
    return labels


# --- labelled -------------------------------------------------------------------------------------


def fuse(motion: xr.DataArray, appearance: xr.DataArray, lam: float = 0.5) -> xr.DataArray:
    """TED's fused features, concat(lam R_m, (1 - lam) R_a), each of unit length per cell.

    Parameters
    ----------
    motion, appearance
        Features (frame, channel, y, x) of the same clip, for example
        ``feats["up_2"]["features"].sel(tau=600, seed=0)``. Appearance is resampled to motion's grid.
    lam
        Weight of motion, 0 (appearance only) to 1 (motion only). The paper: 1 for identical objects,
        about 0.5 on real video.

    Returns
    -------
    DataArray (frame, channel, y, x) with motion's coordinates and the attributes of both.
    """
    if not 0 <= lam <= 1:
        raise TedlensError(f"lam={lam} is out of range; choose 0 (appearance only) to 1 (motion only).")
    motion, appearance = _one_clip(motion, "motion"), _one_clip(appearance, "appearance")
    if motion.sizes["frame"] != appearance.sizes["frame"]:
        raise TedlensError(
            f"Motion features have {motion.sizes['frame']} frames and appearance features "
            f"{appearance.sizes['frame']}; probe the same clip for both."
        )
    fused = fuse_features(_tensor(motion), _tensor(appearance), lam)
    part = ["motion"] * motion.sizes["channel"] + ["appearance"] * appearance.sizes["channel"]
    return xr.DataArray(
        fused.numpy(),
        dims=("frame", "channel", "y", "x"),
        coords={"frame": motion["frame"], "part": ("channel", part), "y": motion["y"], "x": motion["x"]},
        attrs=_about(motion, "motion_") | _about(appearance, "appearance_") | {"lam": lam},
    )


def propagate(
    features: xr.DataArray,
    first_mask: npt.ArrayLike,
    *,
    top_k: int = 10,
    radius: int = 12,
    n_last: int = 20,
    temperature: float = 0.1,
    convention: Convention = "dift",
) -> xr.DataArray:
    """Masks of all frames, from features and the first frame's mask.

    Parameters
    ----------
    features
        (frame, channel, y, x): of one model (normalised here per cell) or fused (`fuse`).
    first_mask
        (H, W) whole numbers at the clip's own size: 0 background, 255 void, others objects.
    top_k, radius, n_last, temperature, convention
        See `propagate_labels`; `radius` is in cells of the feature grid. Defaults: the DIFT and DINO
        convention with radius and references as in TED's evaluation of DAVIS.

    Returns
    -------
    DataArray (frame, y, x) uint8, the ids of `first_mask`, at its size.

    Raises
    ------
    TedlensError
        For features with other axes, a mask that is no (H, W), or settings out of range.
    """
    features = _one_clip(features, "features")
    mask = np.asarray(first_mask)
    if mask.ndim != 2 or mask.dtype.kind not in "uib":
        raise TedlensError(
            f"The first mask has shape {mask.shape} and type {mask.dtype}; give (H, W) whole numbers, "
            "for example clip.masks[0]."
        )
    feats = _tensor(features)
    # Fused features carry their weights in their lengths: do not normalise those again.
    feats = feats if "part" in features.coords else unit(feats)
    input_size = features.attrs.get("input_size", features.attrs.get("motion_input_size", mask.shape))
    settings: dict[str, Any] = {
        "top_k": top_k,
        "radius": radius,
        "n_last": n_last,
        "temperature": temperature,
        "convention": convention,
    }
    labels = label_clip(feats, mask.astype(np.uint8), (int(input_size[0]), int(input_size[1])), **settings)
    return label_masks(labels, features["frame"].values, dict(features.attrs) | settings)


def label_masks(labels: npt.NDArray[np.uint8], frames: npt.ArrayLike, attrs: dict[str, Any]) -> xr.DataArray:
    """Name the axes of masks (frame, H, W)."""
    return xr.DataArray(
        labels,
        dims=("frame", "y", "x"),
        coords={
            "frame": frames,
            "y": ("y", np.arange(labels.shape[1]), {"units": "pixel"}),
            "x": ("x", np.arange(labels.shape[2]), {"units": "pixel"}),
        },
        attrs=attrs,
        name="labels",
    )


def _one_clip(features: xr.DataArray, what: str) -> xr.DataArray:
    """Features reduced to (frame, channel, y, x); other axes must be of length 1."""
    axes = ("frame", "channel", "y", "x")
    missing = [d for d in axes if d not in features.dims]
    spare = [d for d in features.dims if d not in axes]
    many = [str(d) for d in spare if features.sizes[d] > 1]
    if missing or many:
        raise TedlensError(
            f"The {what} have axes {dict(features.sizes)}; give (frame, channel, y, x), "
            f"choosing one of each other axis with .sel({', '.join(f'{d}=...' for d in many) or 'tau=...'})."
        )
    attrs = _inherited(features)
    return features.isel(dict.fromkeys(spare, 0), drop=False).transpose(*axes).assign_attrs(attrs)


def _inherited(features: xr.DataArray) -> dict[str, Any]:
    chosen = {
        str(name): features[name].item()
        for name in ("tau", "seed")
        if name in features.coords and features[name].size == 1
    }
    return dict(features.attrs) | chosen


def _about(features: xr.DataArray, prefix: str) -> dict[str, Any]:
    return {prefix + str(key): value for key, value in features.attrs.items()}


def _tensor(features: xr.DataArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(features.values))
