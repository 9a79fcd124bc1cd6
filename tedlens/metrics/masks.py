"""J, F and identity of masks: how well labels agree with the truth, by the definitions of DAVIS 2017.

J (region similarity) is the intersection over union of two masks; F (contour accuracy) compares their
outlines within a tolerance. The definitions are those of the DAVIS benchmark (Perazzi et al., CVPR 2016;
Pont-Tuset et al., "The 2017 DAVIS Challenge on Video Object Segmentation", arXiv:1704.00675) and of its
`davis2017-evaluation`. The code is faster because it skips work (F looks only at the box around an
object); the results are the same.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from tedlens.errors import TedlensError
from tedlens.labels import VOID
from tedlens.metrics.given import Given, Masks, matched
from tedlens.metrics.identity import association

Protocol = Literal["davis", "youtube-vos", "lvos", "all"]
Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]
Scores = npt.NDArray[np.float64]

SEEN = 20  # an object's identity is scored from so many pixels on
BOUND_TH = 0.008  # tolerance of F, as a share of the picture's diagonal (DAVIS)


class Disc(NamedTuple):
    """Disc x^2 + y^2 <= radius^2 around a pixel, row by row."""

    rows: Places  # -radius to radius
    reach: Places  # how far each row goes left and right of its middle

    @classmethod
    def of_radius(cls, radius: int) -> Disc:
        rows = range(-radius, radius + 1)
        return cls(np.array(rows), np.array([math.isqrt(radius**2 - row**2) for row in rows]))


def evaluate(
    labels: Given, truth: Given, *, protocol: Protocol = "davis", objects: xr.Dataset | None = None
) -> xr.Dataset:
    """J, F and identity of predicted labels, per object and frame.

    Parameters
    ----------
    labels
        Predicted ids: DataArray over frame, y, x or integer array (T, H, W); 0 = background. Or the result of `track`.
        An object of the truth that is missing here counts as empty.
    truth
        True ids, (T, H, W) like `labels`: 0 = background, 1..254 = objects (gaps are allowed), 255 = void. A
        frame that is void everywhere is not annotated: its scores are NaN and enter no statistics.
    protocol
        ``davis``: as the semi-supervised task of the official package (davis2017-evaluation). The first frame,
        which is given to the tracker, and the last frame are excluded. Void counts as background, so a label there is
        wrong. Deliberate differences: an id that the truth skips is no object (the package scores it as an empty
        object), objects that enter later are scored (the package ignores them), and the quarters of decay are right
        beyond 256 frames.
        ``youtube-vos``: as vos-benchmark (the program of the server is not public). Frames that are void everywhere
        are not annotated; of the annotated frames the first and the last are excluded. An object is scored from the
        first remaining frame in which the truth or the prediction contains it. So a label that comes too early costs
        score, frames after the object has left count, and an id that only the prediction has is ignored. Deliberate
        difference: void is background (in the program, 255 is an object).
        ``lvos``: as lvos-evaluation. Each object is scored strictly between its own first and last frame, which
        `objects` gives. If the object is absent there in truth and prediction, it scores 1. An id that only the
        prediction has is ignored. `summarize_lvos` computes the final figures.
        ``all``: every frame; void pixels are excluded from J and F.
    objects
        For ``lvos``: ``first_frame`` and ``last_frame`` along ``object``, as in ``Clip.objects`` of `datasets.lvos`,
        and optionally ``unseen``, which is copied to the result. Other protocols ignore it.

    Returns
    -------
    Dataset
        ``J``, ``F``, ``JF`` = (J + F) / 2 and ``identity`` over (object, frame), float64 in 0..1. In J and F, an
        object that is empty in both scores 1. ``identity`` compares the labels that lie on the true pixels of an
        object: 1 if its own label is the most frequent, 1/2 if it shares the first place, 0 if another label is more
        frequent or no label lies there; NaN where fewer than 20 pixels show.
        ``HOTA``, ``DetA``, ``AssA`` and ``IDF1`` (see `evaluate_identity`) of the clip as a whole, over all frames in
        which an object is scored. J mixes the quality of a mask with its identity; AssA measures identity alone.
        Coordinates: ``object`` holds the ids of the truth, ``frame`` the frame coordinates of the labels (0..T-1 if
        they have none). Scalar coordinates (tau, seed, ...) and attributes of `labels` are kept.
        An object that enters after the first frame is scored from the frame after its entry (``davis``) or from its
        entry (``all``) on; NaN before. For the benchmark figure of ``youtube-vos``, concatenate clips along
        ``object``, as described in `summarize`.

    Raises
    ------
    TedlensError
        For frames that only one of the two has (frames are matched by their coordinates if both have any), different
        shapes, labels with an id that the truth lacks, a truth without objects, an unknown protocol, a clip too short
        for the protocol, or, for ``lvos``, objects without their ranges or from other frames.
    """
    labels, predicted, true = matched(labels, truth)
    ids = _check(predicted, true, protocol)
    coords, attrs = _context(labels)
    numbers = np.asarray(coords.get("frame", np.arange(len(true))))
    ranges = _ranges(objects, ids, numbers, named="frame" in coords) if protocol == "lvos" else None
    annotated = (true != VOID).any((1, 2))
    if protocol != "all":
        true = np.where(annotated[:, None, None] & (true == VOID), 0, true).astype(np.uint8)
    kept = scored_frames(len(true), protocol)
    j, f, identity = np.empty((3, len(ids), len(kept)))
    # np.linalg.norm as in DAVIS: another rounding of the diagonal could change the result of ceil().
    disc = Disc.of_radius(int(np.ceil(BOUND_TH * np.linalg.norm(true.shape[1:]))))
    for k, t in enumerate(kept):
        # Plain ints: comparisons stay in uint8.
        j[:, k], f[:, k], identity[:, k] = _scores(predicted[t], true[t], ids.tolist(), disc)
    if ranges is None:
        unasked = _unasked(predicted, true, ids, kept, annotated, protocol)
    else:
        unasked = ~(ranges & annotated)[:, kept]
    for scores in (j, f, identity):
        scores[unasked] = np.nan
    coords |= {"object": ids, "frame": numbers[kept]}
    if ranges is not None and objects is not None and "unseen" in objects:
        coords["unseen"] = ("object", objects["unseen"].sel(object=ids).values)
    dims = ("object", "frame")
    asked = kept[~unasked.all(0)]
    return xr.Dataset(
        {"J": (dims, j), "F": (dims, f), "JF": (dims, (j + f) / 2), "identity": (dims, identity)}
        | {name: ((), value) for name, value in association(predicted[asked], true[asked]).items()},
        coords,
        attrs | {"metric": "DAVIS 2017 J and F", "protocol": protocol, "bound_th": BOUND_TH},
    )


def summarize(scores: xr.Dataset) -> xr.Dataset:
    """Mean, recall and decay of J and F, averaged over objects.

    Parameters
    ----------
    scores
        Results of `evaluate`: ``J`` and ``F`` over object and frame. Further dimensions (clip, tau,
        seed, lam, block, ...) are kept; NaN, where a clip has fewer objects or frames, is skipped.

    Returns
    -------
    Dataset
        ``J_mean``, ``J_recall``, ``J_decay``, ``F_mean``, ``F_recall``, ``F_decay`` and ``JF_mean`` =
        (J_mean + F_mean) / 2, without the dimensions object and frame. Per object: mean over frames; recall, the
        share of frames with a score above 0.5; decay, the mean of the first quarter of the frames minus the mean of
        the last (more is worse). NaN if there is nothing to score. Attributes are kept.

    Raises
    ------
    TedlensError
        If J or F, or one of their dimensions object and frame, is missing.

    Notes
    -----
    DAVIS averages over the objects of all clips at once, so a clip with more objects has more weight. To get that
    figure, concatenate the scores of the clips along ``object``:
    ``summarize(xr.concat(all_scores, "object", join="outer", data_vars="all"))``.
    If you concatenate along ``clip``, each clip gets its own figures, and their mean gives each clip the same weight.
    """
    summary: dict[Hashable, xr.DataArray] = {}
    for name in ("J", "F"):
        if name not in scores or not {"object", "frame"} <= set(scores[name].dims):
            raise TedlensError(f"The scores hold no {name} over object and frame; give what evaluate() returns.")
        figures = xr.apply_ufunc(
            _statistics,
            scores[name].compute(),
            input_core_dims=[["frame"]],
            output_core_dims=[[], [], []],
            output_dtypes=[np.float64] * 3,
            vectorize=True,
        )
        for figure, per_object in zip(("mean", "recall", "decay"), figures, strict=True):
            summary[f"{name}_{figure}"] = per_object.mean("object")
    summary["JF_mean"] = (summary["J_mean"] + summary["F_mean"]) / 2
    return xr.Dataset(summary, attrs=scores.attrs)


def scored_frames(frames: int, protocol: Protocol) -> npt.NDArray[np.intp]:
    """Indices of the frames that the protocol may score, in a clip of `frames` frames."""
    return np.arange(frames)[slice(1, -1) if protocol == "davis" else slice(None)]


def _ranges(objects: xr.Dataset | None, ids: npt.NDArray[np.intp], frames: npt.NDArray[Any], *, named: bool) -> Mask:
    """Frames (object, frame) strictly between the first and the last of each object.

    `named`: the labels have frame numbers; otherwise `frames` are positions.
    """
    needed = {"first_frame", "last_frame"}
    if objects is None or not needed <= set(objects.data_vars) or "object" not in objects.coords:
        raise TedlensError(
            "The protocol lvos scores each object between its own first and last frame, and they are not given; "
            "give objects=clip.objects of a clip of tl.datasets.lvos."
        )
    if missing := sorted(set(ids.tolist()) - set(objects["object"].values.tolist())):
        raise TedlensError(
            f"objects say nothing of the objects {', '.join(map(str, missing))}, which the truth has; "
            "give those of the same clip."
        )
    if "frame" in objects.indexes:
        if objects.sizes["frame"] == len(frames):
            frames = objects["frame"].values  # part of a clip: `objects` keep the numbers of the whole clip
        elif not named:
            raise TedlensError(
                f"labels have {len(frames)} frames, without their numbers, and objects {objects.sizes['frame']}; "
                "give objects of the same frames, as those of clip[2:10] are, or labels with the coordinate frame."
            )
    first, last = (objects[name].sel(object=ids).values[:, None] for name in ("first_frame", "last_frame"))
    between: Mask = (frames > first) & (frames < last)
    return between


def summarize_lvos(scores: xr.Dataset) -> xr.Dataset:
    """J, F and V of LVOS, as in lvos-evaluation: for seen and unseen categories, and the means of the two.

    Parameters
    ----------
    scores
        Results of ``evaluate(.., protocol="lvos")``, those of several clips concatenated along ``object``, with the
        coordinate ``unseen``.

    Returns
    -------
    Dataset
        ``J``, ``F`` and ``V`` over ``categories`` (seen, unseen), means over the objects of all clips; and the
        figures of the benchmark: ``J_mean``, ``F_mean`` and ``V_mean``, which weigh seen and unseen equally, and
        ``JF_mean``. V measures how much the mean of J and F varies over frames: the square root of its variance, which
        is first rounded to four decimals, as in lvos-evaluation. NaN if a category has no object. An object without a
        scored frame enters no mean (lvos-evaluation fails there with a division by zero).

    Raises
    ------
    TedlensError
        For scores without the coordinate ``unseen``.
    """
    if "unseen" not in scores.coords:
        raise TedlensError(
            "The scores do not say which objects are of unseen categories; put unseen_videos.txt of lvos-evaluation "
            "beside the data, and evaluate with objects=clip.objects."
        )
    each = scores[["J", "F"]].mean("frame")
    each["V"] = scores["JF"].var("frame").round(4) ** 0.5
    kinds = {"seen": ~scores["unseen"].astype(bool), "unseen": scores["unseen"].astype(bool)}
    found = xr.concat([each.where(kind).mean("object") for kind in kinds.values()], xr.Variable("categories", [*kinds]))
    means = {f"{name}_mean": found[name].mean("categories", skipna=False) for name in ("J", "F", "V")}
    return found.assign(means | {"JF_mean": (means["J_mean"] + means["F_mean"]) / 2})


def _unasked(
    predicted: Masks,
    true: Masks,
    ids: npt.NDArray[np.intp],
    kept: npt.NDArray[np.intp],
    annotated: Mask,
    protocol: Protocol,
) -> Mask:
    """Kept frames (object, frame) in which an object is not scored."""
    if protocol == "youtube-vos":
        asked = np.zeros(len(true), np.bool_)
        asked[np.flatnonzero(annotated)[1:-1]] = True
        seen = np.array([((true == i) | (predicted == i)).any((1, 2)) & asked for i in ids])
        # An object that the truth has only in excluded frames is not scored at all.
        inside = np.array([(true[asked] == i).any() for i in ids])
        begun = np.logical_or.accumulate(seen, axis=1) & inside[:, None]
        out: Mask = ~(begun & asked)[:, kept]
        return out
    # An object that enters later is given to the tracker at its entry, and does not exist before.
    entry = np.array([int((true == number).any((1, 2)).argmax()) for number in ids])
    before: Mask = kept < (entry + (entry > 0 if protocol == "davis" else 0))[:, None]
    return before


# --- what is given --------------------------------------------------------------------------------


def _ids(masks: Masks) -> npt.NDArray[np.intp]:
    """All ids in masks, in order."""
    flat = np.ascontiguousarray(masks).ravel()
    # A new id appears where pixels change: search eight pixels at a time, then single pixels within those.
    whole = len(flat) // 8 * 8
    pixels = np.concatenate([flat[:8], _changed(flat[:whole].view(np.uint64)).view(np.uint8), flat[whole:]])
    seen = np.zeros(256, np.bool_)
    seen[pixels[0]] = True
    seen[_changed(pixels)] = True
    return np.flatnonzero(seen)


def _changed(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The values that differ from the previous value."""
    return values[1:].take(np.flatnonzero(values[1:] != values[:-1]))


