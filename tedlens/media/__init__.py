"""Files in and out: videos, folders of pictures, masks. Arrays only; what they mean is `clip`'s affair.

What is written appears whole under its name or not at all, and what is read is all there: a file that
breaks off is an error, never a shorter clip.
"""

from tedlens.media.drawing import object_colours, overlay, palette
from tedlens.media.footage import Footage, Part, check_frames, numbered
from tedlens.media.masks import mask_footage, read_masks, write_masks
from tedlens.media.reading import read_footage
from tedlens.media.video import write_video

__all__ = [
    "Footage",
    "Part",
    "check_frames",
    "mask_footage",
    "numbered",
    "object_colours",
    "overlay",
    "palette",
    "read_footage",
    "read_masks",
    "write_masks",
    "write_video",
]
