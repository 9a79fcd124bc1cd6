"""Several models, swept one after another and laid side by side along an axis ``model``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tedlens.errors import TedlensError
from tedlens.models.base import DiffusionModel
from tedlens.models.registry import Model
from tedlens.provenance import grouped
from tedlens.sweeping.cells import GRID

SeveralModels = Sequence[Model] | Mapping[str, Model]


def several_models(given: Mapping[str, Any]) -> tuple[str, dict[str, Model]] | None:
    """Of what was given as motion and appearance, which of the two are several models, and these by name; None where
    neither is.

    Raises
    ------
    TedlensError
        For no model in a list, two of one name, or both several.
    """
    found = [(role, models) for role, each in given.items() if (models := _by_name(each)) is not None]
    if len(found) > 1:
        raise TedlensError("motion= and appearance= both hold several models; give several of one of them.")
    return found[0] if found else None


def _by_name(given: Model | SeveralModels | None) -> dict[str, Model] | None:
    if given is None or isinstance(given, str | Path | DiffusionModel):
        return None
    if isinstance(given, Mapping):
        # The arguments of a loader say name=; any other mapping gives names to models.
        return None if "name" in given or not given else {str(name): model for name, model in given.items()}
    found: dict[str, Model] = {}
    for model in given:
        name = _name(model)
        if name in found:
            raise TedlensError(
                f"Two of the models are {name!r}; give each a name of its own, as in "
                'motion={"whole": "svd", "cut": {"name": "svd", "ablate": "up_2.temp_attentions.*"}}.'
            )
        found[name] = model
    if not found:
        raise TedlensError("There is no model in an empty list; give at least one.")
    return found


def _name(model: Model) -> str:
    """What a model is called: as it was asked for, with what is done inside it."""
    if isinstance(model, DiffusionModel):
        done = {kind: said for each in model.interventions for kind, said in each.said().items()}
        return ", ".join([model.name, *(f"{kind} {json.dumps(said)}" for kind, said in done.items())])
    if isinstance(model, Mapping):
        from tedlens.interventions.described import KINDS

        done = {kind: said for kind, said in model.items() if kind in KINDS}
        return ", ".join([str(model["name"]), *(f"{kind} {said}" for kind, said in done.items())])
    return str(model)


def side_by_side(each: Mapping[str, xr.Dataset], levels: Sequence[float] | None = None) -> xr.Dataset:
    """Scores of several models over an axis ``model``.

    Where noise was asked for by log-SNR (`levels`), that is their common axis, and ``tau`` and ``sigma``, which differ
    between schedules, lie along model and level. Else it is tau, and ``sigma`` and ``log_snr`` do. Where a model has no
    such block or clip, its scores are NaN. What differs between the models' attributes stands in the attribute
    ``models``, as JSON.
    """
    if levels is not None:
        each = {name: _at_levels(scores, levels) for name, scores in each.items()}
    joined = xr.concat(
        list(each.values()),
        xr.Variable("model", list(each)),
        join="outer",
        coords="different",
        compat="equals",
        combine_attrs="drop",
        fill_value=dict.fromkeys((*GRID, *(["tau"] if levels is not None else [])), 0),
    )
    # An outer join sorts names and numbers; models differ in some blocks, and have them in an order.
    for axis in ("clip", "block", "tau"):
        if axis in joined.dims:
            joined = joined.sel({axis: list(dict.fromkeys(v for scores in each.values() for v in scores[axis].values))})
    if levels is not None:
        joined = joined.sel(log_snr=[level for level in levels if level in joined["log_snr"].values])
    attrs = {name: scores.attrs for name, scores in each.items()}
    first = next(iter(attrs.values()))
    common = {key: value for key, value in first.items() if all(key in a and a[key] == value for a in attrs.values())}
    own = {name: {key: value for key, value in each.items() if key not in common} for name, each in attrs.items()}
    return joined.assign_attrs(grouped(common | {"models": json.dumps(own)}))


def _at_levels(scores: xr.Dataset, levels: Sequence[float]) -> xr.Dataset:
    """Scores at the taus nearest to these log-SNRs, with them as axis; those that were not swept are left out."""
    reached = scores["log_snr"].values
    nearest = [int(np.abs(reached - level).argmin()) for level in levels]
    # Of a level that only other models were swept at, the nearest is another one's own.
    known = [
        (level, place)
        for level, place in zip(levels, nearest, strict=True)
        if np.abs(np.asarray(levels) - reached[place]).argmin() == list(levels).index(level)
    ]
    chosen = scores.isel(tau=[place for _, place in known]).drop_vars("log_snr")
    named = chosen.assign_coords(log_snr=("tau", [level for level, _ in known], scores["log_snr"].attrs))
    return named.swap_dims(tau="log_snr")
