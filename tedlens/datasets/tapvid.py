"""TAP-Vid: points that are followed through videos."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from tedlens.clip import Clip
from tedlens.datasets.layout import Clips
from tedlens.errors import TedlensError
from tedlens.media.footage import LONGEST_SIDE, check_frames

Array = npt.NDArray[Any]
Video = Mapping[str, Any]  # video, points, occluded

KEYS = ("video", "points", "occluded")
SIZE = (256, 256)  # the size on which the protocol measures
HOW_TO = (
    "get TAP-Vid from https://github.com/google-deepmind/tapnet (tapvid_davis.zip, tapvid_rgb_stacking.zip) and give "
    "the .pkl in it, or an .npz with NAME/video, NAME/points and NAME/occluded"
)


def tapvid(path: str | Path, size: tuple[int, int] | None = SIZE) -> Clips:
    """A subset of TAP-Vid (DAVIS, RGB-stacking, a part of Kinetics), clip by clip.

    Parameters
    ----------
    path
        The published pickle, such as ``tapvid_davis.pkl``. It holds videos by name or in a list (then the names are 0,
        1, ..), each with ``video`` (T, H, W, 3) uint8 or JPEGs, ``points`` (N, T, 2), x and y as shares of width and
        height, and ``occluded`` (N, T) bool. Or an .npz with the same arrays as ``NAME/video``, ``NAME/points``,
        ``NAME/occluded``. A pickle may hold plain arrays and nothing else: a pickle that names anything but numpy's
        arrays is refused, and no code in it is run.
    size
        Height and width to which frames are resized (Lanczos); by default 256 x 256, the protocol's size. None keeps
        the size of the video.

    Returns
    -------
    A sequence of clips, resized only when used, without masks. A pickle is read completely at once, and the last one
    stays in memory. `Clip.points` has ``position`` (point, frame, axis = x, y) float64 in pixels of the clip, where 0
    is the left or upper edge of the first pixel (so its centre is 0.5) and 256 the far edge; and ``visible`` (point,
    frame) bool. The position of a hidden point has no meaning. The files have no frame rate, so clips have the default
    frame rate of a folder of pictures.

    Raises
    ------
    TedlensError
        If the file is missing, damaged, or holds something else.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise TedlensError(f"{path} is no file; {HOW_TO}.")
    if size is not None and not (len(size) == 2 and all(1 <= side <= LONGEST_SIDE for side in size)):
        raise TedlensError(f"size={size} is no size of a picture; give (height, width) in pixels, or None.")
    load = _npz if path.suffix.lower() == ".npz" else _pickled
    return Clips("tapvid", path, load(path), partial(_read, load, path, size))


def _read(load: Callable[[Path], Mapping[str, Video]], path: Path, size: tuple[int, int] | None, name: str) -> Clip:
    found, what = load(path)[name], f"{name} in {path}"
    frames = np.stack([_fitted(frame, size) for frame in _frames(found["video"], what)])
    points, occluded = (_numbers(found[key], f"{key} of {what}") for key in KEYS[1:])
    count = len(points)
    if points.shape != (count, len(frames), 2) or occluded.shape != (count, len(frames)):
        raise TedlensError(
            f"{what} has {len(frames)} frames, points of shape {points.shape} and occluded of {occluded.shape}, not "
            f"(N, T, 2) and (N, T); {HOW_TO}."
        )
    visible = ~occluded.astype(np.bool_)
    position = points.astype(np.float64) * [frames.shape[2], frames.shape[1]]
    if not np.isfinite(position[visible]).all():
        raise TedlensError(f"{what} has points that are visible but nowhere (NaN); {HOW_TO}.")
    truth = xr.Dataset(
        {
            "position": (("point", "frame", "axis"), position, {"units": "pixel", "origin": "edge of the first pixel"}),
            "visible": (("point", "frame"), visible),
        },
        {"point": np.arange(count), "frame": np.arange(len(frames)), "axis": ["x", "y"]},
        {"dataset": "tapvid"},
    )
    return Clip(frames, name=name, points=truth)


def _numbers(given: Any, what: str) -> Array:
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "biuf":
        raise TedlensError(f"{what} is no array of numbers; {HOW_TO}.")
    return given


def _frames(video: Any, what: str) -> Sequence[Array]:
    """The frames (H, W, 3) of a video: an array, or one JPEG per frame, as in Kinetics."""
    if isinstance(video, np.ndarray) and video.dtype != np.object_:
        return list(check_frames(video, f"video of {what}"))
    if not len(video) or not all(isinstance(frame, bytes) for frame in video):
        raise TedlensError(f"video of {what} is neither an array nor JPEGs; {HOW_TO}.")
    frames = [_decoded(frame, what) for frame in video]
    if len({frame.shape for frame in frames}) > 1:
        raise TedlensError(f"video of {what} has frames of several sizes; {HOW_TO}.")
    return frames