def check_truth(true: Masks, protocol: Protocol) -> npt.NDArray[np.intp]:
    """Ids of the objects in true masks (T, H, W); checks first that the protocol can score them."""
    if protocol not in get_args(Protocol):
        known = ", ".join(get_args(Protocol))
        raise TedlensError(f"protocol={protocol!r} is not known to evaluate(); choose one of {known}.")
    if protocol == "davis" and len(true) < 3:
        raise TedlensError(
            f"protocol='davis' leaves out the first and the last of {len(true)} frames, so none is left;"
            " give at least 3 frames or use protocol='all'."
        )
    if protocol == "youtube-vos" and (count := int((true != VOID).any((1, 2)).sum())) < 3:
        raise TedlensError(
            f"protocol='youtube-vos' leaves out the first and the last of {count} annotated frames, so none is left;"
            " give masks of at least 3 frames or use protocol='all'."
        )
    found = _ids(true)
    ids: npt.NDArray[np.intp] = found[(found != 0) & (found != VOID)]
    if len(ids) == 0:
        raise TedlensError("The truth holds no object (an id from 1 to 254); give masks that show at least one.")
    return ids


def _check(predicted: Masks, true: Masks, protocol: Protocol) -> npt.NDArray[np.intp]:
    """Object ids of the truth; checks first that labels, truth and protocol fit together."""
    ids = check_truth(true, protocol)
    strange = np.setdiff1d(_ids(predicted), [0, *ids])
    if len(strange) and protocol not in ("youtube-vos", "lvos"):
        raise TedlensError(
            f"labels hold the id {strange[0]}, which the truth does not (its objects: {', '.join(map(str, ids))});"
            " set such pixels to 0 or to the object they mean."
        )
    return ids


