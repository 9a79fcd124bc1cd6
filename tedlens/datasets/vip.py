"""VIP: people in videos, parsed into parts (VIP_Fine)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from tedlens.clip import Clip, read_clip
from tedlens.datasets.layout import (
    Clips,
    about_objects,
    check_choice,
    check_folders,
    frame_names,
    read_ids,
    read_names,
)
from tedlens.errors import TedlensError
from tedlens.labels import VOID, Labels, check_size
from tedlens.media.files import files_in

PARTS = (
    *("background", "hat", "hair", "sun-glasses", "upper-clothes", "dress", "coat", "socks", "pants", "gloves"),
    *("scarf", "skirt", "torso-skin", "face", "right-arm", "left-arm", "right-leg", "left-leg"),
    *("right-shoe", "left-shoe"),
)
MASKS = Path("Annotations") / "Category_ids"
HOW_TO = (
    "get VIP from https://www.sysu-hcp.net/lip and give its folder VIP_Fine, which holds Images, "
    "Annotations/Category_ids and lists/val_videos.txt"
)


def vip(root: str | Path, split: str = "val") -> Clips:
    """VIP, the finely annotated part, clip by clip.

    Parameters
    ----------
    root
        The folder ``VIP_Fine``, with ``Images/videos7/000000000001.jpg, ..``,
        ``Annotations/Category_ids/videos7/000000000001.png, ..`` and ``lists/val_videos.txt``.
    split
        A list in ``lists``: ``val`` (50 clips, on which the field reports), ...

    Returns
    -------
    A sequence of clips, each read only when used. A clip has all frames of its folder, whatever the steps between their
    numbers. Masks hold the 20 classes, as the values of the PNGs: 0 background, which counts in this benchmark, and
    1 to 19. Other values are void, because the protocol leaves them out. Left and right limbs are different classes.
    `Clip.objects` has ``category`` (object, 1 to 19), and the name of each frame's ``file`` along ``frame``.
    The frame rate is not published, so clips have the default frame rate of a folder of pictures.

    Raises
    ------
    TedlensError
        If the folder is not laid out like that, or lacks a clip that the list names.
    """
    root = Path(root).expanduser()
    known = sorted(path.name.removesuffix("_videos.txt") for path in (root / "lists").glob("*_videos.txt"))
    if not known:
        raise TedlensError(f"{root} has no lists of clips such as lists/val_videos.txt; {HOW_TO}.")
    check_choice("split", split, known)
    names = read_names(root / "lists" / f"{split}_videos.txt", HOW_TO)
    for kind in (Path("Images"), MASKS):
        check_folders(root / kind, names, HOW_TO)
    return Clips("vip", root, names, partial(_read, root))


def _read(root: Path, name: str) -> Clip:
    clip = read_clip(root / "Images" / name, name=name)
    files = frame_names(root / "Images" / name)
    masks = _masks(root / MASKS / name, files, clip.height, clip.width)
    return replace(clip, masks=masks, objects=about_objects("vip", range(1, 20), files, {"category": PARTS[1:]}))


def _masks(folder: Path, files: list[str], height: int, width: int) -> Labels:
    """Classes (T, H, W): each PNG in the frame of the same name; frames without a PNG are void."""
    masks = np.full((len(files), height, width), VOID, np.uint8)
    for file in files_in(folder, (".png",)):
        if file.stem not in files:
            raise TedlensError(f"{file} belongs to no frame in Images/{folder.name}; {HOW_TO}.")
        classes = read_ids(file)
        check_size(classes, height, width, str(file))
        masks[files.index(file.stem)] = np.where(classes < len(PARTS), classes, np.uint8(VOID))
    return masks
