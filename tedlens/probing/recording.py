"""Record features during a forward pass, which stops after the deepest module that is read."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tedlens.models.acting import Act, Moment, acting
from tedlens.models.base import Between


class Tap(NamedTuple):
    """Where a feature is taken: a module, and how to read its output as (frame, channel, y, x)."""

    module: nn.Module
    read: Callable[[Any], Tensor]


class Draw(NamedTuple):
    """A noise draw: noise level, seed, and number of the draw."""

    tau: int
    seed: int
    sample: int = 0


class Reading(NamedTuple):
    """What to read from each forward pass, the deepest module, after which it stops, and a callback after each pass."""

    taps: Mapping[str, Tap]
    deepest: str
    step: Callable[[], Any]


class _Reached(Exception):
    """Raised by a hook to stop a forward pass once the deepest block has run."""


@contextmanager
def record(taps: Mapping[str, Tap], deepest: str) -> Iterator[dict[str, Tensor]]:
    """Record features (frame, channel, y, x) at `taps` during a forward pass, which stops after `deepest`."""
    features: dict[str, Tensor] = {}

    def keep(name: str) -> Act:
        def act(given: Tensor, output: Tensor) -> None:
            features[name] = taps[name].read(output)
            if name == deepest:
                raise _Reached

        return act

    try:
        with acting([(tap.module, keep(name)) for name, tap in taps.items()]):
            yield features
    except _Reached as reached:
        # The stack frames of the stopped forward pass hold its activations: on an H100 some 35 GB stayed allocated for
        # a while after forward passes had ended.
        traceback.clear_frames(reached.__traceback__)


def by_frames(value: Tensor, moment: Moment, between: Between) -> Tensor:
    """Features (frame of the model, ..) of a window as (frame of the clip, ..): repeated, or interpolated in time."""
    held = moment.covered
    if all(len(each) == 1 for each in held):
        return value
    if between == "repeat":
        return value[[number for number, each in enumerate(held) for _ in each]]
    centres = np.array([(each.start + each.stop - 1) / 2 for each in held])
    place = np.interp(list(moment.window), centres, np.arange(len(held)))
    before = np.floor(place).astype(int)
    share = torch.from_numpy(place - before).to(value).view(-1, *[1] * (value.ndim - 1))
    return torch.lerp(value[before], value[np.minimum(before + 1, len(held) - 1)], share)
