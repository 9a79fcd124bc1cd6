"""A clip: frames, and what is known about the objects in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tedlens import media
from tedlens.errors import TedlensError
from tedlens.labels import VOID, as_labels, check_size, from_first, object_ids
from tedlens.notebook import facts_html, thumbnails_html

if TYPE_CHECKING:
    import xarray as xr

DEFAULT_FPS = 8.0


@dataclass(frozen=True, eq=False, repr=False)
class Clip:
    """Frames of a video, with masks of the objects in them where they are known.

    ``clip[2:10]`` is a clip of those frames, which keep their names; ``len(clip)`` is the number of frames.

    Parameters
    ----------
    frames
        (T, H, W, 3) uint8, red, green and blue from 0 to 255.
    masks
        (T, H, W) uint8: 0 background, 1..254 objects, 255 void, as in DAVIS. A frame without annotation is void
        everywhere. (H, W) is a mask of the first frame; all other frames are then void. Bool and other integer
        types are converted if their values fit.
    fps
        Frames per second; by default 8, a common rate of generated clips.
    name
        Label of the clip in results.
    objects
        Ground truth about the objects beyond masks, along ``object`` and ``frame``: centres, velocities,
        depths; see `tedlens.datasets.similar`.
    points
        True point tracks: ``position`` (point, frame, axis = x, y) float64 in pixels, where 0 is the
        left or upper EDGE of the first pixel, as in TAP-Vid, and ``visible`` (point, frame) bool.
    joints
        Joints of a person: ``position`` (joint, frame, axis = x, y) in pixels, where 0 is the CENTRE of the
        first pixel; the coordinate ``joint`` names them. NaN in frames without annotation.
    flow
        ``forward`` and ``backward`` (frame, y, x, axis = y, x): the displacement to the next and to the previous
        frame, in pixels. Optionally ``depth`` (frame, y, x). See `tedlens.datasets.kubric`.
    frame_names
        Name of each frame in its source: the stem of its file, or its number. `tl.write_masks` names masks by it, and
        `tl.read_clip` finds them by it. 00000, 00001, .. by default.

    Raises
    ------
    TedlensError
        If types, shapes or numbers of frames do not match the descriptions above.
    """

    frames: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8] | None = None
    fps: float = DEFAULT_FPS
    name: str = "clip"
    objects: xr.Dataset | None = None
    points: xr.Dataset | None = None
    joints: xr.Dataset | None = None
    flow: xr.Dataset | None = None
    frame_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", media.check_frames(self.frames))
        if self.masks is not None:
            object.__setattr__(self, "masks", _fit(self.masks, *self.frames.shape[:3]))
        if not 0 < self.fps < float("inf"):
            raise TedlensError(f"fps={self.fps} is no rate; give frames a second, above 0.")
        names = tuple(self.frame_names) or media.numbered(range(len(self)))
        if len(names) != len(self) or len(set(names)) != len(names):
            raise TedlensError(
                f"frame_names holds {len(set(names))} different names for {len(self)} frames; give each frame its own."
            )
        object.__setattr__(self, "frame_names", names)
        for what, truth in self._truths().items():
            if truth is not None and truth.sizes.get("frame", len(self)) != len(self):
                raise TedlensError(
                    f"{what} has {truth.sizes['frame']} frames but the clip has {len(self)}; "
                    "select the same frames from both."
                )

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, frames: slice) -> Clip:
        """A clip of consecutive frames; the coordinates of `objects`, `points`, .. keep their values."""
        if not isinstance(frames, slice) or frames.step not in (None, 1):
            # With a step, fps and the velocities in `objects` and `flow` would be wrong.
            raise TedlensError(
                f"clip[{frames}] is no clip; give frames in a row, as in clip[2:10], or use clip.frames."
            )
        part = slice(*frames.indices(len(self)))
        if part.start >= part.stop:
            raise TedlensError(
                f"clip[{frames.start}:{frames.stop}] holds no frame; the clip has {len(self)}, counted from 0."
            )
        masks = None if self.masks is None else self.masks[part]
        truths = {
            what: truth if truth is None or "frame" not in truth.dims else truth.isel(frame=part)
            for what, truth in self._truths().items()
        }
        return Clip(self.frames[part], masks, self.fps, self.name, **truths, frame_names=self.frame_names[part])

    def _truths(self) -> dict[str, xr.Dataset | None]:
        """The ground truth beyond masks, by field name."""
        return {"objects": self.objects, "points": self.points, "joints": self.joints, "flow": self.flow}

    def __repr__(self) -> str:
        frames = f"{len(self)} frame{'' if len(self) == 1 else 's'}"
        said = [repr(self.name), f"{frames} {self.height}x{self.width}", self._objects_said(), f"{self.fps:g} fps"]
        if known := [what for what, truth in self._truths().items() if truth is not None]:
            said.append(f"truth: {', '.join(known)}")
        return f"Clip({', '.join(said)})"

    def _repr_html_(self) -> str:
        known = {
            what: ", ".join(map(str, truth.data_vars)) for what, truth in self._truths().items() if truth is not None
        }
        facts = {
            "frames": f"{len(self)} at {self.fps:g} fps ({len(self) / self.fps:.3g} s)",
            "size": f"{self.height} x {self.width} pixels (height x width)",
            "masks": self._objects_said(),
            **({"ids": ", ".join(map(str, self.object_ids))} if self.object_ids else {}),
            **{f"truth: {what}": names for what, names in known.items()},
        }
        return facts_html(f"Clip {self.name}", facts, thumbnails_html(self.frames))

    def _objects_said(self) -> str:
        if self.masks is None:
            return "no masks"
        count = len(self.object_ids)
        partly = "" if self.annotated.all() else f" (masks in {self.annotated.sum()})"
        return f"{count} object{'' if count == 1 else 's'}{partly}"

    @property
    def height(self) -> int:
        """Height of the frames in pixels."""
        return int(self.frames.shape[1])

    @property
    def width(self) -> int:
        """Width of the frames in pixels."""
        return int(self.frames.shape[2])

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the objects in the masks, ascending; there may be gaps."""
        if self.masks is None:
            return ()
        return tuple(object_ids(self.masks))

    @property
    def annotated(self) -> npt.NDArray[np.bool_]:
        """(T,) bool: frames that have a mask, that is, are not void everywhere."""
        if self.masks is None:
            return np.zeros(len(self), np.bool_)
        return np.array([bool((mask != VOID).any()) for mask in self.masks])


