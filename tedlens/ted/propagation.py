"""Label propagation along feature similarity, as the protocols define it, computed only inside the windows.

Each cell of a frame selects the `top_k` most similar cells in its window, over all reference frames together. It
takes the mean of their soft labels, weighted by softmax(similarity / temperature), and then serves as a reference
itself. The scripts of the field compute the affinity of all cells with all cells and mask it; here a strip of query
tiles is compared only with the keys inside its windows. Tensors in and out, on any device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from tedlens.errors import TedlensError
from tedlens.labels import VOID
from tedlens.ted.settings import Convention, Propagation, check_lams

TILE = 6  # side, in cells, of the square of queries that share one product with their keys
# Bytes of working memory, besides features and labels; a strip always has at least one tile. A GPU waits for Python
# between small strips: with more memory it took 0.54 to 0.62 of the time (tests/benchmarks/README.md).
BUDGET = 64 * 2**20
BUDGET_ON_GPU = 4 * BUDGET


def propagate_labels(
    feats: Tensor,
    first: Tensor,
    *,
    entries: Mapping[int, Tensor] | None = None,
    keys: Tensor | None = None,
    **settings: Any,
) -> Tensor:
    """Soft labels of every frame, propagated from the first frame along feature similarity.

    Each cell of frame t selects the `top_k` most similar cells (dot product of `feats`, as given) over all reference
    frames together. It takes the mean of their soft labels, weighted by softmax(similarity / temperature), and then
    serves as a reference itself.

    Parameters
    ----------
    feats : (frame, channel, y, x)
        Any floating type; similarities are computed in float32.
    first : (object, y, x), soft labels of frame 0 on the same grid
    entries
        For each frame on which objects enter, their labels (object, y, x). Where any of these is above 0, they replace
        the propagated labels. Earlier frames have no label of these objects, unless `first` has.
    keys : (frame, channel, y, x)
        Features of the reference frames, if they differ from `feats`: for example the keys of an attention layer,
        with its queries as `feats`.
    **settings
        The settings of `Propagation`.

    Returns
    -------
    (frame, object, y, x), float32, on the device of `feats`; frame 0 is `first`.

    Raises
    ------
    TedlensError
        For settings out of range, shapes that do not fit, or features that are not finite.

    Notes
    -----
    The time is spent on the products of each tile with its window on each reference frame. Besides features and
    labels, memory is about `BUDGET` bytes, or the need of one tile if that is more, whatever the grid.
    """
    rule = _Rule.of(Propagation(**settings), feats)
    return _propagate([feats], [feats if keys is None else keys], [1.0], first, entries or {}, rule)[0]


def propagate_fused_labels(
    motion: Tensor,
    appearance: Tensor,
    lams: Sequence[float],
    first: Tensor,
    *,
    entries: Mapping[int, Tensor] | None = None,
    **settings: Any,
) -> Tensor:
    """Soft labels for several lambdas; the similarities of motion and of appearance are computed only once.

    For each lambda the result equals, up to rounding, `propagate_labels` of `fuse_features`, because the fused
    affinity splits into A_f = lam^2 A_m + (1 - lam)^2 A_a.

    Parameters
    ----------
    motion, appearance : (frame, channel, y, x) on one grid, of length 1 at each cell (`unit`)
    lams
        Weights of motion, each 0 to 1.
    first, entries, settings
        See `propagate_labels`.

    Returns
    -------
    (lam, frame, object, y, x), float32, on the device of the features.

    Raises
    ------
    TedlensError
        As `propagate_labels`; also for a lambda out of range, or no lambda.
    """
    check_lams(lams)
    rule = _Rule.of(Propagation(**settings), motion)
    parts = [motion, appearance]
    return _propagate(parts, parts, lams, first, entries or {}, rule)


# --- what is asked for ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rule:
    """How labels are propagated on one grid."""

    top_k: int
    radius: int
    n_last: int
    temperature: float
    convention: Convention

    @classmethod
    def of(cls, how: Propagation, feats: Tensor) -> _Rule:
        """For features (frame, channel, y, x)."""
        return cls(how.top_k, how.reach(feats.shape[-2]), how.n_last, how.temperature, how.convention)

    def references(self, t: int) -> list[int]:
        """Reference frames of frame t."""
        if self.convention == "dift":
            return [0, *range(max(1, t - self.n_last), t)]
        return [max(0, s) for s in range(t - self.n_last, t)]

    def sees(self, dy: Tensor, dx: Tensor) -> Tensor:
        """Whether a key at this offset lies in the window."""
        if self.convention == "dift":
            return (dy.abs() <= self.radius) & (dx.abs() <= self.radius)
        return dy * dy + dx * dx < self.radius * self.radius


def _check(parts: Sequence[Tensor], first: Tensor) -> None:
    for feats in parts:
        if feats.ndim != 4 or first.ndim != 3 or feats.shape[-2:] != first.shape[-2:]:
            raise TedlensError(
                f"Features {tuple(feats.shape)} and first labels {tuple(first.shape)} do not fit; "
                "give (frame, channel, y, x) and (object, y, x) on one grid."
            )
        if len(feats) != len(parts[0]):
            raise TedlensError(
                f"One set of features has {len(parts[0])} frames and the other {len(feats)}; "
                "probe the same clip for both."
            )
        for t, frame in enumerate(feats):
            if not torch.isfinite(frame).all():
                raise TedlensError(f"The features of frame {t} hold NaN or infinite values.")


# --- frames ---------------------------------------------------------------------------------------


def _propagate(
    parts: Sequence[Tensor],
    keys: Sequence[Tensor],
    lams: Sequence[float],
    first: Tensor,
    entries: Mapping[int, Tensor],
    rule: _Rule,
) -> Tensor:
    """Labels (lam, frame, object, y, x) from one set of features, or from two sets that each lambda mixes.

    `keys` are the features of the reference frames, one set for each of `parts`.
    """
    _check([*parts, *(k for k, part in zip(keys, parts, strict=True) if k is not part)], first)
    frames = len(parts[0])
    soft = torch.zeros(len(lams), frames, *first.shape, device=parts[0].device)
    soft[:, 0] = first
    # The progress bar shows only after two seconds.
    for t in tqdm(range(1, frames), desc="propagating", unit="frame", delay=2, leave=False):
        _carry(parts, keys, lams, t, soft, rule)
        if t in entries:
            soft[:, t] = torch.where(entries[t].sum(0) > 0, entries[t], soft[:, t])
    return soft


def _carry(
    parts: Sequence[Tensor], keys: Sequence[Tensor], lams: Sequence[float], t: int, soft: Tensor, rule: _Rule
) -> None:
    """Fill frame t of labels (lam, frame, object, y, x) from its reference frames."""
    height, width = soft.shape[-2:]
    for strip in _strips(parts, rule, len(rule.references(t))):
        for carried, (best, where) in zip(soft, _nearest(parts, keys, lams, t, strip, rule), strict=True):
            weights = torch.softmax(best / rule.temperature, 1)  # minus infinity, outside the window, gets weight 0
            frame, cell = where // (height * width), where % (height * width)
            labels = carried[frame, :, cell // width, cell % width]  # query, k, object
            strip.write(carried[t], torch.einsum("qk,qko->oq", weights, labels))


def _nearest(
    parts: Sequence[Tensor], keys: Sequence[Tensor], lams: Sequence[float], t: int, strip: _Strip, rule: _Rule
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each lambda: the greatest similarities (query, k) of a strip of frame t, and their places.

    A place is frame * cells + cell.
    """
    references = rule.references(t)
    queries = [strip.queries(part[t]) for part in parts]
    windows = [strip.products(q, [k[r] for r in references]) for q, k in zip(queries, keys, strict=True)]
    hidden = strip.hidden(rule, parts[0].device)
    crw = rule.convention == "crw"
    # In the crw convention the long-term reference is not restricted to the window.
    everywhere = [q.flatten(0, 1) @ k[0].flatten(1).to(q) for q, k in zip(queries, keys, strict=True) if crw]
    for lam in lams:
        best, reference, cell = _best(windows, lam, hidden, rule.top_k)
        where = strip.place(torch.tensor(references, device=cell.device)[reference], cell)
        if crw:
            scores = _mixed(everywhere, lam)
            far, cells = scores.topk(min(rule.top_k, scores.shape[1]), dim=1)
            best, where = torch.cat([best, far], 1), torch.cat([where, cells], 1)
            best, kept = best.topk(min(rule.top_k, best.shape[1]), dim=1)
            where = where.gather(1, kept)
        # The factor by which _mixed divided every similarity.
        yield best * (lam**2 + (1 - lam) ** 2), where


