"""What can be probed inside a UNet, and in which layout each submodule gives it, without running the model."""

from __future__ import annotations

import copy
import difflib
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tedlens.errors import TedlensError
from tedlens.models.base import DiffusionModel
from tedlens.models.hooks import hooked

# How a submodule holds a map over (frame, channel, y, x):
# "map" so itself; "video" (1, channel, frame, y, x), as 3D convolutions do; "tokens" (frame, y * x, channel), in
# spatial attention; "tracks" (y * x, frame, channel), in temporal attention.
Layout = Literal["map", "video", "tokens", "tracks"]
# Numbers of frames to look with: primes, so that none is a product of a height and a width.
FRAMES = (13, 11, 7, 5, 3, 2)


@dataclass(frozen=True)
class HookPoint:
    """A submodule of a UNet whose output is a map over the frame.

    Attributes
    ----------
    path
        Dotted path from the UNet, for example ``up_blocks.2.temp_attentions.0``.
    module_class
        Name of its class.
    layout
        How its output lies in memory.
    channels, grid
        Number of channels; cells (y, x).
    """

    path: str
    module_class: str
    layout: Layout
    channels: int
    grid: tuple[int, int]

    def read(self, output: Any) -> Tensor:
        """The submodule's output as (frame, channel, y, x)."""
        value = first_tensor(output)
        if self.layout == "video":
            return value[0].transpose(0, 1)
        if self.layout == "map":
            return value
        flat = value.transpose(1, 2) if self.layout == "tokens" else value.permute(1, 2, 0)
        return flat.reshape(*flat.shape[:2], *self.grid)


def first_tensor(output: Any) -> Tensor:
    """A module's output without what it returns beside it (residuals of down blocks, wrappers of diffusers)."""
    first: Tensor = output if isinstance(output, Tensor) else output[0]
    return first


def hook_points(model: DiffusionModel, size: tuple[int, int]) -> dict[str, HookPoint]:
    """All submodules that can be probed, by path, in the order in which they finish.

    Nothing is computed and no weight is read: the UNet runs on torch's meta device, where tensors have
    shapes only. Left out are submodules without a map over the frame (embeddings of time or text) and
    those that run more than once a forward.

    Parameters
    ----------
    model
        Its weights may be on the meta device themselves (`outline_model`).
    size
        Height and width in pixels of the model's input, multiples of ``model.multiple``.
    """
    twin = on_meta_device(model)
    frames = _telling_frames(size, FRAMES if model.window is None else [f for f in FRAMES if f <= model.window])
    blank = np.zeros((frames, *size, 3), np.uint8)
    seen: dict[str, list[tuple[int, ...]]] = {}
    notes = [(module, _note(seen, path)) for path, module in twin.unet.named_modules() if path != ""]
    with hooked(notes), torch.inference_mode():
        clean = twin.encode(blank)
        twin.run(clean, 0, twin.condition(blank, clean, range(frames)))
    return _readable(twin.unet, {path: shapes[0] for path, shapes in seen.items() if len(shapes) == 1}, frames)


def on_meta_device(model: DiffusionModel) -> DiffusionModel:
    """A copy of a model that has shapes and no weights; encoders of text and image, which none needs, are gone."""
    meta: dict[int, Any] = {id(model.lock): threading.RLock()}
    for part in model.pipeline.components.values():
        if type(part).__module__.startswith("transformers."):
            meta[id(part)] = None
        elif isinstance(part, nn.Module):
            for tensor in chain(part.parameters(), part.buffers()):
                empty = torch.empty_like(tensor, device="meta")
                parameter = isinstance(tensor, nn.Parameter)
                meta[id(tensor)] = nn.Parameter(empty, requires_grad=False) if parameter else empty
    twin = copy.copy(model)
    # What was computed on the model's own device stays there.
    for name in [n for n in vars(model) if isinstance(getattr(type(model), n, None), cached_property)]:
        del vars(twin)[name]
    twin = copy.deepcopy(twin, meta)
    # Hooks are somebody's measurements and interventions, and nothing is measured here.
    for module in twin.unet.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return twin


