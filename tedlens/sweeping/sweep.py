"""`tl.sweep`: a grid described once, computed, and opened as one labelled array."""

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

# Over the cells, at most: another writer that begins meanwhile takes a cell half written for a broken one, and makes it
# absent just when it is done.
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

    Features are dropped as soon as they are scored. One forward of the UNet a window, tau and seed serves every
    block, lambda and setting.

    Parameters
    ----------
    clips
        Clips with masks, each of its own name. Those of a lazy sequence (a dataset) and functions that return a
        clip are read when their turn comes, so that memory does not grow with their number.
    motion, appearance
        A video model, an image model or both: loaded, or by name, or as the arguments to load them, as in
        ``{"name": "i2vgen-xl", "dtype": "bfloat16"}``. With one alone its own features are swept; with both,
        motion features fused with appearance features. Several of one kind, as a list or by names of your own
        (``{"whole": "svd", "cut": tl.ablate(..)}``), are swept one after another, over an axis ``model``.
    tau, sigma, log_snr
        Noise levels of motion features, or of appearance features where they are alone, in one of three ways, see
        `probe`.
    blocks
        Blocks of them (or submodules, see `probe`). By default all ``up`` blocks. Of several models that differ in
        their blocks, those of each by its name.
    lam
        Weights of motion in the fusion, 0 to 1, where both models are given; 0.5 by default. Any number of them
        costs little more than one.
    seeds
        Seeds of the noise.
    samples
        Noise samples that the features at each tau and seed are the mean of.
    overlap, stitch, size
        See `probe`; `size` holds for both models.
    appearance_tau, appearance_block, appearance_samples
        Of the appearance features that motion is fused with, see `track`; the samples also where appearance
        is swept alone.
    preset
        Published settings by name, see `track`: what the other parameters mean where they are not given.
    top_k, radius, n_last, temperature, convention, upsample, radius_pixels
        See `tedlens.ted.Propagation`. A list makes an axis of that name.
    protocol
        Which frames are scored, see `evaluate`.
    store
        Path or URL (``s3://..``, whatever fsspec knows) of a Zarr folder that keeps every cell as soon as it is
        computed. The same sweep, called again, goes on where it was killed; a larger one computes only what is
        new. Cells that are not whole are named in a warning and computed anew. See `open_sweep`.
    keep, components
        What the store keeps beside scores: ``"labels"``, ``"features"`` (in float16) or both; features reduced to
        so many principal components of each cell and block, if a number is given. See `open_kept`.
    interventions
        An axis ``intervention`` of what is done inside the swept model (motion, where there are two), by names:
        ``{"intact": None, "no up_2 temporal": {"ablate": "up_2.temp_attentions.*"}}``, see
        `tedlens.interventions.intervened`. Each costs its own forwards; clips are encoded once for all. A store knows
        what its names mean.
    client
        ``distributed.Client`` of a Dask cluster, whose workers then compute: LocalCluster, LocalCUDACluster, SLURM, ..
        Models are given by name or arguments, and loaded once a worker; a store lies where all workers reach it.
        Cells of a worker that dies are computed by another.
    dry_run
        Print the plan and compute nothing; the result holds what is in the store already.
    progress
        Print the plan before the start, and show cells done, their rate and the time left.

    Returns
    -------
    Dataset
        ``J``, ``F`` and ``JF`` over clip, (intervention,) block, tau, (lam with both models,) seed, object and frame,
        and each setting that was given as a list; the other settings are scalar coordinates. NaN where a clip has fewer
        objects or frames than another, and, after a dry run, what is still to be computed. ``sigma`` and
        ``log_snr`` lie along tau; ``rows`` and ``columns`` of each block's grid along clip and block. The attributes
        say how it came to be. Several models lie over ``model``; where their noise was asked for by `log_snr` or
        `sigma`, the axis of noise levels is ``log_snr``, and tau lies along model and level.

    Raises
    ------
    TedlensError
        Before any work: for a value out of range, clips that cannot be tracked and scored, two clips of one
        name, a missing model; a store that is something else, or holds results with other settings, models or
        frames. And where the store cannot be read or written; what it holds then stays.

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
    """Sweeps of several models in one `role`, each into its own folder of the store, side by side."""
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
    """Log-SNRs that were asked for, also as sigma; None where taus were."""
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
    """Scores of all cells of the grid, one by one or joined: those that the store holds, and, unless it is a dry run,
    those that it lacks.
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
