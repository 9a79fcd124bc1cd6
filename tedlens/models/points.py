"""What can be probed inside a model, as a plain value: no tensor, no weight, and no torch to load it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from tedlens.errors import TedlensError

if TYPE_CHECKING:
    from torch import Tensor

# How a submodule holds a map over (frame, channel, y, x):
# "map" so itself; "video" (1, channel, frame, y, x), as 3D convolutions do; "tokens" (frame, y * x, channel), in
# spatial attention; "tracks" (y * x, frame, channel), in temporal attention; "sequence" (1, frame * y * x, channel), in
# attention over all of a video, with tokens of text before or after those of the video.
Layout = Literal["map", "video", "tokens", "tracks", "sequence"]


@dataclass(frozen=True)
class HookPoint:
    """A submodule of a denoiser whose output is a map over the frame.

    Attributes
    ----------
    path
        Dotted path from the denoiser, for example ``up_blocks.2.temp_attentions.0``.
    module_class
        Name of its class.
    layout
        How its output lies in memory.
    channels, grid
        Number of channels; cells (y, x).
    keeps_shape
        Whether what it gets has the shape of what it gives.
    text
        Of a sequence, how many tokens of text stand before the video's, and how many after.
    """

    path: str
    module_class: str
    layout: Layout
    channels: int
    grid: tuple[int, int]
    keeps_shape: bool = False
    text: tuple[int, int] = (0, 0)

    @property
    def channel_axis(self) -> int:
        """Axis of the channels in its output."""
        return 1 if self.layout in ("map", "video") else 2

    def of_video(self, value: Tensor) -> Tensor:
        """An output without its tokens of text: a view."""
        return value[:, self.text[0] : value.shape[1] - self.text[1]] if any(self.text) else value

    def with_video(self, video: Tensor, output: Tensor) -> Tensor:
        """An output with other tokens of video between its own of text."""
        if not any(self.text):
            return video
        before, after = output[:, : self.text[0]], output[:, output.shape[1] - self.text[1] :]
        import torch  # which this module does not need to be loaded

        joined: Tensor = torch.cat([before, video, after], dim=1)
        return joined

    def mean_over_frames(self, output: Tensor) -> Tensor:
        """An output's mean over frames in each frame; its tokens of text are left out."""
        if self.layout == "sequence":
            video = self.read(output)
            return self.lay(video.mean(0, keepdim=True).expand_as(video))
        axis = {"map": 0, "video": 2, "tokens": 0, "tracks": 1}[self.layout]
        return output.mean(axis, keepdim=True).expand_as(output)

    def read(self, output: Any) -> Tensor:
        """The submodule's output as (frame, channel, y, x)."""
        value = first_tensor(output)
        if self.layout == "video":
            return value[0].transpose(0, 1)
        if self.layout == "map":
            return value
        if self.layout == "sequence":
            of_cells: Tensor = self.of_video(value)[0].unflatten(0, (-1, *self.grid))
            return of_cells.permute(0, 3, 1, 2)
        flat = value.transpose(1, 2) if self.layout == "tokens" else value.permute(1, 2, 0)
        return flat.reshape(*flat.shape[:2], *self.grid)

    def lay(self, value: Tensor) -> Tensor:
        """(frame, channel, y, x), or one with axes of length 1, as the submodule's output lies: `read` undone.

        Of a sequence the video's tokens alone, and an axis of frames must be whole.
        """
        if self.layout == "video":
            return value.transpose(0, 1)[None]
        if self.layout == "map":
            return value
        if self.layout == "sequence":
            return value.expand(*value.shape[:2], *self.grid).permute(0, 2, 3, 1).flatten(0, 2)[None]
        return value.flatten(2).transpose(1, 2) if self.layout == "tokens" else value.flatten(2).permute(2, 0, 1)


def first_tensor(output: Any) -> Tensor:
    """A module's output without what it returns beside it (residuals of down blocks, wrappers of diffusers)."""
    first: Tensor = output if hasattr(output, "shape") else output[0]
    return first


@dataclass(frozen=True)
class Outline:
    """A model without its weights: its blocks, and every submodule that can be probed.

    Attributes
    ----------
    name, unet_class, parameters
        Of the model, of its UNet; number of the UNet's parameters.
    blocks
        Name of each block to its path in the UNet, in the order in which they run.
    block, window, size, multiple
        As in `DiffusionModel`.
    log_snr
        At the first tau and at the last.
    levels
        Number of noise levels.
    input_size
        Height and width of the input for which the grids hold.
    points
        By path, in the order in which they finish.
    """

    name: str
    unet_class: str
    parameters: int
    blocks: Mapping[str, str]
    block: str
    window: int | None
    size: int
    multiple: int
    log_snr: tuple[float, float]
    levels: int
    input_size: tuple[int, int]
    points: Mapping[str, HookPoint]

    def matching(self, pattern: str) -> Iterator[tuple[str, HookPoint]]:
        """Name and hook point of each submodule that `pattern` means.

        A pattern is a dotted path from the UNet or from a block (``up_blocks.2.attentions.1``,
        ``up_2.attentions.1``); ``*`` stands for any part between two dots, ``**`` for any number of them.
        However it was asked for, a submodule of a block is called by the block's name (``up_2.attentions.1``).
        """
        head, _, rest = pattern.partition(".")
        prefix = self.blocks.get(head)
        path = pattern if prefix is None else f"{prefix}.{rest}" if rest else prefix
        wanted = re.compile(re.escape(path).replace(r"\*\*", ".*").replace(r"\*", r"[^.]*"))
        found = [point for point in self.points.values() if wanted.fullmatch(point.path)]
        if not found:
            raise TedlensError(self._unknown(pattern))
        for point in found:
            yield self._called(point.path), point

    def point(self, name: str) -> HookPoint:
        """The hook point of one block or submodule by its name."""
        return next(self.matching(name))[1]

    def _called(self, path: str) -> str:
        """A path from the UNet as one from the block that it lies in, where it lies in one."""
        for block, its_path in self.blocks.items():
            if path == its_path or path.startswith(f"{its_path}."):
                return block + path.removeprefix(its_path)
        return path

    def _unknown(self, pattern: str) -> str:
        near = difflib.get_close_matches(pattern, [*self.blocks, *self.points], n=3)
        hint = f"; near it are {', '.join(near)}" if near else ""
        return (
            f"Model {self.name!r} has no block {pattern!r}, and no submodule there with a map over the frame{hint}; "
            f"choose from {', '.join(self.blocks)}, or from what `tedlens info` lists inside them."
        )

    def said(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Outline:
        """From what `said` gives."""
        points = {path: HookPoint(**_paired(each, "grid", "text")) for path, each in said["points"].items()}
        return cls(**_paired(said, "log_snr", "input_size") | {"points": points})


def _paired(said: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Of what JSON has as lists, those that are pairs."""
    return dict(said) | {name: tuple(said[name]) for name in names if name in said}
