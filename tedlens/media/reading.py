"""Read frames from any kind of source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tedlens.errors import TedlensError
from tedlens.media.files import ARRAY_SUFFIXES, load_arrays
from tedlens.media.footage import LONGEST_SIDE, Footage, Part, check_frames, footage_of
from tedlens.media.pictures import PICTURE_SUFFIXES, read_folder, read_stack
from tedlens.media.video import read_video

if TYPE_CHECKING:
    pass


def read_footage(path: Path, part: Part) -> Footage:
    """Read the requested part of a video, a folder of pictures, a stack of pictures or an .npz."""
    start, stop = part.start, part.stop
    if start < 0 or (stop is not None and stop <= start) or part.stride < 1:
        raise TedlensError(
            f"start={start}, stop={stop}, stride={part.stride} choose no frame of {path}; "
            "give 0 <= start < stop and a stride of at least 1."
        )
    sides = (part.size,) if isinstance(part.size, int | None) else part.size
    if len(sides) > 2 or any(side is not None and not 1 <= side <= LONGEST_SIDE for side in sides):
        raise TedlensError(
            f"size={part.size} is no size of a picture; give its short side, or (height, width), in pixels."
        )
    if not path.exists():
        raise TedlensError(f"{path} does not exist; give a video file, a folder of pictures or an .npz.")
    if path.is_dir():
        footage = read_folder(path, part)
    elif path.suffix.lower() in ARRAY_SUFFIXES:
        arrays = load_arrays(path, "frames", "masks")
        frames = check_frames(arrays["frames"], f"frames in {path}")
        chosen = [part.fitted(frame) for frame in frames[part.frames]]
        footage = footage_of(path, chosen, frames.shape[1:3], part, len(frames), masks=arrays.get("masks"))
    elif path.suffix.lower() in PICTURE_SUFFIXES:
        footage = read_stack(path, part)
    else:
        footage = read_video(path, part)
    if len(footage.frames) == 0:
        raise TedlensError(f"{path} has {footage.total} frames, so none from start={start} on; give a smaller start.")
    return footage
