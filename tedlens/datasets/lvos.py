"""LVOS: long videos, where each object has its own range of frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tedlens.clip import Clip, read_clip
from tedlens.datasets.layout import (
    Clips,
    about_objects,
    check_folders,
    frame_names,
    only_new,
    read_names,
    read_videos,
    split_folder,
    usual_fps,
)
from tedlens.errors import TedlensError
from tedlens.media.files import number_of

FPS = 30.0  # of the videos; every fifth frame is given, so 6 frames per second (Hong et al. 2023)
ONLY_NEW = "test"  # the split that draws an object only where it first appears
UNSEEN = "unseen_videos.txt"
Objects = Mapping[int, Mapping[str, Any]]  # what the list says of each, by id
HOW_TO = (
    "get LVOS from https://lingyihongfd.github.io/lvos.github.io and give the folder that holds train, valid or test, "
    "each with JPEGImages, Annotations and its list (valid/valid_meta.json)"
)


def lvos(root: str | Path, split: str = "valid") -> Clips:
    """LVOS, clip by clip.

    Parameters
    ----------
    root
        The folder that holds ``train``, ``valid`` or ``test``, each with ``JPEGImages/VIDEO/00000001.jpg, ..``,
        ``Annotations/VIDEO/00000001.png, ..`` and ``valid_meta.json`` (``train_``, ``test_``). If it or the split's
        folder also holds ``unseen_videos.txt`` of lvos-evaluation, clips with categories that are not in ``train`` are
        marked.
    split
        ``train`` or ``valid``, where masks draw every object, or ``test``, where later masks draw only new objects and
        the rest of such a mask is void.

    Returns
    -------
    A sequence of clips, each read only when used, at 6 frames per second. `Clip.objects` has ``first_frame`` and
    ``last_frame`` along ``object``, if the list has them: lvos-evaluation scores an object between these two frames and
    leaves out both. They are values of the coordinate ``frame``, so they stay valid when a clip is cut. It also has
    ``unseen``, if it is known, and the name of each frame's ``file`` along ``frame``.

    Raises
    ------
    TedlensError
        If the folder is not laid out like that, or lacks a clip that its list names.
    """
    root = Path(root).expanduser()
    folder = split_folder(root, split, HOW_TO)
    videos = read_videos(folder / f"{split}_meta.json", HOW_TO)
    names = sorted(videos)
    for kind in ("JPEGImages", "Annotations"):
        check_folders(folder / kind, names, HOW_TO)
    lists = [place / UNSEEN for place in (root, folder) if (place / UNSEEN).is_file()]
    unseen = frozenset(read_names(lists[0], HOW_TO)) if lists else None
    return Clips("lvos", root, names, partial(_read, folder, videos, unseen))


def _read(folder: Path, videos: Mapping[str, Objects], unseen: frozenset[str] | None, name: str) -> Clip:
    frames, objects = folder / "JPEGImages" / name, videos[name]
    files = frame_names(frames)
    clip = read_clip(frames, folder / "Annotations" / name, name=name, fps=usual_fps(files, FPS))
    assert clip.masks is not None
    known: dict[str, Any] = {}
    if any("frame_range" in about for about in objects.values()):
        ranges = [_range(about, files, f"object {number} of {name}") for number, about in objects.items()]
        known = {"first_frame": [first for first, _ in ranges], "last_frame": [last for _, last in ranges]}
    if unseen is not None:
        known["unseen"] = np.full(len(objects), name in unseen)
    return replace(
        clip,
        masks=only_new(clip.masks) if folder.name == ONLY_NEW else clip.masks,
        objects=about_objects("lvos", objects, files, known),
    )


def _range(about: Mapping[str, Any], files: list[str], what: str) -> tuple[int, int]:
    """First and last frame of an object, counted from 0. The list gives the numbers in the file names instead."""
    given = about.get("frame_range")
    numbers = [number_of(file) for file in files]
    try:
        start, end = int(given["start"]), int(given["end"])  # type: ignore[index]
        inside = [t for t, number in enumerate(numbers) if number is not None and start <= number <= end]
        return inside[0], inside[-1]
    except (TypeError, KeyError, ValueError, IndexError):
        raise TedlensError(
            f"The list of LVOS gives the range {given} for {what}, whose frames are {files[0]} to {files[-1]}; "
            f"{HOW_TO}."
        ) from None
