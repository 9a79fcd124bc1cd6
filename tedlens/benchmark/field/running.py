"""Methods run over the clips of a benchmark: each clip and method kept as it comes, so that a run can be stopped."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from tedlens.analysis.references import references
from tedlens.benchmark.field.suite import Benchmark, given_of
from tedlens.clip import Clip
from tedlens.metrics import PoseConvention, evaluate, evaluate_parts, evaluate_points, evaluate_pose, point_queries
from tedlens.models.base import DiffusionModel
from tedlens.models.registry import Model, as_model
from tedlens.models.structure import outline
from tedlens.presets import NOISE, as_sweep, track_words
from tedlens.probing import input_size
from tedlens.provenance import frames_sha256, versions
from tedlens.sam2 import Sam2, load_sam2, track_sam2
from tedlens.store import load, save
from tedlens.sweeping import sweep
from tedlens.sweeping.clips import ClipSequence, Source, clip_sources
from tedlens.ted import Propagation, propagate
from tedlens.ted.tracking import PAPER_TAU, track, track_points

if TYPE_CHECKING:
    from distributed import Client

CONTROLS = {"place": "place", "colour": "colour", "masks": "true masks"}
STAYS = "stays where it was"
CONVENTIONS: tuple[PoseConvention, ...] = get_args(PoseConvention)
OF_MOTION = (*NOISE, "block", "samples", "overlap", "stitch")


@dataclass(frozen=True)
class Method:
    """Features and how labels follow them, at one or more weights of motion.

    Attributes
    ----------
    lams
        By name in the tables, the weight of motion.
    motion, appearance
        Models as `sweep` takes them by value: names, or arguments of their loaders.
    words
        Settings by the names of `track`, the preset's filled in.
    preset
        Its name, for the provenance.
    """

    lams: Mapping[str, float]
    motion: Model | None
    appearance: Model | None
    words: Mapping[str, Any] = field(repr=False)
    preset: str | None = None

    @classmethod
    def of(
        cls,
        lams: Mapping[str, float],
        motion: Model | None,
        appearance: Model | None,
        preset: str | None,
        said: Mapping[str, Any],
    ) -> Method:
        """With a preset's settings, and what is said beside it, which wins.

        A block that the preset names and the model does not have becomes the model's own.
        """
        words = dict(said) if preset is None else track_words(preset, said)
        words.pop("lam", None)
        if motion is None:
            words = {name: value for name, value in words.items() if name not in OF_MOTION}
        if appearance is None:
            words = {name: value for name, value in words.items() if not name.startswith("appearance_")}
        for word, model in (("block", motion), ("appearance_block", appearance)):
            if model is None:
                continue
            there = loaded(model, word)
            if word not in said and words.get(word) not in there.blocks:
                words[word] = there.block
            if word == "appearance_block":
                words.setdefault("appearance_tau", there.appearance_tau)
            elif not any(words.get(name) is not None for name in NOISE):
                words["tau"] = PAPER_TAU
        return cls(dict(lams), motion, appearance, words, preset)

    @property
    def key(self) -> str:
        """A short name for a file: the same for the same settings."""
        said = json.dumps([self.motion, self.appearance, sorted(self.words.items())], default=str, sort_keys=True)
        first = "".join(letter if letter.isalnum() else "-" for letter in next(iter(self.lams)).lower())
        return f"{first}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"

    def model(self) -> tuple[DiffusionModel, str]:
        """The model on whose grid labels are carried, and its block."""
        role, word = ("motion", "block") if self.motion is not None else ("appearance", "appearance_block")
        found = loaded(getattr(self, role), word)
        return found, self.words.get(word) or found.block


_loaded: dict[str, DiffusionModel] = {}
_sam2: dict[str, Sam2] = {}
_one_at_a_time = threading.Lock()


def loaded(given: Model, word: str) -> DiffusionModel:
    """A model by value, loaded once in a process; `word` tells its role, ``block`` (motion) or ``appearance_block``."""
    kind: Any = "video" if word == "block" else "image"
    if isinstance(given, DiffusionModel):
        return as_model(given, kind)
    with _one_at_a_time:
        key = repr((given, kind))
        if key not in _loaded:
            _loaded[key] = as_model(given, kind)
        return _loaded[key]


# --- masks: sweeps --------------------------------------------------------------------------------


def swept(
    benchmark: Benchmark,
    clips: ClipSequence,
    method: Method,
    sweeps: Path,
    *,
    client: Client | None = None,
    **axes: Any,
) -> xr.Dataset:
    """Scores of a method's masks: `sweep` with its settings, and `axes` over which one of them goes instead."""
    words = as_sweep(method.words, motion=method.motion is not None, appearance=method.appearance is not None)
    fused = method.motion is not None and method.appearance is not None
    words |= ({"lam": sorted(set(method.lams.values()))} if fused else {}) | axes
    models: dict[str, Any] = {
        role: given if client is not None or given is None else loaded(given, word)
        for role, given, word in (
            ("motion", method.motion, "block"),
            ("appearance", method.appearance, "appearance_block"),
        )
    }
    said = "".join(f"-{name}" for name in axes)
    return sweep(
        clips,
        **models,
        **words,
        protocol=benchmark.protocol,
        store=sweeps / f"{method.key}{said}.zarr",
        client=client,
    )


