"""Read and write files: videos, folders of pictures, masks. Arrays only; `clip` gives them their meaning.

A file is written completely or not at all. A file that is cut short raises an error on reading, and never gives a
shorter clip.
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
