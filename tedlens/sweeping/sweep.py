"""`tl.sweep`: describe a grid once, compute it, and get one labelled array."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from tedlens.errors import TedlensError
from tedlens.interventions.described import Said
from tedlens.metrics import Protocol
from tedlens.models.registry import Model
from tedlens.presets import sweep_words, takes_preset
from tedlens.probing import Stitch
from tedlens.provenance import versions
from tedlens.sweeping.cells import AXES, interventions_said, join_cells, label_scores
from tedlens.sweeping.clips import ClipFacts, Clips, Source, SweptClip, clip_sources, survey
from tedlens.sweeping.engine import Here, Task, Workers
from tedlens.sweeping.grid import Grid, is_one
from tedlens.sweeping.model_stores import ModelsStore
from tedlens.sweeping.models import SeveralModels, several_models, side_by_side
from tedlens.sweeping.plan import make_plan
from tedlens.sweeping.store import SweepStore, lacking, missing_cells
from tedlens.ted.settings import Convention, Radius, Upsample

if TYPE_CHECKING:
    from distributed import Client

# Most passes over the cells. More than one can be needed: another writer that starts meanwhile may take a half-written
# cell for a broken one, and remove it just when it is complete.
PASSES = 3


@takes_preset(sweep_words)
def sweep(
    clips: Clips,
    *,
    motion: Model | SeveralModels | None = None,
    appearance: Model | SeveralModels | None = None,
    preset: str | None = None,
    tau: int | Sequence[int] | None = None,
    sigma: float | Sequence[float] | None = None,
    log_snr: float | Sequence[float] | None = None,
    blocks: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
    lam: float | Sequence[float] | None = None,
    seeds: int | Sequence[int] = (0,),
    samples: int = 1,
    overlap: int = 2,
    stitch: Stitch = "first",
    size: int | tuple[int, int] | None = None,
    appearance_tau: int | None = None,
    appearance_block: str | None = None,
    appearance_samples: int = 1,
    top_k: int | Sequence[int] = 10,
    radius: Radius | Sequence[Radius] = "grid",
    n_last: int | Sequence[int] = 20,
    temperature: float | Sequence[float] = 0.1,
    convention: Convention | Sequence[Convention] = "dift",
    upsample: Upsample | Sequence[Upsample] = "dift",
    radius_pixels: float | Sequence[float] | None = None,
    protocol: Protocol = "davis",
    store: str | Path | None = None,
    keep: str | Sequence[str] = (),
    components: int | None = None,
    interventions: Mapping[str, Said | Sequence[Said] | None] | None = None,
    client: Client | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> xr.Dataset:
    """Track and score clips at every point of a grid of noise levels, blocks, lambdas, seeds and settings.

    Features are dropped as soon as they are scored. One forward pass of the UNet per window, tau and seed serves all
    blocks, lambdas and settings.

    Parameters
    ----------
    clips
        Clips with masks; every clip needs its own name. Clips of a lazy sequence (a dataset), or given as functions
        that return a clip, are read one at a time, so memory does not grow with their number.
    motion, appearance
        A video model, an image model or both. Give a loaded model, a name, or the arguments to load it, as in
        ``{"name": "i2vgen-xl", "dtype": "bfloat16"}``. With one model, its own features are swept; with both,
        motion features fused with appearance features. Several models of one kind are swept one after another,
        over an axis ``model``: give a list, or names of your own (``{"whole": "svd", "cut": tl.ablate(..)}``).
    tau, sigma, log_snr
        Noise levels of the motion features, or of the appearance features if only an appearance model is given. Give
        one of the three, see `probe`.
    blocks
        Blocks (or submodules, see `probe`) to take these features from. By default all ``up`` blocks. For several
        models with different blocks, give the blocks of each model by its name.
    lam
        Weights of motion in the fusion, 0 to 1, if both models are given; 0.5 by default. Many weights cost little
        more than one.
    seeds
        Seeds of the noise.
    samples
        Number of noise draws to average for the features at each tau and seed.
    overlap, stitch, size
        See `probe`; `size` holds for both models.
    appearance_tau, appearance_block, appearance_samples
        Settings of the appearance features that motion is fused with, see `track`. `appearance_samples` also holds
        if appearance is swept alone.
    preset
        Published settings by name, see `track`. They hold for the parameters that are not given.
    top_k, radius, n_last, temperature, convention, upsample, radius_pixels
        See `tedlens.ted.Propagation`. A list makes an axis of that name.
    protocol
        Which frames are scored, see `evaluate`.
    store
        Path or URL (``s3://..`` or anything that fsspec supports) of a Zarr folder that keeps every cell as soon as
        it is computed. If a sweep was killed, call it again: it goes on where it stopped. A larger sweep computes
        only what is new. Incomplete cells are named in a warning and computed again. See `open_sweep`.
    keep, components
        What the store keeps in addition to scores: ``"labels"``, ``"features"`` (in float16) or both. If `components`
        is given, features are reduced to this many principal components for each cell and block. See `open_kept`.
    interventions
        Adds an axis ``intervention``: what is done inside the swept model (motion, if both are given), by name:
        ``{"intact": None, "no up_2 temporal": {"ablate": "up_2.temp_attentions.*"}}``, see
        `tedlens.interventions.intervened`. Each intervention costs its own forward passes; each clip is encoded once
        for all of them. The store records what the names mean.
    client
        ``distributed.Client`` of a Dask cluster (LocalCluster, LocalCUDACluster, SLURM, ..) whose workers compute the
        cells. Give models by name or arguments; each worker loads them once. The store must be in a place that all
        workers can reach. If a worker dies, another computes its cells.
    dry_run
        Print the plan and compute nothing; the result holds what is already in the store.
    progress
        Print the plan before the start, and show the number of finished cells, their rate and the time left.

    Returns
    -------
    Dataset
        ``J``, ``F`` and ``JF`` over clip, (intervention,) block, tau, (lam with both models,) seed, object and frame,
        and each setting that was given as a list; the other settings are scalar coordinates. Values are NaN where a
        clip has fewer objects or frames than another and, after a dry run, where they are not computed yet. The
        coordinates ``sigma`` and ``log_snr`` lie along tau; ``rows`` and ``columns`` of each block's grid lie along
        clip and block. The attributes record how the result was made. Several models lie along an axis ``model``; if
        their noise was given by `log_snr` or `sigma`, the axis of noise levels is ``log_snr``, and tau lies along
        model and level.

    Raises
    ------
    TedlensError
        Before any work: for a value out of range, clips that cannot be tracked and scored, two clips with the same
        name, or a missing model; for a path that is not a sweep's store, or a store with results of other settings,
        models or frames. Also if the store cannot be read or written; its content then stays.

    Examples
    --------
    >>> scores = tl.sweep(clips, motion="mini", tau=range(0, 1000, 100), seeds=[0, 1])  # doctest: +SKIP
    >>> tl.plots.tau_curve(scores)  # doctest: +SKIP
    """
    if keep and store is None:
        raise TedlensError(f"keep={keep!r} needs a place to keep it; give store=.")
    words = {
        "tau": tau,
        "sigma": sigma,
        "log_snr": log_snr,
        "blocks": blocks,
        "lam": lam,
        "seeds": seeds,
        "samples": samples,
        "overlap": overlap,
        "stitch": stitch,
        "preset": preset,
        "size": size,
        "appearance_tau": appearance_tau,
        "appearance_block": appearance_block,
        "appearance_samples": appearance_samples,
        "top_k": top_k,
        "radius": radius,
        "n_last": n_last,
        "temperature": temperature,
        "convention": convention,
        "upsample": upsample,
        "radius_pixels": radius_pixels,
        "protocol": protocol,
        "keep": keep,
        "components": components,
        "interventions": interventions,
    }
    given: dict[str, Any] = {"motion": motion, "appearance": appearance}
    if (several := several_models(given)) is not None:
        how = {**words, **given, "client": client, "dry_run": dry_run, "progress": progress}
        return _sweep_each(clip_sources(clips), *several, None if store is None else str(store), how)
    engine = Here(**given) if client is None else Workers(client, **given)
    grid = engine.grid(words)
    swept = survey(clip_sources(clips), protocol)
    found = _computed(engine, swept, grid, None if store is None else str(store), dry_run, progress)
    noise = dict(zip(grid.tau, zip(grid.sigma, grid.log_snr, strict=True), strict=True))
    scores = label_scores(
        join_cells(found, grid_axes(grid, [clip.facts for clip in swept])),
        noise,
        versions() | grid.fixed | interventions_said([grid.said_interventions]),
    )
    return scores.isel({name: 0 for name in grid.settings if is_one(words[name])})


def _sweep_each(
    clips: Sequence[Source], role: str, models: Mapping[str, Model], store: str | None, how: dict[str, Any]
) -> xr.Dataset:
    """Sweep several models in one `role`, each into its own folder of the store, and lay the scores side by side."""
    blocks = how["blocks"] if isinstance(how["blocks"], Mapping) else dict.fromkeys(models, how["blocks"])
    if set(blocks) != set(models):
        raise TedlensError(
            f"blocks= names {', '.join(blocks)} and the models are {', '.join(models)}; give blocks for each model."
        )
    levels = _levels(how)
    around = None if store is None else ModelsStore(store)
    if around is not None and not how["dry_run"]:
        around.begin(models, levels)
    addresses = {} if around is None else around.addresses()
    each = {}
    for name, model in models.items():
        if how["progress"] or how["dry_run"]:
            print(f"{role} model {name}:")
        own = {role: model, "blocks": blocks[name], "store": addresses.get(name)}
        each[name] = sweep(clips, **(how | own))
    return side_by_side(each, levels)


def _levels(words: Mapping[str, Any]) -> list[float] | None:
    """Log-SNRs that were asked for, directly or as sigma; None if taus were asked for."""
    if words["log_snr"] is None and words["sigma"] is None:
        return None
    given = np.atleast_1d(np.asarray(words["sigma"] if words["log_snr"] is None else words["log_snr"], float))
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = -2 * np.log(given) if words["log_snr"] is None else given
    if not np.isfinite(levels).all():
        raise TedlensError(f"Noise levels {given.tolist()} have no place on a common axis; give finite log-SNRs.")
    return list(dict.fromkeys(levels.tolist()))


def _computed(
    engine: Here | Workers,
    swept: Sequence[SweptClip],
    grid: Grid,
    store: str | None,
    dry_run: bool,
    progress: bool,
) -> list[xr.Dataset]:
    """Scores of all cells of the grid, one by one or joined.

    These are the cells that the store holds and, unless it is a dry run, those that it lacks.
    """
    clips = [clip.facts for clip in swept]
    disk = None if store is None else SweepStore(store)
    cells, broken = ([], {}) if disk is None else disk.held(grid, clips)
    wanted = missing_cells(grid, clips, cells)
    if broken:
        said = "; ".join(f"{key} {what}" for key, what in broken.items())
        warnings.warn(f"Not whole in {store}, so computed anew: {said}.", stacklevel=3)
    to_do = lacking(grid, clips, cells)
    if progress or dry_run:
        print(make_plan(grid, clips, wanted, to_do))
    if dry_run:
        return [cell.scores for cell in cells]
    found: list[xr.Dataset] = []
    if disk is not None and (any(wanted.values()) or disk.about() is None):
        disk.begin(grid, clips, cells, broken)
    for _ in range(PASSES):
        left = sum(map(len, wanted.values()))
        with tqdm(total=left, desc="sweeping", unit="cell", disable=not progress or not left) as bar:
            tasks = [Task(clip, wanted[clip.facts.name]) for clip in swept]
            for some in engine.run(tasks, to_do, None if disk is None else disk.address):
                found += some
                bar.update(len(some))
        if disk is None:
            return found
        if left:
            cells, _ = disk.held(grid, clips)
            wanted = missing_cells(grid, clips, cells)
        if not any(wanted.values()):
            return [disk.finish(cells)]
    raise TedlensError(
        f"{sum(map(len, wanted.values()))} cells that were written are not in {store}; if other machines write to it, "
        "give a path that all share, and call the same sweep again."
    )


def grid_axes(grid: Grid, clips: Sequence[ClipFacts]) -> dict[str, Sequence[Any]]:
    """All axes of the scores, in their order."""
    axes: dict[str, Sequence[Any]] = {
        "clip": [clip.name for clip in clips],
        "tau": grid.tau,
        "seed": grid.seed,
        **grid.inner,
        "object": sorted({number for clip in clips for number in clip.objects}),
        "frame": sorted({frame for clip in clips for frame in clip.scored(grid.protocol)}),
    }
    return {name: axes[name] for name in AXES if name in axes}
