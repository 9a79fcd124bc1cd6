"""The paper's tables on one benchmark: what was found, and what was published, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from tedlens.benchmark.field import published
from tedlens.benchmark.field.asked import Asked, Found, at, first
from tedlens.benchmark.field.running import (
    CONTROLS,
    STAYS,
    Controlled,
    Method,
    Scored,
    Supervised,
    cost,
    each_clip,
    loaded,
    swept,
)
from tedlens.benchmark.field.suite import Benchmark
from tedlens.metrics import combine_parts, combine_pose
from tedlens.models.registry import Model
from tedlens.models.unets.adm import ADM
from tedlens.models.unets.i2vgen_xl import I2VGenXL
from tedlens.models.unets.stable_diffusion import StableDiffusion
from tedlens.models.unets.svd import StableVideoDiffusion

IN_TABLE_3 = {I2VGenXL: "I2VGen", StableVideoDiffusion: "SVD", ADM: "ADM", StableDiffusion: "SD"}
# Figures of each task, in percent, the first of which stands for the method.
COLUMNS = {
    "masks": ("J&F", "J", "F"),
    "joints": ("PCK@0.1", "PCK@0.2", "crw@0.1", "crw@0.2"),
    "parts": ("mIoU",),
    "points": ("AJ", "delta", "OA"),
}
OF_TABLE_6 = {"PCK@0.1": "JHMDB PCK@0.1", "PCK@0.2": "JHMDB PCK@0.2", "mIoU": "VIP mIoU"}
RESAMPLES = 9999


def main(found: Found) -> None:
    asked = found.asked
    scores: dict[str, xr.Dataset] = {}
    for method in found.methods:
        scores |= _scores(asked, method)
    if asked.sam2 is not None:
        task = Supervised(asked.benchmark, asked.sam2)
        scores["SAM 2 (supervised)"] = each_clip(asked.clips, task, asked.sweeps / task.key, asked.client)
    if found.methods:
        for name, title in _controls(asked.benchmark).items():
            control = Controlled(asked.benchmark, found.methods[0], name)
            folder = asked.sweeps / f"{found.methods[0].key}-{name.split()[0]}"
            scores[title] = each_clip(asked.clips, control, folder, asked.client)
    found.scores |= scores
    printed = {name: _published(asked.benchmark, name) for name in [*_printed_methods(asked.benchmark), *scores]}
    rows = {name: _row(asked.benchmark, scores.get(name), printed[name]) for name in printed}
    found.tables[_main_name(asked.benchmark)] = pd.DataFrame(rows).T.rename_axis("method")


def _scores(asked: Asked, method: Method) -> dict[str, xr.Dataset]:
    """By name in the tables, the scores of a method at its weights of motion."""
    if asked.benchmark.task == "masks":
        every = swept(asked.benchmark, asked.clips, method, asked.sweeps, client=asked.client)
        return {name: at(every, lam) for name, lam in method.lams.items()}
    found = {}
    for name, lam in method.lams.items():
        folder = asked.sweeps / f"{method.key}-{lam:g}"
        found[name] = each_clip(asked.clips, Scored(asked.benchmark, method, lam), folder, asked.client)
    return found


def _controls(benchmark: Benchmark) -> dict[str, str]:
    return CONTROLS if benchmark.task in ("masks", "parts") else {STAYS: STAYS}


def _main_name(benchmark: Benchmark) -> str:
    if benchmark.task in ("joints", "parts"):
        return "table_6"
    if benchmark.task == "points":
        return "points"
    return "table_7" if any(benchmark.title in row for row in published.rows(7)) else "table_1"


def _printed_methods(benchmark: Benchmark) -> list[str]:
    """The paper's rows, in its order."""
    name = _main_name(benchmark)
    return [row["method"] for row in published.rows(int(name[-1]))] if name.startswith("table") else []


def _published(benchmark: Benchmark, method: str) -> dict[str, float | None]:
    if benchmark.task == "masks":
        return published.mask_figures(benchmark.title, method)
    row = published.row(6, method=method) or {}
    return {ours: row[theirs] for ours, theirs in OF_TABLE_6.items() if ours in COLUMNS[benchmark.task] and row}


def _row(benchmark: Benchmark, scores: xr.Dataset | None, printed: Mapping[str, float | None]) -> dict[str, float]:
    """Figures in percent, the first with its interval over clips, and the published ones with the difference."""
    columns = COLUMNS[benchmark.task]
    row: dict[str, float] = dict.fromkeys((*columns, "low", "high"), np.nan)
    if scores is not None:
        row |= {name: float(value[0]) for name, value in figures_of(benchmark, scores, _once(scores)).items()}
        row |= dict(zip(("low", "high"), interval(benchmark, scores), strict=True))
    for name in columns:
        if printed.get(name) is not None:
            row[f"paper {name}"] = float(printed[name] or 0)
    if printed.get(columns[0]) is not None:
        row["less paper"] = row[columns[0]] - row[f"paper {columns[0]}"]
    return row


