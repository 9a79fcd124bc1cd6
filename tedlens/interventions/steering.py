"""Steering: a vector is added to the output of a model's layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tedlens.errors import TedlensError
from tedlens.interventions.sites import Site, names_of, sites
from tedlens.models.acting import Act, Acts, Intervention, Moment
from tedlens.models.base import DiffusionModel
from tedlens.models.registry import Model, as_model


def steer(model: Model, layer: str | Sequence[str], direction: npt.ArrayLike, strength: float) -> DiffusionModel:
    """A model with a vector added to a layer's output, in every frame and cell; its results record it.

    Parameters
    ----------
    model
        As in `ablate`. As there, the new model is also a context manager.
    layer
        Name of the layer, as in `probe`. The vector is added to each layer if there are several, or a pattern.
    direction
        (channel,), in the units of the layer's features; for example the difference of two means of features from
        `probe`.
    strength
        Factor of the vector: ``direction * strength`` is added, without normalising it.

    Raises
    ------
    TedlensError
        For a layer that does not exist or has another number of channels, and for numbers that are not finite.
    """
    return as_model(model).intervened(Steering.of(layer, direction, strength))


@dataclass(frozen=True)
class Steering(Intervention):
    """A vector that is added to the output of layers. See `steer`."""

    layers: tuple[str, ...]
    direction: tuple[float, ...]
    strength: float

    @classmethod
    def of(cls, layer: str | Sequence[str], direction: npt.ArrayLike, strength: float) -> Steering:
        try:
            values, factor = np.asarray(direction, np.float64), float(strength)
        except (TypeError, ValueError):
            values, factor = np.empty(0), np.nan
        if values.ndim != 1 or not len(values) or not np.isfinite([*values, factor]).all():
            raise TedlensError(
                "direction and strength are no vector (channel,) and its factor in finite numbers; give, for example, "
                "features.mean(['frame', 'y', 'x']) of one clip minus another's, and 1.0."
            )
        return cls(names_of(layer), tuple(values.tolist()), factor)

    @property
    def by_frame(self) -> bool:
        return False

    def said(self) -> dict[str, Any]:
        return {"steer": {"layer": list(self.layers), "direction": list(self.direction), "strength": self.strength}}

    def check(self, model: DiffusionModel) -> None:
        for site in sites(model, self.layers):
            if site.point.channels != len(self.direction):
                raise TedlensError(
                    f"direction has {len(self.direction)} numbers, and layer {site.name!r} {site.point.channels} "
                    "channels; give one number a channel."
                )

    def prepare(self, view: Any, before: tuple[Intervention, ...]) -> list[Site]:
        return sites(view.model, self.layers)

    def acts(self, model: DiffusionModel, moment: Moment | None, ready: list[Site] | None) -> Acts:
        pushed = self.strength * torch.tensor(self.direction, dtype=torch.float64)
        return [(site.module, self._push(site, pushed)) for site in ready or sites(model, self.layers)]

    @staticmethod
    def _push(site: Site, pushed: Tensor) -> Act:
        def act(given: Tensor, output: Tensor) -> Tensor:
            video = site.point.of_video(output)
            by_channel = pushed.view(-1, *[1] * (video.ndim - 1 - site.point.channel_axis))
            return site.point.with_video(video + by_channel.to(output), output)

        return act