def _context(labels: xr.DataArray | npt.ArrayLike) -> tuple[dict[Hashable, Any], dict[Any, Any]]:
    """What scores copy from labels: frame numbers, scalar coordinates, attributes."""
    if not isinstance(labels, xr.DataArray):
        return {}, {}
    coords: dict[Hashable, Any] = {name: c.variable for name, c in labels.coords.items() if c.ndim == 0}
    if "frame" in labels.coords:
        coords["frame"] = labels.coords["frame"].values
    return coords, dict(labels.attrs)


# --- one frame ------------------------------------------------------------------------------------


def _scores(predicted: Masks, true: Masks, ids: list[int], disc: Disc) -> Scores:
    """J, F and identity (3, object) of every object in ids of one frame (H, W)."""
    start, length, in_predicted, in_true = _runs(predicted, true)
    void = in_true == VOID
    if void.all():
        return np.full((3, len(ids)), np.nan)
    in_predicted[void] = 0
    scores = np.ones((3, len(ids)))
    scores[2] = np.nan
    for i, number in enumerate(ids):
        here, there = in_predicted == number, in_true == number
        either = here | there
        if not either.any():
            continue
        if length[there].sum() >= SEEN:
            scores[2, i] = _first_place(np.bincount(in_predicted[there], length[there], 256).astype(float), number)
        scores[0, i] = length[here & there].sum() / length[either].sum()
        # All boundary pixels lie in the box around both masks plus one pixel: a boundary can lie above and left of
        # its mask, and below and right of it the box must show that the mask ends.
        row, left = np.divmod(start[either], true.shape[1])
        right = left + length[either]
        box = slice(max(row[0] - 1, 0), row[-1] + 2), slice(max(left.min() - 1, 0), right.max() + 1)
        found = predicted[box] == number
        if void.any():
            found &= true[box] != VOID
        scores[1, i] = _f_measure(_boundary(found), _boundary(true[box] == number), disc)
    return scores


