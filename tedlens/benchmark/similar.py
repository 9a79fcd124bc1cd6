"""What the benchmark measures.

All choices (noise level and block of either kind of features, lambda) are made on validation clips and reported on
test clips; the embedded models were trained on neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from tqdm.auto import tqdm

from tedlens.analysis import decode, object_features, references, score_references, without_temporal_layers
from tedlens.analysis.statistics import greatest
from tedlens.clip import Clip
from tedlens.datasets import similar
from tedlens.errors import TedlensError
from tedlens.metrics import evaluate
from tedlens.models.base import DiffusionModel
from tedlens.models.mini import recipe
from tedlens.models.structure import outline
from tedlens.probing import probe
from tedlens.provenance import clip_provenance
from tedlens.sweeping import sweep
from tedlens.ted import propagate


@dataclass(frozen=True)
class ClipSet:
    """Clips of one kind: what a person calls them, how their two objects look, and from where they are seen."""

    title: str
    looks: Any
    view: Any = None  # from the side and from above in turns


# In the first two the objects are alike and change places in the picture, so that neither place nor colour tells them
# apart after they have passed: only motion does. Seen from the side they differ in height and size, too.
SETS = {
    "above": ClipSet("identical, from above", "identical", "top"),
    "lane": ClipSet("identical, one lane", "identical", "level"),
    "side": ClipSet("identical, from the side", "identical", "perspective"),
    "similar": ClipSet("similar", "similar"),
    "distinct": ClipSet("distinct", "distinct"),
}
ONLY_MOTION = ("above", "lane")
HARDEST, SEEN = "above", "side"  # where only motion tells, and where looks and place do as well
MOST_CLIPS = 64
TAUS = (0, 200, 400, 600, 800, 999)
LAMS = tuple(i / 10 for i in range(11))
QUICK: dict[str, Any] = {"clips": 3, "decoded": 12, "taus": (0, 400, 800), "lams": (0.0, 0.3, 0.5, 0.7, 1.0)}
LONG, OVERLAPS = 40, (0, 2)  # frames of the clips that need several windows
CUTS = ("frames shuffled", "no temporal layers")
CHECKS = ("as it is", *CUTS)
END = 3  # last scored frames, after the objects have passed
DECODED = ("velocity", "colour", "position")
SIDES = ", with sides"  # of an object, in what a target is read from
ONE_LOOK = "velocity, with sides, one look"
IMAGE_MODEL = "image model"
FOLDS = 5  # of clips, in decoding

Source = Callable[[], Clip]


@dataclass(frozen=True)
class Setup:
    """What to run, and where its sweeps are kept, so that a run that was stopped goes on."""

    motion: DiffusionModel
    appearance: DiffusionModel
    clips: int  # of the test, in each set; and a quarter as many of validation
    sweeps: Path
    seeds: Sequence[int] = (0,)
    decoded: int = (
        128  # test clips of either kind that are probed for decoding: many, as a probe has several inputs a channel
    )
    taus: Sequence[int] = TAUS
    lams: Sequence[float] = LAMS

    def __post_init__(self) -> None:
        if not 2 <= self.clips <= MOST_CLIPS:
            raise TedlensError(f"clips={self.clips} does not fit the benchmark; choose 2 to {MOST_CLIPS}.")

    @property
    def test_seeds(self) -> range:
        return recipe.TEST_SEEDS[: self.clips]

    @property
    def validation_seeds(self) -> range:
        return recipe.VALIDATION_SEEDS[: max(self.clips // 4, 2)]

    def sweep(self, name: str | None, clips: Sequence[Source], **grid: Any) -> xr.Dataset:
        """A sweep with the settings of propagation that suit the grid of the embedded models, kept if it has a name."""
        store = None if name is None else self.sweeps / f"{name}.zarr"
        return sweep(clips, **grid, store=store, progress=False)


@dataclass(frozen=True)
class Choice:
    """What was best on the validation clips of a set: tau and block of either kind, and the weight of motion."""

    motion: dict[str, Any]
    appearance: dict[str, Any]
    lam: float


@dataclass(frozen=True)
class Found:
    """Scores by what they are over; each holds clip, seed, object and frame besides."""

    choices: dict[str, Choice]
    alone: xr.Dataset  # set, features, block, tau
    fused: xr.Dataset  # set, lam
    references: xr.Dataset  # set, features: place, colour, true velocity and true masks, on the grid of motion
    common: xr.Dataset  # set: appearance features, on the grid of motion
    cut: xr.Dataset  # set, check: motion features with less to tell them how things move
    by_noise: xr.Dataset  # set (SEEN and HARDEST), check, tau
    overlap: xr.Dataset  # overlap
    decoding: xr.Dataset  # block, tau, target (no clips: see `decode`)
    decoding_checks: xr.Dataset  # check, target

    def chosen(self) -> xr.Dataset:
        """Test scores of what was chosen, and what they are read against: (set, features, ..)."""
        return joined("set", {name: self._chosen(name) for name in self.choices})

    def _chosen(self, name: str) -> xr.Dataset:
        choice, alone = self.choices[name], self.alone.sel(set=name)
        read = self.references.sel(set=name)
        kinds = {
            "place": read.sel(features="place"),
            "colour": read.sel(features="colour"),
            "appearance": alone.sel(features="appearance", **choice.appearance),
            "appearance, motion's grid": self.common.sel(set=name),
            "motion": alone.sel(features="motion", **choice.motion),
            **{f"motion, {cut}": self.cut.sel(set=name, check=cut) for cut in CUTS},
            "fused": self.fused.sel(set=name, lam=choice.lam),
            "true velocity": read.sel(features="velocity"),
            "true masks": read.sel(features="masks"),
        }
        return joined("features", {kind: scores.reset_coords(drop=True) for kind, scores in kinds.items()})


def at_end(scores: xr.Dataset) -> xr.Dataset:
    """Scores of the last frames alone, after the objects have passed one another."""
    return scores.isel(frame=slice(-END, None))


def run(setup: Setup) -> Found:
    """All stages of the benchmark, one after another."""
    with tqdm(total=3 * len(SETS) + 5, desc="benchmark", unit="stage", leave=False) as bar:
        choices: dict[str, Choice] = {}
        by_set: dict[str, dict[str, xr.Dataset]] = {}
        for name in SETS:
            with _stage(bar, f"validation, {name}"):
                choices[name] = choose(setup, name)
            clips, choice = _clips(name, setup.test_seeds), choices[name]
            with _stage(bar, f"test, {name}"):
                alone = _alone(setup, f"test-{name}", clips, setup.seeds)
                fused = _fused(setup, f"test-{name}", clips, setup.seeds, choice)
            with _stage(bar, f"controls, {name}"):
                grid = _grids(setup.motion)[choice.motion["block"]]
                by_set[name] = {
                    "alone": alone,
                    "fused": fused,
                    "references": reference_scores(setup, clips, grid),
                    "common": on_grid_of(setup, clips, choice.appearance, grid),
                    "cut": cut(setup, clips, choice.motion).squeeze("tau", drop=True),
                }
        with _stage(bar, "cuts by noise"):
            by_noise = {name: over_noise(setup, name, by_set[name]["alone"], choices[name]) for name in (SEEN, HARDEST)}
        with _stage(bar, "overlap"):
            overlap = over_windows(setup, choices[SEEN].motion)
        with _stage(bar, "decoding"):
            decoded = decoding(setup)
        with _stage(bar, "checks of decoding"):
            decoded_checks = decoding_checks(setup, choices[SEEN])
    parts = {part: joined("set", {name: each[part] for name, each in by_set.items()}) for part in by_set[HARDEST]}
    return Found(
        choices, **parts, by_noise=joined("set", by_noise), overlap=overlap, decoding=decoded,
        decoding_checks=decoded_checks,
    )  # fmt: skip


@contextmanager
def _stage(bar: Any, name: str) -> Iterator[None]:
    bar.set_description(name)
    yield
    bar.update()


def similar_clip(name: str, seed: int, frames: int = recipe.FRAMES, motion: Any = "cross") -> Clip:
    """A clip of a set: two balls that pass one another, or move otherwise."""
    kind = SETS[name]
    view: Any = kind.view or ("perspective" if seed % 2 == 0 else "top")
    return similar(seed, looks=kind.looks, motion=motion, view=view, frames=frames, size=recipe.SIZE)


# --- stages ---------------------------------------------------------------------------------------


def choose(setup: Setup, name: str) -> Choice:
    """Best tau and block of either kind, then best lambda, on validation clips."""
    clips, store = _clips(name, setup.validation_seeds), f"validation-{name}"
    alone = _alone(setup, store, clips, [0])
    motion, appearance = (_best(alone.sel(features=kind), ["block", "tau"]) for kind in ("motion", "appearance"))
    fused = _fused(setup, store, clips, [0], Choice(motion, appearance, lam=0))
    return Choice(motion, appearance, **_best(fused, ["lam"]))


def reference_scores(setup: Setup, clips: Sequence[Source], grid: tuple[int, int]) -> xr.Dataset:
    """What place, colour, true velocity and true masks reach on a grid: (features, ..)."""
    found: dict[str, dict[str, xr.Dataset]] = {}
    for clip in (make() for make in clips):
        for kind, scores in score_references(clip, grid).items():
            one = scores.reset_coords(drop=True).expand_dims(seed=list(setup.seeds))
            found.setdefault(kind, {})[clip.name] = one
    return joined("features", {kind: joined("clip", each) for kind, each in found.items()})


def on_grid_of(setup: Setup, clips: Sequence[Source], cell: dict[str, Any], grid: tuple[int, int]) -> xr.Dataset:
    """Appearance features brought to another grid, as means of the finer cells: no score is owed to finer cells."""
    how: dict[str, Any] = {"tau": cell["tau"], "blocks": cell["block"], "seed": list(setup.seeds)}

    def moved(features: xr.DataArray, clip: Clip) -> xr.DataArray:
        values = F.interpolate(torch.from_numpy(features.values), grid, mode="bilinear", antialias=True)
        like = references(clip, grid)["place"]
        return xr.DataArray(values.numpy(), dims=like.dims, coords=like.coords, attrs=features.attrs)

    return joined(
        "clip",
        {
            clip.name: _over_seeds(
                probe(setup.appearance, clip, **how)[cell["block"]].to_dataset()["features"], clip, moved
            ).squeeze("tau", drop=True)
            for clip in (make() for make in clips)
        },
    )


def cut(setup: Setup, clips: Sequence[Source], cell: dict[str, Any]) -> xr.Dataset:
    """Motion features with less to tell them how things move: (check, tau, ..).

    Of a model that saw the frames in another order, and of one without the layers that mix frames.
    """
    how: dict[str, Any] = {"tau": cell["tau"], "blocks": cell["block"], "seed": list(setup.seeds)}

    def alone(model: DiffusionModel, clip: Clip, **how: Any) -> xr.DataTree:
        with without_temporal_layers(model):
            return probe(model, clip, **how)

    views = dict(zip(CUTS, (_probe_shuffled, alone), strict=True))
    each: dict[str, dict[str, xr.Dataset]] = {name: {} for name in views}
    for clip in (make() for make in clips):
        for name, view in views.items():
            features = view(setup.motion, clip, **how)[cell["block"]].to_dataset()["features"]
            each[name][clip.name] = _over_seeds(features, clip)
    return joined("check", {name: joined("clip", scores) for name, scores in each.items()})


def over_noise(setup: Setup, name: str, alone: xr.Dataset, choice: Choice) -> xr.Dataset:
    """Motion features of the chosen block at every tau, as they are and with either cut: (check, tau, ..)."""
    block = choice.motion["block"]
    as_it_is = alone.sel(features="motion", block=block).reset_coords(drop=True)
    cuts = cut(setup, _clips(name, setup.test_seeds), {"block": block, "tau": list(setup.taus)})
    both = {CHECKS[0]: as_it_is, **{each: cuts.sel(check=each).reset_coords(drop=True) for each in CUTS}}
    return joined("check", both)


def over_windows(setup: Setup, cell: dict[str, Any]) -> xr.Dataset:
    """Motion features on clips of several windows, by the frames that neighbours share: (overlap, ..)."""
    clips = _clips(SEEN, setup.test_seeds, LONG)
    how: dict[str, Any] = {"motion": setup.motion, "tau": cell["tau"], "blocks": cell["block"], "seeds": setup.seeds}
    # The published figures were made with the mean; tests/benchmarks/README.md says how much "first" differs.
    each = {n: setup.sweep(f"overlap-{n}", clips, **how, overlap=n, stitch="mean") for n in OVERLAPS}
    return joined("overlap", {n: scores.squeeze(["tau", "block"], drop=True) for n, scores in each.items()})


def decoding(setup: Setup) -> xr.Dataset:
    """What can be read out of the motion model's blocks at every other tau, from objects that look distinct.

    They drift: in clips that cross, the place of an object would tell its velocity, and so would the first frame.
    Each target is read from the mean feature, and again with the differences of an object's sides.
    """
    how: dict[str, Any] = {"tau": setup.taus[::2], "blocks": _up(setup.motion), "seed": setup.seeds[0]}
    means, with_sides, truths = [], [], []
    for clip in _drifting(setup):
        features = probe(setup.motion, clip, **how)
        means.append(object_features(features, clip))
        with_sides.append(object_features(features, clip, sides=True))
        truths.append(_truth(clip))
    of_means, of_both = (decode(each, truths, targets=DECODED, folds=FOLDS) for each in (means, with_sides))
    of_both = of_both.assign_coords(target=[f"{target}{SIDES}" for target in DECODED])
    return xr.concat([of_means, of_both, _of_one_look(setup, how)], "target")


def _of_one_look(setup: Setup, how: dict[str, Any]) -> xr.Dataset:
    """Velocity, from clips of one look: what answers to a bright edge answers to a dark one with the other sign."""
    seeds = recipe.TEST_SEEDS[: setup.decoded]
    clips = [
        similar(seed, motion="drift", view="top", objects=3, scale=0.8, look=0, size=recipe.SIZE) for seed in seeds
    ]
    features = [object_features(probe(setup.motion, clip, **how), clip, sides=True) for clip in clips]
    found = decode(features, map(_truth, clips), targets=["velocity"], folds=FOLDS)
    return found.assign_coords(target=[ONE_LOOK])


def decoding_checks(setup: Setup, choice: Choice) -> xr.Dataset:
    """The same with sides, of features that have less to tell how things move: (check, target).

    At the cells that were chosen for tracking: with either cut, and of the image model, to which a frame is all.
    """
    seed = setup.seeds[0]
    how: dict[str, Any] = {"tau": choice.motion["tau"], "blocks": choice.motion["block"], "seed": seed}
    of_image = {"tau": choice.appearance["tau"], "blocks": choice.appearance["block"], "seed": seed}

    def alone(clip: Clip) -> xr.DataTree:
        with without_temporal_layers(setup.motion):
            return probe(setup.motion, clip, **how)

    views: list[Callable[[Clip], xr.DataTree]] = [
        partial(probe, setup.motion, **how),
        partial(_probe_shuffled, setup.motion, **how),
        alone,
        partial(probe, setup.appearance, **of_image),
    ]
    clips = list(_drifting(setup))
    truths = [_truth(clip) for clip in clips]
    each = {}
    for check, view in zip((*CHECKS, IMAGE_MODEL), views, strict=True):
        features = [object_features(view(clip), clip, sides=True) for clip in clips]
        each[check] = decode(features, truths, targets=DECODED, folds=FOLDS).squeeze(["block", "tau"], drop=True)
    return joined("check", each)


# --- parts ----------------------------------------------------------------------------------------


def _clips(name: str, seeds: Sequence[int], frames: int = recipe.FRAMES) -> list[Source]:
    return [partial(similar_clip, name, seed, frames) for seed in seeds]


def _drifting(setup: Setup) -> Iterator[Clip]:
    """Clips to decode from."""
    return (similar_clip("distinct", seed, motion="drift") for seed in recipe.TEST_SEEDS[: setup.decoded])


def _up(model: DiffusionModel) -> list[str]:
    """Up blocks with cells of at least two pixels: finer ones take most of the time, and their window shows little."""
    return [block for block, (rows, _) in _grids(model).items() if block.startswith("up_") and 2 * rows <= model.size]


def _grids(model: DiffusionModel) -> dict[str, tuple[int, int]]:
    """Cells of each block, for the benchmark's clips as the model is given them: square, of its own size."""
    inside = outline(model, (model.size, model.size))
    return {block: inside.points[path].grid for block, path in inside.blocks.items()}


