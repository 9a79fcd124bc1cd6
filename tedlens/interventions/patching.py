"""Activation patching: activations of another run replace a model's own. Runs differ in clip, order, tau or seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tedlens.clip import Clip, as_clip
from tedlens.errors import TedlensError
from tedlens.interventions.sites import Site, check_frames, chosen_frames, names_of, numbers_of, sites, within
from tedlens.labels import VOID, on_grid
from tedlens.models.acting import Act, Acts, Intervention, Moment
from tedlens.models.base import DiffusionModel
from tedlens.models.noise import frame_noise
from tedlens.models.registry import Model, as_model
from tedlens.probing import Draw, Prepared, Reading
from tedlens.provenance import frames_sha256

ORDERS = ("reversed", "shuffled", "still")
OTHER = Clip | str | Path | Mapping[str, Any]


def patch(
    model: Model,
    layers: str | Sequence[str],
    source: OTHER,
    *,
    frames: int | Sequence[int] | None = None,
    cells: int | Sequence[int] | None = None,
) -> DiffusionModel:
    """A model whose layers return their outputs from another run. It is a model like any other; its results record it.

    The other run uses the given model (with the interventions that it already has), the same windows and, unless
    `source` says otherwise, the same noise for each frame. Each forward pass costs one more, which stops after the
    deepest of the layers. It is also a context manager (see `ablate`), but only for what tedlens itself runs.

    Parameters
    ----------
    model
        As in `ablate`.
    layers
        Names and patterns as in `probe`. For a down block, only its main output is replaced; its skip connections
        belong to the layers inside it.
    source
        Another clip (or its path), at least as long as the first. It is resized like the first, and the model is
        conditioned on its frames.

        Or the same clip with the frames of each window in another order, while the conditioning stays the same:
        ``"reversed"``, ``"shuffled"`` (all but the first, always in the same way), or ``"still"`` (the first repeated).
        Each frame receives the activations that the same frame has in that order, and keeps its own noise.

        Or a mapping with any of ``clip``, ``order``, ``tau`` and ``seed``: ``{"tau": 900}`` is the same clip at another
        noise level.
    frames
        Numbers of the frames in the clip, from 0, whose activations are replaced; by default all.
    cells
        Ids of objects in the clip's masks; only the cells of these objects are replaced, by default all cells. The
        clip must have masks of all frames.

    Raises
    ------
    TedlensError
        For layers that do not exist or an invalid source; when a clip is prepared, also for a source that is shorter
        than the clip, and for frames or objects that the clip does not have.

    Examples
    --------
    >>> tl.predict(tl.patch(motion, "up_2.temp_attentions.*", "still"), clip, tau=900)  # doctest: +SKIP
    """
    return as_model(model).intervened(Patch.of(layers, source, frames=frames, cells=cells))


@dataclass(frozen=True)
class Source:
    """The run that activations are taken from: how it differs from the run that receives them."""

    clip: Clip | None = None
    path: str | None = None
    order: str | None = None
    tau: int | None = None
    seed: int | None = None

    @classmethod
    def of(cls, given: OTHER) -> Source:
        if isinstance(given, str) and given in ORDERS:
            return cls(order=given)
        said: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"clip": given}
        unknown = set(said) - {"clip", "order", "tau", "seed", "clip_sha256"}
        if unknown or not said:
            raise TedlensError(
                f"source={given!r} is no other run; give a clip, its path, one of {', '.join(ORDERS)}, or a mapping "
                "with any of clip, order, tau and seed."
            )
        if said.get("order") not in (None, *ORDERS):
            raise TedlensError(f"order={said['order']!r} is not known; choose {', '.join(map(repr, ORDERS))}.")
        clip = None if said.get("clip") is None else as_clip(said["clip"])
        if clip is not None and said.get("clip_sha256") not in (None, frames_sha256(clip)):
            raise TedlensError(f"{said['clip']} has other frames than the clip that was patched from; give that one.")
        path = str(said["clip"]) if isinstance(said.get("clip"), str | Path) else None
        if said.get("seed") is not None:
            frame_noise(said["seed"], [0], (1,))  # says so where a seed cannot key the noise
        return cls(clip, path, said.get("order"), said.get("tau"), said.get("seed"))

    def said(self) -> dict[str, Any]:
        """The source as JSON values. A clip is given by its path, or else its name, and by the hash of its frames."""
        said: dict[str, Any] = {"order": self.order, "tau": self.tau, "seed": self.seed}
        if self.clip is not None:
            said |= {"clip": self.path or self.clip.name, "clip_sha256": frames_sha256(self.clip)}
        return {key: value for key, value in said.items() if value is not None}

    def draw(self, moment: Moment) -> Draw:
        """The noise of the other run."""
        tau = moment.tau if self.tau is None else self.tau
        return Draw(tau, moment.seed if self.seed is None else self.seed, moment.sample)

    def frame_order(self, count: int) -> list[int]:
        """The order of a window's frames: for each place, which frame stands there."""
        if self.order == "reversed":
            return list(range(count))[::-1]
        if self.order == "still":
            return [0] * count
        # The first frame stays in its place, because a model is conditioned on it.
        return [0, *(1 + np.random.default_rng(0).permutation(count - 1)).tolist()]


