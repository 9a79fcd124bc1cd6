"""`tl.sweep`: a grid described once, computed, and opened as one labelled array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import xarray as xr
from tqdm.auto import tqdm

from tedlens.metrics import Protocol
from tedlens.provenance import versions
from tedlens.sweeping.cells import clip_cells, join_cells
from tedlens.sweeping.clips import ClipFacts, Clips, Source, clip_sources, survey
from tedlens.sweeping.grid import Grid, Model, Models, is_one, load_models, make_grid
from tedlens.sweeping.plan import make_plan

Wanted = Mapping[str, Sequence[tuple[int, int]]]  # (tau, seed) of the cells to compute, by name of the clip


def sweep(
    clips: Clips,
    *,
    motion: Model | None = None,
    appearance: Model | None = None,
    tau: int | Sequence[int],
    blocks: str | Sequence[str] | None = None,
    lam: float | Sequence[float] | None = None,
    seeds: int | Sequence[int] = (0,),
    overlap: int = 2,
    size: int | tuple[int, int] | None = None,
    appearance_tau: int = 51,
    appearance_block: str | None = None,
    appearance_samples: int = 1,
    top_k: int | Sequence[int] = 10,
    radius: int | Sequence[int] = 12,
    n_last: int | Sequence[int] = 20,
    temperature: float | Sequence[float] = 0.1,
    convention: str | Sequence[str] = "dift",
    protocol: Protocol = "davis",
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
        motion features fused with appearance features.
    tau, blocks
        Noise levels and blocks (or submodules, see `probe`) of motion features, or of appearance features where
        they are alone. By default all ``up`` blocks.
    lam
        Weights of motion in the fusion, 0 to 1, where both models are given; 0.5 by default. Any number of them
        costs little more than one.
    seeds
        Seeds of the noise.
    overlap, size
        See `probe`; `size` holds for both models.
    appearance_tau, appearance_block, appearance_samples
        Of the appearance features that motion is fused with, see `track`; the samples also where appearance
        is swept alone.
    top_k, radius, n_last, temperature, convention
        See `propagate`. A list makes an axis of that name.
    protocol
        Which frames are scored, see `evaluate`.
    dry_run
        Print the plan and compute nothing.
    progress
        Print the plan before the start, and show cells done, their rate and the time left.

    Returns
    -------
    Dataset
        ``J``, ``F`` and ``JF`` over clip, block, tau, (lam with both models,) seed, object and frame, and each
        setting that was given as a list; the other settings are scalar coordinates. NaN where a clip has fewer
        objects or frames than another, and after a dry run. ``sigma`` and ``log_snr`` lie along tau. The
        attributes say how it came to be.

    Raises
    ------
    TedlensError
        Before any work: for a value out of range, clips that cannot be tracked and scored, two clips of one
        name, a missing model.

    Examples
    --------
    >>> scores = tl.sweep(clips, motion="mini", tau=range(0, 1000, 100), seeds=[0, 1])  # doctest: +SKIP
    >>> tl.plots.tau_curve(scores)  # doctest: +SKIP
    """
    models = load_models(motion, appearance)
    grid = make_grid(
        models,
        tau=tau,
        blocks=blocks,
        lam=lam,
        seeds=seeds,
        overlap=overlap,
        size=size,
        appearance_tau=appearance_tau,
        appearance_block=appearance_block,
        appearance_samples=appearance_samples,
        top_k=top_k,
        radius=radius,
        n_last=n_last,
        temperature=temperature,
        convention=convention,
        protocol=protocol,
    )
    sources = clip_sources(clips)
    facts = survey(sources, protocol)
    missing: Wanted = {clip.name: grid.cells for clip in facts}
    if progress or dry_run:
        print(make_plan(grid, facts, missing))
    cells = [] if dry_run else list(_computed(sources, models, grid, missing, progress))
    given = {"top_k": top_k, "radius": radius, "n_last": n_last, "temperature": temperature, "convention": convention}
    return label_scores(join_cells(cells, grid_axes(grid, facts)), grid).isel(
        {name: 0 for name, value in given.items() if is_one(value)}
    )


def _computed(
    sources: Sequence[Source], models: Models, grid: Grid, missing: Wanted, progress: bool
) -> Iterator[xr.Dataset]:
    """The missing cells, clip after clip."""
    total = sum(map(len, missing.values()))
    with tqdm(total=total, desc="sweeping", unit="cell", disable=not progress) as bar:
        for source, wanted in zip(sources, missing.values(), strict=True):
            for cell in clip_cells(source(), models, grid, wanted):
                bar.update()
                yield cell


def grid_axes(grid: Grid, clips: Sequence[ClipFacts]) -> dict[str, Sequence[Any]]:
    """All axes of the scores, in their order."""
    lam = {} if grid.lam is None else {"lam": grid.lam}
    return {
        "clip": [clip.name for clip in clips],
        "block": grid.block,
        "tau": grid.tau,
        **lam,
        "seed": grid.seed,
        **grid.settings,
        "object": sorted({number for clip in clips for number in clip.objects}),
        "frame": sorted({frame for clip in clips for frame in clip.scored(grid.protocol)}),
    }


def label_scores(scores: xr.Dataset, grid: Grid) -> xr.Dataset:
    """Scores with the other ways to say tau, and how they came to be."""
    scores["tau"].attrs["long_name"] = "training timestep"
    return scores.assign_coords(
        sigma=("tau", list(grid.sigma), {"long_name": "noise-to-signal ratio"}),
        log_snr=("tau", list(grid.log_snr), {"long_name": "log signal-to-noise power ratio"}),
    ).assign_attrs(versions() | grid.fixed)