def _truth(clip: Clip) -> xr.Dataset:
    assert clip.objects is not None
    return clip.objects


def _alone(setup: Setup, name: str, clips: Sequence[Source], seeds: Sequence[int]) -> xr.Dataset:
    """Motion and appearance features, each alone at every tau and block: (features, block, tau, ..)."""
    found = {}
    for kind, model in (("motion", setup.motion), ("appearance", setup.appearance)):
        scores = setup.sweep(f"{name}-{kind}", clips, **{kind: model}, blocks=_up(model), tau=setup.taus, seeds=seeds)
        # Two schedules have tau in common, not sigma; and blocks of one name differ in their grids.
        found[kind] = scores.drop_vars(["sigma", "log_snr", "rows", "columns"])
    return joined("features", found)


def _fused(setup: Setup, name: str, clips: Sequence[Source], seeds: Sequence[int], choice: Choice) -> xr.Dataset:
    """Fused features of the chosen cells at every lambda: (lam, ..)."""
    # Named by what was chosen: a run with more clips may choose otherwise, and a store holds one appearance cell.
    cell = f"{choice.appearance['block']}-{choice.appearance['tau']}"
    scores = setup.sweep(
        f"{name}-fused-with-{cell}",
        clips,
        motion=setup.motion,
        appearance=setup.appearance,
        tau=choice.motion["tau"],
        blocks=choice.motion["block"],
        appearance_tau=choice.appearance["tau"],
        appearance_block=choice.appearance["block"],
        lam=setup.lams,
        seeds=seeds,
    )
    return scores.squeeze(["tau", "block"], drop=True)


