"""Code that all data sets share: a lazy sequence of clips, and checks of lists, which are not trusted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from statistics import median_low
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from tedlens.clip import DEFAULT_FPS, Clip
from tedlens.errors import TedlensError
from tedlens.labels import VOID, Labels, as_labels, ids_in
from tedlens.media.files import files_in, number_of
from tedlens.media.masks import grey_bits
from tedlens.media.pictures import PICTURE_SUFFIXES, picture_file, upright_picture

if TYPE_CHECKING:
    import xarray as xr

LISTED = 10  # names in an error; a data set can have thousands


class Clips(Sequence[Clip]):
    """Clips of a data set, each read only when used.

    ``clips[3]`` is the fourth clip, ``clips["dogs-jump"]`` the clip of that name, ``clips[:5]`` the first five,
    not read yet. `names` lists the names of all.
    """

    def __init__(self, title: str, root: Path, names: Iterable[str], read: Callable[[str], Clip]) -> None:
        self.title, self.root, self.names = title, root, tuple(names)
        self._read = read  # a function of a module, so that workers get the sequence and read their clips themselves

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, which: int | str) -> Clip: ...
    @overload
    def __getitem__(self, which: slice) -> Clips: ...
    def __getitem__(self, which: int | str | slice) -> Clip | Clips:
        if isinstance(which, slice):
            return Clips(self.title, self.root, self.names[which], self._read)
        if isinstance(which, str) and which not in self.names:
            raise TedlensError(f"There is no clip {which!r} here; choose one of {some_of(self.names)}.")
        return self._read(which if isinstance(which, str) else self.names[which])

    def __repr__(self) -> str:
        return f"{self.title}({len(self)} clips in {self.root})"


def some_of(names: Sequence[object], most: int = LISTED) -> str:
    """Names for a sentence; if there are many, only the first."""
    return ", ".join(map(str, names[:most])) + (f", .. ({len(names)} in all)" if len(names) > most else "")


# --- lists and folders ----------------------------------------------------------------------------


def check_choice(what: str, given: object, known: Sequence[object]) -> None:
    """Check that an argument is one of the known choices."""
    if given not in known:
        raise TedlensError(f"{what}={given!r} is not known; choose one of {some_of(known)}.")


def check_names(names: Sequence[str], source: object, how_to: str) -> None:
    """Check that the names in a file are plain names of folder entries and do not lead outside the folder."""
    for name in names:
        if name in ("", ".", "..") or PureWindowsPath(name).name != name or "\0" in name:
            raise TedlensError(f"{source} names {name!r}, which is no folder's name; {how_to}.")


def check_folders(folder: Path, names: Sequence[str], how_to: str) -> None:
    """Check that there is a folder for each clip."""
    missing = [name for name in names if not (folder / name).is_dir()]
    if missing:
        raise TedlensError(f"{folder} lacks {len(missing)} of {len(names)} clips ({some_of(missing, 3)}); {how_to}.")


def split_folder(root: Path, split: str, how_to: str) -> Path:
    """The folder of a split, with ``JPEGImages`` and ``Annotations`` in it."""
    known = sorted(path.parent.name for path in root.glob("*/JPEGImages")) if root.is_dir() else []
    if not known:
        raise TedlensError(f"{root} holds no folder with JPEGImages in it, such as valid/JPEGImages; {how_to}.")
    check_choice("split", split, known)
    return root / split


def read_names(file: Path, how_to: str) -> list[str]:
    """The names that a text file lists, one per line, after a check."""
    names = read_text(file, how_to).split()
    check_names(names, file, how_to)
    return names


def read_text(file: Path, how_to: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise TedlensError(f"{file} cannot be read ({reason}); {how_to}.") from None


def read_json(file: Path, how_to: str) -> dict[str, Any]:
    """The content of a JSON file: a table by name."""
    try:
        found = json.loads(read_text(file, how_to))
    except (ValueError, RecursionError) as error:
        if isinstance(error, TedlensError):
            raise
        raise TedlensError(f"{file} is damaged, it is no JSON; {how_to}.") from None
    if not isinstance(found, dict):
        raise TedlensError(f"{file} holds no table by name; {how_to}.")
    return found


def read_videos(file: Path, how_to: str) -> dict[str, dict[int, Mapping[str, Any]]]:
    """The objects of each video in a ``meta.json``, by id and in the order of the file; names are checked."""
    videos = read_json(file, how_to).get("videos")
    if not isinstance(videos, dict):
        raise TedlensError(f"{file} has no table of 'videos'; {how_to}.")
    check_names(list(videos), file, how_to)
    return {name: _objects(about, f"{file}, video {name!r},", how_to) for name, about in videos.items()}


def _objects(about: Any, what: str, how_to: str) -> dict[int, Mapping[str, Any]]:
    objects = about.get("objects") if isinstance(about, dict) else None
    if isinstance(objects, dict) and all(isinstance(each, dict) for each in objects.values()):
        ids = {int(number): each for number, each in objects.items() if re.fullmatch("[0-9]{1,3}", number)}
        if len(ids) == len(objects) and all(0 < number < VOID for number in ids):
            return dict(sorted(ids.items()))
    raise TedlensError(f"{what} tells of no objects with ids from 1 to 254; {how_to}.")


# --- frames and masks -----------------------------------------------------------------------------


def frame_names(folder: Path) -> list[str]:
    """Names of the frames in a folder of pictures, in order, without their endings."""
    return [file.stem for file in files_in(folder, PICTURE_SUFFIXES)]


def usual_fps(names: Sequence[str], fps: float) -> float:
    """Frame rate of frames named by their numbers in a video of `fps` frames per second; may be every n-th frame."""
    numbers = [number for name in names if (number := number_of(name)) is not None]
    step = median_low(np.diff(numbers).tolist()) if len(numbers) > 1 else 1
    return fps / step if step > 0 else DEFAULT_FPS


def read_ids(file: Path) -> Labels:
    """The values (H, W) of a palette or grey PNG; the palette's colours do not matter."""
    with picture_file(file) as image:
        if image.mode != "P" and not (image.mode == "L" and grey_bits(file) == 8):
            raise TedlensError(
                f"{file} is no picture of ids ({image.mode}); give a PNG with a palette, or in grey of 8 bits."
            )
        return as_labels(upright_picture(image), str(file))


def only_new(masks: Labels) -> Labels:
    """Set void in masks that draw each object only where it is new, in place.

    Where a later mask draws nothing, an object that was given before may be there, so these pixels become void. If any
    object is drawn more than once, the masks are complete and stay as they are.
    """
    annotated = [t for t, mask in enumerate(masks) if (mask != VOID).any()]
    drawn = [ids_in(masks[t]) - {0, VOID} for t in annotated]
    if sum(map(len, drawn)) == len(set().union(*drawn)):
        for t in annotated[1:]:
            masks[t][masks[t] == 0] = VOID
    return masks


def about_objects(
    dataset: str, ids: Iterable[int], names: Sequence[str], known: Mapping[str, npt.ArrayLike]
) -> xr.Dataset:
    """`Clip.objects`: the `known` values along ``object``, and the names of the frames' files along ``frame``."""
    import xarray as xr

    coords = {"object": np.array(list(ids), int), "frame": np.arange(len(names)), "file": ("frame", list(names))}
    return xr.Dataset({key: ("object", np.asarray(each)) for key, each in known.items()}, coords, {"dataset": dataset})
