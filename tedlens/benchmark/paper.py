"""The paper's tables and figures on one benchmark: what was found, and what was published, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import scipy.stats
import xarray as xr

from tedlens.benchmark import published
from tedlens.benchmark.running import (
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
from tedlens.benchmark.similar import joined
from tedlens.benchmark.suite import Benchmark
from tedlens.errors import TedlensError
from tedlens.escaping import in_latex, in_markdown
from tedlens.metrics import combine_parts, combine_pose
from tedlens.models.adm import ADM
from tedlens.models.i2vgen_xl import I2VGenXL
from tedlens.models.registry import Model
from tedlens.models.stable_diffusion import StableDiffusion
from tedlens.models.svd import StableVideoDiffusion
from tedlens.plots import lambda_curve, overlap_bars, save_figures, tau_curve
from tedlens.plots.tables import markdown_table, spreadsheet_table
from tedlens.presets import PRESETS, preset_named
from tedlens.store import save, whole_folder
from tedlens.sweeping.clips import ClipSequence

if TYPE_CHECKING:
    from distributed import Client

Part = str
PARTS: dict[Part, str] = {
    "main": "the paper's table 1, 6 or 7",
    "cost": "table 5: time and memory a frame",
    "blocks": "table 2: motion features by block",
    "models": "table 3: video models by image models",
    "noise": "figure 6: score over the noise level",
    "weight": "figure 7: score over lambda",
    "overlap": "figure 8: score over the overlap of windows",
}
OF_MASKS = ("blocks", "models", "noise", "weight", "overlap")  # which the paper has of masks alone
TAUS, LAMS, OVERLAPS = tuple(range(0, 1000, 100)), tuple(i / 10 for i in range(11)), (0, 1, 2, 4)
NAMED = {  # in the paper's tables
    **{"moco": "MoCo", "crw": "CRW", "sfc": "SFC", "vfs": "VFS", "spa-then-temp": "Spa-then-Temp", "smtc": "SMTC"},
    **{"dino": "DINO", "dinov2": "DINOv2", "dinov3": "DINOv3", "v-jepa-2": "V-JEPA 2"},
}
IN_TABLE_3 = {I2VGenXL: "I2VGen", StableVideoDiffusion: "SVD", ADM: "ADM", StableDiffusion: "SD"}
DIFT = {ADM: "dift-adm", StableDiffusion: "dift-sd"}  # by the class of the image model, its preset
# Figures of each task, in percent, the first of which stands for the method.
COLUMNS = {
    "masks": ("J&F", "J", "F"),
    "joints": ("PCK@0.1", "PCK@0.2", "PCK@0.1, crw", "PCK@0.2, crw"),
    "parts": ("mIoU",),
    "points": ("AJ", "delta", "OA"),
}
OF_TABLE_6 = {"PCK@0.1": "JHMDB PCK@0.1", "PCK@0.2": "JHMDB PCK@0.2", "mIoU": "VIP mIoU"}
RESAMPLES = 999


@dataclass(frozen=True)
class Asked:
    """What to run.

    Attributes
    ----------
    benchmark, clips
        Which one, and its clips, unread.
    motions, appearances, encoders
        Models by value; the first of each of the first two make TED.
    sam2
        A SAM 2 model beside them: supervised, unlike all others.
    preset, words
        Settings, and what is said beside them, by the names of `track`.
    parts
        Of `PARTS`.
    sweeps
        Where each clip and method is kept as it comes.
    client
        Of a Dask cluster, whose workers then compute.
    """

    benchmark: Benchmark
    clips: ClipSequence
    motions: Sequence[Model]
    appearances: Sequence[Model]
    encoders: Sequence[Mapping[str, Any]]
    sam2: str | None
    preset: str
    words: Mapping[str, Any]
    parts: Sequence[Part]
    sweeps: Path
    client: Client | None = None

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in PARTS:
                raise TedlensError(f"part={part!r} is not known; choose from {', '.join(PARTS)}.")
            if part in OF_MASKS and self.benchmark.task != "masks":
                raise TedlensError(f"The paper has no {part!r} of {self.benchmark.title}; it has main and cost.")
        if not self.motions and not self.appearances and not self.encoders and self.sam2 is None:
            raise TedlensError("There is no model to run; give --motion, --appearance, --encoder or --sam2.")
        preset_named(self.preset)

    @property
    def said(self) -> dict[str, Any]:
        return {**self.benchmark.words, **self.words}

    @property
    def lam(self) -> float:
        """Weight of motion in TED."""
        return float(self.words.get("lam", PRESETS[self.preset].words.get("lam", 0.5)))

    def ted(self, motion: Model | None, appearance: Model | None, **said: Any) -> Method:
        """TED with these models, and what either gives alone."""
        lams = {"TED": self.lam} if motion is not None and appearance is not None else {}
        if appearance is not None and 0.0 not in lams.values():
            lams["appearance alone"] = 0.0
        if motion is not None and 1.0 not in lams.values():
            lams["motion alone"] = 1.0
        return Method.of(lams, motion, appearance, self.preset, {**self.said, **said})

    def methods(self) -> list[Method]:
        """All that stands in the main table."""
        motion, appearance = (models[0] if models else None for models in (self.motions, self.appearances))
        found = [self.ted(motion, appearance)] if motion is not None or appearance is not None else []
        size = {name: value for name, value in self.said.items() if name == "size"}
        if appearance is not None:
            preset = DIFT.get(type(loaded(appearance, "appearance_block")))
            if preset is not None:
                found.append(Method.of({"DIFT": 0.0}, None, appearance, preset, size))
        for encoder in self.encoders:
            name = str(encoder["name"])
            preset = name if name in PRESETS else None
            found.append(Method.of({NAMED.get(name, name): 0.0}, None, dict(encoder), preset, size))
        return found


@dataclass
class Found:
    """Tables of numbers by name, and figures; scores behind them."""

    asked: Asked
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, go.Figure] = field(default_factory=dict)
    scores: dict[str, xr.Dataset] = field(default_factory=dict)
    methods: list[Method] = field(default_factory=list)


def run(asked: Asked) -> Found:
    """All parts that were asked for; what an earlier run kept is not computed again."""
    found = Found(asked, methods=asked.methods())
    for part in PARTS:
        if part in asked.parts:
            {"main": _main, "cost": _cost, "blocks": _blocks, "models": _models}.get(part, _curve)(found, part)
    return found


# --- tables ---------------------------------------------------------------------------------------


def _main(found: Found, part: Part) -> None:
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
        return {name: _at(every, lam).squeeze(drop=True) for name, lam in method.lams.items()}
    found = {}
    for name, lam in method.lams.items():
        folder = asked.sweeps / f"{method.key}-{lam:g}"
        found[name] = each_clip(asked.clips, Scored(asked.benchmark, method, lam), folder, asked.client)
    return found


def _at(scores: xr.Dataset, lam: float) -> xr.Dataset:
    """At one weight of motion, where scores have several."""
    chosen = scores.sel(lam=lam, drop=True) if "lam" in scores.dims else scores
    return chosen.isel({name: 0 for name in chosen.dims if name not in ("clip", "object", "frame")}, drop=True)


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


def _row(
    benchmark: Benchmark, scores: xr.Dataset | None, printed: Mapping[str, float | None], names: Sequence[str] = ()
) -> dict[str, float]:
    """Figures in percent, the first with its interval over clips, and the published ones with the difference."""
    columns = names or COLUMNS[benchmark.task]
    row: dict[str, float] = dict.fromkeys((*columns, "low", "high"), np.nan)
    if scores is not None:
        figure = _figures_of(benchmark, scores)
        count = scores.sizes.get("clip", 1)
        values = figure(np.arange(count))
        row |= {name: 100 * values[name] for name in columns}
        row |= dict(zip(("low", "high"), _interval(lambda clips: figure(clips)[columns[0]], count), strict=True))
    for name in columns:
        if printed.get(name) is not None:
            row[f"paper {name}"] = float(printed[name] or 0)
    if printed.get(columns[0]) is not None:
        row["difference"] = row[columns[0]] - row[f"paper {columns[0]}"]
    return row


def _figures_of(benchmark: Benchmark, scores: xr.Dataset) -> Callable[[Any], dict[str, float]]:
    """From numbers of clips to the benchmark's figures of them: as the official evaluators sum up, 0 to 1."""
    if benchmark.task == "masks":
        # Over the objects of all clips at once, so that a clip counts by its objects.
        each = {"J&F": scores["JF"], "J": scores["J"], "F": scores["F"]}
        means = {name: one.mean("frame").transpose("clip", "object").values for name, one in each.items()}
        return lambda clips: {name: _mean(one[clips]) for name, one in means.items()}
    if benchmark.task == "parts":
        return lambda clips: {"mIoU": float(combine_parts(scores.isel(clip=clips))["mIoU"])}
    if benchmark.task == "joints":
        return lambda clips: _pck(combine_pose(scores.isel(clip=clips)))
    plain = {name: scores[name].values for name in COLUMNS["points"]}
    return lambda clips: {name: float(one[clips].mean()) for name, one in plain.items()}


