"""What the benchmark found, as tables, figures and a page to read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from tedlens.analysis import paired_difference
from tedlens.benchmark.similar import CHECKS, HARDEST, LONG, OVERLAPS, Found, Setup, similar_clip
from tedlens.plots import (
    decoding_curves,
    lambda_curve,
    main_table,
    overlap_bars,
    pca_map,
    plain_table,
    save_figures,
    tau_block_map,
    tau_curve,
)
from tedlens.plots.tables import markdown_table, write_table
from tedlens.probing import probe
from tedlens.store import save, whole_folder

METRIC = "J"  # the paper reports J for its clips of identical objects
PCA_TAUS = (100, 600)  # low and high noise


@dataclass(frozen=True)
class Report:
    """Tables to read, by title, and the files that were written."""

    tables: dict[str, pd.DataFrame]
    written: dict[str, Path]


def write_report(found: Found, setup: Setup, out: Path) -> Report:
    """Write tables, figures, scores and ``report.md`` to the folder `out`, all of them or none."""
    numbers = {
        "main": main_table(found.chosen(), metric=METRIC, columns="set"),
        "checks": main_table(found.checks, metric=METRIC),
        "overlap": main_table(found.overlap, metric=METRIC),
    }
    titles = ("J_m (%) by set", "Is it motion? J_m (%), identical", f"Overlap of windows, {LONG} frames, identical")
    tables = dict(zip(titles, map(plain_table, numbers.values()), strict=True))
    tables["Differences, clip by clip"] = differences(found)
    tables["What can be read out: R^2 by tau"] = read_out(found)
    tables["Is it motion that is read? R^2 with sides"] = read_out_checks(found)
    with whole_folder(out) as folder:
        for name, table in numbers.items():
            write_table(table, folder, name)
        (folder / "report.md").write_text(page(found, setup, list(tables.values())))
        for name in ("alone", "fused", "ceiling", "overlap", "checks", "decoding", "decoding_checks"):
            save(getattr(found, name), folder / "scores" / f"{name}.zarr")
        save_figures(figures(found, setup), folder / "figures")
    return Report(tables, {what: out / what for what in ("report.md", "main.csv", "scores", "figures")})


def differences(found: Found) -> pd.DataFrame:
    """What the benchmark asks, clip by clip: differences of J_m with their 95 % intervals, as texts."""
    chosen = found.chosen()
    pairs = {
        f"{looks}: {one} - {other}": tuple(chosen.sel(set=looks, features=kind, drop=True) for kind in (one, other))
        for looks in found.choices
        for one, other in (("motion", "appearance"), ("fused", "motion"), ("fused", "appearance"))
    }
    as_it_is, *others = (found.checks.sel(check=check, drop=True) for check in CHECKS)
    pairs |= {
        f"{HARDEST}: {CHECKS[0]} - {name}": (as_it_is, other) for name, other in zip(CHECKS[1:], others, strict=True)
    }
    few, many = (found.overlap.sel(overlap=overlap, drop=True) for overlap in OVERLAPS)
    pairs[f"{HARDEST}, {LONG} frames: overlap {OVERLAPS[1]} - {OVERLAPS[0]}"] = (many, few)
    texts = {}
    for name, (one, other) in pairs.items():
        found_out = 100 * paired_difference(one, other, METRIC)
        mean, low, high = (float(found_out[each]) for each in ("mean", "low", "high"))
        texts[name] = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
    return pd.DataFrame({"J_m, 95 % interval": texts}).rename_axis("difference")


def read_out(found: Found) -> pd.DataFrame:
    """R^2 of each target by block and noise level, as texts: mean and standard error over folds."""
    table = _with_errors(found.decoding.stack(row=("target", "block")).transpose("row", "tau"))
    return table.rename(columns="tau {}".format).rename_axis(["target", "block"])


def read_out_checks(found: Found) -> pd.DataFrame:
    """R^2 of each target by check, as texts: mean and standard error over folds."""
    return _with_errors(found.decoding_checks.transpose("check", "target")).rename_axis(columns=None)


def _with_errors(decoded: xr.Dataset) -> pd.DataFrame:
    score, error = (decoded[each].to_pandas().map("{:.2f}".format) for each in ("score", "error"))
    return cast("pd.DataFrame", score + " ± " + error)


def figures(found: Found, setup: Setup) -> dict[str, go.Figure]:
    """The paper's set, for identical objects where a figure shows one set only."""
    made = {}
    for looks, choice in found.choices.items():
        best = {
            kind: found.alone.sel(set=looks, features=kind, block=cell["block"], drop=True)
            for kind, cell in (("motion", choice.motion), ("appearance", choice.appearance))
        }
        made[f"tau_{looks}"] = tau_curve(
            xr.concat(list(best.values()), xr.Variable("features", list(best))), metric=METRIC
        )
        blocks = found.alone.sel(set=looks, features="motion", drop=True)
        made[f"tau_block_{looks}"] = tau_block_map(blocks, metric=METRIC)
    made["lambda"] = lambda_curve(found.fused, metric=METRIC)
    made["overlap"] = overlap_bars(found.overlap, metric=METRIC)
    made["decoding"] = decoding_curves(found.decoding)
    levels = [min(setup.taus, key=lambda tau: abs(tau - level)) for level in PCA_TAUS]
    clip = similar_clip(HARDEST, setup.test_seeds[0])
    feats = probe(setup.motion, clip, tau=levels, blocks=setup.motion.block, seed=setup.seeds[0])
    made["pca"] = pca_map(feats, clip)
    return made


