"""YouTube-VOS, 2018 and 2019: every fifth frame of a video; objects may enter late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tedlens.clip import Clip, read_clip
from tedlens.datasets.layout import (
    Clips,
    about_objects,
    check_folders,
    frame_names,
    only_new,
    read_names,
    read_videos,
    some_of,
    split_folder,
    usual_fps,
)
from tedlens.errors import TedlensError

FPS = 30.0  # of the videos; every fifth frame is given (Xu et al. 2018)
WHOLE = "train"  # the split whose masks draw every object
HOW_TO = (
    "get YouTube-VOS 2018 or 2019 from https://youtube-vos.org and give the folder that holds train, valid or test, "
    "each with JPEGImages, Annotations and meta.json"
)


def youtube_vos(root: str | Path, split: str = "valid", names: Sequence[str] | str | Path | None = None) -> Clips:
    """YouTube-VOS, 2018 or 2019, clip by clip.

    Parameters
    ----------
    root
        The folder that holds ``train``, ``valid`` or ``test``, each with ``JPEGImages/VIDEO/00000.jpg, 00005.jpg, ..``,
        ``Annotations/VIDEO/00000.png, ..`` and ``meta.json``.
    split
        ``train``, where each mask draws every object; ``valid`` or ``test``, where an object is drawn only in the frame
        where it first appears. Where a later mask of these draws nothing, the clip is void, because an object that was
        given before may be there.
    names
        Names of the clips to choose, or a text file that lists them, such as the list of Youtube-Similar; all by
        default.

    Returns
    -------
    A sequence of clips, each read only when used. A clip has all frames of its folder. A mask belongs to the frame of
    the same name, and a frame without a mask is void everywhere. `Clip.objects` has ``category`` (object) from
    ``meta.json``, and the name of each frame's ``file`` along ``frame``. The frame rate is 6 frames per second (every
    fifth of 30).

    Raises
    ------
    TedlensError
        If the folder is not laid out like that, or lacks a clip that is named.
    """
    root = Path(root).expanduser()
    folder = split_folder(root, split, HOW_TO)
    videos = read_videos(folder / "meta.json", HOW_TO)
    chosen = _chosen(videos, folder / "meta.json", names)
    for kind in ("JPEGImages", "Annotations"):
        check_folders(folder / kind, chosen, HOW_TO)
    categories = {
        name: {number: str(about.get("category", "")) for number, about in videos[name].items()} for name in chosen
    }
    return Clips("youtube_vos", root, chosen, partial(_read, folder, categories))


def _chosen(videos: Mapping[str, Any], meta: Path, names: Sequence[str] | str | Path | None) -> list[str]:
    """The names asked for; each must be known."""
    if names is None:
        return sorted(videos)
    if isinstance(names, str | Path):
        names = read_names(Path(names).expanduser(), "give a text file with one name a line")
    if missing := [name for name in names if name not in videos]:
        raise TedlensError(f"{meta} does not tell of {some_of(missing, 3)}; choose from {some_of(sorted(videos), 3)}.")
    return list(names)


def _read(folder: Path, categories: Mapping[str, Mapping[int, str]], name: str) -> Clip:
    frames = folder / "JPEGImages" / name
    files = frame_names(frames)
    clip = read_clip(frames, folder / "Annotations" / name, name=name, fps=usual_fps(files, FPS))
    assert clip.masks is not None
    known = {"category": list(categories[name].values())}
    return replace(
        clip,
        masks=clip.masks if folder.name == WHOLE else only_new(clip.masks),
        objects=about_objects("youtube_vos", categories[name], files, known),
    )
