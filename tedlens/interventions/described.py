"""Interventions as plain values, as they appear in a grid file, a worker's arguments or a result's attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tedlens.errors import TedlensError
from tedlens.interventions.ablation import Ablation
from tedlens.interventions.patching import Patch
from tedlens.interventions.steering import Steering
from tedlens.models.acting import Intervention
from tedlens.models.base import DiffusionModel

Said = Mapping[str, Any]
KINDS: dict[str, Callable[..., Intervention]] = {
    "ablate": Ablation.of,
    "patch": Patch.of,
    "steer": Steering.of,
}


def intervened(model: DiffusionModel, said: Said | Sequence[Said] | None) -> DiffusionModel:
    """A model with the described interventions, applied one after another.

    Parameters
    ----------
    said
        ``{"ablate": "up_2.temp_attentions.*"}``, or with any arguments of the function of that name:
        ``{"ablate": {"layers": .., "how": "zero"}}``. Several interventions are a list, or more keys of one mapping.
        None means no intervention.

    Raises
    ------
    TedlensError
        For an invalid description, and as in the functions themselves.
    """
    for each in [] if said is None else [said] if isinstance(said, Mapping) else said:
        for kind, arguments in _items(each):
            model = model.intervened(_made(kind, arguments))
    return model


def _items(said: Any) -> list[tuple[str, Any]]:
    if not isinstance(said, Mapping) or not said or not set(said) <= set(KINDS):
        raise TedlensError(
            f"{said!r} describes no intervention; say it like {{'ablate': 'up_2.temp_attentions.*'}}, with one of "
            f"{', '.join(KINDS)}."
        )
    return list(said.items())


def _made(kind: str, arguments: Any) -> Intervention:
    try:
        return KINDS[kind](**arguments) if isinstance(arguments, Mapping) else KINDS[kind](arguments)
    except TypeError as error:
        raise TedlensError(f"{kind} does not take {arguments!r} ({error}).") from error
