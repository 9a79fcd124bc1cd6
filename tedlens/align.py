"""Match labelled arrays by their labels (same clip, same frames, same cells), never by position alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.provenance import frames_sha256


def check_same_clip(**named: xr.DataArray | xr.Dataset) -> None:
    """Check that all arrays are of one clip, as far as their attributes name it.

    Raises
    ------
    TedlensError
        If two of them name different clips.
    """
    said = {name: one for name, given in named.items() if (one := _clip_of(given)) is not None}
    for (first, one), (second, other) in zip(said.items(), list(said.items())[1:], strict=False):
        if one[0] != other[0]:
            raise TedlensError(
                f"The {first} are of clip {one[1]!r} and the {second} of clip {other[1]!r} (their frames differ); "
                "give both of the same clip."
            )


def check_of_clip(given: xr.DataArray | xr.Dataset, clip: Clip, what: str) -> None:
    """Check that results are of this clip, as far as their attributes name it.

    Raises
    ------
    TedlensError
        If they name another clip.
    """
    said = _clip_of(given)
    if said is not None and said[0] != frames_sha256(clip):
        raise TedlensError(
            f"The {what} are of clip {said[1]!r}, whose frames are not those of {clip.name!r}; give that clip."
        )


def _clip_of(given: xr.DataArray | xr.Dataset) -> tuple[str, str] | None:
    """Hash of the frames, and name, of the clip of some results; None if the attributes do not contain them."""
    for prefix in ("", "motion_", "appearance_"):
        if sha256 := given.attrs.get(f"{prefix}clip_sha256"):
            return str(sha256), str(given.attrs.get(f"{prefix}clip", ""))
    return None


def in_order(given: xr.DataArray) -> xr.DataArray:
    """Frames, rows and columns in ascending order of their labels."""
    for axis in ("frame", "y", "x"):
        if axis in given.coords and axis in given.dims and (np.diff(given[axis].values) < 0).any():
            given = given.sortby(axis)
    return given


def common_frames(
    first: xr.DataArray, second: xr.DataArray, names: tuple[str, str]
) -> tuple[xr.DataArray, xr.DataArray]:
    """Both arrays on their common frames; one of them must contain all frames of the other.

    Raises
    ------
    TedlensError
        If each has frames that the other lacks, or one has no frame coordinate and the numbers of frames differ.
    """
    if "frame" not in first.coords or "frame" not in second.coords:
        if first.sizes["frame"] != second.sizes["frame"]:
            raise TedlensError(
                f"The {names[0]} have {first.sizes['frame']} frames and the {names[1]} {second.sizes['frame']}; "
                "give both of the same frames."
            )
        return first, second
    both = np.intersect1d(first["frame"].values, second["frame"].values)
    if len(both) < min(first.sizes["frame"], second.sizes["frame"]):
        raise TedlensError(
            f"The {names[0]} have frames {listed(first['frame'].values)} and the {names[1]} frames "
            f"{listed(second['frame'].values)}, of which neither are a part of the other; give both of the same frames."
        )
    return first.sel(frame=both), second.sel(frame=both)


def listed(values: Any) -> str:
    """Numbers as text for a message; consecutive numbers as 'first to last'."""
    numbers = [int(value) for value in np.asarray(values)]
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers[:8])) + (", .." if len(numbers) > 8 else "")


def check_finite(values: Any, attrs: Mapping[Any, Any], what: str) -> None:
    """Check that features are finite.

    Raises
    ------
    TedlensError
        If they are not; the message contains the model, block, tau and dtype that the attributes name.
    """
    if np.isfinite(values).all():
        return
    said = ", ".join(f"{name} {attrs[name]}" for name in ("model", "block", "tau", "dtype") if name in attrs)
    raise TedlensError(
        f"The {what} hold NaN or infinite values{f' ({said})' if said else ''}; "
        "probe again with dtype='bfloat16' or 'float32', which do not overflow as float16 does."
    )


def labels_in(given: Any) -> Any:
    """Labels, in the order of their coordinates if they have any; from a result of `track`, its variable `labels`.

    Raises
    ------
    TedlensError
        For a Dataset without labels.
    """
    if isinstance(given, xr.Dataset):
        if "labels" not in given:
            raise TedlensError(
                f"A Dataset with {', '.join(map(str, given.data_vars)) or 'no variable'} holds no labels; give masks, "
                "or what tl.track returns."
            )
        given = given["labels"]
    return in_order(given) if isinstance(given, xr.DataArray) else given


def check_whole(features: xr.DataArray, what: str, mask: tuple[int, int] | None = None) -> None:
    """Check that features cover the whole picture of their clip, and that a mask has the size of the picture.

    Features without the attribute `clip_shape` are not checked.

    Raises
    ------
    TedlensError
        If rows or columns were cut off, or the mask has another size.
    """
    shape = next((features.attrs[n] for n in ("clip_shape", "motion_clip_shape") if n in features.attrs), None)
    if shape is None:
        return
    if mask is not None and tuple(mask) != tuple(shape[1:3]):
        raise TedlensError(
            f"The mask is {mask[0]}x{mask[1]} (height x width), and the {what} are of a clip of {shape[1]}x{shape[2]}; "
            "give a mask of the clip's own size."
        )
    for axis, pixels in zip(("y", "x"), shape[1:3], strict=True):
        if axis not in features.coords or features.sizes[axis] < 2:
            continue
        centres = features[axis].values.astype(float)
        half = (centres[-1] - centres[0]) / (len(centres) - 1) / 2
        first, last = float(centres[0] - half + 0.5), float(centres[-1] + half + 0.5)
        if abs(first) > 0.5 or abs(last - pixels) > 0.5:
            raise TedlensError(
                f"The {what} cover pixels {first:.0f} to {last:.0f} of {pixels} along {axis}; "
                "give features of the whole frame."
            )
