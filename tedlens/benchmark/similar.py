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

from tedlens.analysis import decode, object_features, without_temporal_layers
from tedlens.analysis.statistics import greatest
from tedlens.clip import Clip
from tedlens.datasets import similar
from tedlens.errors import TedlensError
from tedlens.metrics import evaluate
from tedlens.models.base import DiffusionModel
from tedlens.models.mini import recipe
from tedlens.models.structure import block_paths, hook_points
from tedlens.probing import probe
from tedlens.sweeping import sweep
from tedlens.ted import label_clip, label_masks, propagate, unit

SETS = ("identical", "similar", "distinct")  # how the two objects of a clip look
HARDEST = SETS[0]
MOST_CLIPS = 64
TAUS = (*range(0, 1000, 100), 950)
LAMS = tuple(i / 10 for i in range(11))
QUICK: dict[str, Any] = {"clips": 3, "decoded": 12, "taus": (0, 300, 600, 900), "lams": (0.0, 0.3, 0.5, 0.7, 1.0)}
LONG, OVERLAPS = 40, (0, 2)  # frames of the clips that need several windows
CHECKS = ("as it is", "last noise level", "frames shuffled", "no temporal layers")
DECODED = ("velocity", "colour", "position")
SIDES = ", with sides"  # of an object, in what a target is read from
IMAGE_MODEL = "image model"
FOLDS = 5  # of clips, in decoding

Source = Callable[[], Clip]


