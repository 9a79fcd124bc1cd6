"""Identity over time: HOTA with its association, ID switches and IDF1 of label maps.

HOTA (Luiten et al., IJCV 2021), Identity (Ristani et al., 2016) and CLEAR MOT (Bernardin and Stiefelhagen, 2008) by
the definitions of TrackEval: a detection is all pixels of an id in a frame, similarity is intersection over union, and
the values of ids are never compared. Scores of several clips come from summed counts, never from a mean over clips.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.optimize import linear_sum_assignment

from tedlens.labels import VOID, Labels, ids_in
from tedlens.metrics.given import Given, Masks, matched

ALPHAS = np.arange(0.05, 0.99, 0.05)  # TrackEval's own, of which some come out slightly too large
MATCH = 0.5  # intersection over union from which Identity and CLEAR count a match
EPSILON = float(np.finfo(np.float64).eps)
SAME = 1000  # CLEAR: added to the score of a pair that was matched in the previous frame
COUNTS = ("TP", "FN", "FP", "Ass_sum", "AssRe_sum", "AssPr_sum", "Loc_sum")  # over alpha; sums are over matches
IN_SHORT = ("HOTA", "DetA", "AssA", "IDF1")  # reported together with J and F
WHOLE = ("IDTP", "IDFN", "IDFP", "CLR_TP", "CLR_FN", "CLR_FP", "IDSW", "Frag", "MT", "PT", "ML", "iou")

Values = npt.NDArray[np.float64]


def evaluate_identity(labels: Given, truth: Given) -> xr.Dataset:
    """Association of labels with true objects over time, on all given frames.

    A tracker that is given the first mask gets that frame for free; to exclude it, pass only the frames from 1 on.

    Parameters
    ----------
    labels, truth
        Ids over (frame, y, x); 0 is background. 255 in the truth counts as background, too.

    Returns
    -------
    Dataset
        Over ``alpha``, the 19 thresholds of intersection over union: ``HOTA``, ``DetA``, ``AssA``, ``LocA``, ``DetRe``,
        ``DetPr``, ``AssRe``, ``AssPr``; the published scores are their means over alpha. Without alpha: ``IDF1``,
        ``IDP``, ``IDR``, ``MOTA``, ``MODA``, ``MOTP``, the numbers ``IDSW`` (ID switches), ``Frag``, ``MT``, ``PT``,
        ``ML``, and the counts that `combine_identity` sums. Scores are fractions of 1. LocA is 1 where nothing is
        matched.

    Raises
    ------
    TedlensError
        For different shapes or ids out of range.
    """
    _, predicted, true = matched(labels, truth)
    counts = _counts(predicted, true)
    axes = {name: ("alpha",) if name in COUNTS else () for name in counts}
    whole = xr.Dataset({name: (axes[name], value) for name, value in counts.items()}, {"alpha": ALPHAS})
    return whole.assign(_ratios(whole))


def association(predicted: Masks, true: Masks) -> dict[str, float]:
    """The scores in `IN_SHORT` for label maps (frame, y, x), means over alpha; NaN if there is no frame."""
    if not len(true):
        return dict.fromkeys(IN_SHORT, float("nan"))
    ratios = _ratios(_counts(predicted, true))
    return {name: float(np.mean(ratios[name])) for name in IN_SHORT}


def combine_identity(scores: xr.Dataset, dim: str = "clip") -> xr.Dataset:
    """Scores of all clips together, from their summed counts.

    Parameters
    ----------
    scores
        Results of `evaluate_identity`, concatenated along `dim`.
    """
    whole = scores[[*COUNTS, *WHOLE]].sum(dim)
    return whole.assign(_ratios(whole))


def _ratios(c: Any) -> dict[str, Any]:
    """Scores from counts, by name, as numpy or xarray arrays; 0 over 0 is 0."""

    def over(part: Any, *whole: Any) -> Any:
        return part / np.maximum(sum(whole[1:], whole[0]), 1)

    true = c["CLR_TP"] + c["CLR_FN"]
    tp, fn, fp = c["TP"], c["FN"], c["FP"]
    made = {
        "DetA": over(tp, tp, fn, fp),
        "DetRe": over(tp, tp, fn),
        "DetPr": over(tp, tp, fp),
        "AssA": over(c["Ass_sum"], tp),
        "AssRe": over(c["AssRe_sum"], tp),
        "AssPr": over(c["AssPr_sum"], tp),
        "LocA": over(c["Loc_sum"], tp) + (tp <= 0),  # 1 where nothing is matched
        "IDF1": over(c["IDTP"], c["IDTP"], 0.5 * c["IDFN"], 0.5 * c["IDFP"]),
        "IDR": over(c["IDTP"], c["IDTP"], c["IDFN"]),
        "IDP": over(c["IDTP"], c["IDTP"], c["IDFP"]),
        "MOTA": over((c["CLR_TP"] - c["CLR_FP"] - c["IDSW"]) * (true > 0), true),
        "MODA": over((c["CLR_TP"] - c["CLR_FP"]) * (true > 0), true),
        "MOTP": over(c["iou"], c["CLR_TP"]),
    }
    return made | {"HOTA": (made["DetA"] * made["AssA"]) ** 0.5}


def _counts(predicted: Masks, true: Masks) -> dict[str, Any]:
    """The counts of label maps (frame, y, x), which are summed over clips."""
    ids = [0, *sorted(ids_in(true) - {0, VOID})], [0, *sorted(ids_in(predicted) - {0})]
    # Pixels (frame, true id, predicted id), the background first.
    shared = np.array([_shared(p, t)[np.ix_(*ids)] for p, t in zip(predicted, true, strict=True)])
    of_true, of_predicted = shared.sum(2), shared.sum(1)
    either = of_true[:, :, None] + of_predicted[:, None] - shared
    similar = (shared / np.maximum(either, 1))[:, 1:, 1:]  # the background is no object
    shown = of_true[:, 1:] > 0, of_predicted[:, 1:] > 0
    return _hota(similar, *shown) | _identity(similar, *shown) | _clear(similar, *shown)


def _shared(predicted: Labels, true: Labels) -> npt.NDArray[np.intp]:
    """Pixels of one frame by true and predicted id (256, 256); void is background."""
    pairs = true.astype(np.uint16) << 8 | predicted
    counts = np.bincount(pairs.ravel(), minlength=256 * 256).reshape(256, 256)
    counts[0] += counts[VOID]
    return counts


def _hota(similar: Values, there: npt.NDArray[Any], here: npt.NDArray[Any]) -> dict[str, Values]:
    """Counts over alpha; similar is (frame, true id, predicted id), `there` and `here` say which ids a frame shows."""
    found = {name: np.zeros(len(ALPHAS)) for name in COUNTS}
    n, m = there.sum(0)[:, None], here.sum(0)[None]
    # Which ids belong together, over all frames; from this, one assignment per frame, for all alphas.
    beside = similar.sum(1, keepdims=True) + similar.sum(2, keepdims=True) - similar
    c = np.divide(similar, beside, out=np.zeros_like(similar), where=beside > EPSILON).sum(0)
    alignment = c / np.maximum(n + m - c, EPSILON)
    matches = np.zeros((len(ALPHAS), *similar.shape[1:]))
    for s in similar:
        rows, columns = linear_sum_assignment(-alignment * s)
        iou = s[rows, columns]
        hit = (iou[None] >= ALPHAS[:, None] - EPSILON) & (iou > 0)
        matches[:, rows, columns] += hit
        found["Loc_sum"] += (hit * iou).sum(1)
    found["TP"] = matches.sum((1, 2))
    found["FN"], found["FP"] = there.sum() - found["TP"], here.sum() - found["TP"]
    found["Ass_sum"] = (matches * matches / np.maximum(n + m - matches, 1)).sum((1, 2))
    found["AssRe_sum"] = (matches * matches / np.maximum(n, 1)).sum((1, 2))
    found["AssPr_sum"] = (matches * matches / np.maximum(m, 1)).sum((1, 2))
    return found


def _identity(similar: Values, there: npt.NDArray[Any], here: npt.NDArray[Any]) -> dict[str, float]:
    """Counts of frames in which ids match, by one assignment of ids for the whole clip."""
    together = (similar >= MATCH - EPSILON).sum(0)
    matched = float(together[linear_sum_assignment(-together)].sum())
    return {"IDTP": matched, "IDFN": float(there.sum()) - matched, "IDFP": float(here.sum()) - matched}


def _clear(similar: Values, there: npt.NDArray[Any], here: npt.NDArray[Any]) -> dict[str, float]:
    """Match frame by frame, keeping earlier matches where possible; count matches, switches and fragments."""
    objects = similar.shape[1]
    last, before = np.full(objects, -1), np.full(objects, -1)  # predicted id matched last, and in the frame before
    runs, times = np.zeros(objects, int), np.zeros(objects, int)
    switches = iou = 0.0
    for s, truly, labelled in zip(similar, there, here, strict=True):
        if not truly.any() or not labelled.any():
            continue  # such frames are passed over: the frame before stays what it was
        worth = s + SAME * (before[:, None] == np.arange(s.shape[1]))
        worth[s < MATCH - EPSILON] = 0
        rows, columns = linear_sum_assignment(-worth)
        kept = worth[rows, columns] > 0
        rows, columns = rows[kept], columns[kept]
        switches += ((last[rows] >= 0) & (last[rows] != columns)).sum()
        iou += s[rows, columns].sum()
        runs[rows] += before[rows] < 0
        times[rows] += 1
        before = np.full(objects, -1)
        before[rows] = last[rows] = columns
    share = times / np.maximum(there.sum(0), 1)
    most, few = int((share > 0.8).sum()), int((share < 0.2).sum())
    matched = float(times.sum())
    return {
        "CLR_TP": matched,
        "CLR_FN": float(there.sum()) - matched,
        "CLR_FP": float(here.sum()) - matched,
        "IDSW": float(switches),
        "Frag": float((runs[runs > 0] - 1).sum()),
        "MT": most,
        "ML": few,
        "PT": objects - most - few,
        "iou": float(iou),
    }
