"""What a sweep runs over: the models, and every value of every axis, checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from numbers import Integral, Real
from typing import Any, get_args

import numpy as np

from tedlens.errors import TedlensError
from tedlens.interventions.described import Said, intervened
from tedlens.metrics import Protocol
from tedlens.models.acting import Intervention, forwards_of
from tedlens.models.base import DiffusionModel
from tedlens.models.noise import frame_noise
from tedlens.models.registry import Model, as_model
from tedlens.models.structure import outline
from tedlens.probing import (
    Stitch,
    block_names,
    check_stitch,
    noise_levels,
    only_one,
    usual_size,
    window_length,
    windows,
)
from tedlens.ted.settings import Convention, Propagation, Radius, Upsample, check_lams

KEEP = ("labels", "features")  # what a store can keep beside scores
WORDS = {"radius": get_args(get_args(Radius)[1]), "convention": get_args(Convention), "upsample": get_args(Upsample)}


@dataclass(frozen=True)
class Models:
    """A video model, an image model, or both, loaded."""

    motion: DiffusionModel | None = None
    appearance: DiffusionModel | None = None

    def __post_init__(self) -> None:
        check_models(self.motion, self.appearance)

    @property
    def swept(self) -> DiffusionModel:
        """The model whose features are taken at the taus and blocks of the grid."""
        model = self.motion or self.appearance
        assert model is not None
        return model

    @property
    def fused(self) -> bool:
        """Whether motion is fused with appearance."""
        return self.motion is not None and self.appearance is not None

    def provenance(self) -> dict[str, Any]:
        """What made the features, by role: ``motion_model``, ``appearance_weights_sha256``, .."""
        roles = {"motion": self.motion, "appearance": self.appearance}
        return {
            f"{role}_{key}": value
            for role, model in roles.items()
            if model is not None
            for key, value in model.provenance().items()
        }


def check_models(motion: Model | None, appearance: Model | None) -> None:
    if motion is None and appearance is None:
        raise TedlensError(
            "There is no model to sweep; give motion= or appearance= or both: a loaded model, its name, "
            'or the arguments to load it, as in motion={"name": "i2vgen-xl", "dtype": "bfloat16"}.'
        )


def load_models(motion: Model | None, appearance: Model | None) -> Models:
    """Models as they are given, those given by name or arguments loaded."""
    check_models(motion, appearance)
    return Models(
        None if motion is None else as_model(motion, "video"),
        None if appearance is None else as_model(appearance, "image"),
    )


@dataclass(frozen=True)
class Appearance:
    """Which appearance features motion is fused with: their noise level and block, and over how many draws of noise."""

    tau: int
    block: str
    samples: int

    def said(self) -> dict[str, Any]:
        """As attributes of results."""
        return {f"appearance_{name}": value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Grid:
    """Every value of every axis, and what holds for all of the grid. `make_grid` checks and makes it.

    A plain value without models in it, so that it can be sent to another process.

    Attributes
    ----------
    tau, sigma, log_snr
        Noise levels of the swept model, in the three ways to say them.
    seed, block
        Seeds of the noise; names of blocks.
    lam
        Weights of motion; None where one model's features are taken alone.
    settings
        Values of each of propagation's settings; the window is one of ``radius`` and ``radius_pixels``.
    protocol
        Which frames are scored, see `evaluate`.
    overlap, stitch, size, window
        See `probe`; `stitch` and `window` are None where an image model is swept.
    samples
        Number of noise draws to average for the swept features.
    appearance
        The appearance features that motion is fused with; None unless it is.
    keep, components
        What is kept beside scores, and to how many principal components features are reduced (None: they are not).
    shapes
        Where features are kept: by block, their channels (or components) and pixels of the input a cell, (y, x).
    input_rule
        Short side and multiple of the swept model's input, see `input_size`.
    models
        Provenance of the models.
    interventions
        What is done in the swept model beside what it has, by name; None where that is no axis.
    forwards
        Forwards that a window of a cell takes for each intervention, see `forwards_of`.
    """

    tau: tuple[int, ...]
    sigma: tuple[float, ...]
    log_snr: tuple[float, ...]
    seed: tuple[int, ...]
    block: tuple[str, ...]
    lam: tuple[float, ...] | None
    settings: Mapping[str, tuple[Any, ...]]
    protocol: Protocol
    overlap: int
    stitch: Stitch | None
    samples: int
    size: int | tuple[int, int] | None
    window: int | None
    appearance: Appearance | None
    preset: str | None
    keep: tuple[str, ...]
    components: int | None
    shapes: Mapping[str, tuple[int, float, float]] = field(repr=False)
    input_rule: tuple[int | tuple[int, int], int]
    models: Mapping[str, Any] = field(repr=False)
    interventions: Mapping[str, tuple[Intervention, ...]] | None = None
    forwards: tuple[int, ...] = (1,)

    @property
    def cells(self) -> list[tuple[int, int]]:
        """(tau, seed) of each cell of a clip; one forward a window serves all that is in a cell."""
        return [(tau, seed) for seed in self.seed for tau in self.tau]

    @property
    def inner(self) -> dict[str, tuple[Any, ...]]:
        """Axes within a cell, in the order in which they are computed."""
        lam = {} if self.lam is None else {"lam": self.lam}
        done = {} if self.interventions is None else {"intervention": tuple(self.interventions)}
        return {**done, "block": self.block, **self.settings, **lam}

    @property
    def said_interventions(self) -> dict[str, list[dict[str, Any]]]:
        """What each name on the axis of interventions means, as JSON has it."""
        return {name: [each.said() for each in several] for name, several in (self.interventions or {}).items()}

    def narrowed(self, names: Sequence[str]) -> Grid:
        """The same with some of its interventions alone."""
        assert self.interventions is not None
        forwards = dict(zip(self.interventions, self.forwards, strict=True))
        done = {name: self.interventions[name] for name in names}
        return replace(self, interventions=done, forwards=tuple(forwards[name] for name in names))

    @property
    def combinations(self) -> list[Propagation]:
        """Each combination of propagation's settings."""
        return [
            Propagation(**dict(zip(self.settings, values, strict=True))) for values in product(*self.settings.values())
        ]

    @property
    def fixed(self) -> dict[str, Any]:
        """What holds for all of the grid, as attributes of results; values that differ make results of another kind."""
        size = list(self.size) if isinstance(self.size, tuple) else self.size
        said = {
            **self.models,
            **({} if self.appearance is None else self.appearance.said()),
            "samples": self.samples,
            "overlap": self.overlap,
            "stitch": self.stitch,
            "preset": self.preset,
            "size": size,
            "protocol": self.protocol,
            "keep": list(self.keep),
            "components": self.components,
            "window_in": "pixels of the clip" if "radius_pixels" in self.settings else None,
            "intervention_axis": None if self.interventions is None else True,
        }
        return {key: value for key, value in said.items() if value is not None}


