"""DAVIS 2017, read from the folder that its own archive unpacks to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

from tedlens.clip import Clip, read_clip
from tedlens.errors import TedlensError

FPS = 24.0  # of its videos
YEAR, RESOLUTION = "2017", "480p"
HOW_TO = (
    "give the folder of DAVIS 2017 (TrainVal, 480p), which holds ImageSets/2017, JPEGImages/480p and Annotations/480p"
)


class Davis(Sequence[Clip]):
    """Clips of one subset, each read when it is asked for.

    ``clips[3]`` is the fourth clip, ``clips["dogs-jump"]`` the one of that name, ``clips[:5]`` the first five,
    still unread. `names` lists all.
    """

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root, self.names = root, tuple(names)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, which: int | str) -> Clip: ...
    @overload
    def __getitem__(self, which: slice) -> Davis: ...
    def __getitem__(self, which: int | str | slice) -> Clip | Davis:
        if isinstance(which, slice):
            return Davis(self.root, self.names[which])
        if isinstance(which, str) and which not in self.names:
            raise TedlensError(f"There is no clip {which!r} here; choose one of {', '.join(self.names)}.")
        name = which if isinstance(which, str) else self.names[which]
        frames, masks = (_folder(self.root, kind) / name for kind in ("JPEGImages", "Annotations"))
        return read_clip(frames, masks, name=name, fps=FPS)

    def __repr__(self) -> str:
        return f"Davis({len(self)} clips in {self.root})"


def davis(root: str | Path, subset: str = "val") -> Davis:
    """DAVIS 2017 at 480p, clip by clip.

    Parameters
    ----------
    root
        The folder ``DAVIS`` of the archive, with ``ImageSets/2017``, ``JPEGImages/480p`` and
        ``Annotations/480p``.
    subset
        A list in ``ImageSets/2017``: ``val`` (30 clips, on which the field reports), ``train``, ...

    Returns
    -------
    A sequence of clips, read when they are asked for: ``clips[0]``, ``clips["dogs-jump"]``. As the first argument
    of `tedlens.sweep` it needs the memory of one clip at a time.

    Raises
    ------
    TedlensError
        Where the folder is not laid out like that, or lacks a clip that the list names.
    """
    root = Path(root).expanduser()
    lists = root / "ImageSets" / YEAR
    known = sorted(path.stem for path in lists.glob("*.txt"))
    if not known:
        raise TedlensError(f"{root} has no lists of clips in ImageSets/{YEAR}; {HOW_TO}.")
    if subset not in known:
        raise TedlensError(f"subset={subset!r} is not in {lists}; choose one of {', '.join(known)}.")
    names = (lists / f"{subset}.txt").read_text(encoding="utf-8").split()
    if outside := [name for name in names if Path(name).name != name]:
        raise TedlensError(f"{lists / subset}.txt names {outside[0]}, which is no folder's name; {HOW_TO}.")
    for kind in ("JPEGImages", "Annotations"):
        missing = [name for name in names if not (_folder(root, kind) / name).is_dir()]
        if missing:
            listed = ", ".join(missing[:3]) + (", .." if len(missing) > 3 else "")
            raise TedlensError(
                f"{_folder(root, kind)} lacks {len(missing)} of {len(names)} clips ({listed}); {HOW_TO}."
            )
    return Davis(root, names)


def _folder(root: Path, kind: str) -> Path:
    return root / kind / RESOLUTION
