"""`tl.attention`: the weights of an attention layer, as a labelled array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from tedlens.attending.watching import Call, Layer, layers_of, watch
from tedlens.clip import Clip, as_clip
from tedlens.errors import TedlensError
from tedlens.models.acting import Moment
from tedlens.models.registry import Model, as_model
from tedlens.probing import Draw, Prepared, only_one, places
from tedlens.provenance import grouped

LARGEST = 2 * 10**9  # bytes of a result
Points = Sequence[tuple[int, float, float]]  # frame, y, x in pixels of the clip


@torch.no_grad()
def attention(
    model: Model,
    clip: Clip | str | Path,
    tau: int,
    layer: str,
    *,
    seed: int = 0,
    query: Points | None = None,
    overlap: int = 2,
    window: int | None = None,
    size: int | tuple[int, int] | None = None,
    rotary: bool = True,
) -> xr.DataArray:
    """Where an attention layer looks: its weights at one noise level, which sum to 1 over keys.

    The queries and keys that the layer passes to torch's attention, after norms and position embeddings, are recorded
    during a forward pass, and the weights are computed from them. This changes neither the model nor its outputs, and
    interventions apply as usual. Each window takes one forward pass, which stops after the layer.

    Parameters
    ----------
    model, clip, seed, overlap, window, size
        See `probe`. For a frame in several windows, the weights are those of the first.
    tau
        Noise level (training timestep).
    layer
        Name of an attention, such as ``"up_2.temp_attentions.1.transformer_blocks.0.attn1"``, or of a layer that
        contains attentions, such as ``"up_2.temp_attentions.1"``; its first attention is used.
    query
        Points (frame, y, x) in pixels of the clip; only the queries of their cells are used. By default, those of all
        cells.
    rotary
        In layers with rotary position embedding, whether queries and keys are taken after it, as the layer compares
        them. If False, they are taken before it (after their norms), as DiffTrack matches them.

    Returns
    -------
    DataArray
        Float32. Attention over frames: (head, y, x, query_frame, key_frame). Within frames: (head, frame, y, x, key_y,
        key_x). Over all of a video: (head, query_frame, y, x, key_frame, key_y, key_x), computed for the video's tokens
        alone, as if there were no text tokens. To tokens of text or image: (head, frame, y, x, token). With `query`,
        these are (query, head, frame), (query, head, y, x), (query, head, frame, y, x) and (query, head, token), with
        the points along ``query``. If several frames share a latent, the first stands for all of them. Values are NaN
        for pairs of frames that no window contains together. The attributes record how to reproduce the result, and
        the ``layer`` and its ``kind`` (temporal, spatial, joint or cross).

    Raises
    ------
    TedlensError
        For a layer without attention; before any work, also for a result of more than 2 GB and for points outside of
        the clip.

    Examples
    --------
    >>> maps = tl.attention(motion, clip, tau=600, layer="up_2.temp_attentions.1")  # doctest: +SKIP
    >>> tl.plots.attention_map(maps, clip)  # doctest: +SKIP
    """
    model, clip = as_model(model), as_clip(clip)
    prepared = Prepared(model, clip, overlap=overlap, window=window, size=size)
    named = only_one(prepared.names(layer), layer)
    found = layers_of(model, [named])[0]
    grid = prepared.point(found.name).grid
    points = None if query is None else _points(query, clip, grid)
    shown = prepared.shown_frames()
    _check_size(found, grid, len(shown), points)

    def take(layer: Layer, call: Call, moment: Moment) -> Tensor:
        return _all(layer, call) if points is None else _of_points(layer, call, moment, points)

    maps = _Maps(found, grid, shown, points)
    for moment, by_name in watch(prepared, Draw(model.check_tau(tau), seed), [found], take, rotary=rotary):
        maps.add(moment, by_name[found.name])
    about = prepared.provenance() | {
        "tau": tau,
        "seed": seed,
        "layer": found.name,
        "kind": found.kind,
        "rotary": rotary,
    }
    return _labelled(maps, clip, query).assign_attrs(
        grouped(about | {"sigma": model.sigma(tau), "log_snr": model.log_snr(tau)})
    )


Cells = list[tuple[int, int]]  # frame, and number of the cell in its grid


def _points(query: Points, clip: Clip, grid: tuple[int, int]) -> Cells:
    given = np.atleast_2d(np.asarray(query, float))
    sizes = np.array([len(clip), clip.height, clip.width])
    if given.shape[1:] != (3,) or not len(given) or (given[:, 0] % 1).any():
        raise TedlensError(f"query={query!r} are no points; give (frame, y, x) of each, in pixels of the clip.")
    if (given < 0).any() or (given >= sizes).any():
        raise TedlensError(
            f"query={query!r} is not all in clip {clip.name!r} of {tuple(sizes.tolist())} (frames, height, width)."
        )
    cells = ((given[:, 1:] + 0.5) / sizes[1:] * grid).astype(int).clip(max=np.array(grid) - 1)
    return [(int(frame), int(y * grid[1] + x)) for frame, (y, x) in zip(given[:, 0], cells, strict=True)]


def _check_size(layer: Layer, grid: tuple[int, int], frames: int, points: Cells | None) -> None:
    cells = grid[0] * grid[1]
    keys = {"temporal": frames, "spatial": cells, "joint": frames * cells, "cross": 1}[layer.kind]
    size = 4 * layer.heads * keys * (frames * cells if points is None else len(points))
    if size > LARGEST:
        raise TedlensError(
            f"All weights of {layer.name!r} take {size / 1e9:.1f} GB ({layer.heads} heads, {frames} frames of "
            f"{grid[0]}x{grid[1]} cells, {keys} keys each); give points as query=, or take tl.head_statistics, which "
            "reduces them as they come."
        )


def _all(layer: Layer, call: Call) -> Tensor:
    """All weights of a window: (frame, head, cell, key)."""
    each = torch.empty(*call.query.shape[:3], call.key.shape[2])
    for batch, rows, weights in call.sliced():
        each[batch, :, rows] = weights.cpu()
    if layer.kind == "joint":
        cells = layer.grid[0] * layer.grid[1]
        of_frames: Tensor = each[0].unflatten(1, (-1, cells))
        return of_frames.transpose(0, 1)
    # Layers over the frames of a cell give (cell, head, frame, key).
    return each.transpose(0, 2) if layer.site.point.layout == "tracks" else each


def _of_points(layer: Layer, call: Call, moment: Moment, points: Cells) -> Tensor:
    """Weights of the points that a window contains, in their order: (point, head, key)."""
    here = [(frame, cell) for frame, cell in _held(points, moment).values()]
    if layer.kind == "joint":
        cells = layer.grid[0] * layer.grid[1]
        each = [call.weights([0], [frame * cells + cell])[0, :, 0] for frame, cell in here]
    elif layer.site.point.layout == "tracks":
        each = [call.weights([cell], [frame])[0, :, 0] for frame, cell in here]
    else:
        each = [call.weights([frame], [cell])[0, :, 0] for frame, cell in here]
    return torch.stack(each).cpu() if each else torch.empty(0)


def _held(points: Cells, moment: Moment) -> dict[int, tuple[int, int]]:
    """The points that a window contains, by number: for each, the model's frame that holds it, and its cell."""
    return {
        number: (place, cell)
        for number, (frame, cell) in enumerate(points)
        for place, held in enumerate(moment.covered)
        if frame in held
    }


