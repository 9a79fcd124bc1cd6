"""Frames in a file or folder, and which of them are requested."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tedlens.errors import TedlensError
from tedlens.labels import Labels, as_array

if TYPE_CHECKING:
    pass

Pictures = npt.NDArray[np.uint8]

LONGEST_SIDE = 16384  # of a picture in pixels; a file that declares more is damaged


@dataclass(frozen=True)
class Footage:
    """Frames read from a file or folder, and what is needed to find their masks."""

    frames: Pictures
    start: int  # number of the first of `frames` in the source
    stride: int  # every n-th frame of the source
    size: tuple[int, int]  # height and width in the source, which its masks have
    total: int | None  # frames in the source; None: reading stopped before its end
    stems: tuple[str, ...] | None = None  # of all the source's files, if it is a folder
    fps: float | None = None
    masks: Labels | None = None  # (total, H, W) or (H, W), if the source holds them itself

    @property
    def numbers(self) -> range:
        """Position of each of `frames` in the source, counted from 0."""
        return range(self.start, self.start + len(self.frames) * self.stride, self.stride)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each of `frames` in the source: the stem of its file, or its number."""
        return numbered(self.numbers) if self.stems is None else tuple(self.stems[i] for i in self.numbers)


@dataclass(frozen=True)
class Part:
    """The requested part of a source: every `stride`-th frame from `start` to `stop` (not included), at a size."""

    start: int = 0
    stop: int | None = None
    stride: int = 1
    size: int | tuple[int, int] | None = None  # short side, or height and width, in pixels

    @property
    def frames(self) -> slice:
        return slice(self.start, self.stop, self.stride)

    def holds(self, number: int) -> bool:
        """Whether a frame of the source is requested; `number` must be below `stop`, which is not checked."""
        return number >= self.start and (number - self.start) % self.stride == 0

    def fitted(self, picture: Pictures) -> Pictures:
        """A picture (H, W, 3), resized to the requested size."""
        from PIL import Image

        if self.size is None:
            return picture
        height, width = picture.shape[:2]
        if isinstance(self.size, int):
            scale = self.size / min(height, width)
            wanted = max(1, round(height * scale)), max(1, round(width * scale))
        else:
            wanted = self.size
        if wanted == (height, width):
            return picture
        return np.asarray(Image.fromarray(picture).resize(wanted[::-1], Image.Resampling.BICUBIC))


def numbered(numbers: Iterable[int]) -> tuple[str, ...]:
    """Names of frames by their number in the source: 00000, 00001, .."""
    return tuple(f"{number:05d}" for number in numbers)


def check_frames(frames: npt.ArrayLike, what: str = "frames") -> Pictures:
    """`frames` as an array, with its type and shape checked."""
    array = as_array(frames, what)
    if array.ndim != 4 or array.shape[-1] != 3:
        hint = "add a first axis with frames[None]" if array.ndim == 3 and array.shape[-1] == 3 else "give (T, H, W, 3)"
        raise TedlensError(f"{what} has shape {array.shape}, not (frame, height, width, 3); {hint}.")
    if array.size == 0:
        raise TedlensError(f"{what} has shape {array.shape}, so it is empty; give at least one frame.")
    if array.dtype != np.uint8:
        raise TedlensError(f"{what} is of type {array.dtype}; give uint8 from 0 to 255 (a float x in 0..1 times 255).")
    return array


def footage_of(
    path: Path, pictures: list[Pictures], size: tuple[int, ...], part: Part, total: int | None, **known: Any
) -> Footage:
    """A `Footage` from pictures, which must all have the same size."""
    if len({picture.shape for picture in pictures}) > 1:
        raise TedlensError(f"{path} changes its picture size midway; all frames of a clip must be of one size.")
    frames = np.stack(pictures) if pictures else np.empty((0, 0, 0, 3), np.uint8)
    return Footage(frames, part.start, part.stride, (size[0], size[1]), total, **known)