# --- all tasks, clip by clip ----------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """One clip, tracked by a method at one weight of motion and scored as the benchmark does."""

    benchmark: Benchmark
    method: Method
    lam: float

    def __call__(self, clip: Clip) -> xr.Dataset:
        return score(self.benchmark, clip, self.tracked(clip))

    def tracked(self, clip: Clip) -> Any:
        """Labels or points of a clip."""
        words = {**self.method.words, "lam": self.lam}
        if self.lam > 0:
            assert self.method.motion is not None
            words["motion"] = loaded(self.method.motion, "block")
        if self.lam < 1:
            assert self.method.appearance is not None
            words["appearance"] = loaded(self.method.appearance, "appearance_block")
        if self.benchmark.task in ("masks", "parts"):
            return track(given_of(self.benchmark, clip), **words)["labels"]
        return track_points(clip, queries_of(self.benchmark, clip), **words)

    @property
    def about(self) -> dict[str, Any]:
        """What makes the result what it is, for the store."""
        models = {
            f"{role}_{key}": value
            for role, given, word in (
                ("motion", self.method.motion if self.lam > 0 else None, "block"),
                ("appearance", self.method.appearance if self.lam < 1 else None, "appearance_block"),
            )
            if given is not None
            for key, value in loaded(given, word).provenance().items()
        }
        return {"benchmark": self.benchmark.title, **models, **self.method.words, "lam": self.lam}


@dataclass(frozen=True)
class Controlled:
    """One clip with features that need no model, in the place and with the settings of a method's."""

    benchmark: Benchmark
    method: Method
    features: str

    def __call__(self, clip: Clip) -> xr.Dataset:
        if self.features == STAYS:
            queries = queries_of(self.benchmark, clip)
            return score(self.benchmark, clip, staying(queries, len(clip)))
        model, block = self.method.model()
        size = input_size((clip.height, clip.width), self.method.words.get("size") or model.size, model.multiple)
        features = references(clip, outline(model, size).point(block).grid)[self.features]  # type: ignore[index]
        settings = {name: self.method.words[name] for name in Propagation().said() if name in self.method.words}
        given = given_of(self.benchmark, clip)
        assert given.masks is not None
        features = features.assign_attrs(input_size=list(size))
        return score(self.benchmark, clip, propagate(features, given.masks, **settings))

    @property
    def about(self) -> dict[str, Any]:
        model, block = self.method.model()
        grid = {"grid_of": model.weights_sha256, "block": block}
        return {"benchmark": self.benchmark.title, "features": self.features, **grid, **self.method.words}


@dataclass(frozen=True)
class Supervised:
    """One clip, tracked by SAM 2 and scored alike."""

    benchmark: Benchmark
    model: str

    def __call__(self, clip: Clip) -> xr.Dataset:
        if self.model not in _sam2:
            _sam2[self.model] = load_sam2(self.model)
        return score(self.benchmark, clip, track_sam2(given_of(self.benchmark, clip), _sam2[self.model])["labels"])

    @property
    def key(self) -> str:
        return f"sam2-{hashlib.sha256(self.model.encode()).hexdigest()[:8]}"

    @property
    def about(self) -> dict[str, Any]:
        return {"benchmark": self.benchmark.title, "model": self.model}