def _fit(masks: npt.ArrayLike, frames: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Masks as uint8 (T, H, W), checked to have the number and size of the frames."""
    labels = as_labels(masks)
    check_size(labels, height, width)
    if labels.ndim == 2:
        return from_first(labels, frames)
    if len(labels) != frames:
        raise TedlensError(
            f"masks has {len(labels)} frames but frames has {frames}; give as many (255 where there is none), "
            "or a mask (H, W) of the first frame."
        )
    return labels


def read_clip(
    path: str | os.PathLike[str],
    masks: str | os.PathLike[str] | npt.ArrayLike | None = None,
    *,
    name: str | None = None,
    fps: float | None = None,
    start: int = 0,
    stop: int | None = None,
    stride: int = 1,
    size: int | tuple[int, int] | None = None,
) -> Clip:
    """Read a clip from a video file, a folder of pictures or arrays on disk.

    Parameters
    ----------
    path
        One of

        - a video (anything FFmpeg reads), as a player shows it: rotated and mirrored by its display matrix, the film
          and not a cover picture; frames that an AVI leaves out are not repeated;
        - a folder of pictures (jpg, png, bmp, tif, webp, avif) in natural order (2 before 10), with a warning if
          numbers are missing;
        - a stack of pictures (animated WebP, PNG, GIF, AVIF, TIFF of many pages);
        - an .npz with ``frames`` and optionally ``masks``.
    masks
        One of

        - a folder of PNGs, for all or some of the frames. Each mask belongs to the frame with the same stem. If no
          stem matches, it belongs to the frame whose stem ends in the same number. For videos, or if some mask has
          no such frame, the numbers are positions in the source, counted from 0;
        - a PNG: the mask of the frame with the same name (``clip.frame_names``), else of the first frame read;
        - an .npz (with ``masks``), .npy or array: (T, H, W) for all frames of the source, or (H, W)
          for the first frame read.

        Object ids are the indices of palette PNGs and the values of grey PNGs of 1 to 16 bits; 255 is void. If
        palettes differ between files, or black is not at index 0, the colours are looked up in the DAVIS palette.
        If the grey PNGs of a folder contain only 0 and 255, they are binary: 255 is object 1. Frames without a mask
        become void.
    name
        By default the stem of the file or the name of the folder.
    fps
        By default the mean rate of the video, or 8 for pictures and arrays.
    start, stop
        Frames ``start`` to ``stop - 1`` of the source, counted from 0; all by default.
    stride
        Take every n-th frame; `fps` is divided by it.
    size
        Short side, or height and width, in pixels. Frames are resized (bicubic) while they are read, so that a
        large video takes no more memory than the frames asked for. Masks are resized by nearest neighbour.

    Raises
    ------
    TedlensError
        If something is missing, damaged, cut short or of the wrong size, or if masks cannot be interpreted: soft
        edges, palettes that disagree, masks named by frame and object, or masks numbered from 0 within the part that
        is read, or from 1, so that the frames they belong to are ambiguous. MPEG program and transport streams do not
        record their length, so there a cut is noticed only within a picture.
    """
    source = Path(path).expanduser()
    footage = media.read_footage(source, media.Part(start, stop, stride, size))
    labels = None
    if masks is not None:
        labels = media.read_masks(masks, footage)
    elif footage.masks is not None:
        labels = media.read_masks(footage.masks, footage, f"masks in {source}")
    return Clip(
        footage.frames,
        masks=labels,
        fps=fps if fps is not None else footage.fps or DEFAULT_FPS,
        name=name if name is not None else source.resolve().name if source.is_dir() else source.stem,
        frame_names=footage.names,
    )


def as_clip(given: Clip | str | os.PathLike[str]) -> Clip:
    """Return a clip unchanged; read a path with `read_clip`.

    Raises
    ------
    TedlensError
        For anything else, and as `read_clip`.
    """
    if isinstance(given, Clip):
        return given
    if isinstance(given, str | os.PathLike):
        return read_clip(given)
    raise TedlensError(
        f"A {type(given).__name__} is no clip; give a Clip, as from tl.read_clip or tl.Clip(frames), or a path."
    )
