"""`tl.head_statistics`: what each head of an attention does, computed without keeping all weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from tedlens.attending.matching import by_frame, matches
from tedlens.attending.watching import Call, Layer, layers_of, watch
from tedlens.clip import Clip, as_clip
from tedlens.labels import VOID
from tedlens.models.acting import Moment
from tedlens.models.registry import Model, as_model
from tedlens.probing import Draw, Prepared, as_list, noise_axis
from tedlens.provenance import grouped

STATISTICS = {
    "entropy": "entropy (share of log keys)",
    "frames_away": "distance in time (frames)",
    "pixels_away": "distance in place (pixels)",
    "accuracy": "matching accuracy",
    "chance": "matching accuracy of chance",
}


class Sums(NamedTuple):
    """Sums over the queries of one window, per head, and the number of queries."""

    queries: int
    entropy: Tensor
    frames_away: Tensor | None
    pixels_away: Tensor | None
    matched: Tensor
    expected: float
    pairs: int


@torch.no_grad()
def head_statistics(
    model: Model,
    clip: Clip | str | Path,
    tau: int | Sequence[int],
    layers: str | Sequence[str],
    *,
    seed: int = 0,
    overlap: int = 2,
    window: int | None = None,
    size: int | tuple[int, int] | None = None,
) -> xr.Dataset:
    """What single heads do: how sharply and how far they look, and whether their queries find keys of the same object.

    One forward pass per window and noise level, whatever the number of layers. The weights are reduced at once and not
    kept.

    Parameters
    ----------
    model, clip, seed, overlap, window, size
        See `probe`. A frame in several windows counts once for each window.
    tau
        Noise levels (training timesteps), one or several.
    layers
        Names and patterns of attentions, or of layers that contain attentions, all of which are used.

    Returns
    -------
    Dataset over (tau, layer, head); NaN where a layer has fewer heads than another, or a statistic has no meaning.
        ``entropy``: entropy of the weights, mean over queries, as a share of the logarithm of the number of keys; 1
        means that a head looks everywhere equally. ``frames_away`` (attention over frames), ``pixels_away`` (attention
        within frames, in pixels of the clip), or both (attention over all of a video): mean distance to what a query
        looks at. ``accuracy``: how often cells of objects in a window's first frame find their object in each other
        frame of the window. It is the share of these cells whose query is nearest (by dot product) to a key of the
        same object, among all cells of the other frame, whether or not the layer itself compares the two frames. It
        needs masks of all frames and is not computed for attention to tokens of text or image. ``chance``: the accuracy
        of cells drawn at random. ``kind``: what each layer attends over.

    Raises
    ------
    TedlensError
        As in `attention`.
    """
    model, clip = as_model(model), as_clip(clip)
    names = [layers] if isinstance(layers, str) else list(layers)
    taus = [model.check_tau(t) for t in as_list(tau)]
    prepared = Prepared(model, clip, overlap=overlap, window=window, size=size)
    found = layers_of(model, names)
    annotated = clip.masks is not None and not (clip.masks == VOID).all(axis=(1, 2)).any()
    masks = clip.masks if annotated else None

    def take(layer: Layer, call: Call, moment: Moment) -> Sums:
        return _sums(layer, call, moment, masks, (clip.height, clip.width))

    heads = max(layer.heads for layer in found)
    shape = (len(taus), len(found), heads)
    values = {name: np.full(shape, np.nan) for name in STATISTICS}
    for number, level in enumerate(taus):
        windows = [by_name for _, by_name in watch(prepared, Draw(level, seed), found, take)]
        for place, layer in enumerate(found):
            for name, value in _means([each[layer.name] for each in windows]).items():
                values[name][number, place, : layer.heads] = value
    coords = {
        **noise_axis(model, taus),
        "layer": [layer.name for layer in found],
        "head": np.arange(heads),
        "kind": ("layer", [layer.kind for layer in found]),
    }
    dims = ("tau", "layer", "head")
    arrays = {name: (dims, value, {"long_name": STATISTICS[name]}) for name, value in values.items()}
    return xr.Dataset(arrays, coords).assign_attrs(grouped(prepared.provenance() | {"taus": taus, "seed": seed}))


def _sums(layer: Layer, call: Call, moment: Moment, masks: Any, size: tuple[int, int]) -> Sums:
    device, cells = call.query.device, layer.grid[0] * layer.grid[1]
    starts = torch.tensor([held.start for held in moment.covered], dtype=torch.float32, device=device)
    in_time, in_place = (starts[:, None] - starts).abs(), _distances(layer.grid, size).to(device)
    entropy, by_frames, by_pixels = (torch.zeros(layer.heads, device=device) for _ in range(3))
    most = float(np.log(max(2, call.key.shape[2])))
    for _, rows, weights in call.sliced():
        entropy += torch.special.entr(weights).sum((0, 2, 3)) / most
        if layer.kind == "temporal":
            by_frames += (weights * in_time[rows]).sum((0, 2, 3))
        elif layer.kind == "spatial":
            by_pixels += (weights * in_place[rows]).sum((0, 2, 3))
        elif layer.kind == "joint":
            row = torch.arange(call.query.shape[2], device=device)[rows]
            by_place = weights.unflatten(3, (-1, cells))
            by_frames += (by_place.sum(4) * in_time[row // cells]).sum((0, 2, 3))
            by_pixels += (by_place.sum(3) * in_place[row % cells]).sum((0, 2, 3))
    starting = None if masks is None else masks[[held.start for held in moment.covered]]
    matched, expected, pairs = torch.zeros(layer.heads), 0.0, 0
    if layer.kind != "cross" and starting is not None:
        matched, expected, pairs = matches(by_frame(layer, call.query), by_frame(layer, call.key), starting, layer.grid)
    return Sums(
        len(call.query) * call.query.shape[2],
        entropy.cpu(),
        by_frames.cpu() if layer.kind in ("temporal", "joint") else None,
        by_pixels.cpu() if layer.kind in ("spatial", "joint") else None,
        matched,
        expected,
        pairs,
    )


def _distances(grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Distance in pixels between the centres of every two cells: (cell, cell)."""
    y, x = torch.meshgrid(
        *[torch.arange(g, dtype=torch.float32) * (s / g) for g, s in zip(grid, size, strict=True)], indexing="ij"
    )
    centres = torch.stack([y.flatten(), x.flatten()], dim=1)
    return torch.cdist(centres, centres)


def _means(windows: list[Sums]) -> dict[str, Any]:
    """Means over the queries of all windows, per head."""
    queries, pairs = sum(each.queries for each in windows), sum(each.pairs for each in windows)
    found: dict[str, Any] = {"entropy": sum(each.entropy for each in windows) / queries}
    for name in ("frames_away", "pixels_away"):
        each = [getattr(window, name) for window in windows]
        if each[0] is not None:
            found[name] = sum(each) / queries
    if pairs:
        found["accuracy"] = sum(each.matched for each in windows) / pairs
        found["chance"] = sum(each.expected for each in windows) / pairs
    return {name: np.asarray(value, np.float64) for name, value in found.items()}