def _score(features: xr.DataArray, clip: Clip) -> xr.Dataset:
    """Scores (object, frame) of features (frame, channel, y, x) of a clip."""
    assert clip.masks is not None
    return evaluate(propagate(features, clip.masks[0]), clip.masks).reset_coords(drop=True)


def _over_seeds(
    features: xr.DataArray, clip: Clip, moved: Callable[[xr.DataArray, Clip], xr.DataArray] | None = None
) -> xr.Dataset:
    """Scores (tau, seed, object, frame) of features (tau, seed, frame, channel, y, x), each first `moved`, if given."""
    by_tau = {}
    for tau in features["tau"].values.tolist():
        each = {seed: features.sel(tau=tau, seed=seed) for seed in features["seed"].values.tolist()}
        by_tau[tau] = joined(
            "seed", {seed: _score(one if moved is None else moved(one, clip), clip) for seed, one in each.items()}
        )
    return joined("tau", by_tau)


def _probe_shuffled(model: DiffusionModel, clip: Clip, **how: Any) -> xr.DataTree:
    """Features of a clip, frame by frame, where the model saw its frames in another order."""
    rest = np.random.default_rng(_truth(clip).attrs["seed"]).permutation(np.arange(1, len(clip)))
    order = np.concatenate([[0], rest])  # the first stays: the model is conditioned on it
    seen = probe(model, Clip(clip.frames[order]), **how)

    def in_order(features: xr.Dataset) -> xr.Dataset:
        if not features:  # the root of the tree
            return features
        features = features.isel(frame=np.argsort(order)).assign_coords(frame=np.arange(len(order)))
        # They are of this clip again, frame by frame, so that they are matched with its masks.
        return features.assign(features=features["features"].assign_attrs(of_clip))

    of_clip = {**clip_provenance(clip), "seen_in_order": order.tolist()}
    tree: xr.DataTree = seen.map_over_datasets(in_order)
    tree.attrs |= of_clip
    return tree


def _best(scores: xr.Dataset, axes: list[str]) -> dict[str, Any]:
    """Where J, averaged over all else, is greatest."""
    return greatest(scores["J"].mean([d for d in scores["J"].dims if d not in axes]))


def joined(axis: str, each: dict[Any, xr.Dataset]) -> xr.Dataset:
    along = xr.Variable(axis, list(each))
    return xr.concat(
        list(each.values()), along, join="outer", combine_attrs="drop_conflicts", coords="minimal", compat="override"
    )