def page(found: Found, setup: Setup, tables: list[pd.DataFrame]) -> str:
    """The report as Markdown."""
    main, checks, overlap, pairs, decoded, decoded_checks = tables
    of_motion, of_image = found.choices[HARDEST].motion, found.choices[HARDEST].appearance
    chosen = [
        f"| {looks} | {choice.motion['block']}, {choice.motion['tau']} | "
        f"{choice.appearance['block']}, {choice.appearance['tau']} | {choice.lam:g} |"
        for looks, choice in found.choices.items()
    ]
    return "\n".join(
        [
            "# Benchmark on `similar`",
            "",
            f"{setup.clips} test clips a set of two balls that pass one another; noise seeds: {len(setup.seeds)}.",
            f"Motion features of {setup.motion.name}, appearance features of {setup.appearance.name}. Scores are J_m",
            "in percent, mean and standard error over clips, first and last frames left out.",
            "",
            f"Chosen on {len(setup.validation_seeds)} validation clips a set:",
            "",
            "| set | motion: block, tau | appearance: block, tau | lambda |",
            "|---|---|---|---|",
            *chosen,
            "",
            "## Sets",
            "",
            *markdown_table(main),
            "",
            "The true masks are the ceiling: as maps on the grid of the motion features, in their place.",
            "",
            "## Is it motion?",
            "",
            "Motion features of identical objects, as they are; at the last noise level (log-SNR",
            f"{setup.motion.log_snr(setup.motion.levels - 1):.1f}), where the model tracks what it expects, from the",
            "first frame if it is conditioned on it; where it sees the frames in another order; and with all layers",
            "bypassed that mix frames.",
            "",
            *markdown_table(checks),
            "",
            "## Overlap of windows",
            "",
            f"Motion features on {LONG} frames of identical objects.",
            "",
            *markdown_table(overlap),
            "",
            "## Differences",
            "",
            "Clip by clip, mean and 95 % bootstrap interval over clips.",
            "",
            *markdown_table(pairs),
            "",
            "## What can be read out",
            "",
            "R^2 of ridge regression from the mean motion feature of an object (distinct ones), held out by clip, mean",
            f"and standard error over {found.decoding.attrs['folds']} folds of {found.decoding.attrs['clips']} clips.",
            "The objects drift: neither their place nor the first frame tells their velocity. With sides: from the",
            "mean and from what the object's lower and upper, right and left halves differ by.",
            "",
            *markdown_table(decoded),
            "",
            f"The same with sides, of {of_motion['block']} at tau {of_motion['tau']}, as it is and with less to tell",
            "how things move; and of the image model, which sees one frame,",
            f"of {of_image['block']} at tau {of_image['tau']}.",
            "",
            *markdown_table(decoded_checks),
            "",
        ]
    )