def _first_place(votes: Scores, number: int) -> float:
    """1 if `number` has the most votes (array by id, background ignored), 1/2 if it shares the first place, else 0."""
    votes[0] = 0
    if votes[number] == 0 or votes[number] < votes.max():
        return 0.0
    return 1.0 if (votes == votes[number]).sum() == 1 else 0.5


def _runs(predicted: Masks, true: Masks) -> tuple[Places, Places, Masks, Masks]:
    """A frame (H, W) as runs of pixels, each within one row, that have the same two ids.

    Returns the start in the flat frame, the length, the predicted ids and the true ids.
    """
    flat = predicted.ravel(), true.ravel()
    begins = np.zeros(true.size, np.bool_)
    begins[:: true.shape[1]] = True
    for ids in flat:
        begins[1:] |= ids[1:] != ids[:-1]
    start = np.flatnonzero(begins)
    return start, np.diff(start, append=true.size), flat[0][start], flat[1][start]


def _boundary(mask: Mask) -> Mask:
    """Pixels that differ from their right, lower or lower right neighbour, where there is one.

    So the last row is compared only to the right, the last column only downwards, and the last pixel is never a
    boundary pixel. These are the special cases of `_seg2bmap` in DAVIS.
    """
    height, width = mask.shape
    # A neighbour beyond the last row or column repeats it, so it never counts as different.
    room = np.empty((height + 1, width + 1), np.bool_)
    room[:height, :width] = mask
    room[height, :width] = mask[-1]
    room[:, width] = room[:, width - 1]
    # Compared as one flat row, which is twice as fast; the column that wraps around is cut off below.
    flat, count = room.ravel(), height * (width + 1) - 1
    edge = np.zeros((height, width + 1), np.bool_)
    for neighbour in (1, width + 1, width + 2):
        edge.ravel()[:count] |= flat[:count] != flat[neighbour : neighbour + count]
    return edge[:, :width]