def make_grid(
    models: Models,
    *,
    tau: int | Sequence[int] | None = None,
    sigma: float | Sequence[float] | None = None,
    log_snr: float | Sequence[float] | None = None,
    blocks: str | Sequence[str] | None = None,
    lam: float | Sequence[float] | None = None,
    seeds: int | Sequence[int] = 0,
    overlap: int = 2,
    stitch: Stitch = "first",
    samples: int = 1,
    size: int | tuple[int, int] | None = None,
    appearance_tau: int | None = None,
    appearance_block: str | None = None,
    appearance_samples: int = 1,
    protocol: Protocol = "davis",
    preset: str | None = None,
    keep: str | Sequence[str] = (),
    components: int | None = None,
    interventions: Mapping[str, Said | Sequence[Said] | None] | None = None,
    **propagation: Any,
) -> Grid:
    """The grid that the words of `sweep` describe, once every value is known to be in its range.

    `propagation` are values of settings of propagation, one or several each; those that are left out have their
    defaults.
    """
    given = Propagation().said() | {name: value for name, value in propagation.items() if value is not None}
    if "radius_pixels" in given and given["radius"] == Propagation.radius:
        del given["radius"]
    settings = {name: numbers_of(name, value, words=WORDS.get(name, ())) for name, value in given.items()}
    _check_whole("overlap", overlap, 0)
    _check_whole("samples", samples, 1)
    check_stitch(stitch)
    _check_whole("appearance_samples", appearance_samples, 1)
    swept = models.swept
    levels = {"tau": tau, "sigma": sigma, "log_snr": log_snr}
    checked = {name: None if given is None else numbers_of(name, given) for name, given in levels.items()}
    taus = tuple(swept.check_tau(t) for t in noise_levels(swept, **checked))
    window = window_length(swept, None)
    windows(1, window, overlap)  # says so where the overlap does not fit
    names = _names(swept, blocks)
    kept = _kept(keep, components)
    done = _interventions(swept, interventions, kept)
    grid = Grid(
        tau=taus,
        sigma=tuple(swept.sigma(t) for t in taus),
        log_snr=tuple(swept.log_snr(t) for t in taus),
        seed=numbers_of("seeds", seeds),
        block=tuple(names),
        lam=_lams(models, lam),
        settings=settings,
        protocol=protocol,
        overlap=overlap,
        stitch=None if window is None else stitch,
        samples=_samples(models, samples, appearance_samples),
        size=_size(size),
        window=window,
        appearance=_appearance(models, appearance_tau, appearance_block, appearance_samples),
        preset=preset,
        keep=kept,
        components=components,
        shapes=_shapes(swept, names, components) if "features" in kept else {},
        input_rule=(swept.size if size is None else size, swept.multiple),
        models=models.provenance(),
        interventions=done,
        forwards=tuple(forwards_of((*swept.interventions, *each)) for each in (done or {"": ()}).values()),
    )
    _ = grid.combinations  # each is a Propagation, which says where a value is out of range
    for seed in grid.seed:
        frame_noise(seed, [0], (1,))  # says so where a seed cannot key the noise
    return grid