class _Maps:
    """Weights of a whole clip, collected from its windows."""

    def __init__(self, layer: Layer, grid: tuple[int, int], shown: list[int], points: Cells | None) -> None:
        self.layer, self.grid, self.shown, self.points = layer, grid, shown, points
        self.values: np.ndarray[Any, np.dtype[np.float32]] | None = None
        self.done: set[int] = set()  # frames, or points, that an earlier window contained

    def add(self, moment: Moment, found: Tensor) -> None:
        here = [self.shown.index(held.start) for held in moment.covered]  # places of the window's frames
        weights = found.numpy()
        of_rows = here if self.points is None else list(_held(self.points, moment))
        rows = [row for row, place in enumerate(of_rows) if place not in self.done]
        places = [of_rows[row] for row in rows]
        self.done |= set(places)
        if not places:
            return
        cells = self.grid[0] * self.grid[1]
        keys = {"temporal": len(self.shown), "joint": len(self.shown) * cells}.get(self.layer.kind, weights.shape[-1])
        if self.values is None:
            count = len(self.shown) if self.points is None else len(self.points)
            self.values = np.full((count, *weights.shape[1:-1], keys), np.nan, np.float32)
        columns = {"temporal": here, "joint": [frame * cells + i for frame in here for i in range(cells)]}
        for row, place in zip(rows, places, strict=True):
            self.values[place][..., columns.get(self.layer.kind, slice(None))] = weights[row]


