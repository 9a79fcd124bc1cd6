"""What sweeps stored, opened: scores, what was kept beside them, and how they came to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from tedlens.errors import TedlensError
from tedlens.store import open_tree
from tedlens.sweeping.encoding import BrokenCell, attributes
from tedlens.sweeping.model_stores import ModelsStore
from tedlens.sweeping.store import SweepStore, covered_places, kind_of


def open_sweep(store: str | Path) -> xr.Dataset:
    """Scores of a sweep that is done, broken off or still running, as one labelled array.

    Of several models they lie side by side, over an axis ``model``.

    No model is needed and nothing is computed. Of a finished sweep,
    ``xr.open_zarr("runs/sweep.zarr", group="scores")`` gives the same.

    Parameters
    ----------
    store
        Path or URL of the store.

    Returns
    -------
    Dataset
        As `sweep` gives it, with every axis in ascending order: all that was ever asked of this store, NaN
        where it has not been computed yet.

    Raises
    ------
    TedlensError
        Where there is no sweep.
    """
    each = ModelsStore(store)
    scores = SweepStore(store).scores() if each.about() is None else each.scores()
    if scores is None:
        raise TedlensError(f"There is no sweep at {store}; give the store of tl.sweep(..., store=...).")
    return scores


def open_kept(store: str | Path, *, clip: str, tau: int, seed: int = 0, model: str | None = None) -> xr.DataTree:
    """What a sweep kept of one cell beside its scores, read from disk when it is used.

    Parameters
    ----------
    store
        Path or URL of the store of a sweep with ``keep=("labels", "features")`` or one of them.
    clip, tau, seed
        The cell: name of the clip, noise level, seed of the noise.
    model
        Name of the model, in the store of several.

    Returns
    -------
    DataTree
        ``labels``: tracked masks (block, top_k, .., lam, frame, y, x). ``features``: one node a block, as from
        `probe`, in float16; or, of features reduced to principal components, what `pca` gives and their ``mean``,
        so that score @ loading + mean is the features again as nearly as the components allow.

    Raises
    ------
    TedlensError
        Where there is no such cell, or nothing was kept.
    """
    opened = SweepStore(store_of(store, model))
    key = opened.key_of(clip, tau, seed)
    if key is None:
        raise TedlensError(
            f"{opened.url} keeps nothing of clip {clip!r} at tau={tau} and seed={seed} beside scores; it has "
            f"clips {', '.join(swept_clips(opened.url)) or '(none)'}, and keeps what "
            'tl.sweep(..., keep=("labels", "features")) asked for.'
        )
    try:
        opened.check_kept(key, attributes(opened._said(f"cells/{key}")) or {})
    except BrokenCell as error:
        raise TedlensError(
            f"{opened.url}/cells/{key} {error}; the same sweep, called again, computes it anew."
        ) from error
    address = f"{opened.address.rstrip('/')}/cells/{key}"
    return open_tree(address, "kept")


def swept_clips(store: str | Path) -> dict[str, str]:
    """Hash of the frames and masks of each clip of which there are scores, by its name."""
    found: dict[str, str] = {}
    for address in ModelsStore(store).addresses().values() or [str(store)]:
        opened = SweepStore(address)
        about = opened.about()
        cells = opened.cells(kind_of(about["fixed"]))[0] if about else []
        found |= {cell.about["clip"]: cell.about["clip_sha256"] for cell in cells}
    return found


def describe_sweep(store: str | Path) -> str | None:
    """For a person: what was asked of a store, how much is done, and how it came to be; None if it is no sweep's."""
    each = ModelsStore(store).addresses()
    if each:
        return "\n".join(f"{name}: {describe_sweep(address) or 'nothing yet'}" for name, address in each.items())
    opened = SweepStore(store)
    about = opened.about() if opened.is_sweep() else None
    if about is None:
        return None
    asked = about["asked"]
    cells, broken = opened.cells(kind_of(about["fixed"]))
    inner = {name: values for name, values in asked.items() if name not in ("clip", "tau", "seed")}
    total = len(asked["clip"]) * len(asked["tau"]) * len(asked["seed"])
    lines = [
        f"{store}: sweep of {' x '.join(f'{len(values)} {name}' for name, values in asked.items() if len(values) > 1)}",
        f"  done: {len(covered_places(cells, inner))} of {total} cells",
        *(f"  not whole: {key} {what}" for key, what in broken.items()),
        *(f"  {name}: {_listing(values)}" for name, values in asked.items()),
        *(f"  {name}: {value}" for name, value in about["fixed"].items()),
        *(f"  {name.removeprefix('version_')} {v}" for name, v in about.items() if name.startswith("version_")),
    ]
    return "\n".join(lines)


def _listing(values: Sequence[Any]) -> str:
    few = values if len(values) <= 12 else [*values[:6], "..", *values[-3:]]
    return ", ".join(map(str, few))


def store_of(store: str | Path, model: str | None) -> str:
    """Address of the store of one model, where a store holds several; the store itself where it does not.

    Raises
    ------
    TedlensError
        Where it is not said which, or there is no such model.
    """
    each = ModelsStore(store).addresses()
    if not each and model is None:
        return str(store)
    if model not in each:
        known = ", ".join(map(repr, each)) or "one model only, so leave model= out"
        raise TedlensError(f"model={model!r} is not what to open of {store}; it holds {known}.")
    return each[model]