def _interventions(
    swept: DiffusionModel, given: Mapping[str, Said | Sequence[Said] | None] | None, kept: Sequence[str]
) -> dict[str, tuple[Intervention, ...]] | None:
    if given is None:
        return None
    if not isinstance(given, Mapping) or not given or not all(isinstance(name, str) and name for name in given):
        raise TedlensError(
            f"interventions={given!r} is no axis of interventions; give names and what they mean, as in "
            '{"intact": None, "no up_2 temporal": {"ablate": "up_2.temp_attentions.*"}}.'
        )
    if "features" in kept:
        raise TedlensError(
            'A sweep over interventions keeps no features; leave interventions or "features" in keep out, or sweep the '
            "model that tl.ablate and the like give."
        )
    before = len(swept.interventions)
    return {name: intervened(swept, said).interventions[before:] for name, said in given.items()}


def _lams(models: Models, lam: float | Sequence[float] | None) -> tuple[float, ...] | None:
    if not models.fused:
        if lam is not None:
            only = "motion" if models.motion else "appearance"
            raise TedlensError(
                f"lam={lam} weighs motion against appearance, but only {only}= is given; give both models, or no lam."
            )
        return None
    lams = tuple(float(value) for value in numbers_of("lam", 0.5 if lam is None else lam))
    check_lams(lams)
    return lams


def _check_whole(name: str, given: Any, least: int) -> None:
    if not _is_whole(given) or given < least:
        raise TedlensError(f"{name}={given!r} is out of range; give one whole number of at least {least}.")


def _is_whole(given: Any) -> bool:
    return isinstance(given, Integral) and not isinstance(given, bool)