def queries_of(benchmark: Benchmark, clip: Clip) -> xr.Dataset:
    """Where points are started: joints in the first frame, TAP-Vid's where each first shows."""
    if benchmark.task == "joints":
        assert clip.joints is not None
        return clip.joints.isel(frame=0)
    assert clip.points is not None
    return point_queries(clip.points)


def staying(queries: xr.Dataset, frames: int) -> xr.Dataset:
    """Points that are always seen where they were first, as `track_points` gives them."""
    if "position" in queries:
        place = queries["position"]
    else:
        place = xr.concat([queries["x"], queries["y"]], xr.Variable("axis", ["x", "y"]), combine_attrs="override")
    position = place.drop_vars("frame", errors="ignore").expand_dims(frame=np.arange(frames))
    position = position.transpose(..., "frame", "axis")
    return xr.Dataset({"position": position, "visible": position.notnull().all("axis")})


def score(benchmark: Benchmark, clip: Clip, tracked: Any) -> xr.Dataset:
    """What the benchmark says of a tracked clip."""
    if benchmark.task == "masks":
        return evaluate(tracked, clip.masks, protocol=benchmark.protocol)  # type: ignore[arg-type]
    if benchmark.task == "parts":
        return evaluate_parts(tracked, clip.masks)  # type: ignore[arg-type]
    if benchmark.task == "joints":
        assert clip.joints is not None
        each = [evaluate_pose(tracked["position"], clip.joints, convention=how) for how in CONVENTIONS]
        return xr.concat(each, xr.Variable("convention", list(CONVENTIONS)), combine_attrs="override")
    return evaluate_points(tracked, clip.points, size=(clip.height, clip.width))  # type: ignore[arg-type]


def each_clip(
    clips: ClipSequence, task: Scored | Controlled | Supervised, folder: Path, client: Client | None = None
) -> xr.Dataset:
    """What a task gives for each clip, along ``clip``; those in the folder that are of the same settings stay."""
    about = json.loads(json.dumps(task.about | {"tedlens": versions()["version_tedlens"]}, default=str, sort_keys=True))
    sources = clip_sources(clips)
    places = [folder / f"{number:05d}.zarr" for number in range(len(sources))]
    if client is None:
        found = [
            _kept(source, task, place, about)
            for source, place in tqdm(list(zip(sources, places, strict=True)), desc=folder.name, unit="clip", delay=2)
        ]
    else:
        futures = [client.submit(_kept, s, task, p, about, pure=False) for s, p in zip(sources, places, strict=True)]
        found = client.gather(futures)
    every: xr.Dataset = xr.concat(found, "clip", join="outer", combine_attrs="drop_conflicts")
    return every


def _kept(source: Source, task: Callable[[Clip], xr.Dataset], place: Path, about: Mapping[str, Any]) -> xr.Dataset:
    """One clip's result, from its place where it is there already."""
    clip = source()
    said = json.dumps({**about, "clip": clip.name, "clip_sha256": frames_sha256(clip)}, sort_keys=True)
    if place.exists():
        kept: xr.Dataset = load(place).load()
        if kept.attrs.get("made_of") == said:
            return kept
    found = task(clip).assign_coords(clip=clip.name).assign_attrs(made_of=said)
    found = found.drop_attrs().assign_attrs(made_of=said)
    save(found, place)
    return found


# --- time and memory ------------------------------------------------------------------------------


def cost(clip: Clip, task: Scored) -> dict[str, float]:
    """Milliseconds and gigabytes a frame and clip of tracking one clip, models loaded and once warmed up.

    On CUDA the most memory of tensors, models included; on the CPU the most of the process since it began.
    """
    cuda = torch.cuda.is_available()
    task.tracked(clip[: min(len(clip), 3)])
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    task.tracked(clip)
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return {"ms a frame": 1000 * seconds / len(clip), "GB": _most_memory(cuda), "frames": len(clip)}


def _most_memory(cuda: bool) -> float:
    if cuda:
        return torch.cuda.max_memory_allocated() / 1e9
    try:
        import resource
    except ImportError:  # not on Windows
        return float("nan")
    import sys

    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