class Ready(NamedTuple):
    """A patch prepared for a clip: its layers, its source, and the cells (frame, 1, y, x) to replace in each layer."""

    places: list[Site]
    view: Prepared
    reading: Reading
    cells: list[Tensor] | None


@dataclass(frozen=True)
class Patch(Intervention):
    """Layers that return their outputs from another run. See `patch`."""

    layers: tuple[str, ...]
    source: Source = field(compare=False)
    frames: tuple[int, ...] | None = None
    cells: tuple[int, ...] | None = None
    runs_model = True

    @classmethod
    def of(
        cls,
        layers: str | Sequence[str],
        source: OTHER,
        *,
        frames: int | Sequence[int] | None = None,
        cells: int | Sequence[int] | None = None,
    ) -> Patch:
        return cls(names_of(layers), Source.of(source), numbers_of("frames", frames), numbers_of("cells", cells))

    def said(self) -> dict[str, Any]:
        said = {"layers": list(self.layers), "source": self.source.said()}
        more = {"frames": self.frames, "cells": self.cells}
        return {"patch": said | {key: list(value) for key, value in more.items() if value is not None}}

    def check(self, model: DiffusionModel) -> None:
        sites(model, self.layers)
        if self.source.tau is not None:
            model.check_tau(self.source.tau)

    def prepare(self, view: Prepared, before: tuple[Intervention, ...]) -> Ready:
        check_frames(self.frames, view.clip.name, len(view.clip))
        other = self.source.clip
        if other is not None and len(other) < len(view.clip):
            raise TedlensError(
                f"Clip {other.name!r} of {len(other)} frames is shorter than {view.clip.name!r} of {len(view.clip)}, "
                "into which it is to be patched; give one at least as long."
            )
        if self.source.order is not None and any(len(held) != 1 for held in view.moment(0, Draw(0, 0)).covered):
            raise TedlensError(
                f"order={self.source.order!r} puts frames in another order, and {view.model.name!r} has several in one "
                'latent; load it with latents="frame", or patch from another clip.'
            )
        run = view.intervened(before) if other is None else view.beside(other, before)
        names = run.names(self.layers)
        points = [view.point(name) for name in names]
        modules = [view.model.denoiser.get_submodule(point.path) for point in points]
        places = [Site(*each) for each in zip(names, points, modules, strict=True)]
        cells = None if self.cells is None else [self._cells(self.cells, view.clip, place) for place in places]
        return Ready(places, run, run.reading(names), cells)

    @staticmethod
    def _cells(cells: tuple[int, ...], clip: Clip, place: Site) -> Tensor:
        if clip.masks is None or (clip.masks == VOID).all(axis=(1, 2)).any():
            raise TedlensError(
                f"cells={list(cells)} means cells of objects, and clip {clip.name!r} has no masks of all its frames; "
                "give masks, or leave cells out."
            )
        lost = set(cells) - set(clip.object_ids)
        if lost:
            known = ", ".join(map(str, clip.object_ids))
            raise TedlensError(f"Clip {clip.name!r} has no object {min(lost)} for cells; choose from {known}.")
        return torch.from_numpy(np.isin(on_grid(clip.masks, place.point.grid), cells))[:, None]

    def acts(self, model: DiffusionModel, moment: Moment | None, ready: Ready) -> Acts:
        assert moment is not None  # a patch depends on frames
        values = self._other_run(moment, ready)
        for number, place in enumerate(ready.places):
            chosen = None if self.frames is None else chosen_frames(self.frames, moment)
            if ready.cells is not None:
                of_frames = ready.cells[number]
                part = torch.stack([of_frames[held.start : held.stop].any(0) for held in moment.covered])
                chosen = part if chosen is None else part & chosen
            yield place.module, self._put_in(place, values[place.name], chosen)

    def _other_run(self, moment: Moment, ready: Ready) -> dict[str, Tensor]:
        """Activations (frame, channel, y, x) of the layers in the other run, for each frame of the window."""
        view, draw = ready.view, self.source.draw(moment)
        there = view.moment(moment.number, draw)
        if self.source.order is None:
            return view.window(view.noisy(draw, moment.number), there, ready.reading)
        order = self.source.frame_order(len(moment.window))
        if self.source.order == "still":
            seen = [moment.window[i] for i in order]
            return view.window(view.noisy(draw, moment.number, seen), there, ready.reading)
        found = view.window(view.noisy(draw, moment.number)[order], there, ready.reading)
        return {name: value[np.argsort(order)] for name, value in found.items()}

    @staticmethod
    def _put_in(place: Site, values: Tensor, chosen: Tensor | None) -> Act:
        def act(given: Tensor, output: Tensor) -> Tensor:
            return within(place.point, chosen, place.point.lay(values), output)

        return act
