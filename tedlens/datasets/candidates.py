"""Clips for a Youtube-Similar: objects of one category that move, by the words of TED's paper."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from tedlens.datasets.layout import read_ids, read_videos, split_folder
from tedlens.datasets.youtube_vos import HOW_TO, WHOLE
from tedlens.errors import TedlensError
from tedlens.media.files import files_in

if TYPE_CHECKING:
    import xarray as xr


def similar_candidates(root: str | Path, split: str = WHOLE, *, least_motion: float = 0.0) -> xr.Dataset:
    """Clips of YouTube-VOS with two objects or more of one category, those that move most first.

    The paper's Youtube-Similar (28 videos, 839 frames, 69 objects) has such clips, from which three annotators left out
    the static ones; its list is not public. Here motion is a number, measured on the annotated masks alone, and the
    choice is left to those who look. A moving camera counts as motion, too.

    Parameters
    ----------
    root, split
        See `youtube_vos`. Only ``train`` has masks of all frames and a category of every object.
    least_motion
        Clips of less `motion` are left out.

    Returns
    -------
    Dataset over ``clip``, by name:
        ``category``, the one that most objects have, and ``objects``, how many; ``frames``, those annotated, and
        ``together``, on how many of them two of these objects or more show; ``motion``, how far such an object's middle
        goes from one annotated frame to the next, as a share of its size (the root of its area), mean over frames and
        objects; ``closest``, the least distance of the middles of two of them, in their mean size.

    Raises
    ------
    TedlensError
        Where the folder is not laid out like that, tells no category, or no object is seen on two frames.
    """
    root = Path(root).expanduser()
    folder = split_folder(root, split, HOW_TO)
    videos = read_videos(folder / "meta.json", HOW_TO)
    if not any(about.get("category") for objects in videos.values() for about in objects.values()):
        raise TedlensError(f"{folder / 'meta.json'} tells no category of objects, as that of {WHOLE} does; {HOW_TO}.")
    chosen = {name: alike for name, objects in videos.items() if len(alike := _alike(objects)) > 1}
    found: dict[str, dict[str, Any]] = {}
    for name, ids in tqdm(chosen.items(), desc="measuring", unit="clip", delay=2, leave=False):
        measured = _measured(folder / "Annotations" / name, ids)
        found[name] = {"category": str(videos[name][ids[0]]["category"]), "objects": len(ids), **measured}
    if chosen and not any(about["motion"] >= 0 for about in found.values()):
        raise TedlensError(f"{folder} has masks of first frames alone, which show no motion; give split={WHOLE!r}.")
    return _sorted({name: about for name, about in found.items() if about["motion"] >= least_motion})


def _alike(objects: dict[int, Any]) -> list[int]:
    """The objects of the category that most have."""
    counts = Counter(str(about.get("category", "")) for about in objects.values() if about.get("category"))
    if not counts:
        return []
    [(most, _)] = counts.most_common(1)
    return [number for number, about in objects.items() if about.get("category") == most]


def _measured(folder: Path, ids: list[int]) -> dict[str, float]:
    masks = files_in(folder, (".png",))
    areas: dict[int, list[int]] = {number: [] for number in ids}
    centres: dict[int, list[tuple[float, float]]] = {number: [] for number in ids}
    for file in masks:
        labels = read_ids(file)
        for number in ids:
            rows, columns = np.nonzero(labels == number)
            areas[number].append(len(rows))
            centres[number].append((rows.mean(), columns.mean()) if len(rows) else (np.nan, np.nan))
    places = {number: np.array(each, float) for number, each in centres.items()}
    sizes = {number: _mean(np.array([area for area in each if area], float)) ** 0.5 for number, each in areas.items()}
    steps = [_mean(_far(np.diff(places[number], axis=0)) / sizes[number]) for number in ids]
    near = [
        _far(places[one] - places[other]) / (0.5 * (sizes[one] + sizes[other])) for one, other in combinations(ids, 2)
    ]
    shown = sum(np.isfinite(places[number][:, 0]).astype(int) for number in ids)
    distances = np.concatenate(near)
    return {
        "frames": len(masks),
        "together": int((np.asarray(shown) > 1).sum()),
        "motion": _mean(np.array(steps)),
        "closest": float(np.nanmin(distances)) if np.isfinite(distances).any() else float("nan"),
    }


def _far(steps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    length: npt.NDArray[np.float64] = np.linalg.norm(steps, axis=-1)
    return length


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _sorted(found: dict[str, dict[str, Any]]) -> xr.Dataset:
    import xarray as xr

    names = sorted(found, key=lambda name: -found[name]["motion"])
    kinds = {"category": object, "objects": int, "frames": int, "together": int, "motion": float, "closest": float}
    each: dict[str, Any] = {
        what: ("clip", np.array([found[name][what] for name in names], kind)) for what, kind in kinds.items()
    }
    return xr.Dataset(each, {"clip": np.array(names, object)}, {"dataset": "youtube_vos"})