def _note(seen: dict[str, list[tuple[int, ...]]], path: str) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        value = output if isinstance(output, Tensor) else output[0] if output else None
        seen.setdefault(path, []).append(tuple(value.shape) if isinstance(value, Tensor) else ())

    return hook


def _telling_frames(size: tuple[int, int], candidates: Iterable[int]) -> int:
    """A number of frames that no height or width has on the way down, so that axes can be told apart."""
    sides = {-(-side // 2**level) for side in size for level in range(12)}
    return next((f for f in candidates if f not in sides), 2)


def _readable(unet: nn.Module, shapes: dict[str, tuple[int, ...]], frames: int) -> dict[str, HookPoint]:
    """Of the outputs' shapes, those that are maps, with the layout they have."""
    grids = {s[2] * s[3]: (s[2], s[3]) for s in shapes.values() if len(s) == 4 and s[0] == frames}
    points = {}
    for path, shape in shapes.items():
        module = unet.get_submodule(path)
        if len(shape) == 3 and isinstance(module, nn.GroupNorm):
            continue  # (frame, channel, y * x), which looks like tokens
        found: tuple[Layout, int, tuple[int, int]] | None = None
        if len(shape) == 4 and shape[0] == frames:
            found = ("map", shape[1], (shape[2], shape[3]))
        elif len(shape) == 5 and shape[0] == 1 and shape[2] == frames:
            found = ("video", shape[1], (shape[3], shape[4]))
        elif len(shape) == 3 and shape[0] == frames and shape[1] in grids:
            found = ("tokens", shape[2], grids[shape[1]])
        elif len(shape) == 3 and shape[1] == frames and shape[0] in grids:
            found = ("tracks", shape[2], grids[shape[0]])
        if found is not None:
            points[path] = HookPoint(path, type(module).__name__, *found)
    return points


def matching(model: DiffusionModel, points: dict[str, HookPoint], pattern: str) -> Iterator[tuple[str, HookPoint]]:
    """Name and hook point of each submodule that `pattern` means.

    A pattern is a dotted path from the UNet or from a block (``up_blocks.2.attentions.1``,
    ``up_2.attentions.1``); ``*`` stands for any part between two dots, ``**`` for any number of them.
    However it was asked for, a submodule of a block is called by the block's name (``up_2.attentions.1``).
    """
    blocks = block_paths(model)
    head, _, rest = pattern.partition(".")
    prefix = blocks.get(head)
    path = pattern if prefix is None else f"{prefix}.{rest}" if rest else prefix
    wanted = re.compile(re.escape(path).replace(r"\*\*", ".*").replace(r"\*", r"[^.]*"))
    found = [point for point in points.values() if wanted.fullmatch(point.path)]
    if not found:
        raise TedlensError(_unknown(model, points, pattern))
    for point in found:
        yield _block_name(point.path, blocks), point


def _block_name(path: str, blocks: dict[str, str]) -> str:
    """A path from the UNet as one from the block that it lies in, where it lies in one."""
    for block, its_path in blocks.items():
        if path == its_path or path.startswith(f"{its_path}."):
            return block + path.removeprefix(its_path)
    return path


def named_point(model: DiffusionModel, points: dict[str, HookPoint], name: str) -> HookPoint:
    """The hook point of one block or submodule by its name."""
    return next(matching(model, points, name))[1]


def block_paths(model: DiffusionModel) -> dict[str, str]:
    """Name of each block to its path in the UNet."""
    paths = {id(module): path for path, module in model.unet.named_modules()}
    return {block: paths[id(model.module(block))] for block in model.blocks}


def _unknown(model: DiffusionModel, points: dict[str, HookPoint], pattern: str) -> str:
    near = difflib.get_close_matches(pattern, [*model.blocks, *points], n=3)
    hint = f"; near it are {', '.join(near)}" if near else ""
    return (
        f"Model {model.name!r} has no block {pattern!r}, and no submodule there with a map over the frame{hint}; "
        f"choose from {', '.join(model.blocks)}, or from what `tedlens info` lists inside them."
    )
