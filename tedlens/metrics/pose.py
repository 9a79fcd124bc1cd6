"""PCK of joints: the share of joints that lie near the truth, relative to the size of the person.

It follows the two programs with which the field scores JHMDB: `eval_pck.py` of CRW (Jabri et al., NeurIPS 2020), and
`pck_evaluate` of VFS (Xu and Wang, ICCV 2021), which Spa-then-Temp also uses.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from tedlens.align import listed
from tedlens.errors import TedlensError

Positions = npt.NDArray[np.float64]  # (joint, frame, axis = x, y)
PoseConvention = Literal["vfs", "crw"]
ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5)
LENGTH = 0.6  # of the diagonal of the box around a person's joints


def evaluate_pose(joints: xr.DataArray, truth: xr.Dataset, *, convention: PoseConvention = "vfs") -> xr.Dataset:
    """PCK of the joints of one clip, as the evaluators of JHMDB compute it.

    A joint is right if its distance from the truth is at most alpha times a length: 0.6 of the diagonal of the box
    around the true joints of that frame. The box includes only joints that the prediction has. So a lost joint changes
    the length for the others, and is excluded instead of counted as wrong: losing hard joints raises PCK. True joints
    outside the picture count, too. For the scores of several clips, sum the counts with `combine_pose`.

    Parameters
    ----------
    joints
        Predicted positions (joint, frame, axis = x, y) in pixels of the clip, where 0 is the centre of the first pixel;
        NaN where a joint is lost.
    truth
        ``position`` in the same form, as ``Clip.joints``; frames of NaN are not annotated and not scored.
    convention
        ``"vfs"`` (VFS, Spa-then-Temp): all annotated frames are scored, including the given first frame; a joint is
        lost where its x is not above 0. ``"crw"`` (CRW, UVC): the first frame is excluded; a joint is lost where
        its x is below 0. Neither looks at y.

    Returns
    -------
    Dataset
        ``right`` (joint, alpha) and ``scored`` (joint), numbers of frames; ``PCK`` (alpha), the plain mean over joints
        of right / scored, 0 to 1. NaN if a joint is never scored (both programs fail there with a division by zero).

    Raises
    ------
    TedlensError
        For an unknown convention, or joints or frames that only one of the two has.
    """
    if convention not in get_args(PoseConvention):
        known = " or ".join(map(repr, get_args(PoseConvention)))
        raise TedlensError(f"convention={convention!r} is not known; choose {known}.")
    predicted, true = _matched(joints, truth)
    inside = predicted[..., 0] > 0 if convention == "vfs" else predicted[..., 0] >= 0
    counted = np.arange(predicted.shape[1]) >= (convention == "crw")
    seen = np.asarray(inside & counted & np.isfinite(predicted).all(-1) & np.isfinite(true).all(-1))
    box = [np.where(seen[..., None], true, fill) for fill in (np.inf, -np.inf)]
    sides = np.where(np.any(seen, axis=0, keepdims=True).T, box[1].max(0) - box[0].min(0), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):  # a single joint has a box without a size
        distance = np.linalg.norm(predicted - true, axis=-1) / (LENGTH * np.linalg.norm(sides, axis=-1))
    right = np.stack([(seen & (distance <= alpha)).sum(1) for alpha in ALPHAS], -1)
    named = truth["position"] if "joint" in truth["position"].coords else joints
    names = {"joint": named["joint"].values} if "joint" in named.coords else {}
    counts = xr.Dataset(
        {"right": (("joint", "alpha"), right), "scored": ("joint", seen.sum(1))},
        {**names, "alpha": list(ALPHAS)},
        {"metric": "PCK", "convention": convention},
    )
    return _figures(counts)


def combine_pose(scores: xr.Dataset, dim: str = "clip") -> xr.Dataset:
    """Scores of all clips together, from the sum of their counts along `dim`."""
    return _figures(scores[["right", "scored"]].sum(dim, keep_attrs=True))


def _figures(counts: xr.Dataset) -> xr.Dataset:
    share = counts["right"] / counts["scored"].where(counts["scored"] > 0)
    return counts.assign(PCK=share.mean("joint", skipna=False))


def _matched(joints: xr.DataArray, truth: xr.Dataset) -> tuple[Positions, Positions]:
    """Prediction and truth as (joint, frame, axis = x, y), with joints and frames matched by their labels."""
    dims = {"joint", "frame", "axis"}
    if not isinstance(truth, xr.Dataset) or "position" not in truth or set(truth["position"].dims) != dims:
        raise TedlensError("The truth holds no position of joints; give Clip.joints, as of a clip of JHMDB.")
    if not isinstance(joints, xr.DataArray) or set(joints.dims) != dims:
        given = tuple(joints.dims) if isinstance(joints, xr.DataArray) else type(joints).__name__
        raise TedlensError(f"The joints are {given}; give positions (joint, frame, axis), as from propagate_points.")
    position = truth["position"]
    for dim in ("joint", "frame", "axis"):
        if dim in joints.coords and dim in position.coords:
            ours, theirs = joints[dim].values, position[dim].values
            if set(ours.tolist()) != set(theirs.tolist()):
                said = [listed(each) if dim == "frame" else ", ".join(map(str, each)) for each in (ours, theirs)]
                raise TedlensError(
                    f"The joints have {dim} {said[0]} and the truth {said[1]}; give both of the same clip."
                )
            joints = joints.sel({dim: theirs})
        elif joints.sizes[dim] != position.sizes[dim]:
            raise TedlensError(
                f"The joints have {joints.sizes[dim]} along {dim} and the truth {position.sizes[dim]}; give as many."
            )
    predicted, true = (each.transpose("joint", "frame", "axis").values for each in (joints, position))
    return predicted.astype(float), true.astype(float)
