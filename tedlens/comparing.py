"""Compare models at the same noise: how well features track objects, keep them apart and encode their motion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tedlens.analysis.decoding import decode, object_features
from tedlens.analysis.references import CEILING, REFERENCES, score_references
from tedlens.attending.matching import MEASURES, matching_accuracy
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.metrics import evaluate, evaluate_identity
from tedlens.models.base import DiffusionModel
from tedlens.models.registry import Model, as_model
from tedlens.probing import probe
from tedlens.ted import propagate
from tedlens.ted.tracking import start_masks

LOG_SNR = (6.0, 4.0, 2.0, 0.0, -2.0, -4.0)  # from nearly clean to nearly noise
FOLDS = 5  # of the clips, to decode velocity


def compare(
    models: Sequence[Model],
    clips: Sequence[Clip],
    *,
    log_snr: Sequence[float] = LOG_SNR,
    blocks: Sequence[str] | None = None,
    seed: int = 0,
    overlap: int = 2,
    size: int | tuple[int, int] | None = None,
) -> xr.Dataset:
    """Compare models of any kind and noise schedule at the same noise levels, by one protocol.

    The features of each model at the tau nearest in log-SNR are propagated with the same settings (the defaults of
    `propagate`).

    Parameters
    ----------
    models
        Loaded models, or inputs as `probe` takes them; their names must differ.
    clips
        Clips with masks of all frames. For velocity, at least five with the truth about their objects
        (`tl.datasets.similar`).
    log_snr
        Noise levels, as natural logarithms of the ratio of signal and noise power.
    blocks
        One per model; by default each model's own block.
    seed, overlap, size
        See `probe`.

    Returns
    -------
    Dataset over (model, log_snr, clip)
        ``JF`` and ``AssA`` of the propagated masks, means over objects and frames.
        ``ceiling`` (model, clip): the J&F of the true masks, as the grid of the model can show them.
        ``reference_JF``, ``reference_AssA`` (model, clip, features): scores of place, colour, true velocity and true
        masks as features on the same grid with the same settings (`tedlens.analysis.references`).
        ``matching`` (model, log_snr, clip, by): the share of object cells whose best match among all cells of another
        frame belongs to the same object: by ``queries`` and keys of the attention layers of the block (all heads
        together, before rotary embedding, as in DiffTrack), by ``features``, and by ``chance``.
        ``velocity`` (model, log_snr): R^2 of a linear probe for the velocity of objects, on clips it was not fitted to;
        ``velocity_error``: the standard error of its mean over folds.
        NaN if a model was not trained at this noise level, a block has no such attention, or velocities are unknown.
        Coordinates ``tau`` (model, log_snr) and ``block`` (model).

    Raises
    ------
    TedlensError
        For no models or no clips, duplicate names, or a wrong number of blocks; and as `probe`.
    """
    loaded = [as_model(model) for model in models]
    names = [model.name for model in loaded]
    if not loaded or not clips or len(set(names)) < len(names):
        raise TedlensError(
            f"Models {', '.join(names) or 'none'}, {len(clips)} clips: give some, with names that differ."
        )
    if blocks is not None and len(blocks) != len(loaded):
        raise TedlensError(f"{len(blocks)} blocks do not fit {len(loaded)} models; give one for each, in their order.")
    chosen = [model.block for model in loaded] if blocks is None else list(blocks)
    how = {"seed": seed, "overlap": overlap, "size": size}
    each = [_of_model(model, block, clips, list(log_snr), how) for model, block in zip(loaded, chosen, strict=True)]
    found = xr.concat(each, xr.DataArray(names, dims="model", name="model"), join="outer")
    return (
        found.set_coords("tau")
        .assign_coords(block=("model", chosen))
        .assign_attrs(seed=seed, overlap=overlap, clips=len(clips))
    )


def _of_model(
    model: DiffusionModel, block: str, clips: Sequence[Clip], levels: list[float], how: dict[str, Any]
) -> xr.Dataset:
    taus = {level: model.nearest_tau(log_snr=level) for level in levels if _trained_at(model, level)}
    shape = (len(levels), len(clips))
    scores = {name: np.full(shape, np.nan) for name in ("JF", "AssA")}
    matching = np.full((*shape, len(MEASURES)), np.nan)
    ceiling, pooled = np.full(len(clips), np.nan), []
    references = {name: np.full((len(clips), len(REFERENCES)), np.nan) for name in scores}
    for number, clip in enumerate(clips):
        masks = start_masks(clip)
        features = xr.DataArray(
            probe(model, clip, tau=sorted(set(taus.values())), blocks=block, **how)[block]["features"]
        )
        for level, tau in taus.items():
            labels = propagate(features.sel(tau=tau, seed=how["seed"]), masks)
            place = levels.index(level), number
            scores["JF"][place] = evaluate(labels, masks)["JF"].mean()
            scores["AssA"][place] = evaluate_identity(labels, masks)["AssA"].mean()
        matched = matching_accuracy(
            model, clip, features.sel(seed=how["seed"]), overlap=how["overlap"], size=how["size"]
        )
        for level, tau in taus.items():
            matching[levels.index(level), number] = [float(matched[name].sel(tau=tau)) for name in MEASURES]
        grid = features.sizes["y"], features.sizes["x"]
        size_seen = tuple(features.attrs["input_size"])
        against = score_references(clip, grid, input_size=size_seen)
        ceiling[number] = against[CEILING]["JF"].mean()
        for place_of, kind in enumerate(REFERENCES):
            for name, values in references.items():
                if kind in against:  # not every clip has velocities
                    values[number, place_of] = against[kind][name].mean()
        pooled.append(object_features(features, clip))
    velocity, error = _velocity(pooled, clips, [taus.get(level) for level in levels])
    return xr.Dataset(
        {
            **{name: (("log_snr", "clip"), values) for name, values in scores.items()},
            "matching": (("log_snr", "clip", "by"), matching),
            "ceiling": ("clip", ceiling),
            **{f"reference_{name}": (("clip", "features"), values) for name, values in references.items()},
            "velocity": ("log_snr", velocity),
            "velocity_error": ("log_snr", error),
            "tau": ("log_snr", [float(taus.get(level, np.nan)) for level in levels]),
        },
        {
            "log_snr": levels,
            "clip": [clip.name for clip in clips],
            "by": list(MEASURES),
            "features": list(REFERENCES),
        },
    )


def _trained_at(model: DiffusionModel, level: float) -> bool:
    return model.log_snr(model.levels - 1) <= level <= model.log_snr(0)


def _velocity(pooled: list[Any], clips: Sequence[Clip], taus: list[int | None]) -> tuple[list[float], list[float]]:
    """R^2 and its standard error at each tau; NaN where tau is None, or if velocities are unknown."""
    truths = [clip.objects for clip in clips if clip.objects is not None and "velocity" in clip.objects]
    if len(truths) < max(FOLDS, len(clips)):
        return [np.nan] * len(taus), [np.nan] * len(taus)
    decoded = decode(pooled, truths, targets=["velocity"], folds=FOLDS).isel(block=0, target=0)
    at = {int(tau): decoded.sel(tau=tau) for tau in decoded["tau"].values}
    values = [(np.nan, np.nan) if tau is None else (float(at[tau]["score"]), float(at[tau]["error"])) for tau in taus]
    return [value for value, _ in values], [error for _, error in values]


def write_comparison(found: xr.Dataset, folder: Path) -> None:
    """Write the numbers as CSV and Zarr, and the figure, to an existing folder."""
    from tedlens.plots import comparison, save_figures
    from tedlens.store import save

    columns: dict[str, xr.DataArray] = {}
    for name, mean in found.mean("clip").data_vars.items():
        kinds = next((axis for axis in ("by", "features") if axis in mean.dims), None)
        own = {f"{name}_{kind.item()}": mean.sel({kinds: kind}, drop=True) for kind in found[kinds]} if kinds else None
        columns |= own or {str(name): mean}
    xr.Dataset(columns).to_dataframe().reset_index().to_csv(folder / "comparison.csv", index=False)
    save(found, folder / "comparison.zarr")
    save_figures({"comparison": comparison(found)}, folder)
