"""The cost of a sweep, counted before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from tedlens.probing import input_size, windows
from tedlens.sweeping.clips import ClipFacts
from tedlens.sweeping.encoding import METRICS
from tedlens.sweeping.grid import Grid


@dataclass(frozen=True)
class Plan:
    """What a sweep will do. Printed, it is a summary of a few lines.

    Attributes
    ----------
    grid
        The axes and their lengths, as in ``8 clips x 10 tau x 4 block``.
    cells, done
        Number of cells of the grid (a clip at one tau and seed), and how many of them the store holds.
    forwards
        Forward passes of the swept UNet that are still to run: one per window, cell and intervention, whatever the
        number of blocks, lambdas and settings. A patch takes one more.
    appearance_forwards
        Batches of frames that the image model still has to process for the appearance features in the fusion.
    propagations
        Tracks still to be propagated and scored: blocks x settings x lambdas per cell.
    score_bytes, kept_bytes
        Size of all scores, and of all kept labels and features, before compression.
    """

    grid: str
    cells: int
    done: int
    forwards: int
    appearance_forwards: int
    propagations: int
    score_bytes: int
    kept_bytes: int

    def __str__(self) -> str:
        done = f", {self.done} of them done" if self.done else ""
        appearance = f" and {self.appearance_forwards} batches of the image model" if self.appearance_forwards else ""
        kept = f", what is kept beside them up to {_size(self.kept_bytes)}" if self.kept_bytes else ""
        return (
            f"Sweep of {self.grid}: {self.cells} cells{done}.\n"
            f"To do: {self.forwards} UNet windows{appearance}, {self.propagations} tracks; "
            f"scores take {_size(self.score_bytes)}{kept}."
        )


def make_plan(
    grid: Grid,
    clips: Sequence[ClipFacts],
    missing: Mapping[str, Sequence[tuple[int, int]]],
    to_do: Grid | None = None,
) -> Plan:
    """Count what it takes to compute the `missing` cells: (tau, seed), by name of the clip.

    `to_do` is the part of the grid that is computed for each cell, if it is not the whole grid.
    """
    to_do = to_do or grid
    axes = {"tau": grid.tau, "seed": grid.seed, **grid.inner}
    listed = [f"{len(values)} {name}" for name, values in axes.items() if len(values) > 1]
    inner = prod(map(len, grid.inner.values()))
    cells = len(clips) * len(grid.cells)
    left = sum(map(len, missing.values()))
    seeds = {name: len({seed for _, seed in wanted}) for name, wanted in missing.items()}
    scored = sum(len(clip.objects) * len(clip.scored(grid.protocol)) for clip in clips)
    return Plan(
        grid=" x ".join([f"{len(clips)} clip{'s' * (len(clips) > 1)}", *listed]),
        cells=cells,
        done=cells - left,
        forwards=sum(
            len(missing[clip.name])
            * sum(to_do.forwards)
            * grid.samples
            * len(windows(clip.frames, grid.window, grid.overlap))
            for clip in clips
        ),
        appearance_forwards=0
        if grid.appearance is None
        else sum(seeds[clip.name] * grid.appearance.samples * len(windows(clip.frames, None, 0)) for clip in clips),
        propagations=left * prod(map(len, to_do.inner.values())),
        score_bytes=8 * len(METRICS) * scored * len(grid.cells) * inner,
        kept_bytes=len(grid.cells) * sum(_kept_bytes(grid, clip, inner) for clip in clips),
    )


def _kept_bytes(grid: Grid, clip: ClipFacts, tracks: int) -> int:
    """Labels (uint8) and features (float16) that one cell of a clip keeps."""
    labels = tracks * clip.frames * clip.height * clip.width if "labels" in grid.keep else 0
    height, width = input_size((clip.height, clip.width), *grid.input_rule)
    cells = (channels * round(height / y) * round(width / x) for channels, y, x in grid.shapes.values())
    return labels + 2 * clip.frames * sum(cells)


def _size(count: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
