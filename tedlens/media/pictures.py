"""Read pictures from folders, or stacks of several in one file: upright and complete, or an error."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tedlens.errors import TedlensError
from tedlens.media.files import files_in, number_of
from tedlens.media.footage import LONGEST_SIDE, Footage, Part, Pictures, footage_of

if TYPE_CHECKING:
    from PIL import Image

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".apng", ".bmp", ".tif", ".tiff", ".webp", ".avif")
STACKS = (".png", ".apng", ".tif", ".tiff", ".webp", ".avif")  # of these, which can hold several pictures


def read_folder(folder: Path, part: Part) -> Footage:
    files = files_in(folder, PICTURE_SUFFIXES)
    if not files:
        raise TedlensError(f"{folder} holds no pictures; give a folder of {', '.join(PICTURE_SUFFIXES)} files.")
    seen: dict[str, Path] = {}
    for file in files:
        if file.stem in seen:
            raise TedlensError(
                f"{folder} holds both {seen[file.stem].name} and {file.name}; "
                "keep one picture for each frame, and masks in another folder."
            )
        seen[file.stem] = file
    _warn_of_gaps(folder, list(seen))
    pictures: list[Pictures] = []
    size: tuple[int, ...] = ()
    for file in files[part.frames]:
        (picture, *more), _ = _pictures(file)
        if more:
            raise TedlensError(
                f"{file} holds {1 + len(more)} pictures, but each file of a folder is one frame; give the file "
                "itself, or one picture a file."
            )
        if size and picture.shape[:2] != size:
            raise TedlensError(
                f"{file} is {size_of(picture)} but {files[part.start].name} is {size[0]}x{size[1]}; "
                "all frames of a clip must be of one size."
            )
        size = picture.shape[:2]
        pictures.append(part.fitted(picture))
    return footage_of(folder, pictures, size or (0, 0), part, len(files), stems=tuple(seen))


def _warn_of_gaps(folder: Path, stems: list[str]) -> None:
    """Warn if frames are numbered and some numbers between them are missing."""
    numbers = [number_of(stem) for stem in stems]
    known = [n for n in numbers if n is not None]
    if len(known) < max(3, len(stems)) or len({re.sub(r"[0-9]+$", "", stem) for stem in stems}) > 1:
        return
    steps = np.diff(known)
    usual = int(np.median(steps))
    wide = np.flatnonzero(steps > usual)
    if usual > 0 and len(wide):
        after = known[int(wide[0])]
        warnings.warn(
            f"{folder} has frames {after} and {known[int(wide[0]) + 1]} but none between: they are read as neighbours. "
            "Add the missing frames, or read a part without the gap.",
            stacklevel=5,
        )


def read_stack(path: Path, part: Part) -> Footage:
    """A file with one picture, or with several (an animation or a scan)."""
    pictures, fps = _pictures(path)
    chosen = [part.fitted(picture) for picture in pictures[part.frames]]
    if len({picture.shape for picture in pictures}) > 1:
        raise TedlensError(f"{path} holds pictures of several sizes; all frames of a clip must be of one size.")
    stems = (path.stem,) if len(pictures) == 1 else None
    rate = fps and fps / part.stride
    return footage_of(path, chosen, pictures[0].shape, part, len(pictures), stems=stems, fps=rate)


def _pictures(path: Path) -> tuple[list[Pictures], float | None]:
    """All pictures of a file, upright, and its frame rate in pictures per second (None if unknown)."""
    pictures: list[Pictures] = []
    shown: list[float] = []
    with picture_file(path) as image:
        count = getattr(image, "n_frames", 1) if path.suffix.lower() in STACKS else 1
        # The first picture of an animated PNG can be a substitute for programs without animation.
        for number in range(int(bool(getattr(image, "default_image", False)) and count > 1), count):
            image.seek(number)
            if image.mode.startswith(("I", "F")):
                raise TedlensError(
                    f"{path} has more than 8 bits a channel ({image.mode}); save it with 8 bits a channel."
                )
            pictures.append(upright_picture(image, "RGB"))
            shown.append(float(image.info.get("duration") or 0))
    total = sum(shown)
    return pictures, 1000 * len(shown) / total if len(shown) > 1 and total > 0 else None


def upright_picture(image: Image.Image, mode: str | None = None) -> npt.NDArray[Any]:
    """A picture rotated and mirrored as its EXIF data say."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    return np.array(upright if mode is None else upright.convert(mode))


@contextmanager
def picture_file(path: Path) -> Iterator[Image.Image]:
    """An opened picture; any error of Pillow becomes a `TedlensError`."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if max(image.size) > LONGEST_SIDE:
                raise TedlensError(
                    f"{path} says that it is {image.height}x{image.width} pixels; pictures of up to {LONGEST_SIDE} "
                    "a side are read."
                )
            yield image
    except TedlensError:
        raise
    # Found by fuzzing: its decoders raise nearly anything on broken files (KeyError, TypeError, RuntimeError, ..).
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "damaged, cut short or no picture"
        raise TedlensError(f"{path} cannot be read as a picture ({reason}); replace the file or remove it.") from None


def size_of(picture: npt.NDArray[Any]) -> str:
    return f"{picture.shape[0]}x{picture.shape[1]}"
