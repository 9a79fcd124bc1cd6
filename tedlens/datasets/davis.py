"""DAVIS 2016 and 2017, read from the folders of their unpacked archives."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from tedlens.clip import Clip, read_clip
from tedlens.datasets.layout import Clips, check_folders, check_names, read_text
from tedlens.errors import TedlensError
from tedlens.labels import VOID

FPS = 24.0  # of its videos
RESOLUTION = "480p"
# Folders of ImageSets with the lists of a year. The archive of 2017 lists the clips of 2016 too.
LISTS = {"2016": (RESOLUTION, "2016"), "2017": ("2017",)}
HOW_TO = {
    "2016": "get DAVIS 2016 from https://davischallenge.org and give its folder DAVIS, which holds ImageSets/480p, "
    "JPEGImages/480p and Annotations/480p",
    "2017": "get DAVIS 2017 (TrainVal or Test-Dev, 480p) from https://davischallenge.org and give its folder DAVIS, "
    "which holds ImageSets/2017, JPEGImages/480p and Annotations/480p",
}


def davis(root: str | Path, subset: str = "val", year: str | int = "2017") -> Clips:
    """DAVIS at 480p, clip by clip.

    Parameters
    ----------
    root
        The folder ``DAVIS`` of the archive, with ``ImageSets``, ``JPEGImages/480p`` and ``Annotations/480p``.
    subset
        For 2017, a list in ``ImageSets/2017``: ``val`` (30 clips, on which the field reports), ``train``, .. or
        ``test-dev``, where only the first frames are annotated. For 2016, a list in ``ImageSets/480p``, where each line
        is a picture and its annotation, or in ``ImageSets/2016``: ``val`` (20 clips), ``train``, ..
    year
        2017, or 2016: one object per clip. The annotations of 2016 are 0 and 255, and 255 is the object. If they have
        several objects, as in the archive of 2017, all become object 1.

    Returns
    -------
    A sequence of clips, each read only when used: ``clips[0]``, ``clips["dogs-jump"]``. As the first argument of
    `tedlens.sweep` it needs the memory of one clip at a time.

    Raises
    ------
    TedlensError
        If the folder is not laid out like that, or lacks a clip that the list names.
    """
    root, year = Path(root).expanduser(), str(year)
    if year not in LISTS:
        raise TedlensError(f"year={year!r} is no year of DAVIS that is read; choose one of {', '.join(LISTS)}.")
    how_to = HOW_TO[year]
    folders = [root / "ImageSets" / name for name in LISTS[year]]
    lists = next((folder for folder in folders if any(folder.glob("*.txt"))), folders[0])
    known = sorted(path.stem for path in lists.glob("*.txt"))
    if not known:
        raise TedlensError(f"{root} has no lists of clips in ImageSets/{LISTS[year][0]}; {how_to}.")
    if subset not in known:
        raise TedlensError(f"subset={subset!r} is not in {lists}; choose one of {', '.join(known)}.")
    names = _names(lists / f"{subset}.txt", how_to)
    for kind in ("JPEGImages", "Annotations"):
        check_folders(_folder(root, kind), names, how_to)
    return Clips("davis", root, names, partial(_read, root, year))


def _names(file: Path, how_to: str) -> list[str]:
    """The clips of a list. Its lines are names or, in 2016, ``/JPEGImages/480p/NAME/00000.jpg /Annotations/..``."""
    names: dict[str, None] = {}
    for line in filter(None, map(str.strip, read_text(file, how_to).splitlines())):
        entry = line.split()[0]
        parts = PurePosixPath(entry.lstrip("/")).parts
        is_picture = len(parts) == 4 and parts[:2] == ("JPEGImages", RESOLUTION)
        names[parts[2] if is_picture else entry] = None
    check_names(list(names), file, how_to)
    return list(names)


def _read(root: Path, year: str, name: str) -> Clip:
    frames, masks = (_folder(root, kind) / name for kind in ("JPEGImages", "Annotations"))
    clip = read_clip(frames, masks, name=name, fps=FPS)
    if year == "2016" and clip.masks is not None:
        clip = replace(clip, masks=np.where((clip.masks > 0) & (clip.masks != VOID), np.uint8(1), clip.masks))
    return clip


def _folder(root: Path, kind: str) -> Path:
    return root / kind / RESOLUTION