def _mixed(similarities: Sequence[Tensor], lam: float) -> Tensor:
    """lam^2 motion + (1 - lam)^2 appearance, divided by the sum of both weights: one pass over memory."""
    if len(similarities) == 1:
        return similarities[0]
    motion, appearance = similarities
    return torch.lerp(appearance, motion, lam**2 / (lam**2 + (1 - lam) ** 2))


def _best(similarities: Sequence[Tensor], lam: float, hidden: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `top_k` greatest of mixed similarities (reference, tile, query, key): value, reference, key (query, k).

    The greatest similarity of a key over the references is an upper bound for the key. So, except for ties, the
    answer lies within the keys with the `top_k` greatest bounds, and only these keys are compared one by one.
    """
    # Tile by tile, so that a mixture is reduced while it is in the cache of the processor.
    tiles = zip(*(part.unbind(1) for part in similarities), strict=True)
    bounds = torch.stack([_mixed(tile, lam).amax(0) for tile in tiles]).add_(hidden)
    bound, keys = bounds.topk(min(top_k, bounds.shape[-1]), dim=-1)
    some = _mixed([part.gather(3, keys.expand(len(part), *keys.shape)) for part in similarities], lam)
    # If the window has fewer keys than asked for, hidden keys are among the selected ones.
    some = some.masked_fill(bound == -torch.inf, -torch.inf).permute(1, 2, 0, 3).flatten(2).flatten(0, 1)
    best, which = some.topk(min(top_k, some.shape[1]), dim=1)
    return best, which // keys.shape[-1], keys.flatten(0, 1).gather(1, which % keys.shape[-1])


def keys_in_sight(
    parts: Sequence[Tensor], labels: Tensor, t: int, how: Propagation
) -> Iterator[tuple[_Strip, list[Tensor], Tensor]]:
    """All keys that could vote on the cells of frame t, strip by strip.

    Yields the strip, the similarities (query, key) in each part, and the labels of the keys. `labels` (frame, y, x)
    are the labels of the reference frames; a key outside the window or the grid gets the label `VOID`.
    """
    rule = _Rule.of(how, parts[0])
    references = rule.references(t)
    for strip in _strips(parts, rule, len(references)):
        queries = [strip.queries(part[t]) for part in parts]
        windows = [strip.products(q, [p[r] for r in references]) for q, p in zip(queries, parts, strict=True)]
        similarities = [window.permute(1, 2, 0, 3).flatten(2).flatten(0, 1) for window in windows]
        hidden = strip.hidden(rule, labels.device).flatten(0, 1) < 0
        cell = strip.place(torch.tensor(0), torch.arange(hidden.shape[1]).expand_as(hidden).to(labels.device))
        label = torch.cat([labels[r].flatten()[cell].masked_fill(hidden, VOID) for r in references], 1)
        if rule.convention == "crw":  # the long-term reference is not restricted to the window
            far = [q.flatten(0, 1) @ p[0].flatten(1).to(q) for q, p in zip(queries, parts, strict=True)]
            similarities = [torch.cat(both, 1) for both in zip(similarities, far, strict=True)]
            label = torch.cat([label, labels[0].flatten().expand(len(label), -1)], 1)
        yield strip, similarities, label


# --- strips ---------------------------------------------------------------------------------------


def _strips(parts: Sequence[Tensor], rule: _Rule, references: int) -> Iterator[_Strip]:
    """The grid in strips: as many tiles above one another as the memory budget allows."""
    height, width = parts[0].shape[-2:]
    for x in range(0, width, TILE):
        one = _Strip(0, x, 1, (height, width), rule.radius)
        channels = max(part.shape[1] for part in parts)
        queries = one.tile[0] * one.tile[1]
        # Similarities of each part; their maximum over all references, and its mask.
        scores = queries * (one.window[0] * one.window[1]) * (references * len(parts) + 2)
        if rule.convention == "crw":
            scores += queries * height * width * (2 * len(parts) - 1)
        per_tile = 4 * (scores + channels * one.tile[0] * (one.window[1] + 2 * one.tile[1]))
        tiles = max(1, (BUDGET_ON_GPU if parts[0].is_cuda else BUDGET) // per_tile)
        for y in range(0, height, TILE * tiles):
            yield _Strip(y, x, min(tiles, -(-(height - y) // TILE)), (height, width), rule.radius)


class _Strip:
    """Tiles of queries above one another, and the columns of keys that their windows span.

    Above and below the grid the keys are zeros, which `hidden` masks. So the windows of all tiles have the same size
    and equal distances in memory, and one batched product covers all tiles without a copy for each.
    """

    def __init__(self, y: int, x: int, tiles: int, grid: tuple[int, int], radius: int) -> None:
        height, width = grid
        self.grid, self.y, self.x, self.tiles = grid, y, slice(x, min(x + TILE, width)), tiles
        self.key_x = slice(max(0, x - radius), min(width, x + TILE + radius))
        self.above = min(radius, height - 1)  # rows of keys over the first row of queries
        self.tile = (min(TILE, height), self.x.stop - x)
        self.window = (self.tile[0] + 2 * self.above, self.key_x.stop - self.key_x.start)
        self.rows = tiles * self.tile[0]

    def queries(self, frame: Tensor) -> Tensor:
        """The strip's cells of a frame (channel, y, x): (tile, query, channel)."""
        cells = _padded_rows([frame[..., self.x]], self.y, self.rows)
        return next(cells).reshape(len(frame), self.tiles, -1).permute(1, 2, 0)

    def products(self, queries: Tensor, references: Sequence[Tensor]) -> Tensor:
        """Dot products of queries with the keys of reference frames (channel, y, x): (reference, tile, query, key)."""
        size = self.window[0] * self.window[1]
        out = queries.new_empty(len(references), *queries.shape[:2], size)
        columns = [frame[..., self.key_x] for frame in references]
        keys = _padded_rows(columns, self.y - self.above, self.rows + 2 * self.above)
        for frame, scores in zip(keys, out, strict=True):
            windows = frame.flatten(1).unfold(1, size, self.tile[0] * self.window[1])  # channel, tile, key
            torch.bmm(queries, windows.transpose(0, 1), out=scores)
        return out

    def hidden(self, rule: _Rule, device: torch.device) -> Tensor:
        """What to add to scores (tile, query, key): 0, or minus infinity for a key outside the window or the grid."""
        down, right = (torch.arange(size, device=device) for size in self.window)
        y, x = (torch.arange(size, device=device) for size in self.tile)
        dy = (down - self.above)[:, None] - y[:, None, None, None]
        dx = (right + self.key_x.start - self.x.start) - x[:, None, None]
        seen = rule.sees(dy, dx)  # query y, query x, key y, key x
        rows = self.y - self.above + self.tile[0] * torch.arange(self.tiles, device=device)[:, None] + down
        seen = seen & ((rows >= 0) & (rows < self.grid[0]))[:, None, None, :, None]
        return torch.where(seen, 0.0, -torch.inf).flatten(3).flatten(1, 2)

    def place(self, frame: Tensor, key: Tensor) -> Tensor:
        """Places of the keys (query of all tiles, k) of frames: frame * cells + cell."""
        tile = torch.arange(len(key), device=key.device)[:, None] // (self.tile[0] * self.tile[1])
        y = self.y - self.above + tile * self.tile[0] + key // self.window[1]
        x = self.key_x.start + key % self.window[1]
        # A row outside the grid is hidden and has weight 0, but its labels are read.
        return (frame * self.grid[0] + y.clamp(0, self.grid[0] - 1)) * self.grid[1] + x

    def write(self, frame: Tensor, labels: Tensor) -> None:
        """Put labels (object, query of all tiles) in their place in a frame (object, y, x)."""
        rows = min(self.rows, self.grid[0] - self.y)
        frame[:, self.y : self.y + rows, self.x] = labels.unflatten(1, (self.rows, -1))[:, :rows]


def _padded_rows(frames: Sequence[Tensor], top: int, rows: int) -> Iterator[Tensor]:
    """Rows from `top` on of each frame (channel, y, x), in float32; rows outside the frame are zeros.

    All frames are yielded in the same memory, one after the other: new memory for each would cost as much time as
    filling it.
    """
    channels, height, width = frames[0].shape
    low, high = max(0, top), min(top + rows, height)
    out = frames[0].new_zeros(channels, rows, width, dtype=torch.float32)
    for frame in frames:
        out[:, low - top : high - top] = frame[:, low:high]
        yield out
