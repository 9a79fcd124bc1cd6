"""What figures are drawn from: the scores of sweeps, the features they kept, and the clips they were of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tedlens.analysis.statistics import chosen_on_others, clip_statistics, greatest
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.plots.style import PLAIN_METRICS
from tedlens.sweeping import open_sweep, reference_scores
from tedlens.sweeping.clips import Clips, clip_sha256, clip_sources
from tedlens.sweeping.model_stores import ModelsStore
from tedlens.sweeping.opening import open_kept, swept_clips


@dataclass(frozen=True)
class Sweep:
    """Scores of a store, and what figures of them hold fixed: chosen for each clip on the other ones."""

    path: str
    name: str  # of its files, where there are several stores
    metric: str
    scores: xr.Dataset
    against: xr.Dataset | None = None  # what they are read against, where the clips are known

    @property
    def kind(self) -> str:
        """Which features: motion, appearance or fused."""
        roles = [role for role in ("motion", "appearance") if f"{role}_model" in self.scores.attrs]
        return "fused" if len(roles) == 2 else roles[0]

    @property
    def made_with(self) -> dict[str, Any]:
        """What the scores say of the models."""
        return {key: each for key, each in self.scores.attrs.items() if key.startswith(("motion_", "appearance_"))}

    @cached_property
    def best(self) -> dict[str, Any]:
        """The cell of greatest mean over all clips: what pictures of one clip show."""
        return greatest(clip_statistics(self.scores, self.metric)["mean"])

    def over(self, *axes: str) -> xr.Dataset:
        """Scores along some axes, of which the first must have been swept; all others are chosen on other clips."""
        if self.scores.sizes.get(axes[0], 1) < 2:
            raise TedlensError(f"The store {self.name} has one {axes[0]} only")
        if self.scores.sizes["clip"] > 1:
            return chosen_on_others(self.scores, axes, self.metric)
        return self.scores.sel({axis: value for axis, value in self.best.items() if axis not in axes})

    def held(self, *axes: str) -> str:
        """What is held fixed where these axes are shown, in words: for how many clips which value was chosen."""
        over, others = self.over(*axes), []
        held = [axis for axis in self.best if axis not in axes]
        for axis in held:
            counts = Counter(np.atleast_1d(over[axis].values).tolist()).most_common()
            several = [f"{value} for {count} clip{'s' * (count > 1)}" for value, count in counts]
            others.append(f"{axis} {counts[0][0] if len(counts) == 1 else ', '.join(several)}")
        if self.scores.sizes["clip"] == 1 and any(self.scores.sizes[axis] > 1 for axis in held):
            others.append("chosen on the same clip")
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
        for address, model in _models(store):
            scores = open_sweep(address)
            if not scores[metric].notnull().any():
                raise TedlensError(f"{address} holds no scores yet; run its sweep first.")
            yield Sweep(address, f"{name}-{model}" if model else name, metric, scores)


def _models(store: str | Path) -> list[tuple[str, str]]:
    """Of a store of several models the store of each and its name as part of a file's; else the store itself."""
    each = ModelsStore(store).addresses()
    named = [(address, re.sub(r"[^A-Za-z0-9._-]+", "_", model)[:40]) for model, address in each.items()]
    return named or [(str(store), "")]


def read_against(sweep: Sweep, clips: Mapping[str, Clip]) -> Sweep:
    """The same with its references, where all of its clips are known and it is done."""
    names = [str(name) for name in sweep.scores["clip"].values]
    if not set(names) <= set(clips) or not (sweep.scores["rows"] > 0).all():
        return sweep
    return replace(sweep, against=reference_scores([clips[name] for name in names], sweep.scores))


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
