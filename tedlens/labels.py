"""Object ids in masks: which values are allowed, and the conversion that all code uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tedlens.errors import TedlensError

if TYPE_CHECKING:
    pass

VOID = 255  # in masks, as in DAVIS: not annotated
Labels = npt.NDArray[np.uint8]


def as_labels(values: npt.ArrayLike, what: str = "masks") -> Labels:
    """`values` as uint8 labels of the same shape; bool counts as 0 and 1.

    Raises
    ------
    TedlensError
        If they are not whole numbers from 0 to 255.
    """
    array = as_array(values, what)
    if array.dtype == np.uint8:
        return array
    if array.dtype != np.bool_:
        if not np.issubdtype(array.dtype, np.integer):
            raise TedlensError(f"{what} is of type {array.dtype}; give integers: 0 background, 1.. objects, 255 void.")
        if array.size and (array.min() < 0 or array.max() > 255):
            raise TedlensError(
                f"{what} holds values from {array.min()} to {array.max()}; "
                "object ids go from 1 to 254, 0 is background and 255 is void."
            )
    return array.astype(np.uint8)


def as_array(values: npt.ArrayLike, what: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except (ValueError, TypeError):  # a ragged list, a tensor on another device
        raise TedlensError(f"{what} is a {type(values).__name__} that is no array; give a numpy array.") from None


def ids_in(labels: Labels) -> set[int]:
    """All values that occur, 0 and void included."""
    found = np.zeros(256, np.bool_)
    for row in labels:  # a part at a time, because bincount makes an int64 copy
        found |= np.bincount(row.ravel(), minlength=256) > 0
    return {int(i) for i in np.flatnonzero(found)}


def object_ids(labels: Labels) -> list[int]:
    """Ids of the objects in masks, ascending: all values but 0 and void."""
    return sorted(ids_in(labels) - {0, VOID})


def from_first(first: Labels, frames: int, what: str = "masks") -> Labels:
    """A mask (H, W) of the first frame as masks (T, H, W), the rest void."""
    if ids_in(first) == {0, VOID}:
        raise TedlensError(
            f"{what} holds only 0 and 255, and 255 means void; give a binary mask as bool, such as `mask > 0`."
        )
    masks = np.full((frames, *first.shape), VOID, np.uint8)
    masks[0] = first
    return masks


def on_grid(masks: Labels, grid: tuple[int, int]) -> Labels:
    """Masks (..., H, W) on a grid of cells: nearest neighbour at the centres of the cells."""
    sides = zip(grid, masks.shape[-2:], strict=True)
    rows, columns = (np.floor((np.arange(g) + 0.5) * s / g).astype(int) for g, s in sides)
    return masks[..., rows, :][..., columns]


def check_size(labels: Labels, height: int, width: int, what: str = "masks") -> None:
    """Check that labels are (T, H, W) or (H, W) and have the given size."""
    if labels.ndim not in (2, 3):
        raise TedlensError(f"{what} has shape {labels.shape}; give (T, H, W), or (H, W) for the first frame only.")
    if labels.shape[-2:] != (height, width):
        raise TedlensError(
            f"{what} is {labels.shape[-2]}x{labels.shape[-1]} (height x width) but the frames are {height}x{width}; "
            "give masks of the size of the frames."
        )