def _labelled(maps: _Maps, clip: Clip, query: Points | None) -> xr.DataArray:
    assert maps.values is not None  # every point lies in a window
    height, width = maps.grid
    coords = places(clip, maps.grid)
    frame, y, x = np.array(maps.shown), coords["y"], coords["x"]
    head = np.arange(maps.layer.heads)
    kind, values = maps.layer.kind, maps.values
    if query is not None:
        at = np.atleast_2d(np.asarray(query, float)).T
        known: dict[str, Any] = {
            "head": head,
            "query_frame": ("query", at[0].astype(int)),
            "query_y": ("query", at[1], {"units": "pixel"}),
            "query_x": ("query", at[2], {"units": "pixel"}),
        }
        if kind == "spatial":
            return xr.DataArray(
                values.reshape(*values.shape[:2], height, width),
                dims=("query", "head", "y", "x"),
                coords=known | {"y": y, "x": x},
                name="attention",
            )
        if kind == "joint":
            return xr.DataArray(
                values.reshape(*values.shape[:2], len(frame), height, width),
                dims=("query", "head", "frame", "y", "x"),
                coords=known | {"frame": frame, "y": y, "x": x},
                name="attention",
            )
        last = {"temporal": {"frame": frame}, "cross": {"token": np.arange(values.shape[-1])}}[kind]
        return xr.DataArray(values, dims=("query", "head", *last), coords=known | last, name="attention")
    # (frame, head, cell, key) -> (head, frame, y, x, key)
    by_head = values.swapaxes(0, 1).reshape(len(head), len(frame), height, width, -1)
    if kind == "temporal":
        return xr.DataArray(
            by_head,
            dims=("head", "query_frame", "y", "x", "key_frame"),
            coords={"head": head, "query_frame": frame, "y": y, "x": x, "key_frame": frame},
            name="attention",
        ).transpose("head", "y", "x", "query_frame", "key_frame")
    keys = {"key_y": ("key_y", *y[1:]), "key_x": ("key_x", *x[1:])}
    if kind == "joint":
        asked = {"head": head, "query_frame": frame, "y": y, "x": x}
        pairs = by_head.reshape(*by_head.shape[:-1], len(frame), height, width)
        met = {"key_frame": frame, **keys}
        return xr.DataArray(pairs, dims=(*asked, *met), coords=asked | met, name="attention")
    within: dict[str, Any] = {"head": head, "frame": frame, "y": y, "x": x}
    if kind == "cross":
        token = np.arange(by_head.shape[-1])
        return xr.DataArray(by_head, dims=(*within, "token"), coords=within | {"token": token}, name="attention")
    pairs = by_head.reshape(*by_head.shape[:-1], height, width)
    return xr.DataArray(pairs, dims=(*within, *keys), coords=within | keys, name="attention")