def _decoded(data: bytes, what: str) -> Array:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]) as image:
            return np.array(image.convert("RGB"))
    except Exception:  # as for files, see `media.pictures`
        raise TedlensError(f"video of {what} has a frame that is damaged or no JPEG; {HOW_TO}.") from None


def _fitted(frame: Array, size: tuple[int, int] | None) -> Array:
    """A frame at the size asked for, resized as mediapy does, which the protocol's own code uses."""
    from PIL import Image

    if size is None or frame.shape[:2] == tuple(size):
        return frame
    return np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.LANCZOS))


# --- files ----------------------------------------------------------------------------------------


class _Npz(Mapping[str, Video]):
    """The videos of an .npz, each read only when used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with np.load(path, allow_pickle=False) as arrays:
                keys = [key.rpartition("/") for key in arrays.files]
        except Exception:  # found by fuzzing: numpy raises nearly anything on a broken file
            raise TedlensError(f"{path} cannot be read as plain arrays; {HOW_TO}.") from None
        self.names = list(dict.fromkeys(name for name, _, _ in keys))
        missing = [f"{name}/{key}" for name in self.names for key in KEYS if (name, "/", key) not in keys]
        if missing or not keys:
            raise TedlensError(f"{path} lacks {missing[0] if missing else 'any video'}; {HOW_TO}.")

    def __getitem__(self, name: str) -> Video:
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                return {key: arrays[f"{name}/{key}"] for key in KEYS}
        except Exception:
            raise TedlensError(f"{name} in {self.path} is damaged or no plain array; {HOW_TO}.") from None

    def __iter__(self) -> Any:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _npz(path: Path) -> Mapping[str, Video]:
    return _Npz(path)


def _pickled(path: Path) -> Mapping[str, Video]:
    state = path.stat()
    return _unpickled(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1)  # it holds the videos of all clips, and reading it takes long
def _unpickled(path: Path, changed: int, size: int) -> Mapping[str, Video]:
    try:
        with path.open("rb") as file:
            return _videos(_ArraysOnly(file).load())
    except _NotPlain as error:
        raise TedlensError(
            f"{path} is refused, for it holds {error}, and only plain arrays are read; {HOW_TO}."
        ) from None
    except Exception:  # what is damaged can raise nearly anything
        raise TedlensError(f"{path} is damaged, or no pickle of videos with {', '.join(KEYS)}; {HOW_TO}.") from None


def _videos(found: Any) -> Mapping[str, Video]:
    """The videos of a pickle by name, whether it holds them by name or in a list."""
    named = enumerate(found) if isinstance(found, list) else found.items()
    return {str(name): {key: _plain(video[key]) for key in KEYS} for name, video in named}


# --- a pickle that may hold arrays and nothing else -----------------------------------------------


class _NotPlain(Exception):
    """Raised for content of a pickle that is not an array."""


class _Dtype:
    """Stands for `numpy.dtype`: plain numbers, or objects that the pickle lists."""

    def __init__(self, kind: str, align: object = False, copy: object = False) -> None:
        if not (isinstance(kind, str) and re.fullmatch("[biuf][1248]|O8?", kind)):
            raise _NotPlain(f"numbers of type {kind!r}")
        self.kind, self.order = kind, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.order, *parts = state
        if self.order not in ("<", ">", "=", "|") or any(part is not None for part in parts[:3]):
            raise _NotPlain("numbers of a composed type")

    def of(self, data: Any, shape: tuple[int, ...], order: Any) -> Array:
        if self.kind.startswith("O"):
            values = np.empty(len(data), object)
            values[:] = list(map(_plain, data))
        else:
            values = np.frombuffer(data, np.dtype(self.order + self.kind))
        return values.reshape(shape, order=order)


class _Array:
    """Stands for `numpy.ndarray`; its values may come later."""

    values: Array

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.values = dtype.of(data, shape, "F" if fortran else "C")


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    return _Array()


def _frombuffer(data: Any, dtype: _Dtype, shape: Any, order: str, axes: Any = None) -> _Array:
    array = _Array()
    turned = order == "K" and axes is not None
    array.values = dtype.of(data, shape, "C").transpose(axes) if turned else dtype.of(data, shape, order)
    return array


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    return dtype.of(data, (), "C")[()]


def _plain(value: Any) -> Any:
    return value.values if isinstance(value, _Array) else value


# Everything that a pickle may name. No function of numpy is called with its content: these make arrays from plain
# bytes.
KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = KNOWN.get((re.sub(r"^numpy\._core\.", "numpy.core.", module), name))
        if known is None:
            raise _NotPlain(f"{module}.{name}")
        # A pickle can set attributes of what it names, such as a function's defaults: those of a wrapper are lost.
        return known if isinstance(known, type) else lambda *given: known(*given)
