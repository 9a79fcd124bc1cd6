"""What can be read out where: linear probes of an object's motion, place and looks from its features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tedlens.align import check_finite, listed
from tedlens.analysis.features import blocks_of, check_clip
from tedlens.clip import Clip
from tedlens.errors import TedlensError

Array = npt.NDArray[Any]

# What each ridge target is called in `Clip.objects`.
REGRESSED = {"velocity": "velocity", "position": "centre", "colour": "colour"}
TARGETS = (*REGRESSED, "identity", "object")
BACKGROUND = 0  # its place on the axis `object`
INNER_FOLDS = 3  # of the training clips, to choose how strongly a probe is regularised
RIDGE = {"ridge__alpha": [1.0, 1e2, 1e4]}
LOGISTIC = {"logisticregression__C": [1e-4, 1e-2, 1.0]}


def object_features(
    features: xr.DataTree | xr.DataArray, clip: Clip, *, sides: bool = False
) -> xr.DataTree | xr.DataArray:
    """Mean feature of each object in each frame: small enough to keep for many clips.

    Parameters
    ----------
    features
        From `probe`: a tree, or one block's features (tau, seed, frame, channel, y, x).
    clip
        The clip that was probed, with masks.
    sides
        Also how an object's sides differ: after its mean, the mean of its lower half less that of its upper
        half, and of its right half less its left, three times as many channels in all. A feature that
        answers to the edge in front and to the one behind, with opposite signs, cancels in the mean.

    Returns
    -------
    DataArray (tau, seed, object, frame, channel), or a DataTree of such as ``features``, one node a block.
        An object's mean is over its pixels, each having the features of the cell it lies in; NaN where
        it does not show, and its sides where it is but one pixel high or wide. The halves are those beyond
        the centre of what shows of it; the coordinate ``pooling`` along channel says which is which. Object 0
        is the background: the mean over the objects' mirror images, left to right, as far as no object is
        there. So it is as large as they are, and no nearer the border.

    Raises
    ------
    TedlensError
        For a clip without masks or of other frames, or features with other axes.
    """
    if isinstance(features, xr.DataTree):
        every = blocks_of(features).items()
        nodes = {name: _pooled(each, clip, sides).to_dataset(name="features") for name, each in every}
        tree = xr.DataTree.from_dict(nodes)
        tree.attrs = features.attrs
        return tree
    return _pooled(features, clip, sides)


def _pooled(features: xr.DataArray, clip: Clip, sides: bool) -> xr.DataArray:
    """`object_features` of one block."""
    for axis in ("tau", "seed"):
        if axis in features.coords and axis not in features.dims:
            features = features.expand_dims(axis)
    axes = ("tau", "seed", "frame", "channel", "y", "x")
    if set(features.dims) != set(axes):
        raise TedlensError(f"The features have axes {', '.join(map(str, features.dims))}; give {', '.join(axes)}.")
    ids, regions = _regions(clip)
    check_clip(features, clip)
    weights = _pooling_weights(regions, (features.sizes["y"], features.sizes["x"]), sides)
    features = features.transpose(*axes)
    channels = features.sizes["channel"]
    found = np.empty((*features.shape[:2], *regions.shape[:2], len(weights), channels), np.float32)
    for tau, seed in np.ndindex(found.shape[:2]):  # one at a time: a store may be larger than memory
        each = features[tau, seed].values
        check_finite(each, features.attrs, "features")
        for number, of_cells in enumerate(weights.values()):
            found[tau, seed, ..., number, :] = np.einsum("fcyx,ofyx->ofc", each, of_cells, optimize=True)
    kept = {name: c for name, c in features.coords.items() if not {"channel", "y", "x"} & set(c.dims)}
    return xr.DataArray(
        found.reshape(*found.shape[:-2], -1),
        dims=("tau", "seed", "object", "frame", "channel"),
        coords={**kept, "object": ids, "pooling": ("channel", np.repeat(list(weights), channels))},
        attrs=features.attrs,
    )


def decode(
    features: Iterable[xr.DataTree | xr.DataArray],
    objects: Iterable[xr.Dataset],
    *,
    targets: Sequence[str] = TARGETS,
    folds: int = 5,
) -> xr.Dataset:
    """How well a linear probe reads each target from an object's mean feature, on clips it was not fitted to.

    Parameters
    ----------
    features
        For each clip what `object_features` gives. Noise seeds are samples.
    objects
        For each clip the truth, `Clip.objects`.
    targets
        - ``"velocity"``, ``"position"``, ``"colour"``: ridge regression to pixels a frame, to pixels, and to
          red, green and blue.
        - ``"identity"``: logistic regression from the absolute difference of two mean features, half a clip
          apart, to whether they are of one object (what an object is called means nothing in another
          clip). Only clips of several objects count.
        - ``"object"``: logistic regression to whether it is an object or the background.
    folds
        Of the clips. Features are standardised, and the strength of regularisation is chosen by clip
        again, within the training clips alone.

    Returns
    -------
    Dataset over block, tau and target
        ``score``, the mean over folds, and ``error``, the standard error of that mean. For ridge the score
        is R^2 against predicting the mean of the training clips (1 = exact, 0 = no better than that), of
        squared errors summed over components and divided, in every fold, by those of all folds; for
        logistic it is balanced accuracy (chance = 0.5). The coordinate ``measure`` (target) says which.

    Raises
    ------
    TedlensError
        For too few clips, unknown targets, or clips, blocks and taus that do not fit one another.
    """
    every, truths = [blocks_of(each) for each in features], list(objects)
    _check(every, truths, targets)
    cells = []
    for block, of_first in every[0].items():
        for tau in of_first["tau"].values:
            clips = [_Clip(each[block].sel(tau=tau), truth) for each, truth in zip(every, truths, strict=True)]
            scores, errors = zip(*(_probe(clips, target, folds) for target in targets), strict=True)
            cell = xr.Dataset({"score": ("target", list(scores)), "error": ("target", list(errors))})
            cells.append(cell.expand_dims(block=[block], tau=[tau]))
    found = xr.combine_by_coords(cells)
    assert isinstance(found, xr.Dataset)
    first = next(iter(every[0].values()))
    along_tau = {name: c for name, c in first.coords.items() if c.dims == ("tau",)}
    measures = ["R2" if target in REGRESSED else "accuracy" for target in targets]
    return (
        found.reindex(block=list(every[0]), tau=first["tau"])
        .assign_coords({**along_tau, "target": list(targets), "measure": ("target", measures)})
        .assign_attrs(clips=len(truths), folds=folds)
    )


# --- regions of the clip --------------------------------------------------------------------------


def _regions(clip: Clip) -> tuple[list[int], npt.NDArray[np.bool_]]:
    """Ids, background first, and where each is: (object, frame, H, W)."""
    if clip.masks is None or not clip.object_ids:
        raise TedlensError(
            f"Clip {clip.name!r} has no masks of objects, so their features are unknown; give a clip with masks."
        )
    objects = np.stack([clip.masks == i for i in clip.object_ids])
    background = objects[..., ::-1].any(0) & (clip.masks == 0)
    return [BACKGROUND, *clip.object_ids], np.concatenate([background[None], objects])


def _pooling_weights(regions: npt.NDArray[np.bool_], grid: tuple[int, int], sides: bool) -> dict[str, Array]:
    """Weights of cells (object, frame, y, x) by what of each region they give: its mean, and differences of halves."""
    weights = {"mean": _cell_weights(regions, grid)}
    if not sides:
        return weights
    ys, xs = np.ogrid[: regions.shape[-2], : regions.shape[-1]]
    for name, place in (("lower - upper", ys), ("right - left", xs)):
        with np.errstate(invalid="ignore"):
            centre = (regions * place).sum((-2, -1), keepdims=True) / regions.sum((-2, -1), keepdims=True)
        beyond, before = regions & (place > centre), regions & (place < centre)
        weights[name] = _cell_weights(beyond, grid) - _cell_weights(before, grid)
    return weights


def _cell_weights(regions: npt.NDArray[np.bool_], grid: tuple[int, int]) -> Array:
    """Share of each region's pixels that lie in each cell: (object, frame, y, x), NaN where it has none."""
    rows, columns = (
        np.floor((np.arange(pixels) + 0.5) * cells / pixels).astype(int)[None] == np.arange(cells)[:, None]
        for cells, pixels in zip(grid, regions.shape[-2:], strict=True)
    )
    counts = rows.astype(np.float32) @ regions.astype(np.float32) @ columns.T.astype(np.float32)
    with np.errstate(invalid="ignore"):
        weights: Array = counts / counts.sum((-2, -1), keepdims=True)
    return weights