@dataclass(frozen=True)
class Setup:
    """What to run, and where its sweeps are kept, so that a run that was stopped goes on."""

    motion: DiffusionModel
    appearance: DiffusionModel
    clips: int  # of the test, in each set; and half as many of validation
    sweeps: Path
    seeds: Sequence[int] = (0,)
    decoded: int = 256  # test clips that are probed for decoding: many, as a probe has several inputs a channel
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
        return recipe.VALIDATION_SEEDS[: max(self.clips // 2, 2)]

    def sweep(self, name: str | None, clips: Sequence[Source], **grid: Any) -> xr.Dataset:
        """A sweep with the settings of propagation that suit the grid of the embedded models, kept if it has a name."""
        store = None if name is None else self.sweeps / f"{name}.zarr"
        return sweep(clips, **grid, **recipe.PROPAGATION, store=store, progress=False)


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
    ceiling: xr.Dataset  # set: the true masks in place of features
    overlap: xr.Dataset  # overlap
    checks: xr.Dataset  # check
    decoding: xr.Dataset  # block, tau, target (no clips: see `decode`)
    decoding_checks: xr.Dataset  # check, target

    def chosen(self) -> xr.Dataset:
        """Test scores of what was chosen: (set, features, ..)."""
        return _joined("set", {looks: self._chosen(looks) for looks in self.choices})

    def _chosen(self, looks: str) -> xr.Dataset:
        choice, alone = self.choices[looks], self.alone.sel(set=looks)
        kinds = {
            "appearance": alone.sel(features="appearance", **choice.appearance),
            "motion": alone.sel(features="motion", **choice.motion),
            "fused": self.fused.sel(set=looks, lam=choice.lam),
            "true masks": self.ceiling.sel(set=looks),
        }
        return _joined("features", {kind: scores.reset_coords(drop=True) for kind, scores in kinds.items()})


def run(setup: Setup) -> Found:
    """All stages of the benchmark, one after another."""
    with tqdm(total=2 * len(SETS) + 4, desc="benchmark", unit="stage", leave=False) as bar:
        choices, alone, fused, ceilings = {}, {}, {}, {}
        for looks in SETS:
            with _stage(bar, f"validation, {looks}"):
                choices[looks] = choose(setup, looks)
            with _stage(bar, f"test, {looks}"):
                clips = _clips(looks, setup.test_seeds)
                alone[looks] = _alone(setup, f"test-{looks}", clips, setup.seeds)
                fused[looks] = _fused(setup, f"test-{looks}", clips, setup.seeds, choices[looks])
                ceilings[looks] = ceiling(setup, clips, choices[looks].motion["block"])
        cell = choices[HARDEST].motion
        with _stage(bar, "overlap"):
            overlap = over_windows(setup, cell)
        with _stage(bar, "checks"):
            checked = checks(setup, cell, alone[HARDEST].sel(features="motion", **cell))
        with _stage(bar, "decoding"):
            decoded = decoding(setup)
        with _stage(bar, "checks of decoding"):
            decoded_checks = decoding_checks(setup, choices[HARDEST])
    by_set = [_joined("set", each) for each in (alone, fused, ceilings)]
    return Found(choices, by_set[0], by_set[1], by_set[2], overlap, checked, decoded, decoded_checks)


@contextmanager
def _stage(bar: Any, name: str) -> Iterator[None]:
    bar.set_description(name)
    yield
    bar.update()


def similar_clip(looks: Any, seed: int, frames: int = recipe.FRAMES, motion: Any = "cross") -> Clip:
    """Two balls that pass one another, or move otherwise, seen from the side and from above in turns."""
    view: Any = "perspective" if seed % 2 == 0 else "top"
    return similar(seed, looks=looks, motion=motion, view=view, frames=frames, size=recipe.SIZE)


# --- stages ---------------------------------------------------------------------------------------


def choose(setup: Setup, looks: str) -> Choice:
    """Best tau and block of either kind, then best lambda, on validation clips."""
    clips, name = _clips(looks, setup.validation_seeds), f"validation-{looks}"
    alone = _alone(setup, name, clips, [0])
    motion, appearance = (_best(alone.sel(features=kind), ["block", "tau"]) for kind in ("motion", "appearance"))
    fused = _fused(setup, name, clips, [0], Choice(motion, appearance, lam=0))
    return Choice(motion, appearance, **_best(fused, ["lam"]))


def ceiling(setup: Setup, clips: Sequence[Source], block: str) -> xr.Dataset:
    """What the grid of a block allows: the true masks' own maps, as shares of each cell, in place of features."""
    grid = _grids(setup.motion)[block]
    each = {}
    for clip in (make() for make in clips):
        assert clip.masks is not None
        maps = np.stack([clip.masks == number for number in range(int(clip.masks.max()) + 1)], axis=1)
        shares = F.adaptive_avg_pool2d(torch.from_numpy(maps).float(), grid)
        labels = label_clip(unit(shares), clip.masks[0], (recipe.SIZE, recipe.SIZE), **recipe.PROPAGATION)
        scores = evaluate(label_masks(labels, np.arange(len(clip)), {}), clip.masks)
        each[clip.name] = scores.reset_coords(drop=True).expand_dims(seed=list(setup.seeds))
    return _joined("clip", each)


def over_windows(setup: Setup, cell: dict[str, Any]) -> xr.Dataset:
    """Motion features on clips of several windows, by the frames that neighbours share: (overlap, ..)."""
    clips = _clips(HARDEST, setup.test_seeds, LONG)
    return _joined("overlap", {n: _motion(setup, f"overlap-{n}", clips, cell, overlap=n) for n in OVERLAPS})


def checks(setup: Setup, cell: dict[str, Any], as_it_is: xr.Dataset) -> xr.Dataset:
    """Motion features with less to tell them how things move: (check, ..).

    At the last noise level little or nothing of the clip is left, but the first frame where the model is conditioned
    on it: what is then tracked is what it expects. Then the frames in another order, and no layers that mix frames.
    """
    clips = _clips(HARDEST, setup.test_seeds)
    expected = _motion(setup, "last-noise-level", clips, cell | {"tau": setup.motion.levels - 1})
    shuffled = _joined("clip", {clip.name: _shuffled(setup, clip, cell) for clip in (make() for make in clips)})
    with without_temporal_layers(setup.motion):
        # In no store, whose attributes would name the whole model.
        alone = _motion(setup, None, clips, cell)
    each = [as_it_is.reset_coords(drop=True), expected, shuffled, alone]
    return _joined("check", dict(zip(CHECKS, each, strict=True)))


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
    return xr.concat([of_means, of_both], "target")


def decoding_checks(setup: Setup, choice: Choice) -> xr.Dataset:
    """The same with sides, of features that have less to tell how things move: (check, target).

    At the cells that were chosen for tracking: the checks of `checks`, and the image model, to which a frame is all.
    """
    seed = setup.seeds[0]
    how: dict[str, Any] = {"tau": choice.motion["tau"], "blocks": choice.motion["block"], "seed": seed}
    of_image = {"tau": choice.appearance["tau"], "blocks": choice.appearance["block"], "seed": seed}

    def alone(clip: Clip) -> xr.DataTree:
        with without_temporal_layers(setup.motion):
            return probe(setup.motion, clip, **how)

    views: list[Callable[[Clip], xr.DataTree]] = [
        partial(probe, setup.motion, **how),
        partial(probe, setup.motion, **how | {"tau": setup.motion.levels - 1}),
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
    return _joined("check", each)


# --- parts ----------------------------------------------------------------------------------------


def _clips(looks: str, seeds: Sequence[int], frames: int = recipe.FRAMES) -> list[Source]:
    return [partial(similar_clip, looks, seed, frames) for seed in seeds]


def _drifting(setup: Setup) -> Iterator[Clip]:
    """Clips to decode from."""
    return (similar_clip("distinct", seed, motion="drift") for seed in recipe.TEST_SEEDS[: setup.decoded])


def _up(model: DiffusionModel) -> list[str]:
    """Up blocks with cells of at least two pixels: finer ones take most of the time, and their window shows little."""
    return [block for block, (rows, _) in _grids(model).items() if block.startswith("up_") and 2 * rows <= model.size]


def _grids(model: DiffusionModel) -> dict[str, tuple[int, int]]:
    """Cells of each block, for the benchmark's clips as the model is given them: square, of its own size."""
    points = hook_points(model, (model.size, model.size))
    return {block: points[path].grid for block, path in block_paths(model).items()}


def _truth(clip: Clip) -> xr.Dataset:
    assert clip.objects is not None
    return clip.objects


def _alone(setup: Setup, name: str, clips: Sequence[Source], seeds: Sequence[int]) -> xr.Dataset:
    """Motion and appearance features, each alone at every tau and block: (features, block, tau, ..)."""
    found = {}
    for kind, model in (("motion", setup.motion), ("appearance", setup.appearance)):
        scores = setup.sweep(f"{name}-{kind}", clips, **{kind: model}, blocks=_up(model), tau=setup.taus, seeds=seeds)
        # Two schedules have tau in common, not sigma.
        found[kind] = scores.drop_vars(["sigma", "log_snr"])
    return _joined("features", found)


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


def _motion(
    setup: Setup, name: str | None, clips: Sequence[Source], cell: dict[str, Any], **options: Any
) -> xr.Dataset:
    """Motion features at one tau and block."""
    how = {"motion": setup.motion, "tau": cell["tau"], "blocks": cell["block"], "seeds": setup.seeds}
    return setup.sweep(name, clips, **how, **options).squeeze(["tau", "block"], drop=True)


def _shuffled(setup: Setup, clip: Clip, cell: dict[str, Any]) -> xr.Dataset:
    """Scores (seed, object, frame) of motion features where the model saw the frames in another order."""
    assert clip.masks is not None
    seen = _probe_shuffled(setup.motion, clip, tau=cell["tau"], blocks=cell["block"], seed=list(setup.seeds))
    features = seen[cell["block"]]["features"].squeeze("tau", drop=True)
    each = {}
    for seed in setup.seeds:
        labels = propagate(features.sel(seed=seed, drop=True), clip.masks[0], **recipe.PROPAGATION)
        each[seed] = evaluate(labels, clip.masks).reset_coords(drop=True)
    return _joined("seed", each)


def _probe_shuffled(model: DiffusionModel, clip: Clip, **how: Any) -> xr.DataTree:
    """Features of a clip, frame by frame, where the model saw its frames in another order."""
    rest = np.random.default_rng(_truth(clip).attrs["seed"]).permutation(np.arange(1, len(clip)))
    order = np.concatenate([[0], rest])  # the first stays: the model is conditioned on it
    seen = probe(model, Clip(clip.frames[order]), **how)

    def in_order(features: xr.Dataset) -> xr.Dataset:
        if not features:  # the root of the tree
            return features
        return features.isel(frame=np.argsort(order)).assign_coords(frame=np.arange(len(order)))

    tree: xr.DataTree = seen.map_over_datasets(in_order)
    return tree


def _best(scores: xr.Dataset, axes: list[str]) -> dict[str, Any]:
    """Where J, averaged over all else, is greatest."""
    return greatest(scores["J"].mean([d for d in scores["J"].dims if d not in axes]))


def _joined(axis: str, each: dict[Any, xr.Dataset]) -> xr.Dataset:
    along = xr.Variable(axis, list(each))
    return xr.concat(
        list(each.values()), along, join="outer", combine_attrs="drop_conflicts", coords="minimal", compat="override"
    )
