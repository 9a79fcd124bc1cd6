"""What is run on a benchmark of the field, and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from tedlens.benchmark.field.running import Method, loaded
from tedlens.benchmark.field.suite import Benchmark
from tedlens.errors import TedlensError
from tedlens.models.registry import Model
from tedlens.models.unets.adm import ADM
from tedlens.models.unets.stable_diffusion import StableDiffusion
from tedlens.presets import PRESETS, preset_named
from tedlens.sweeping.clips import ClipSequence

if TYPE_CHECKING:
    from distributed import Client

PARTS = {
    "main": "the paper's table 1, 6 or 7",
    "cost": "table 5: time and memory a frame",
    "blocks": "table 2: motion features by block",
    "models": "table 3: video models by image models",
    "noise": "figure 6: score over the noise level",
    "weight": "figure 7: score over lambda",
    "overlap": "figure 8: score over the overlap of windows",
}
OF_MASKS = ("blocks", "models", "noise", "weight", "overlap")  # which the paper has of masks alone
NAMED = {  # in the paper's tables
    **{"moco": "MoCo", "crw": "CRW", "sfc": "SFC", "vfs": "VFS", "spa-then-temp": "Spa-then-Temp", "smtc": "SMTC"},
    **{"dino": "DINO", "dinov2": "DINOv2", "dinov3": "DINOv3", "v-jepa-2": "V-JEPA 2"},
}
DIFT = {ADM: "dift-adm", StableDiffusion: "dift-sd"}  # by the class of the image model, its preset


@dataclass(frozen=True)
class Asked:
    """What to run.

    Attributes
    ----------
    benchmark, clips
        Which one, and its clips, unread.
    motions, appearances, encoders
        Models by value; the first of each of the first two make TED.
    sam2
        A SAM 2 model beside them: supervised, unlike all others.
    preset, words
        Settings, and what is said beside them, by the names of `track`.
    parts
        Of `PARTS`.
    sweeps
        Where each clip and method is kept as it comes.
    client
        Of a Dask cluster, whose workers then compute.
    """

    benchmark: Benchmark
    clips: ClipSequence
    motions: Sequence[Model]
    appearances: Sequence[Model]
    encoders: Sequence[Mapping[str, Any]]
    sam2: str | None
    preset: str
    words: Mapping[str, Any]
    parts: Sequence[str]
    sweeps: Path
    client: Client | None = None

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in PARTS:
                raise TedlensError(f"part={part!r} is not known; choose from {', '.join(PARTS)}.")
            if part in OF_MASKS and self.benchmark.task != "masks":
                raise TedlensError(f"The paper has no {part!r} of {self.benchmark.title}; it has main and cost.")
        if not self.motions and not self.appearances and not self.encoders and self.sam2 is None:
            raise TedlensError("There is no model to run; give --motion, --appearance, --encoder or --sam2.")
        preset_named(self.preset)

    @property
    def said(self) -> dict[str, Any]:
        return {**self.benchmark.words, **self.words}

    @property
    def lam(self) -> float:
        """Weight of motion in TED."""
        return float(self.words.get("lam", PRESETS[self.preset].words.get("lam", 0.5)))

    def ted(self, motion: Model | None, appearance: Model | None, **said: Any) -> Method:
        """TED with these models, and what either gives alone."""
        lams = {"TED": self.lam} if motion is not None and appearance is not None else {}
        if appearance is not None and 0.0 not in lams.values():
            lams["appearance alone"] = 0.0
        if motion is not None and 1.0 not in lams.values():
            lams["motion alone"] = 1.0
        return Method.of(lams, motion, appearance, self.preset, {**self.said, **said})

    def methods(self) -> list[Method]:
        """All that stands in the main table."""
        motion, appearance = (models[0] if models else None for models in (self.motions, self.appearances))
        found = [self.ted(motion, appearance)] if motion is not None or appearance is not None else []
        size = {name: value for name, value in self.said.items() if name == "size"}
        if appearance is not None:
            preset = DIFT.get(type(loaded(appearance, "appearance_block")))
            if preset is not None:
                found.append(Method.of({"DIFT": 0.0}, None, appearance, preset, size))
        for encoder in self.encoders:
            name = str(encoder["name"])
            preset = name if name in PRESETS else None
            found.append(Method.of({NAMED.get(name, name): 0.0}, None, dict(encoder), preset, size))
        return found


@dataclass
class Found:
    """Tables of numbers by name, and figures; scores behind them."""

    asked: Asked
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, go.Figure] = field(default_factory=dict)
    scores: dict[str, xr.Dataset] = field(default_factory=dict)
    methods: list[Method] = field(default_factory=list)


def first(models: Sequence[Model], option: str) -> Model:
    """The first of models that a part needs."""
    if not models:
        raise TedlensError(f"This part needs a model; give {option}.")
    return models[0]


def at(scores: xr.Dataset, lam: float) -> xr.Dataset:
    """Scores of a sweep over (clip, object, frame): at one weight of motion, where there are several."""
    chosen = scores.sel(lam=lam, drop=True) if "lam" in scores.dims else scores
    return along(chosen, "clip")


def along(scores: xr.Dataset, *axes: str) -> xr.Dataset:
    """Scores of a sweep over these axes, object and frame alone; the others have one value."""
    kept = (*axes, "object", "frame")
    return scores.isel({name: 0 for name in scores.dims if name not in kept}, drop=True).reset_coords(drop=True)