# --- samples --------------------------------------------------------------------------------------


class _Clip(NamedTuple):
    """One clip at one block and tau."""

    features: xr.DataArray  # seed, object, frame, channel
    truth: xr.Dataset

    def samples(self, target: str) -> tuple[Array, Array]:
        """Inputs (sample, channel) and what to read from them: (sample, component), or (sample,) of bool."""
        features = self.features.transpose("seed", "object", "frame", "channel")
        objects = features.sel(object=features["object"] != BACKGROUND)
        if target == "identity":
            x, y = _pairs(objects.values)
        elif target == "object":
            x, y = (
                features.values,
                np.broadcast_to(features["object"].values[:, None] != BACKGROUND, features.shape[:3]),
            )
        else:
            truth = self.truth[REGRESSED[target]].sel(object=objects["object"])
            if "frame" not in truth.dims:
                truth = truth.expand_dims(frame=objects.sizes["frame"])
            y = truth.transpose("object", "frame", ...).values
            x, y = objects.values, np.broadcast_to(y, (objects.sizes["seed"], *y.shape))
        x, y = x.reshape(-1, x.shape[-1]), y.reshape(x[..., 0].size, *y.shape[x.ndim - 1 :])
        shown = ~np.isnan(x).any(1)
        return x[shown], y[shown]