def _f_measure(predicted: Mask, true: Mask, disc: Disc) -> float:
    """F of two boundaries (H, W): a pixel is matched if a pixel of the other boundary lies within the disc."""
    # Positions in a picture with a margin as wide as the disc, so that no row of the disc wraps into the next row.
    margin = len(disc.rows) // 2 + 1
    height, width = (side + 2 * margin for side in true.shape)
    places = []
    for boundary in (predicted, true):
        rows, columns = np.divmod(np.flatnonzero(boundary), true.shape[1])
        places.append((rows + margin) * width + columns + margin)
    found, wanted = places
    if not len(found) or not len(wanted):
        # An empty boundary against one that is not has precision 1 and recall 0, or the reverse.
        return float(len(found) == len(wanted))
    shape = height, width
    precision, recall = _matched(found, wanted, disc, shape), _matched(wanted, found, disc, shape)
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def _matched(pixels: Places, others: Places, disc: Disc, shape: tuple[int, int]) -> float:
    """Share of `pixels` that have one of `others` within the disc around them.

    Both are sorted positions in a flat picture of `shape`. DAVIS dilates `others` by the disc. Here each
    row of the disc is looked up in cumulative counts of `others`, for these pixels only.
    """
    height, width = shape
    steps = np.diff(np.concatenate([[0], others, [height * width]]))
    count = np.repeat(np.arange(len(others) + 1, dtype=np.int32), steps)
    middle = disc.rows * width
    before, last = ((middle + side)[:, None] + pixels for side in (-disc.reach - 1, disc.reach))
    hit = (count.take(last) > count.take(before)).any(axis=0)
    return np.count_nonzero(hit) / len(pixels)


# --- one object -----------------------------------------------------------------------------------


def _statistics(values: Scores) -> tuple[float, float, float]:
    """Mean, recall and decay of the scores (frame,) of one object, without NaN."""
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, np.nan, np.nan
    # Quarters share their end frames. DAVIS casts these ends to uint8, which overflows in clips of more than
    # 256 scored frames; here they are ordinary integers.
    ends = (np.round(np.linspace(1, len(values), 5) + 1e-10) - 1).astype(int)
    first, last = values[ends[0] : ends[1] + 1], values[ends[3] : ends[4] + 1]
    return float(values.mean()), float((values > 0.5).mean()), float(first.mean() - last.mean())
