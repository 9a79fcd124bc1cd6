"""A model that gets activations of another run put in: of another clip, order of frames, noise level or seed."""

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
    """A model whose layers give what they gave in another run: a model like any other, whose results say so.

    The other run is one of the model that is given (with the interventions that it has), in the same windows, with
    the same noise for each frame unless `source` says otherwise. It costs a forward up to the deepest of the layers
    for each forward. As a scope, see `ablate`; there it holds for what tedlens runs.

    Parameters
    ----------
    model
        As `ablate` takes it.
    layers
        Names and patterns as `probe` takes them. Of a down block, what it hands down is meant; its skips are those of
        the layers inside.
    source
        Another clip (or its path), at least as long: resized as the first, and conditioned on its own frames.

        Or the same clip with the frames of each window shuffled, while the model is conditioned as before:
        ``"reversed"``, ``"shuffled"`` (all but the first, always in the same way), or ``"still"`` (the first repeated).
        Each frame gets the activations that it has itself in that order, and keeps its own noise.

        Or a mapping with any of ``clip``, ``order``, ``tau`` and ``seed``: ``{"tau": 900}`` is the same clip at another
        noise level.
    frames
        Numbers of frames in the clip, from 0, where they are put in; by default all.
    cells
        Ids of objects in the clip's masks (of all frames), in whose cells they are put in; by default everywhere.

    Raises
    ------
    TedlensError
        For layers that are not there or a source that is none; when a clip is prepared, for a source that is shorter,
        frames or objects that it does not have.

    Examples
    --------
    >>> tl.predict(tl.patch(motion, "up_2.temp_attentions.*", "still"), clip, tau=900)  # doctest: +SKIP
    """
    return as_model(model).intervened(Patch.of(layers, source, frames=frames, cells=cells))


@dataclass(frozen=True)
class Source:
    """The run that activations are taken of: what differs from the run that they are put in."""

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
        """As JSON has it; a clip that is no file is told by its name and the hash of its frames."""
        said: dict[str, Any] = {"order": self.order, "tau": self.tau, "seed": self.seed}
        if self.clip is not None:
            said |= {"clip": self.path or self.clip.name, "clip_sha256": frames_sha256(self.clip)}
        return {key: value for key, value in said.items() if value is not None}

    def draw(self, moment: Moment) -> Draw:
        """The noise of the other run."""
        tau = moment.tau if self.tau is None else self.tau
        return Draw(tau, moment.seed if self.seed is None else self.seed, moment.sample)

    def frame_order(self, count: int) -> list[int]:
        """Of a window's frames, which one stands at each place."""
        if self.order == "reversed":
            return list(range(count))[::-1]
        if self.order == "still":
            return [0] * count
        # The first stays, on which a model is conditioned.
        return [0, *(1 + np.random.default_rng(0).permutation(count - 1)).tolist()]


class Ready(NamedTuple):
    """A patch made ready for a clip: where, from what, and in which cells (frame, 1, y, x) of each layer."""

    places: list[Site]
    view: Prepared
    reading: Reading
    cells: list[Tensor] | None


@dataclass(frozen=True)
class Patch(Intervention):
    """Layers that give what they gave in another run. See `patch`."""

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
        assert moment is not None  # it goes by frames
        values = self._other_run(moment, ready)
        for number, place in enumerate(ready.places):
            chosen = None if self.frames is None else chosen_frames(self.frames, moment)
            if ready.cells is not None:
                of_frames = ready.cells[number]
                part = torch.stack([of_frames[held.start : held.stop].any(0) for held in moment.covered])
                chosen = part if chosen is None else part & chosen
            yield place.module, self._put_in(place, values[place.name], chosen)

    def _other_run(self, moment: Moment, ready: Ready) -> dict[str, Tensor]:
        """Activations of the layers in the other run, (frame, channel, y, x), frame by frame those of the window."""
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