def _pairs(features: Array) -> tuple[Array, Array]:
    """Differences (seed, one, other, frame, channel) of features half a clip apart, and whether one is the other."""
    seeds, objects, frames, channels = features.shape
    half = frames // 2
    early, late = features[:, :, :half], features[:, :, half : 2 * half]
    shape = (seeds, objects, objects, half)
    if objects < 2:
        return np.empty((0, channels), features.dtype), np.empty(0, bool)
    same = np.eye(objects, dtype=bool)[None, :, :, None]
    return np.abs(early[:, :, None] - late[:, None]), np.broadcast_to(same, shape)


# --- probes ---------------------------------------------------------------------------------------


def _probe(clips: Sequence[_Clip], target: str, folds: int) -> tuple[float, float]:
    """Score of a target on held-out clips, mean over folds, and its standard error."""
    samples = [clip.samples(target) for clip in clips]
    groups = np.repeat(np.arange(len(clips)), [len(y) for _, y in samples])
    _check_clips(len(np.unique(groups)), target, folds)
    x, y = (np.concatenate(parts) for parts in zip(*(s for s in samples if len(s[1])), strict=True))
    splits = list(GroupKFold(folds).split(x, groups=groups))
    read = _regressed if target in REGRESSED else _classified
    each = np.array(read(x, y, groups, splits))
    return float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each)))


def _regressed(x: Array, y: Array, groups: Array, splits: Sequence[tuple[Array, Array]]) -> list[float]:
    """R^2 of each fold, with the mean over folds of what there is to explain as the common denominator."""
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Ridge()), RIDGE, scoring="neg_mean_squared_error", cv=GroupKFold(INNER_FOLDS)
    )
    left, all_of_it = [], []
    for train, test in splits:
        search.fit(x[train], y[train], groups=groups[train])
        left.append(np.square(y[test] - search.predict(x[test])).sum(1).mean())
        all_of_it.append(np.square(y[test] - y[train].mean(0)).sum(1).mean())
    return [1 - one / np.mean(all_of_it) for one in left]