def _mean(values: Any) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _pck(scores: xr.Dataset) -> dict[str, float]:
    return {
        f"PCK@{alpha}{'' if how == 'vfs' else f', {how}'}": float(
            scores["PCK"].sel(convention=how).sel(alpha=alpha, method="nearest")
        )
        for how in ("vfs", "crw")
        for alpha in (0.1, 0.2)
    }


def _interval(figure: Callable[[Any], float], clips: int) -> tuple[float, float]:
    """95 % bootstrap interval over clips, in percent; NaN of one clip."""
    if clips < 2:
        return np.nan, np.nan
    found = scipy.stats.bootstrap(
        (np.arange(clips),),
        lambda chosen: figure(chosen.astype(int)),
        vectorized=False,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return 100 * float(found.low), 100 * float(found.high)


def _cost(found: Found, part: Part) -> None:
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


def _blocks(found: Found, part: Part) -> None:
    """Motion features alone, by decoder block."""
    asked = found.asked
    method = Method.of({"motion": 1.0}, _first(asked.motions, "--motion"), None, asked.preset, asked.said)
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
        rows[f"{number} ({block})"] = _row(asked.benchmark, _at(every.sel(block=[block]), 1.0), printed)
    found.tables["table_2"] = pd.DataFrame(rows).T.rename_axis("block of R_m")


def _models(found: Found, part: Part) -> None:
    """TED with each video model and each image model."""
    asked, rows = found.asked, {}
    _first(asked.motions, "--motion"), _first(asked.appearances, "--appearance")
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


def _first(models: Sequence[Model], option: str) -> Model:
    if not models:
        raise TedlensError(f"This part needs a model; give {option}.")
    return models[0]


# --- figures --------------------------------------------------------------------------------------


def _curve(found: Found, part: Part) -> None:
    asked = found.asked
    metric = "J" if asked.benchmark.title == "Kubric-Similar" else "JF"  # of that data set the paper reports J
    scores, figure = {"noise": _noise, "weight": _weight, "overlap": _overlap}[part](asked, metric)
    number = {"noise": 6, "weight": 7, "overlap": 8}[part]
    found.scores[part], found.figures[f"figure_{number}"] = scores, figure


def _noise(asked: Asked, metric: str) -> tuple[xr.Dataset, go.Figure]:
    kinds = {}
    for kind, models, word in (
        ("motion", asked.motions, "block"),
        ("appearance", asked.appearances, "appearance_block"),
    ):
        if models and loaded(models[0], word).levels > 1:
            given = {"motion": None, "appearance": None} | {kind: models[0]}
            method = Method.of({kind: float(kind == "motion")}, preset=asked.preset, said=asked.said, **given)
            scores = swept(asked.benchmark, asked.clips, method, asked.sweeps, client=asked.client, tau=list(TAUS))
            kept = ("clip", "tau", "object", "frame")
            kinds[kind] = scores.isel({name: 0 for name in scores.dims if name not in kept}).reset_coords(drop=True)
    if not kinds:
        raise TedlensError("Figure 6 needs a model with noise levels; give --motion or --appearance.")
    scores = joined("features", kinds)
    figure = tau_curve(scores, metric=metric)
    return scores, _marked(figure, published.BEST_TAU.get(asked.benchmark.title))


def _weight(asked: Asked, metric: str) -> tuple[xr.Dataset, go.Figure]:
    models = _first(asked.motions, "--motion"), _first(asked.appearances, "--appearance")
    scores = swept(asked.benchmark, asked.clips, asked.ted(*models), asked.sweeps, client=asked.client, lam=list(LAMS))
    kept = ("clip", "lam", "object", "frame")
    scores = scores.isel({name: 0 for name in scores.dims if name not in kept}).reset_coords(drop=True)
    return scores, _marked(lambda_curve(scores, metric=metric), published.BEST_LAM.get(asked.benchmark.title))


def _overlap(asked: Asked, metric: str) -> tuple[xr.Dataset, go.Figure]:
    motion = _first(asked.motions, "--motion")
    appearance = asked.appearances[0] if asked.appearances else None
    window = loaded(motion, "block").window or 1
    each = {}
    for overlap in (overlap for overlap in OVERLAPS if overlap < window):
        method = asked.ted(motion, appearance, overlap=overlap)
        every = swept(asked.benchmark, asked.clips, method, asked.sweeps, client=asked.client)
        each[overlap] = _at(every, next(iter(method.lams.values())))
    scores = joined("overlap", each)
    return scores, overlap_bars(scores, metric=metric)


def _marked(figure: go.Figure, best: float | None) -> go.Figure:
    """With a line where the paper has its best."""
    if best is not None:
        figure.add_vline(x=best, line={"color": "#777777", "width": 1, "dash": "dot"}, annotation_text="paper's best")
    return figure


# --- written --------------------------------------------------------------------------------------

TITLES = {
    "table_1": "Table 1: {title}",
    "table_2": "Table 2: motion features alone, by block",
    "table_3": "Table 3: video and image models",
    "table_5": "Table 5: time and memory a frame",
    "table_6": "Table 6: {title}",
    "table_7": "Table 7: {title}",
    "points": "Points: {title}",
}


@dataclass(frozen=True)
class Written:
    """Tables to read, by title: rows with figures of one's own; and what was written, where all rows are."""

    tables: dict[str, pd.DataFrame]
    files: dict[str, Path]


def write(found: Found, out: Path) -> Written:
    """Tables, figures, scores and ``report.md`` in the folder `out`, all of them or none."""
    texts = {
        TITLES[name].format(title=found.asked.benchmark.title): as_text(table) for name, table in found.tables.items()
    }
    with whole_folder(out, marked=True) as folder:
        for (name, table), text in zip(found.tables.items(), texts.values(), strict=True):
            spreadsheet_table(table).to_csv(folder / f"{name}.csv", encoding="utf-8")
            (folder / f"{name}.tex").write_text(latex(text), encoding="utf-8")
        for name, scores in found.scores.items():
            slug = "".join(letter if letter.isalnum() else "_" for letter in name)
            save(scores.drop_attrs(), folder / "scores" / f"{slug}.zarr")
        if found.figures:
            save_figures(found.figures, folder / "figures")
        (folder / "report.md").write_text("\n".join(page(found, texts)), encoding="utf-8")
    files = {"report": out / "report.md"} | {name: out / f"{name}.csv" for name in found.tables}
    own = {
        title: text[table.iloc[:, 0].notna().values]
        for (title, text), table in zip(texts.items(), found.tables.values(), strict=True)
    }
    return Written(own, files | ({"figures": out / "figures"} if found.figures else {}))


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers with one decimal, intervals in brackets, a dash where there is none."""
    shown = {}
    for column in table.columns:
        values = table[column]
        if column in ("low", "high"):
            continue
        sign = "+" if column == "difference" else ""
        shown[column] = [f"{value:{sign}.1f}" if np.isfinite(value) else "–" for value in values.astype(float)]
        if len(shown) == 1 and "low" in table:
            bounds = zip(table["low"], table["high"], strict=True)
            shown[f"95 % of {column}"] = [
                f"{low:.1f} to {high:.1f}" if np.isfinite(low) else "–" for low, high in bounds
            ]
    return pd.DataFrame(shown, index=table.index)


def latex(text: pd.DataFrame) -> str:
    """A table of texts in LaTeX (booktabs)."""
    plain = text.map(in_latex).rename(index=in_latex, columns=in_latex)
    plain.index.name = in_latex(str(text.index.name))
    return str(plain.reset_index().to_latex(index=False, escape=False, column_format="l" + "r" * len(text.columns)))


def page(found: Found, texts: Mapping[str, pd.DataFrame]) -> list[str]:
    """The report as Markdown."""
    asked = found.asked
    lines = [f"# {asked.benchmark.title}", ""]
    for method in found.methods:
        words = ", ".join(f"{name}={value}" for name, value in method.words.items())
        models = ", ".join(_called(model) for model in (method.motion, method.appearance) if model is not None)
        preset = f"preset {method.preset}, " if method.preset else ""
        lines.append(in_markdown(f"- {', '.join(method.lams)}: {models}; {preset}{words}."))
    lines += ["", f"Clips: {len(asked.clips)}. In percent, beside the figures of the TED paper (arXiv 2512.02339).", ""]
    notes = [asked.benchmark.note, *(PRESETS[m.preset].note for m in found.methods if m.preset)]
    lines += [f"- {in_markdown(note)}" for note in dict.fromkeys(filter(None, notes))]
    for title, table in texts.items():
        lines += ["", f"## {in_markdown(title)}", "", *markdown_table(table)]
    for name in found.figures:
        lines += ["", f"## {name.replace('_', ' ').capitalize()}", "", f"![{name}](figures/{name}.png)"]
    return [*lines, ""]


def _called(model: Model) -> str:
    return str(model["name"] if isinstance(model, Mapping) else getattr(model, "name", model))
