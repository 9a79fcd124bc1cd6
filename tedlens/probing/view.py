"""A clip as a model will see it: its size, its windows, and the features that can be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import PIL.Image

from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.models.base import DiffusionModel, Frames
from tedlens.models.points import HookPoint, Outline
from tedlens.models.structure import outline
from tedlens.provenance import clip_provenance, versions

IMAGE_BATCH = 8  # frames that an image model sees at once, where memory allows

Stitch = Literal["first", "mean"]


class View:
    """A clip as a model will see it: its size, its windows, and the features that can be read; nothing is encoded."""

    def __init__(
        self,
        model: DiffusionModel,
        clip: Clip,
        *,
        overlap: int = 2,
        window: int | None = None,
        stitch: Stitch = "first",
        size: int | tuple[int, int] | None = None,
    ) -> None:
        check_stitch(stitch)
        self.model = model
        self.clip = clip
        self.stitch = stitch
        wanted = (model.fixed_size or model.size) if size is None else size
        self.input_size = input_size((clip.height, clip.width), wanted, model.multiple)
        self.windows = windows(len(clip), window_length(model, window), overlap)
        self._about = {
            "overlap": overlap,
            "window": max(len(w) for w in self.windows),
            "stitch": stitch,
            "input_size": list(self.input_size),
        }

    def provenance(self) -> dict[str, Any]:
        """Model, clip and settings, for the attributes of results."""
        return versions() | self.model.provenance() | self._of_clip | self._about

    @cached_property
    def _of_clip(self) -> dict[str, Any]:
        return clip_provenance(self.clip)  # with a hash of its frames

    @cached_property
    def _outline(self) -> Outline:
        return outline(self.model, self.input_size)

    def names(self, blocks: str | Sequence[str] | None) -> list[str]:
        """Names of the blocks and submodules that `blocks` means; by default all ``up`` blocks."""
        return block_names(self.model, blocks, lambda: self._outline)

    def point(self, name: str) -> HookPoint:
        """Shape of the features of a block or submodule."""
        return self._outline.point(name)

    def shown_frames(self) -> list[int]:
        """First frame of the clip for each frame of the model's layers, over all windows."""
        return sorted({held.start for window in self.windows for held in self.model.covered(window)})

    def latent_frames(self) -> list[int] | None:
        """For each frame of the clip, the first of the frames that share its features; None if no frames share."""
        found: dict[int, int] = {}
        for window in self.windows:
            for held in self.model.covered(window):
                found |= {frame: held.start for frame in held if frame not in found}
        return None if all(frame == first for frame, first in found.items()) else [found[i] for i in sorted(found)]


def check_stitch(stitch: str) -> None:
    if stitch not in get_args(Stitch):
        raise TedlensError(f"stitch={stitch!r} is not known; choose {' or '.join(map(repr, get_args(Stitch)))}.")


def block_names(model: DiffusionModel, blocks: str | Sequence[str] | None, inside: Callable[[], Outline]) -> list[str]:
    """Names of the blocks and submodules that `blocks` means; `inside` is called only if a name is no block."""
    if blocks is None:
        up = [name for name in model.blocks if name.startswith(("up", "out"))]
        return up or list(model.blocks)
    wanted = [blocks] if isinstance(blocks, str) else list(blocks)
    if not wanted:
        raise TedlensError(f"No block was asked for; choose from {', '.join(model.blocks)}.")
    names: list[str] = []
    for name in wanted:
        names += [name] if name in model.blocks else [found for found, _ in inside().matching(name)]
    return list(dict.fromkeys(names))


def only_one(names: Sequence[str], block: str) -> str:
    """The only name that a pattern matches; raises an error if it matches several."""
    if len(names) != 1:
        raise TedlensError(f"{block!r} means {len(names)} submodules; name one of them, for example {names[0]!r}.")
    return names[0]


def window_length(model: DiffusionModel, window: int | None) -> int | None:
    """Frames per window: as given, by default as many as the model was trained on; None for an image model."""
    if window is not None and model.longest_window is not None and window > model.longest_window:
        raise TedlensError(
            f"window={window} is longer than {model.name!r} can count frames; choose 1 to {model.longest_window}."
        )
    return model.window if window is None else window


def windows(frames: int, window: int | None, overlap: int, *, batch: int = IMAGE_BATCH) -> list[range]:
    """Frames of each window. For an image model (window None), which sees each frame alone: plain batches.

    >>> windows(20, 8, 2)
    [range(0, 8), range(6, 14), range(12, 20)]
    """
    if window is None:
        return [range(i, min(i + batch, frames)) for i in range(0, frames, batch)]
    if window < 1 or not 0 <= overlap < window:
        raise TedlensError(
            f"overlap={overlap} does not fit windows of {window} frames; choose 0 to {max(window - 1, 0)}."
        )
    if frames <= window:
        return [range(frames)]
    starts = [*range(0, frames - window, window - overlap), frames - window]
    return [range(start, start + window) for start in starts]


def input_size(clip: tuple[int, int], size: int | tuple[int, int], multiple: int) -> tuple[int, int]:
    """Height and width to which frames are resized: short side `size`, both rounded to multiples of `multiple`."""
    if isinstance(size, int):
        scale = size / min(clip)
        wanted = (clip[0] * scale, clip[1] * scale)
    else:
        wanted = size
    if min(wanted) < 1:
        raise TedlensError(f"size={size} is too small for a picture; give the short side in pixels.")
    height, width = (max(1, round(side / multiple)) * multiple for side in wanted)
    return height, width


def usual_size(model: DiffusionModel) -> tuple[int, int]:
    """Default height and width for inspecting a model without a clip: square, if the model takes that."""
    return input_size((model.size, model.size), model.fixed_size or model.size, model.multiple)


def resize(frames: Frames, size: tuple[int, int]) -> Frames:
    """Resize frames (T, H, W, 3) to a height and width."""
    if frames.shape[1:3] == size:
        return frames
    resized = [PIL.Image.fromarray(f).resize((size[1], size[0]), PIL.Image.Resampling.BICUBIC) for f in frames]
    return np.stack([np.asarray(f) for f in resized])