def _classified(x: Array, y: Array, groups: Array, splits: Sequence[tuple[Array, Array]]) -> list[float]:
    """Balanced accuracy of each fold."""
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)),
        LOGISTIC,
        scoring="balanced_accuracy",
        cv=GroupKFold(INNER_FOLDS),
    )
    return [
        balanced_accuracy_score(y[test], search.fit(x[train], y[train], groups=groups[train]).predict(x[test]))
        for train, test in splits
    ]


# --- what is given --------------------------------------------------------------------------------


def _check(every: Sequence[dict[str, xr.DataArray]], truths: Sequence[xr.Dataset], targets: Sequence[str]) -> None:
    unknown = [target for target in targets if target not in TARGETS]
    if unknown or not targets:
        raise TedlensError(f"targets={list(targets)} are not all known; choose from {', '.join(TARGETS)}.")
    if len(every) != len(truths) or not every:
        raise TedlensError(
            f"There are features of {len(every)} clips and truths of {len(truths)}; give one of each a clip."
        )
    for number, (blocks, truth) in enumerate(zip(every, truths, strict=True)):
        if blocks.keys() != every[0].keys():
            raise TedlensError(
                f"Clip {number} has the blocks {', '.join(blocks)} and clip 0 {', '.join(every[0])}; "
                "probe all clips alike."
            )
        for name, features in blocks.items():
            if "object" not in features.dims or "y" in features.dims:
                raise TedlensError(
                    f"The features of clip {number} have axes {', '.join(map(str, features.dims))}; "
                    "give what object_features() returns."
                )
            if not np.array_equal(features["tau"], every[0][name]["tau"]):
                raise TedlensError(f"Clip {number} was probed at other taus than clip 0; probe all clips alike.")
            untold = [target for target in targets if target in REGRESSED and REGRESSED[target] not in (truth or ())]
            if truth is None or untold:
                raise TedlensError(
                    f"The truth of clip {number} does not tell {', '.join(untold) or 'of its objects'}; give the "
                    "`Clip.objects` of clips that have one, such as those of tl.datasets.similar, or other targets."
                )
            if truth.sizes.get("frame", -1) != features.sizes["frame"]:
                raise TedlensError(
                    f"Clip {number} has features of {features.sizes['frame']} frames and a truth of "
                    f"{truth.sizes.get('frame', 0)}; give the truth of the clip that was probed."
                )
            if not _same_frames(features, truth):
                raise TedlensError(
                    f"Clip {number} has features of frames {listed(features['frame'].values)} and a truth of "
                    f"{listed(truth['frame'].values)}; give both of the same frames."
                )


def _same_frames(features: xr.DataArray, truth: xr.Dataset) -> bool:
    """Whether both have the same frames by their numbers: features count from 0 where the clip that was probed starts,
    and the truth of a part of a clip keeps the numbers of the whole.
    """
    if "frame" not in features.coords or "frame" not in truth.coords:
        return True
    seen, known = features["frame"].values, truth["frame"].values
    return np.array_equal(seen, known) or np.array_equal(seen, known - known[0])


def _check_clips(clips: int, target: str, folds: int) -> None:
    """Enough clips for the folds, and in each fold enough to choose the regularisation."""
    if folds < 2 or clips < folds or clips - -(-clips // folds) < INNER_FOLDS:
        raise TedlensError(
            f"folds={folds} does not fit {clips} clips that show {target!r}; give 2 folds to as many as clips, and so "
            f"many clips that {INNER_FOLDS} lie outside of each fold: 6 for 2 folds, 5 for 3, 4 for 4."
        )
