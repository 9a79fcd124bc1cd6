"""The pixels inside the outline of an object."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def inside(outline: npt.ArrayLike, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The pixels whose centres lie within a closed outline, by the even-odd rule.

    Centres are at whole numbers. A centre on the outline itself counts as inside if the outline there is the left or
    upper edge of the area. So if two outlines share an edge, each pixel is in exactly one of them. (Pillow's polygons
    are wider: they also include the pixels under the line.)

    Parameters
    ----------
    outline
        (corner, axis = x, y) in pixels; the last corner is joined to the first.
    size
        Height and width.

    Returns
    -------
    (H, W) bool
    """
    corners: npt.NDArray[Any] = np.asarray(outline, float).reshape(-1, 2)
    rows, columns = np.arange(size[0]), np.arange(size[1])
    found = np.zeros(size, np.bool_)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        crossed = rows[(rows >= y0) != (rows >= y1)]
        at = x0 + (crossed - y0) * ((x1 - x0) / (y1 - y0)) if len(crossed) else crossed
        found[crossed] ^= columns < at[:, None]  # a pixel is within where an odd number of edges lies to its right
    return found
