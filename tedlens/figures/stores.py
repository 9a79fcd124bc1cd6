"""What figures are drawn from: the scores of sweeps, the features they kept, and the clips they were of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import xarray as xr

from tedlens.analysis.statistics import clip_statistics, greatest
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.plots.style import PLAIN_METRICS
from tedlens.sweeping import open_sweep
from tedlens.sweeping.clips import Clips, clip_sha256, clip_sources
from tedlens.sweeping.opening import open_kept, swept_clips


@dataclass(frozen=True)
class Sweep:
    """Scores of a store, and the cell of greatest mean, at which a figure holds what it does not show."""

    path: str
    name: str  # of its files, where there are several stores
    metric: str
    scores: xr.Dataset

    @property
    def kind(self) -> str:
        """Which features: motion, appearance or fused."""
        roles = [role for role in ("motion", "appearance") if f"{role}_model" in self.scores.attrs]
        return "fused" if len(roles) == 2 else roles[0]

    @cached_property
    def best(self) -> dict[str, Any]:
        """The value on each swept axis."""
        return greatest(clip_statistics(self.scores, self.metric)["mean"])

    def over(self, *axes: str) -> xr.Dataset:
        """Scores along some axes, of which the first must have been swept, at the best cell's value of all others."""
        if self.scores.sizes.get(axes[0], 1) < 2:
            raise TedlensError(f"The store {self.name} has one {axes[0]} only")
        return self.scores.sel({axis: value for axis, value in self.best.items() if axis not in axes})

    def held(self, *axes: str) -> str:
        """What is held at the best cell's value where these axes are shown, in words."""
        others = [f"{axis} {value}" for axis, value in self.best.items() if axis not in axes]
        return f" at {', '.join(others)}" if others else ""

    @property
    def words(self) -> str:
        """What the scores are of."""
        return f"{PLAIN_METRICS[self.metric]} of {self.kind} features"

    def setting(self, name: str) -> Any:
        """A setting's value in the best cell."""
        return self.best[name] if name in self.best else self.scores[name].item()

    def features(self, clip: str, tau: int, seed: int) -> dict[str, xr.DataArray]:
        """What was kept of a cell (tau, seed, frame, channel, y, x), by block."""
        if "features" not in self.scores.attrs["keep"]:
            raise TedlensError(f'The store {self.name} keeps no features; tl.sweep(..., keep="features") does')
        kept = open_kept(self.path, clip=clip, tau=tau, seed=seed)
        return {name: _whole(node.to_dataset()) for name, node in kept["features"].children.items()}


def open_sweeps(stores: Sequence[str | Path], metric: str) -> Iterator[Sweep]:
    if metric not in PLAIN_METRICS:
        raise TedlensError(f"metric={metric!r} is not known; choose from {', '.join(PLAIN_METRICS)}.")
    names = [str(store).rstrip("/").rsplit("/", 1)[-1].removesuffix(".zarr") for store in stores]
    if not names or len(set(names)) < len(names):
        raise TedlensError("Files are named after their stores; give at least one, each of its own name.")
    for store, name in zip(stores, names, strict=True):
        scores = open_sweep(store)
        if not scores[metric].notnull().any():
            raise TedlensError(f"{store} holds no scores yet; run its sweep first.")
        yield Sweep(str(store), name, metric, scores)


def known_clips(clips: Clips, sweeps: Sequence[Sweep]) -> dict[str, Clip]:
    """By name those of the clips that are in the stores."""
    wanted = {name: sha256 for sweep in sweeps for name, sha256 in swept_clips(sweep.path).items()}
    read = (source() for source in clip_sources(clips))
    found = {clip.name: clip for clip in read if clip.name in wanted}
    for name, clip in found.items():
        if clip_sha256(clip) != wanted[name]:
            raise TedlensError(f"Clip {name!r} is not the one that was swept: its frames or masks differ.")
    if clips and not found:
        raise TedlensError(f"None of the clips given is in the stores, which have {', '.join(wanted)}.")
    return found


def _whole(kept: xr.Dataset) -> xr.DataArray:
    """Features in float32, put together again where their principal components were kept."""
    kept = kept.astype("float32")
    if "features" in kept:
        return kept["features"]
    return kept["score"].dot(kept["loading"], dim="component") + kept["mean"]
