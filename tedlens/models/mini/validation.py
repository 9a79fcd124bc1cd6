"""What a video model is trained for, measured while it trains: does it tell by motion who is who?"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from tedlens.analysis import decode, object_features
from tedlens.clip import Clip
from tedlens.datasets import similar
from tedlens.models.base import DiffusionModel
from tedlens.models.mini import recipe
from tedlens.probing import probe
from tedlens.ted import propagate

TAUS = (100, 400, 600, 800)
CROSSING, DRIFTING = 12, 24  # validation clips
END = 3  # last frames, after the objects have passed


def motion_measures(
    adapter: type[DiffusionModel], pipeline: Any, blocks: Sequence[str] = ("up_2", "up_3")
) -> dict[str, Any]:
    """By block, at each of TAUS: identity at the end of clips from above, and R^2 of velocity on clips that drift.

    The pipeline is copied: an adapter takes the gradients off the model that it is given.
    """
    model = adapter(copy.deepcopy(pipeline), name="in training", size=recipe.SIZE)
    return {"identity": identities(model, blocks), "velocity": velocities(model, blocks)}


def identities(model: DiffusionModel, blocks: Sequence[str]) -> dict[str, list[float]]:
    """Share of objects whose own label is the most frequent on their true mask, once they have passed."""
    found: dict[str, list[list[float]]] = {block: [] for block in blocks}
    for clip in _clips(CROSSING, motion="cross"):
        assert clip.masks is not None
        for block, features in _features(model, clip, blocks).items():
            each = [propagate(features.sel(tau=tau).isel(seed=0), clip.masks[0]) for tau in TAUS]
            found[block].append([_kept(labels.values[-END:], clip.masks[-END:]) for labels in each])
    means = {block: np.nanmean(np.array(each), axis=0) for block, each in found.items()}
    return {block: [round(float(v), 3) for v in each] for block, each in means.items()}


def _kept(labels: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    """Share of objects and frames in which the own label is ahead of the other's; NaN where none is in sight."""
    here = [(labels[truth == i], i) for i in (1, 2) if (truth == i).sum() >= 20 * len(truth)]
    return float(np.mean([(seen == i).sum() > (seen == 3 - i).sum() for seen, i in here])) if here else float("nan")


def velocities(model: DiffusionModel, blocks: Sequence[str]) -> dict[str, list[float]]:
    """R^2 of ridge regression from an object's features and how its sides differ, on clips of one look.

    What answers to a bright edge that moves right answers with the other sign to a dark one: over many looks a linear
    probe averages that away.
    """
    features: dict[str, list[xr.DataArray]] = {block: [] for block in blocks}
    truths: list[xr.Dataset] = []
    for clip in _clips(DRIFTING, motion="drift", objects=3, scale=0.8, look=0):
        assert clip.objects is not None
        truths.append(clip.objects)
        for block, each in _features(model, clip, blocks).items():
            pooled = object_features(each, clip, sides=True)
            assert isinstance(pooled, xr.DataArray)
            features[block].append(pooled)
    scores = {block: decode(each, truths, targets=["velocity"])["score"] for block, each in features.items()}
    return {block: np.round(each.values.ravel(), 3).tolist() for block, each in scores.items()}


def _clips(count: int, **how: Any) -> Iterator[Clip]:
    for seed in recipe.VALIDATION_SEEDS[5000 : 5000 + count]:
        yield similar(seed, view="top", size=recipe.SIZE, **how)


def _features(model: DiffusionModel, clip: Clip, blocks: Sequence[str]) -> dict[str, xr.DataArray]:
    feats = probe(model, clip, tau=list(TAUS), blocks=list(blocks), seed=0)
    return {block: feats[block].to_dataset()["features"] for block in blocks}
