"""What can be probed inside a UNet, and in which layout each submodule gives it, without running the model."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tedlens.models.acting import first_given
from tedlens.models.base import DiffusionModel
from tedlens.models.hooks import hooked
from tedlens.models.points import HookPoint, Layout, Outline

# Numbers of frames to look with: primes, so that none is a product of a height and a width.
FRAMES = (13, 11, 7, 5, 3, 2)

Shapes = tuple[tuple[int, ...], tuple[int, ...]]  # of what a module gets first, and of what it gives


def outline(model: DiffusionModel, size: tuple[int, int]) -> Outline:
    """What can be probed in a model, for frames of a height and width: see `hook_points`. Found once a size."""
    if size in model.outlines:
        return model.outlines[size]
    paths = {id(module): path for path, module in model.denoiser.named_modules()}
    found = Outline(
        name=model.name,
        unet_class=type(model.denoiser).__name__,
        parameters=sum(p.numel() for p in model.denoiser.parameters()),
        blocks={block: paths[id(model.module(block))] for block in model.blocks},
        block=model.block,
        window=model.window,
        size=model.size,
        multiple=model.multiple,
        log_snr=(model.log_snr(0), model.log_snr(model.levels - 1)),
        levels=model.levels,
        input_size=size,
        points=hook_points(model, size),
    )
    model.outlines[size] = found
    return found


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
    twin.latents = "frame"  # layouts are the same with either, and axes are told apart more easily
    tokens = twin.token_grid(size)
    longest = model.window if tokens is None else model.longest_window
    frames = _telling_frames(twin, size, FRAMES if longest is None else [f for f in FRAMES if f <= longest])
    blank = np.zeros((frames, *size, 3), np.uint8)
    seen: dict[str, list[Shapes]] = {}
    notes = [(module, _note(seen, path)) for path, module in twin.denoiser.named_modules() if path != ""]
    with hooked(notes, with_kwargs=True), torch.inference_mode():
        latents = [each.start for each in twin.latent_frames(range(frames))]
        clean = twin.encode(blank[:1]).expand(frames, -1, -1, -1)[latents]
        twin.run(clean, 0, twin.condition(blank, clean, range(frames)))
    once = {path: shapes[0] for path, shapes in seen.items() if len(shapes) == 1}
    return _readable(twin, once, len(twin.covered(range(frames))), tokens)


def on_meta_device(model: DiffusionModel) -> DiffusionModel:
    """A copy of a model that has shapes and no weights; encoders of text and image, which none needs, are gone."""
    meta: dict[int, Any] = {id(model.lock): threading.RLock()}
    for module in model.denoiser.modules():
        meta[id(vars(module).get("_diffusers_hook"))] = None  # with which layers wait on the CPU
    for part in model.pipeline.components.values():
        if type(part).__module__.startswith("transformers."):
            meta[id(part)] = None
        elif isinstance(part, nn.Module):
            for tensor in chain(part.parameters(), part.buffers()):
                empty = torch.empty_like(tensor, device="meta")
                parameter = isinstance(tensor, nn.Parameter)
                meta[id(tensor)] = nn.Parameter(empty, requires_grad=False) if parameter else empty
    twin = model.with_interventions(())
    meta[id(twin._root)] = None  # which has the weights
    # What was computed on the model's own device stays there.
    for name in [n for n in vars(model) if isinstance(getattr(type(model), n, None), cached_property)]:
        del vars(twin)[name]
    twin = copy.deepcopy(twin, meta)
    # Hooks are somebody's measurements, and nothing is measured here.
    for module in twin.denoiser.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
        vars(module).pop("forward", None)  # diffusers' hooks stand in its place, and run the module that was copied
        vars(module).pop("_diffusers_hook", None)
    twin.place = None
    return twin


def _note(seen: dict[str, list[Shapes]], path: str) -> Any:
    def shape(value: Any) -> tuple[int, ...]:
        return tuple(value.shape) if isinstance(value, Tensor) else ()

    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        value = output if isinstance(output, Tensor) else output[0] if output else None
        given = first_given(module, args, kwargs) if args or kwargs else None
        seen.setdefault(path, []).append((shape(given), shape(value)))

    return hook


def _telling_frames(twin: DiffusionModel, size: tuple[int, int], candidates: Iterable[int]) -> int:
    """A number of frames that no height or width has on the way down, so that axes can be told apart."""
    sides = {-(-side // 2**level) for side in size for level in range(12)}
    return next((f for f in candidates if len(twin.covered(range(f))) not in sides), 2)


def _readable(
    twin: DiffusionModel, shapes: dict[str, Shapes], frames: int, tokens: tuple[int, int] | None
) -> dict[str, HookPoint]:
    """Of the outputs' shapes, those that are maps, with the layout they have."""
    grids = {s[2] * s[3]: (s[2], s[3]) for _, s in shapes.values() if len(s) == 4 and s[0] == frames}
    if tokens is not None:
        grids[tokens[0] * tokens[1]] = tokens
    points = {}
    for path, (given, shape) in shapes.items():
        module = twin.denoiser.get_submodule(path)
        if len(shape) == 3 and isinstance(module, nn.GroupNorm):
            continue  # (frame, channel, y * x), which looks like tokens
        found: tuple[Layout, int, tuple[int, int]] | None = None
        text = (0, 0)
        if len(shape) == 4 and shape[0] == frames:
            found = ("map", shape[1], (shape[2], shape[3]))
        elif len(shape) == 5 and shape[0] == 1 and shape[2] == frames:
            found = ("video", shape[1], (shape[3], shape[4]))
        elif len(shape) == 3 and shape[0] == frames and shape[1] in grids:
            found = ("tokens", shape[2], grids[shape[1]])
        elif len(shape) == 3 and shape[1] == frames and shape[0] in grids:
            found = ("tracks", shape[2], grids[shape[0]])
        elif len(shape) == 3 and shape[0] == 1 and tokens is not None:
            more = shape[1] - frames * tokens[0] * tokens[1]
            if more in (0, twin.text_tokens):
                found = ("sequence", shape[2], tokens)
                text = (more, 0) if twin.text_first else (0, more)
        if found is not None:
            points[path] = HookPoint(path, type(module).__name__, *found, keeps_shape=given == shape, text=text)
    return points
