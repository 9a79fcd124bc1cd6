"""MOSE: complex scenes, in the layout of YouTube-VOS but with every frame and no list."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from tedlens.clip import Clip, read_clip
from tedlens.datasets.layout import Clips, check_folders, only_new, split_folder
from tedlens.errors import TedlensError

WHOLE = "train"  # the split whose masks draw every object
HOW_TO = (
    "get MOSE from https://mose.video and give the folder that holds train or valid, each with JPEGImages and "
    "Annotations"
)


def mose(root: str | Path, split: str = "valid") -> Clips:
    """MOSE, version 1 or 2, clip by clip.

    Parameters
    ----------
    root
        The folder that holds ``train`` or ``valid``, each with ``JPEGImages/VIDEO/00000.jpg, ..`` and
        ``Annotations/VIDEO/00000.png, ..``.
    split
        ``train``, where every frame has a mask, or ``valid``, where only the first frame has one. Clips of ``valid``
        can be tracked here but not scored (only the server of the challenge can). If a later mask of ``valid`` draws
        only new objects, the rest of it is void.

    Returns
    -------
    A sequence of clips, each read only when used, in the order of their names. Their frame rate is not published, so
    they have the default frame rate of a folder of pictures.

    Raises
    ------
    TedlensError
        If the folder is not laid out like that.
    """
    root = Path(root).expanduser()
    folder = split_folder(root, split, HOW_TO)
    found = (folder / "JPEGImages").iterdir()
    names = sorted(path.name for path in found if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise TedlensError(f"{folder / 'JPEGImages'} holds no clip; {HOW_TO}.")
    check_folders(folder / "Annotations", names, HOW_TO)
    return Clips("mose", root, names, partial(_read, folder))


def _read(folder: Path, name: str) -> Clip:
    clip = read_clip(folder / "JPEGImages" / name, folder / "Annotations" / name, name=name)
    if folder.name == WHOLE or clip.masks is None:
        return clip
    return replace(clip, masks=only_new(clip.masks))
