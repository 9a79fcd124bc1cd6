"""Curves of scores over what was swept."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from tedlens.analysis.statistics import clip_statistics
from tedlens.errors import TedlensError
from tedlens.plots.style import COLOURS, DASHES, METRICS, NAMES, OTHERS, SYMBOLS, band_colour, styled


def tau_curve(scores: xr.Dataset, *, metric: str = "JF") -> go.Figure:
    """Score against tau: one line for each cell of the other swept axes, a band for the standard error.

    Parameters
    ----------
    scores
        From `evaluate`, joined along ``tau`` and perhaps ``clip``, ``seed``, ``features`` (motion,
        appearance, fused), ``block``, ... Bands are standard errors over clips.
    metric
        ``"J"``, ``"F"`` or ``"JF"``.
    """
    if "tau" not in scores.dims:
        raise TedlensError(
            f"The scores have no axis tau, only {', '.join(map(str, scores.dims))}; "
            "join those of several taus with xr.concat(..., dim='tau')."
        )
    figure = go.Figure()
    for trace in curve_traces(scores, metric):
        figure.add_trace(trace)
    figure.update_xaxes(title="noise level τ (training timestep)", range=[-20, 1000])
    figure.update_yaxes(title=METRICS[metric], rangemode="tozero")
    return styled(figure, width=520, height=360)


def curve_traces(scores: xr.Dataset, metric: str) -> list[go.Scatter]:
    """Band and line for each cell of the axes besides tau."""
    statistics = clip_statistics(scores, metric).sortby("tau")
    swept = [d for d in statistics["mean"].dims if d != "tau"]
    traces = []
    cells = list(product(*(statistics[d].values for d in swept)))
    for number, cell in enumerate(cells):
        chosen = statistics.sel(dict(zip(swept, cell, strict=True)))
        # Features have fixed colours; any other axis takes its turn.
        key = next((str(v) for v in cell if str(v) in COLOURS), None)
        colour = COLOURS[key] if key and len(cells) <= len(COLOURS) else [*COLOURS.values(), *OTHERS][number % 8]
        name = ", ".join(NAMES.get(str(v), str(v)) for v in cell)
        traces += _line(chosen, name, colour, DASHES.get(key or "", "solid"), SYMBOLS.get(key or "", "circle"))
    return traces


def _line(chosen: xr.Dataset, name: str, colour: str, dash: str, symbol: str) -> list[go.Scatter]:
    tau, mean, error = chosen["tau"].values, 100 * chosen["mean"].values, 100 * chosen["error"].values
    outline: dict[str, Any] = {
        "x": np.concatenate([tau, tau[::-1]]),
        "y": np.concatenate([mean + error, (mean - error)[::-1]]),
    }
    band = go.Scatter(
        **outline, fill="toself", fillcolor=band_colour(colour), line_width=0, hoverinfo="skip", showlegend=False
    )
    line = go.Scatter(
        x=tau,
        y=mean,
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": dash},
        marker={"symbol": symbol, "size": 7},
        error_y=None,
        showlegend=bool(name),
        customdata=error,
        hovertemplate="τ = %{x}<br>%{y:.1f} ± %{customdata:.1f}<extra>" + name + "</extra>",
    )
    return [band, line]
