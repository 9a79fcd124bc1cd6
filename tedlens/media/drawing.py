"""Draw objects over frames, in colours that colour-blind readers can distinguish."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tedlens.errors import TedlensError
from tedlens.labels import VOID, Labels, as_labels
from tedlens.media.footage import Pictures, check_frames

if TYPE_CHECKING:
    pass

FIRST_OBJECTS = ("E69F00", "56B4E9", "CC79A7", "F0E442", "009E73", "D55E00", "0072B2")  # rgb, where objects are shown


def palette() -> npt.NDArray[np.uint8]:
    """The 256 colours (id, rgb) of the DAVIS and PASCAL VOC palettes: the bits of the id, distributed over rgb."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((ids >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def object_colours() -> npt.NDArray[np.uint8]:
    """The colours (id, rgb) in which objects are shown.

    First seven that colour-blind readers can distinguish (Okabe and Ito), then those of the palette, brighter. Mask
    files use the palette itself.
    """
    colours: npt.NDArray[np.uint8] = np.minimum(palette().astype(int) * 255 // 192, 255).astype(np.uint8)
    colours[1 : len(FIRST_OBJECTS) + 1] = [tuple(bytes.fromhex(code)) for code in FIRST_OBJECTS]
    return colours


def overlay(frames: Pictures, labels: npt.ArrayLike, alpha: float = 0.5) -> Pictures:
    """Frames with each object tinted and outlined in its colour (`object_colours`).

    Parameters
    ----------
    frames
        (T, H, W, 3) uint8.
    labels
        (T, H, W) integers. 0 (background) and 255 (void) are left as they are.
    alpha
        Opacity of the tint: 0 shows only outlines, 1 hides the picture.

    Returns
    -------
    (T, H, W, 3) uint8, a new array.

    Raises
    ------
    TedlensError
        For arrays of the wrong type or shape, or of different sizes.
    """
    frames, ids = check_frames(frames), as_labels(labels, "labels")
    if ids.shape != frames.shape[:3]:
        raise TedlensError(f"labels has shape {ids.shape} but frames has {frames.shape}; give one label a pixel.")
    if not 0 <= alpha <= 1:
        raise TedlensError(f"alpha={alpha} is no share; give a number from 0 to 1.")
    tints = object_colours().astype(np.float32)
    lines = 0.8 * tints * (255 / np.maximum(tints.max(axis=1, keepdims=True), 1)) + 0.2 * 255
    edges = 1 + (min(frames.shape[1:3]) >= 240)
    out = frames.copy()
    for picture, label in zip(out, ids, strict=True):
        objects = (label != 0) & (label != VOID)
        tint = tints[label[objects]]
        picture[objects] = (picture[objects] * (1 - alpha) + tint * alpha + 0.5).astype(np.uint8)
        edge = objects & _border(label, edges)
        picture[edge] = lines[label[edge]].astype(np.uint8)
    return out


def _border(label: Labels, width: int) -> npt.NDArray[np.bool_]:
    """Pixels with another label at most `width` pixels above, below, left or right of them."""
    height, breadth = label.shape
    padded = np.pad(label, width, mode="edge")
    border = np.zeros(label.shape, np.bool_)
    for step in range(1, width + 1):
        for dy, dx in ((step, 0), (-step, 0), (0, step), (0, -step)):
            border |= padded[width + dy : width + dy + height, width + dx : width + dx + breadth] != label
    return border
