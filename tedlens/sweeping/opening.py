"""Open what sweeps stored: scores, labels and features that were kept, and how they were made."""

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
    """Scores of a sweep that is finished, interrupted or still running, as one labelled array.

    Scores of several models lie side by side, along an axis ``model``.

    No model is needed and nothing is computed. For a finished sweep,
    ``xr.open_zarr("runs/sweep.zarr", group="scores")`` gives the same.

    Parameters
    ----------
    store
        Path or URL of the store.

    Returns
    -------
    Dataset
        As `sweep` returns it, with every axis in ascending order. It covers everything that was ever asked of this
        store, with NaN for what has not been computed yet.

    Raises
    ------
    TedlensError
        If there is no sweep.
    """
    each = ModelsStore(store)
    scores = SweepStore(store).scores() if each.about() is None else each.scores()
    if scores is None:
        raise TedlensError(f"There is no sweep at {store}; give the store of tl.sweep(..., store=...).")
    return scores


def open_kept(store: str | Path, *, clip: str, tau: int, seed: int = 0, model: str | None = None) -> xr.DataTree:
    """Labels and features that a sweep kept of one cell, read from disk only when used.

    Parameters
    ----------
    store
        Path or URL of the store of a sweep with ``keep=("labels", "features")`` or one of the two.
    clip, tau, seed
        The cell: name of the clip, noise level, seed of the noise.
    model
        Name of the model, if the store holds several.

    Returns
    -------
    DataTree
        ``labels``: tracked masks (block, top_k, .., lam, frame, y, x). ``features``: one node per block, as from
        `probe`, in float16. If features were reduced to principal components, the nodes hold the result of `pca` and
        the ``mean`` instead: score @ loading + mean gives back the features as nearly as the components allow.

    Raises
    ------
    TedlensError
        If there is no such cell, or nothing was kept.
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
    """Hash of the frames and masks of each clip that has scores, by the name of the clip."""
    found: dict[str, str] = {}
    for address in ModelsStore(store).addresses().values() or [str(store)]:
        opened = SweepStore(address)
        about = opened.about()
        cells = opened.cells(kind_of(about["fixed"]))[0] if about else []
        found |= {cell.about["clip"]: cell.about["clip_sha256"] for cell in cells}
    return found


def describe_sweep(store: str | Path) -> str | None:
    """Readable summary of a store: what was asked of it, how much is done, and how it was made.

    None if it is not the store of a sweep.
    """
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
    """Address of one model's store, if the store holds several models; else the address of the store itself.

    Raises
    ------
    TedlensError
        If the model is not given, or there is no such model.
    """
    each = ModelsStore(store).addresses()
    if not each and model is None:
        return str(store)
    if model not in each:
        known = ", ".join(map(repr, each)) or "one model only, so leave model= out"
        raise TedlensError(f"model={model!r} is not what to open of {store}; it holds {known}.")
    return each[model]
