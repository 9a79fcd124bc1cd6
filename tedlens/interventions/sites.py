"""Where an intervention acts: submodules by name, and the part of their output for given frames and cells."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tedlens.errors import TedlensError
from tedlens.models.acting import Moment
from tedlens.models.base import DiffusionModel
from tedlens.models.points import HookPoint, Outline
from tedlens.models.structure import outline
from tedlens.probing import usual_size


class Site(NamedTuple):
    """A submodule, with its name and the layout of its output."""

    name: str
    point: HookPoint
    module: nn.Module


def inside(model: DiffusionModel) -> Outline:
    """What can be probed in a model, for frames of its usual size."""
    return outline(model, usual_size(model))


def sites(model: DiffusionModel, layers: Sequence[str]) -> list[Site]:
    """The submodules that match names and patterns, each once."""
    found: dict[str, Site] = {}
    for pattern in layers:
        for name, point in inside(model).matching(pattern):
            found[point.path] = Site(name, point, model.denoiser.get_submodule(point.path))
    return list(found.values())


def attentions_in(model: DiffusionModel, found: Sequence[Site]) -> list[Site]:
    """The layers that are attentions, and all attentions inside layers, in the order in which they finish."""
    starts = tuple(f"{site.point.path}." for site in found)
    points = inside(model).points.values()
    paths = [p.path for p in points if _attends(model, p.path) and f"{p.path}.".startswith(starts)]
    return sites(model, paths)


def _attends(model: DiffusionModel, path: str) -> bool:
    """Whether a submodule is an attention in the manner of diffusers, whatever its class."""
    module = model.denoiser.get_submodule(path)
    return hasattr(module, "to_q") and hasattr(module, "heads")


def names_of(layers: Any) -> tuple[str, ...]:
    """The names of one or several layers as a tuple."""
    names = (layers,) if isinstance(layers, str) else tuple(layers)
    if not names or not all(isinstance(name, str) for name in names):
        raise TedlensError(
            f"layers={layers!r} names no layer; give names or patterns as probe takes them, like 'up_2.attentions.*'."
        )
    return names


def numbers_of(what: str, given: Any) -> tuple[int, ...] | None:
    """One or several whole numbers from 0 as a tuple; None if None is given."""
    if given is None:
        return None
    numbers: list[Any] = [given] if isinstance(given, Real) else list(given)
    if not numbers or not all(isinstance(n, Integral) and not isinstance(n, bool) and int(n) >= 0 for n in numbers):
        raise TedlensError(f"{what}={given!r} are no numbers of {what}; give whole numbers from 0, one or several.")
    return tuple(int(n) for n in numbers)


def check_frames(frames: tuple[int, ...] | None, clip_name: str, length: int) -> None:
    """Check that a clip has the frames that an intervention names."""
    if frames is not None and max(frames) >= length:
        raise TedlensError(
            f"frames={list(frames)} goes beyond clip {clip_name!r} of {length} frames; choose from 0 to {length - 1}."
        )


def chosen_frames(frames: tuple[int, ...], moment: Moment) -> Tensor:
    """Which frames of a model's layers stand for at least one of the given frames: bool (frame, 1, 1, 1)."""
    return torch.tensor([any(frame in held for frame in frames) for held in moment.covered]).view(-1, 1, 1, 1)


def within(point: HookPoint, chosen: Tensor | None, new: Tensor, output: Tensor) -> Tensor:
    """An output with `new` in its `chosen` part (frame, 1, y, x), or in all of it; text tokens stay as they are.

    `new` has the layout of the whole output, or of its video tokens.
    """
    video = point.of_video(output)
    new = (point.of_video(new) if new.shape == output.shape else new).to(output)
    if chosen is not None:
        new = torch.where(point.lay(chosen.to(output.device)), new, video)
    return point.with_video(new, output)
