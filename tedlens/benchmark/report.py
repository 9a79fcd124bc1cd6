"""What the benchmark found, as tables, figures and a page to read."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from tedlens.analysis import clip_statistics, paired_difference
from tedlens.benchmark.similar import (
    CHECKS,
    CUTS,
    HARDEST,
    LONG,
    OVERLAPS,
    SEEN,
    SETS,
    Found,
    Setup,
    at_end,
    joined,
    similar_clip,
)
from tedlens.escaping import picture_in_markdown
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
PCA_TAUS = (0, 600)  # low and high noise
REFERENCES = {"place": "place", "colour": "colour", "velocity": "true velocity", "masks": "true masks"}
PARTS = ("alone", "fused", "references", "common", "cut", "by_noise", "overlap", "decoding", "decoding_checks")


@dataclass(frozen=True)
class Report:
    """Tables to read, by title, and the files that were written."""

    tables: dict[str, pd.DataFrame]
    written: dict[str, Path]


def write_report(found: Found, setup: Setup, out: Path) -> Report:
    """Write tables, figures, scores and ``report.md`` to the folder `out`, all of them or none."""
    chosen = titled(found.chosen())
    numbers = {
        "identity": main_table(at_end(chosen), metric="identity", columns="set"),
        "main": main_table(chosen, metric=METRIC, columns="set"),
        "overlap": main_table(found.overlap, metric=METRIC),
    }
    tables = {
        "Who is who at the end: identity (%), 95 % interval": identities(found),
        "J_m (%) by set": plain_table(numbers["main"]),
        f"J_m (%) by tau, {SETS[SEEN].title}": over_noise(found, SEEN, METRIC),
        f"Identity at the end (%) by tau, {SETS[HARDEST].title}": over_noise(found, HARDEST, "identity"),
        f"Overlap of windows, {LONG} frames, {SETS[SEEN].title}": plain_table(numbers["overlap"]),
        "Differences, clip by clip": differences(found),
        "What can be read out: R^2 by tau": read_out(found),
        "Is it motion that is read? R^2 with sides": read_out_checks(found),
    }
    with whole_folder(out) as folder:
        for name, table in numbers.items():
            write_table(table, folder, name)
        for name in PARTS:
            save(getattr(found, name), folder / "scores" / f"{name}.zarr")
        drawn = [path for path in save_figures(figures(found, setup), folder / "figures") if path.suffix == ".png"]
        shown = [picture_in_markdown(f"figures/{path.name}", path.stem.replace("_", " ")) for path in drawn]
        text = "\n\n".join([page(found, setup, list(tables.values())), *(["## Figures", *shown] if shown else [])])
        (folder / "report.md").write_text(f"{text}\n", encoding="utf-8")
    return Report(tables, {what: out / what for what in ("report.md", "main.csv", "scores", "figures")})


def titled(scores: xr.Dataset) -> xr.Dataset:
    """Scores with the sets under the names that a person reads."""
    return scores.assign_coords(set=[SETS[name].title for name in scores["set"].values])


def identities(found: Found) -> pd.DataFrame:
    """Identity at the end by set, as texts: mean and 95 % interval over clips."""
    statistics = 100 * clip_statistics(at_end(titled(found.chosen())), "identity", interval=0.95)
    parts = [statistics[name].to_pandas().map("{:.0f}".format) for name in ("mean", "low", "high")]
    table = parts[0] + " (" + parts[1] + " to " + parts[2] + ")"
    return cast("pd.DataFrame", table.T if table.index.name == "set" else table)


def over_noise(found: Found, name: str, metric: str) -> pd.DataFrame:
    """Scores by noise level as texts: motion features as they are and cut, and appearance features."""
    statistics = 100 * clip_statistics(_by_noise(found, name, metric), metric)
    mean, error = (statistics[part].transpose("features", "tau").to_pandas() for part in ("mean", "error"))
    table = cast("pd.DataFrame", mean.map("{:.1f}".format) + " ± " + error.map("{:.1f}".format))
    return table.rename(columns="tau {}".format).rename_axis(columns=None)


def _by_noise(found: Found, name: str, metric: str) -> xr.Dataset:
    """(features, tau, ..): motion features with each check, and what they are read against."""
    motion = found.by_noise.sel(set=name, drop=True)
    scores = _beside_references(found, name, {f"motion, {c}": motion.sel(check=c, drop=True) for c in CHECKS})
    return at_end(scores) if metric == "identity" else scores


def _beside_references(found: Found, name: str, parts: dict[str, xr.Dataset]) -> xr.Dataset:
    """Scores over tau, beside those of appearance features and of what needs no model: (features, tau, ..)."""
    block = found.choices[name].appearance["block"]
    parts = parts | {"appearance": found.alone.sel(set=name, features="appearance", block=block, drop=True)}
    taus = parts["appearance"]["tau"].values
    for kind, title in REFERENCES.items():
        parts[title] = found.references.sel(set=name, features=kind, drop=True).expand_dims(tau=taus)
    return joined("features", {title: scores.reset_coords(drop=True) for title, scores in parts.items()})


def differences(found: Found) -> pd.DataFrame:
    """What the benchmark asks, clip by clip: differences of J_m and identity with their 95 % intervals, as texts."""
    chosen, texts = found.chosen(), {}

    def kind(name: str, features: str) -> xr.Dataset:
        return chosen.sel(set=name, features=features, drop=True)

    pairs = [("motion", "appearance"), ("motion", "appearance, motion's grid")]
    pairs += [("motion", f"motion, {cut}") for cut in CUTS] + [("fused", "motion"), ("fused", "appearance")]
    for name in found.choices:
        for one, other in pairs:
            both = kind(name, one), kind(name, other)
            ends = at_end(both[0]), at_end(both[1])
            row = {"J_m": _difference(*both, METRIC), "identity at the end": _difference(*ends, "identity")}
            texts[f"{SETS[name].title}: {one} - {other}"] = row
    few, many = (found.overlap.sel(overlap=overlap, drop=True) for overlap in OVERLAPS)
    row = {"J_m": _difference(many, few, METRIC), "identity at the end": _difference(many, few, "identity")}
    texts[f"{SETS[SEEN].title}, {LONG} frames: overlap {OVERLAPS[1]} - {OVERLAPS[0]}"] = row
    return pd.DataFrame(texts).T.rename_axis("difference, 95 % interval")


def _difference(one: xr.Dataset, other: xr.Dataset, metric: str) -> str:
    found_out = 100 * paired_difference(one, other, metric)
    mean, low, high = (float(found_out[each]) for each in ("mean", "low", "high"))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


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
    """The paper's set, for each set of clips."""
    made = {}
    for name, choice in found.choices.items():
        motion = found.alone.sel(set=name, features="motion", block=choice.motion["block"], drop=True)
        scores = _beside_references(found, name, {"motion": motion})
        made[f"tau_{name}"] = _curve(scores, METRIC)
        made[f"tau_identity_{name}"] = _curve(at_end(scores), "identity")
        made[f"tau_block_{name}"] = tau_block_map(
            found.alone.sel(set=name, features="motion", drop=True), metric=METRIC
        )
    made["by_noise"] = _curve(_by_noise(found, SEEN, METRIC), METRIC)
    made["by_noise_identity"] = _curve(_by_noise(found, HARDEST, "identity"), "identity")
    made["lambda"] = lambda_curve(titled(found.fused), metric=METRIC)
    made["overlap"] = overlap_bars(found.overlap, metric=METRIC)
    made["decoding"] = decoding_curves(found.decoding)
    levels = [min(setup.taus, key=lambda tau: abs(tau - level)) for level in PCA_TAUS]
    clip = similar_clip(HARDEST, setup.test_seeds[0])
    feats = probe(setup.motion, clip, tau=levels, blocks=setup.motion.block, seed=setup.seeds[0])
    made["pca"] = pca_map(feats, clip)
    return made


