"""Candidate clips for Youtube-Similar: moving objects of one category, as TED's paper describes them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from tedlens.datasets.layout import check_folders, read_ids, read_videos, split_folder
from tedlens.datasets.youtube_vos import HOW_TO, WHOLE
from tedlens.errors import TedlensError
from tedlens.media.files import files_in
from tedlens.media.pictures import size_of

if TYPE_CHECKING:
    import xarray as xr

Floats = npt.NDArray[np.float64]


def similar_candidates(root: str | Path, split: str = WHOLE, *, least_motion: float = 0.0) -> xr.Dataset:
    """Clips of YouTube-VOS with two or more objects of one category, sorted by motion, greatest first.

    The paper's Youtube-Similar (28 videos, 839 frames, 69 objects) has such clips; three annotators left out the static
    ones. Its list is not public. Here motion is a number, measured on the annotated masks alone, and the choice is left
    to the user. A moving camera counts as motion, too.

    Parameters
    ----------
    root, split
        See `youtube_vos`. Only ``train`` has masks of all frames and a category for every object.
    least_motion
        Clips with less ``motion`` are left out. Above 0, clips of unknown motion are left out, too. By default none is.

    Returns
    -------
    Dataset over ``clip``, by name. If several categories have two or more objects, the one that moves most is used:

    - ``category``; ``objects``, the number of its objects, and ``ids``, their ids (as in ``1, 3``).
    - ``frames``, the number of annotated frames, and ``together``, on how many of them two or more of these objects are
      visible.
    - ``motion``: how far an object's centre (mean position of its pixels) moves from one annotated frame to the next,
      as a share of the object's size (root of its area, averaged over the frames where it is visible). Mean over steps,
      then over objects. Steps to or from a frame without the object do not count; NaN if there is no other step.
    - ``overlap``: intersection over union of an object's masks on the two frames of such a step, median over the steps
      of all these objects. Close to 1 means a static object; NaN as above.
    - ``closest``: the least distance between the centres of two of these objects on one frame, divided by the mean of
      their sizes; NaN if no two are visible together.
    - ``size``: the mean of their sizes, as a share of the frame's diagonal.

    Raises
    ------
    TedlensError
        If the folder is not laid out like that, has no categories, or shows no object on two frames in a row.
    """
    root = Path(root).expanduser()
    folder = split_folder(root, split, HOW_TO)
    videos = read_videos(folder / "meta.json", HOW_TO)
    if not any(about.get("category") for objects in videos.values() for about in objects.values()):
        raise TedlensError(
            f"{folder / 'meta.json'} tells no category of objects, as that of {WHOLE} does; give split={WHOLE!r}."
        )
    chosen = {name: alike for name, objects in videos.items() if (alike := _alike(objects))}
    check_folders(folder / "Annotations", list(chosen), HOW_TO)
    found = {
        name: _measured(folder / "Annotations" / name, alike)
        for name, alike in tqdm(chosen.items(), desc="measuring", unit="clip", delay=2, leave=False)
    }
    if found and all(np.isnan(about["motion"]) for about in found.values()):
        raise TedlensError(
            f"{folder} shows no object on two annotated frames in a row, so motion cannot be measured (masks of all "
            f"frames are in {WHOLE} alone); give split={WHOLE!r}."
        )
    if least_motion > 0:
        found = {name: about for name, about in found.items() if about["motion"] >= least_motion}
    return _sorted(found)


def _alike(objects: Mapping[int, Mapping[str, Any]]) -> dict[str, list[int]]:
    """The objects of each category with two or more objects."""
    ids: dict[str, list[int]] = {}
    for number, about in objects.items():
        if category := str(about.get("category") or ""):
            ids.setdefault(category, []).append(number)
    return {category: numbers for category, numbers in ids.items() if len(numbers) > 1}


def _measured(folder: Path, alike: Mapping[str, list[int]]) -> dict[str, Any]:
    """Measures of one clip, from its masks, for the category that moves most."""
    files = files_in(folder, (".png",))
    ids = [number for numbers in alike.values() for number in numbers]
    areas = np.zeros((len(ids), len(files)))
    middles = np.full((len(ids), len(files), 2), np.nan)
    overlaps = np.full((len(ids), max(len(files) - 1, 0)), np.nan)
    before = None
    diagonal = np.nan
    for t, file in enumerate(files):
        labels = read_ids(file)
        if before is not None and before.shape != labels.shape:
            raise TedlensError(
                f"{file} has {size_of(labels)} pixels and the mask before it {size_of(before)}; give masks of one size."
            )
        diagonal = float(np.hypot(*labels.shape))
        for i, number in enumerate(ids):
            mask = labels == number
            rows, columns = np.nonzero(mask)
            areas[i, t] = len(rows)
            if len(rows):
                middles[i, t] = rows.mean(), columns.mean()
                if before is not None and areas[i, t - 1]:
                    both = int((mask & (before == number)).sum())
                    overlaps[i, t - 1] = both / (areas[i, t] + areas[i, t - 1] - both)
        before = labels
    sizes = np.array([_mean(each[each > 0]) for each in areas]) ** 0.5
    steps = np.linalg.norm(np.diff(middles, axis=1), axis=-1) / sizes[:, None]
    summaries = []
    for category, numbers in alike.items():
        which = [ids.index(number) for number in numbers]
        near = [
            np.linalg.norm(middles[one] - middles[other], axis=-1) / (0.5 * (sizes[one] + sizes[other]))
            for one, other in combinations(which, 2)
        ]
        summaries.append(
            {
                "category": category,
                "objects": len(numbers),
                "ids": ", ".join(map(str, numbers)),
                "frames": len(files),
                "together": int(((areas[which] > 0).sum(0) > 1).sum()),
                "motion": _mean(np.array([_mean(steps[one]) for one in which])),
                "overlap": float(np.median(_known(overlaps[which]))) if len(_known(overlaps[which])) else float("nan"),
                "closest": float(min(_known(np.concatenate(near)), default=np.nan)),
                "size": _mean(sizes[which]) / diagonal,
            }
        )
    return max(summaries, key=lambda about: (np.nan_to_num(about["motion"], nan=-1), about["objects"]))


def _known(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _mean(values: Floats) -> float:
    """Mean of the finite values; NaN if there are none."""
    known = _known(values)
    return float(known.mean()) if len(known) else float("nan")


def _sorted(found: Mapping[str, Mapping[str, Any]]) -> xr.Dataset:
    import xarray as xr

    # Clips of unknown motion come last.
    names = sorted(found, key=lambda name: -np.nan_to_num(found[name]["motion"], nan=-1))
    kinds = {
        **{"category": object, "objects": int, "ids": object, "frames": int, "together": int},
        **{"motion": float, "overlap": float, "closest": float, "size": float},
    }
    each: dict[str, Any] = {
        what: ("clip", np.array([found[name][what] for name in names], kind)) for what, kind in kinds.items()
    }
    return xr.Dataset(each, {"clip": np.array(names, object)}, {"dataset": "youtube_vos"})