def _size(size: Any) -> int | tuple[int, int] | None:
    if size is None:
        return None
    match [size] if is_one(size) else list(size):
        case [side] if _is_whole(side) and side > 0:
            return int(side)
        case [height, width] if _is_whole(height) and _is_whole(width) and min(height, width) > 0:
            return int(height), int(width)
    raise TedlensError(
        f"size={size!r} is no size for the input of a model; give its short side in pixels, or height and width."
    )


def _samples(models: Models, samples: int, of_appearance: int) -> int:
    """Noise samples of the swept model. Where appearance is alone, both words mean its own."""
    if models.motion is not None:
        return samples
    if 1 not in (samples, of_appearance) and samples != of_appearance:
        raise TedlensError(
            f"samples={samples} and appearance_samples={of_appearance} both mean the noise samples of the appearance "
            "features, which are swept alone; give one of the two."
        )
    return max(samples, of_appearance)


def _appearance(models: Models, tau: int | None, block: str | None, samples: int) -> Appearance | None:
    """The appearance features that motion is fused with; None where it is fused with none."""
    if models.motion is None or models.appearance is None:
        if block is not None:
            raise TedlensError(
                f"appearance_block={block!r} is the block that motion is fused with, but only one model is given; "
                "give both models, or say blocks=."
            )
        return None
    tau = models.appearance.appearance_tau if tau is None else tau
    [level] = numbers_of("appearance_tau", [tau])
    block = block or models.appearance.block
    name = only_one(_names(models.appearance, block), block)
    return Appearance(models.appearance.check_tau(level), name, samples)


def _names(model: DiffusionModel, blocks: str | Sequence[str] | None) -> list[str]:
    for name in () if blocks is None else values_of("blocks", blocks):
        if not isinstance(name, str):
            raise TedlensError(f"blocks={name!r} is not a name; choose from {', '.join(model.blocks)}.")
    return block_names(model, blocks, lambda: outline(model, usual_size(model)))


def _kept(keep: str | Sequence[str], components: int | None) -> tuple[str, ...]:
    kept = values_of("keep", keep) if keep else ()
    for name in kept:
        if name not in KEEP:
            raise TedlensError(f"keep={name!r} is not what a sweep can keep; choose from {', '.join(KEEP)}.")
    if components is not None:
        _check_whole("components", components, 1)
        if "features" not in kept:
            raise TedlensError(
                f"components={components} is to how many principal components kept features are reduced; "
                'say keep="features".'
            )
    return kept


def _shapes(model: DiffusionModel, names: Sequence[str], components: int | None) -> dict[str, tuple[int, float, float]]:
    """Channels, and pixels of the input a cell (y, x), of each block's features as they are kept."""
    size = usual_size(model)
    inside, found = outline(model, size), {}
    for name in names:
        point = inside.point(name)
        if components is not None and components > point.channels:
            raise TedlensError(
                f"components={components} are more than the {point.channels} channels of {name!r}; give fewer."
            )
        channels = point.channels if components is None else components
        found[name] = (channels, size[0] / point.grid[0], size[1] / point.grid[1])
    return found


def values_of(name: str, given: Any) -> tuple[Any, ...]:
    """One value or several, as distinct ones in the order given."""
    values = [given] if is_one(given) else list(given)
    if not values:
        raise TedlensError(f"{name} is an empty list; give at least one value.")
    return tuple(dict.fromkeys(value.item() if isinstance(value, np.generic) else value for value in values))


def numbers_of(name: str, given: Any, words: Sequence[str] = ()) -> tuple[Any, ...]:
    """As `values_of`, of numbers: what a file says may be a word, of which only `words` are known."""
    values = values_of(name, given)
    for value in values:
        if value not in words and (not isinstance(value, Real) or isinstance(value, bool) or value != value):
            raise TedlensError(f"{name}={value!r} is not a number; give one, or a list of them.")
    return values


def is_one(given: Any) -> bool:
    """Whether a value, rather than a list of values, was given."""
    return isinstance(given, str) or np.ndim(given) == 0