def _curve(scores: xr.Dataset, metric: str) -> go.Figure:
    """Lines over noise, beside them their many names; what needs no model in grey, as it knows no noise."""
    figure = tau_curve(scores, metric=metric)
    shades = dict(zip(REFERENCES.values(), ("#bbbbbb", "#999999", "#555555", "#000000"), strict=True))
    for band, line in pairwise(figure.data):
        if line.name in shades:
            line.update(line={"color": shades[line.name], "width": 1.5}, mode="lines")
            band.update(visible=False)
    legend = {"x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top", "orientation": "v"}
    return figure.update_layout(width=760, height=380, legend=legend, margin_r=250)


def page(found: Found, setup: Setup, tables: list[pd.DataFrame]) -> str:
    """The report as Markdown."""
    identity, main, seen, hardest, overlap, pairs, decoded, decoded_checks = tables
    of_motion, of_image = found.choices[SEEN].motion, found.choices[SEEN].appearance
    chosen = [
        f"| {SETS[name].title} | {choice.motion['block']}, {choice.motion['tau']} | "
        f"{choice.appearance['block']}, {choice.appearance['tau']} | {choice.lam:g} |"
        for name, choice in found.choices.items()
    ]
    return "\n".join(
        [
            "# Benchmark on `similar`",
            "",
            f"{setup.clips} test clips a set of two balls that pass one another; noise seeds: {len(setup.seeds)}.",
            f"Motion features of {setup.motion.name}, appearance features of {setup.appearance.name}. All windows are",
            "of one size in the picture (a quarter of its height to each side), whatever the grid.",
            "",
            f"Chosen by J_m on {len(setup.validation_seeds)} validation clips a set:",
            "",
            "| set | motion: block, tau | appearance: block, tau | lambda |",
            "|---|---|---|---|",
            *chosen,
            "",
            "## Who is who at the end",
            "",
            "The share of objects, in the last three scored frames, on whose true mask their own label is the most",
            "frequent: 100 where both are kept, 0 where they are swapped. Mean and 95 % bootstrap interval over clips.",
            "In the first two sets only motion tells: place and colour mislead, true velocity keeps nearly all.",
            "Seen from the side, objects differ in height and size, too.",
            "",
            *markdown_table(identity),
            "",
            "Place, colour, true velocity and true masks are features in their stead, on the grid of the motion",
            "features. The appearance features are brought to that grid, too, so that finer cells are no advantage.",
            "",
            "## J_m",
            "",
            "In percent, mean and standard error over clips, first and last frames left out.",
            "",
            *markdown_table(main),
            "",
            "## Cut, by noise",
            "",
            "Motion features as they are, of a model that saw the frames in another order, and of one with all layers",
            f"bypassed that mix frames. J_m, {SETS[SEEN].title}:",
            "",
            *markdown_table(seen),
            "",
            f"Identity at the end, {SETS[HARDEST].title}:",
            "",
            *markdown_table(hardest),
            "",
            f"At tau {setup.taus[-1]} (log-SNR {setup.motion.log_snr(setup.taus[-1]):.1f}) little or nothing is left",
            "of the clip but the first frame, which the model is told: what is tracked there is what it expects.",
            "",
            "## Overlap of windows",
            "",
            f"Motion features on {LONG} frames, {SETS[SEEN].title}.",
            "",
            *markdown_table(overlap),
            "",
            "## Differences",
            "",
            "Clip by clip, mean and 95 % bootstrap interval over clips, in percentage points.",
            "",
            *markdown_table(pairs),
            "",
            "## What can be read out",
            "",
            "R^2 of ridge regression from the motion features of an object, held out by clip, mean and standard error",
            f"over {found.decoding.attrs['folds']} folds of {found.decoding.attrs['clips']} clips. The objects drift:",
            "neither their place nor the first frame tells their velocity. They look distinct, or, where it is said,",
            "all clips are of one look. With sides: from the mean and from what the object's lower and upper, right",
            "and left halves differ by.",
            "",
            *markdown_table(decoded),
            "",
            f"The same with sides, of {of_motion['block']} at tau {of_motion['tau']}, as it is and cut; and of the",
            f"image model, which sees one frame, of {of_image['block']} at tau {of_image['tau']}.",
            "",
            *markdown_table(decoded_checks),
        ]
    )
