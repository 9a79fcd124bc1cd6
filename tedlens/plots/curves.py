"""Curves and bars of scores over what was swept."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from tedlens.analysis.statistics import clip_statistics
from tedlens.errors import TedlensError
from tedlens.plots.against import draw_references
from tedlens.plots.printing import entry_width, legend_names
from tedlens.plots.style import (
    AXES,
    COLOURS,
    DASHES,
    DASHES_IN_TURN,
    METRICS,
    NAMES,
    SYMBOLS,
    SYMBOLS_IN_TURN,
    band_colour,
    in_turn,
    styled,
)

LEGEND_ABOVE = 6  # lines, at most: more have their legend beside the figure
UNITS = {"tau": "τ = ", "lam": "λ = ", "log_snr": "log SNR = "}


def tau_curve(
    scores: xr.Dataset, *, metric: str = "JF", x: str | None = None, references: xr.Dataset | None = None
) -> go.Figure:
    """Score against noise level: one line for each cell of the other swept axes, a band for the standard error.

    Parameters
    ----------
    scores
        From `sweep`, or from `evaluate` joined along ``tau`` and perhaps ``clip``, ``seed``, ``features`` (motion,
        appearance, fused), ``block``, ``model``, ... Bands are standard errors over clips.
    metric
        ``"J"``, ``"F"``, ``"JF"``, ``"identity"``, ``"HOTA"``, ``"DetA"``, ``"AssA"`` or ``"IDF1"``.
    x
        ``"tau"``, or ``"log_snr"``, on which models with different schedules compare; by default what was swept.
        Noise grows to the right in both.
    references
        From `reference_scores`, of the same sweep: drawn as dotted lines. Where blocks or settings differ in them,
        those of the highest ceiling are drawn, and named.
    """
    along = noise_axis_of(scores)
    x = x or along
    figure = go.Figure(curve_traces(scores, metric, along=along, x=x))
    noise_axis(figure, x)
    figure.update_yaxes(title=METRICS[metric], rangemode="tozero")
    styled(figure, width=520, height=360).update_layout(margin_r=22)  # room for the last tick's number
    return _finished(figure, scores, metric, references)


def lambda_curve(scores: xr.Dataset, *, metric: str = "JF", references: xr.Dataset | None = None) -> go.Figure:
    """Score against lambda, the weight of motion: lines, bands and references as in `tau_curve`, along ``lam``."""
    need_axis(scores, "lam")
    figure = go.Figure(curve_traces(scores, metric, along="lam", x="lam"))
    figure.update_xaxes(title=AXES["lam"], range=[-0.03, 1.03])
    figure.update_yaxes(title=METRICS[metric], rangemode="tozero")
    return _finished(styled(figure, width=520, height=360), scores, metric, references)


def overlap_bars(scores: xr.Dataset, *, metric: str = "JF", references: xr.Dataset | None = None) -> go.Figure:
    """Score by ``overlap`` of the windows: bars as in `setting_bars`."""
    return setting_bars(scores, "overlap", metric=metric, references=references)


def setting_bars(
    scores: xr.Dataset, setting: str, *, metric: str = "JF", references: xr.Dataset | None = None
) -> go.Figure:
    """Score by a setting (an axis such as ``radius``): a bar for each cell of the other swept axes, with its standard
    error; references as in `tau_curve`.
    """
    need_axis(scores, setting)
    figure = go.Figure()
    for cell in _cells(clip_statistics(scores, metric).sortby(setting), setting):
        figure.add_bar(
            x=[value if isinstance(value, str) else f"{value:g}" for value in cell.statistics[setting].values],
            y=100 * cell.statistics["mean"].values,
            error_y={"array": 100 * cell.statistics["error"].values, "thickness": 1.5, "width": 4},
            name=cell.name,
            showlegend=bool(cell.name),
            # Light, so that the error is seen all along.
            marker={"color": band_colour(cell.colour, 0.35), "line": {"color": cell.colour, "width": 1.5}},
            hovertemplate=f"{setting} %{{x}}: %{{y:.1f}} ± %{{error_y.array:.1f}}<extra>{cell.name}</extra>",
        )
    figure.update_xaxes(title=AXES.get(setting, setting), type="category")
    figure.update_yaxes(title=METRICS[metric], rangemode="tozero")
    styled(figure, width=420, height=340).update_layout(bargap=0.4, bargroupgap=0.08)
    return _finished(figure, scores, metric, references)


def decoding_curves(decoded: xr.Dataset, *, x: str = "tau", references: xr.Dataset | None = None) -> go.Figure:
    """What can be read out where: a panel for each target, a line for each block, against noise level.

    Parameters
    ----------
    decoded
        From `decode`. Bands are standard errors over folds; the grey line is chance. What lies far below
        chance is cut off: it is no worse than chance.
    x
        ``"tau"`` or ``"log_snr"``, as for `tau_curve`.
    references
        From `decode`, too, of features that need no model, at one level: a dotted line for each of its blocks.
    """
    targets = [str(target) for target in decoded["target"].values]
    columns = min(3, len(targets))
    rows = -(-len(targets) // columns)
    figure = make_subplots(
        rows, columns, subplot_titles=targets, horizontal_spacing=0.1, vertical_spacing=0.28 if rows > 1 else 0
    )
    statistics = decoded.rename(score="mean").sortby("tau")
    for number, target in enumerate(targets):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        r2 = str(statistics["measure"].sel(target=target).item()) == "R2"
        chance = 0 if r2 else 0.5
        for cell in _cells(statistics[["mean", "error"]].sel(target=target, drop=True), "tau"):
            band, line = _line(cell, x, scale=1, digits=2)
            line.update(legendgroup=cell.name, showlegend=number == 0)
            figure.add_traces([band, line], rows=[place["row"]] * 2, cols=[place["col"]] * 2)
        figure.add_hline(y=chance, line={"color": "#999999", "width": 1}, opacity=1, layer="below", **place)
        if references is not None:
            _draw_decoded(figure, references["score"].sel(target=target).isel(tau=0), number, place, chance)
        figure.update_yaxes(title="R<sup>2</sup>" if r2 else "accuracy", range=[chance - 0.25, 1.05], **place)
    noise_axis(figure, x, short=True)
    styled(figure, width=70 + 240 * columns, height=100 + 210 * rows)
    return figure.update_layout(margin={"t": 60}, legend={"y": 1 + 34 / (210 * rows)})


def _draw_decoded(figure: go.Figure, levels: xr.DataArray, number: int, place: dict[str, int], chance: float) -> None:
    """What features that need no model tell of a target, as dotted lines; one of nothing is left out of its panel."""
    for block, dash in zip(levels["block"].values, ("dot", "dash", "dashdot"), strict=False):
        shown = float(levels.sel(block=block))
        line = {"color": "#777777", "width": 1.5, "dash": dash}
        figure.add_hline(y=max(shown, chance - 0.25), line=line, opacity=1, layer="below", **place)
        if number == 0:  # a line across has no entry in the legend of its own
            figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=f"{block} alone", **place)


# --- parts ----------------------------------------------------------------------------------------


def noise_axis(figure: go.Figure, x: str, *, short: bool = False) -> None:
    """Title and range of x axes of noise levels."""
    title = AXES[x].split(" (")[0] if short and x == "tau" else AXES[x]
    if x == "tau":
        figure.update_xaxes(title=title, range=[-20, 1000])
    else:
        figure.update_xaxes(title=title, autorange="reversed")


def noise_axis_of(scores: xr.Dataset) -> str:
    """The axis of noise levels: tau, or log_snr where models with different schedules were swept at the same."""
    if "tau" not in scores.dims and "log_snr" in scores.dims:
        return "log_snr"
    need_axis(scores, "tau")
    return "tau"


def _finished(figure: go.Figure, scores: xr.Dataset, metric: str, references: xr.Dataset | None) -> go.Figure:
    """With what the scores are read against, and with a legend that is whole however many lines there are."""
    if references is not None:
        draw_references(figure, references, scores, metric)
    named = legend_names(figure)
    if len(named) > LEGEND_ABOVE:
        layout = figure.layout
        room = entry_width(named)
        aside = layout.margin.r if references is not None else 12
        figure.update_layout(
            # Its place is said in the picture, so that it stays at the edge where a narrower plot is printed.
            legend={"orientation": "v", "x": 1, "xref": "container", "xanchor": "right", "y": 1, "yanchor": "top"},
            width=layout.width - layout.margin.r + aside + room,
            margin_r=aside + room,
            height=max(layout.height, 80 + 20 * len(named)),
        )
    return figure


def curve_traces(scores: xr.Dataset, metric: str, *, along: str = "tau", x: str = "tau") -> list[go.Scatter]:
    """Band and line for each cell of the axes besides `along`; `x` is that axis or a coordinate along it."""
    statistics = clip_statistics(scores, metric).sortby(along)
    if x not in statistics.coords or along not in statistics[x].dims:
        known = [str(name) for name, c in statistics.coords.items() if along in c.dims]
        raise TedlensError(f"The scores have no {x!r} along {along}; choose from {', '.join(known)}.")
    # A block that a model does not have, or of which nothing is computed yet, has no line.
    cells = [cell for cell in _cells(statistics, along) if np.isfinite(cell.statistics["mean"]).any()]
    return [trace for cell in cells for trace in _line(cell, x)]


def need_axis(scores: xr.Dataset, axis: str) -> None:
    if axis not in scores.dims:
        raise TedlensError(
            f"The scores have no axis {axis}, only {', '.join(map(str, scores.dims))}; "
            f"join those of several with xr.concat(..., dim={axis!r})."
        )


class _Cell(NamedTuple):
    """One cell of the swept axes, and how it is drawn."""

    name: str
    colour: str
    dash: str
    symbol: str
    values: dict[str, Any]  # of the swept axes
    statistics: xr.Dataset


def _cells(statistics: xr.Dataset, along: str) -> list[_Cell]:
    """The cells of all axes besides `along`."""
    swept = [str(d) for d in statistics["mean"].dims if d != along]
    values = list(product(*(statistics[d].values for d in swept)))
    cells = []
    for number, chosen in enumerate(dict(zip(swept, each, strict=True)) for each in values):
        plain = ("features", "block", "intervention", "model")  # whose values are names
        texts = [str(v) if d in plain else f"{AXES.get(d, d)} {v}" for d, v in chosen.items()]
        # Features have fixed colours; any other axis takes its turn, theirs last.
        kind = next((text for text in texts if text in COLOURS), None) if len(values) <= len(COLOURS) else None
        cells.append(
            _Cell(
                ", ".join(NAMES.get(text, text) for text in texts),
                COLOURS[kind] if kind else in_turn(number, len(values)),
                DASHES[kind] if kind else DASHES_IN_TURN[number % len(DASHES_IN_TURN)],
                SYMBOLS[kind] if kind else SYMBOLS_IN_TURN[number % len(SYMBOLS_IN_TURN)],
                {axis: v.item() if isinstance(v, np.generic) else v for axis, v in chosen.items()},
                statistics.sel(chosen),
            )
        )
    return cells


def _line(cell: _Cell, x: str, *, scale: float = 100, digits: int = 1) -> list[go.Scatter]:
    """Band and line of ``mean`` and ``error``; a point without a score, or at an infinite log SNR, has no place."""
    known = np.isfinite(cell.statistics[x].values) & np.isfinite(cell.statistics["mean"].values)
    shown = cell.statistics.isel({cell.statistics[x].dims[0]: known})
    at, mean, error = shown[x].values, scale * shown["mean"].values, scale * shown["error"].values
    outline: dict[str, Any] = {
        "x": np.concatenate([at, at[::-1]]),
        "y": np.concatenate([mean + error, (mean - error)[::-1]]),
    }
    band = go.Scatter(
        **outline,
        mode="lines",
        line_width=0,
        fill="toself",
        fillcolor=band_colour(cell.colour),
        hoverinfo="skip",
        showlegend=False,
    )
    score = f"%{{y:.{digits}f}} ± %{{customdata:.{digits}f}}"
    line = go.Scatter(
        x=at,
        y=mean,
        name=cell.name,
        mode="lines+markers",
        line={"color": cell.colour, "width": 2, "dash": cell.dash},
        marker={"symbol": cell.symbol, "size": 7},
        showlegend=bool(cell.name),
        meta=cell.values,
        customdata=error,
        hovertemplate=f"{UNITS[x]}%{{x}}<br>{score}<extra>{cell.name}</extra>",
    )
    return [band, line]
