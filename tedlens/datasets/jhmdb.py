"""JHMDB: actions of people, with their joints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tedlens.clip import Clip, read_clip
from tedlens.datasets.layout import Clips, check_choice, check_folders, check_names, read_text
from tedlens.errors import TedlensError

if TYPE_CHECKING:
    import xarray as xr

FPS = 30.0  # of all clips of HMDB, from which these are taken (Kuehne et al. 2011)
JOINTS = (
    *("neck", "belly", "face", "right_shoulder", "left_shoulder", "right_hip", "left_hip", "right_elbow"),
    *("left_elbow", "right_knee", "left_knee", "right_wrist", "left_wrist", "right_ankle", "left_ankle"),
)
SPLITS = (1, 2, 3)
TEST = "2"  # the mark of a test clip in a split's list; 1: training, 0: neither
HOW_TO = (
    "get JHMDB from http://jhmdb.is.tue.mpg.de and give the folder that holds Rename_Images, joint_positions and splits"
)


def jhmdb(root: str | Path, split: int = 1) -> Clips:
    """The test clips of JHMDB, one by one.

    Parameters
    ----------
    root
        The folder that holds ``Rename_Images/ACTION/CLIP/00001.png, ..``,
        ``joint_positions/ACTION/CLIP/joint_positions.mat`` and ``splits/ACTION_test_split1.txt, ..``.
    split
        1 (268 clips, on which the field reports), 2 or 3.

    Returns
    -------
    A sequence of clips, each read only when used, without masks. Actions are sorted by name; the clips of an action
    are in the order of its list. `Clip.joints` has ``position`` (joint, frame, axis = x, y) in pixels. The centre of
    the first pixel is 0, so positions are one less than in the files. Some clips have more frames than the truth:
    positions there are NaN. A joint can lie outside the picture. The frame rate is 30 frames per second.

    Raises
    ------
    TedlensError
        If the folder is not laid out like that, or lacks a clip that a list names.
    """
    root = Path(root).expanduser()
    check_choice("split", split, SPLITS)
    ending = f"_test_split{split}.txt"
    lists = sorted((root / "splits").glob(f"*{ending}"))
    if not lists:
        raise TedlensError(f"{root} has no lists such as splits/jump{ending}; {HOW_TO}.")
    folders: dict[str, str] = {}
    for file in lists:
        action = file.name.removesuffix(ending)
        for name in _test_clips(file):
            if name in folders:
                raise TedlensError(f"{file} lists {name}, which {folders[name]} has too; {HOW_TO}.")
            folders[name] = f"{action}/{name}"
    for kind in ("Rename_Images", "joint_positions"):
        check_folders(root / kind, list(folders.values()), HOW_TO)
    return Clips("jhmdb", root, folders, partial(_read, root, folders))


def _test_clips(file: Path) -> list[str]:
    """Names of the test clips of a list with lines ``CLIP.avi 2``."""
    names = []
    for line in filter(None, map(str.strip, read_text(file, HOW_TO).splitlines())):
        name, _, mark = line.rpartition(" ")
        if mark not in ("0", "1", TEST):
            raise TedlensError(f"{file} has a line {line!r}, which is not like 'CLIP.avi {TEST}'; {HOW_TO}.")
        if mark == TEST:
            names.append(name.strip().removesuffix(".avi"))
    check_names(names, file, HOW_TO)
    return names


def _read(root: Path, folders: Mapping[str, str], name: str) -> Clip:
    clip = read_clip(root / "Rename_Images" / folders[name], name=name, fps=FPS)
    return replace(clip, joints=_joints(root / "joint_positions" / folders[name] / "joint_positions.mat", len(clip)))


def _joints(file: Path, frames: int) -> xr.Dataset:
    import xarray as xr

    known = _positions(file)
    if known.shape[1] > frames:
        raise TedlensError(f"{file} has joints of {known.shape[1]} frames, but there are {frames} pictures; {HOW_TO}.")
    position = np.full((len(JOINTS), frames, 2), np.nan)
    position[:, : known.shape[1]] = known - 1
    return xr.Dataset(
        {"position": (("joint", "frame", "axis"), position, {"units": "pixel"})},
        {"joint": list(JOINTS), "frame": np.arange(frames), "axis": ["x", "y"]},
        {"dataset": "jhmdb"},
    )


def _positions(file: Path) -> npt.NDArray[np.float64]:
    """``pos_img`` as (joint, frame, axis), counted from 1 as in the file."""
    from scipy.io import loadmat

    try:
        found = np.asarray(loadmat(file, variable_names=["pos_img"])["pos_img"], np.float64)
    except Exception:  # scipy's reader raises nearly anything on a broken file
        raise TedlensError(f"{file} cannot be read as joints (pos_img of a MATLAB file); {HOW_TO}.") from None
    if found.ndim == 2:  # MATLAB drops a last axis of one frame
        found = found[..., None]
    if found.ndim != 3 or found.shape[:2] != (2, len(JOINTS)) or not np.isfinite(found).all():
        raise TedlensError(f"{file} has pos_img of shape {found.shape}, not finite numbers (2, 15, frames); {HOW_TO}.")
    return found.transpose(1, 2, 0)