def figures_of(benchmark: Benchmark, scores: xr.Dataset, weights: xr.DataArray) -> dict[str, Any]:
    """The benchmark's figures in percent, as its official evaluator sums up, for clips that count `weights` times.

    `weights` are (resample, clip); each figure is an array over resample.
    """
    if benchmark.task == "masks":
        # Over the objects of all clips at once, so that a clip counts by its objects.
        means = scores[["JF", "J", "F"]].mean("frame")
        summed = xr.dot(weights, means.fillna(0).sum("object").to_dataarray("figure"), dim="clip")
        found = summed / xr.dot(weights, means.notnull().sum("object").to_dataarray("figure"), dim="clip")
        figures = {name: found.sel(figure=key) for name, key in zip(COLUMNS["masks"], means, strict=True)}
    elif benchmark.task == "parts":
        counts = xr.dot(weights, scores["confusion"], dim="clip").to_dataset(name="confusion")
        figures = {"mIoU": combine_parts(counts.expand_dims("clip"))["mIoU"]}
    elif benchmark.task == "joints":
        counts = xr.Dataset({name: xr.dot(weights, scores[name], dim="clip") for name in ("right", "scored")})
        pck = combine_pose(counts.expand_dims("clip"))["PCK"]
        figures = {
            f"{'PCK' if how == 'vfs' else how}@{alpha}": pck.sel(convention=how).sel(alpha=alpha, method="nearest")
            for how in ("vfs", "crw")
            for alpha in (0.1, 0.2)
        }
    else:  # the plain mean over clips, which is NaN where one clip has no figure
        figures = {name: xr.dot(weights, scores[name], dim="clip") / weights.sum("clip") for name in COLUMNS["points"]}
    return {name: 100 * np.asarray(value) for name, value in figures.items()}


def _once(scores: xr.Dataset) -> xr.DataArray:
    return xr.DataArray(np.ones((1, scores.sizes["clip"])), dims=("resample", "clip"))


def interval(benchmark: Benchmark, scores: xr.Dataset) -> tuple[float, float]:
    """95 % bootstrap interval of the first figure over clips, in percent; NaN of one clip.

    Resamples that leave no figure do not count.
    """
    clips = scores.sizes["clip"]
    if clips < 2:
        return np.nan, np.nan
    drawn = np.random.default_rng(0).multinomial(clips, np.full(clips, 1 / clips), RESAMPLES)
    figures = figures_of(benchmark, scores, xr.DataArray(drawn.astype(float), dims=("resample", "clip")))
    values = figures[COLUMNS[benchmark.task][0]]
    if np.isnan(values).all():
        return np.nan, np.nan
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def costs(found: Found) -> None:
    """Time and memory of each method on the first clip; of TED with its noise draws, and with one."""
    asked, rows = found.asked, {}
    clip = asked.clips[0]
    clip = clip if not callable(clip) else clip()
    for method in found.methods:
        name = next(iter(method.lams))
        variants = {name: method}
        if name == "TED":
            one = asked.ted(method.motion, method.appearance, samples=1, appearance_samples=1)
            variants = {"TED (efficient)": one}
            if max(method.words.get(word, 1) for word in ("samples", "appearance_samples")) > 1:
                variants["TED (full)"] = method
        for variant, each in variants.items():
            measured = cost(clip, Scored(asked.benchmark, each, method.lams[name]))
            rows[variant] = {key: measured[key] for key in ("ms a frame", "GB")}
    for row in published.rows(5):
        given = rows.setdefault(row["method"], {})
        given |= {"paper ms a frame": row["time_ms_per_frame"], "paper GB": row["memory_GB"]}
    found.tables["table_5"] = pd.DataFrame(rows).T.rename_axis("method")


def by_block(found: Found) -> None:
    """Motion features alone, by decoder block."""
    asked = found.asked
    method = Method.of({"motion": 1.0}, first(asked.motions, "--motion"), None, asked.preset, asked.said)
    model = loaded(method.motion, "block")  # type: ignore[arg-type]
    blocks = [name for name in model.blocks if name.startswith("up_")]
    words = {name: value for name, value in method.words.items() if name != "block"}
    every = swept(
        asked.benchmark,
        asked.clips,
        Method(method.lams, method.motion, None, words, asked.preset),
        asked.sweeps,
        client=asked.client,
        blocks=blocks,
    )
    rows = {}
    for number, block in enumerate(blocks, start=1):
        row = published.row(2, block=number) if asked.benchmark.title == "DAVIS" else None
        printed = {ours: row[theirs] for ours, theirs in published.FIGURES.items()} if row else {}
        rows[f"{number} ({block})"] = _row(asked.benchmark, at(every.sel(block=[block]), 1.0), printed)
    found.tables["table_2"] = pd.DataFrame(rows).T.rename_axis("block of R_m")


def by_models(found: Found) -> None:
    """TED with each video model and each image model."""
    asked, rows = found.asked, {}
    first(asked.motions, "--motion"), first(asked.appearances, "--appearance")
    names: dict[tuple[str, ...], tuple[Model, Model]] = {}
    for motion in asked.motions:
        for appearance in asked.appearances:
            both = loaded(motion, "block"), loaded(appearance, "appearance_block")
            names[tuple(IN_TABLE_3.get(type(one), one.name) for one in both)] = (motion, appearance)
    printed: dict[tuple[str, ...], published.Row] = (
        {(row["R_m"], row["R_a"]): row for row in published.rows(3)} if asked.benchmark.title == "DAVIS" else {}
    )
    for pair in dict.fromkeys([*printed, *names]):
        scores = None
        if pair in names:
            scores = next(iter(_scores(asked, asked.ted(*names[pair])).values()))
        row = printed.get(pair)
        theirs = {ours: row[name] for ours, name in published.FIGURES.items()} if row else {}
        rows[" + ".join(pair)] = _row(asked.benchmark, scores, theirs)
    found.tables["table_3"] = pd.DataFrame(rows).T.rename_axis("R_m + R_a")
