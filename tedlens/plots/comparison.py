"""Models side by side over noise, as `tedlens.compare` gives them."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from tedlens.errors import TedlensError
from tedlens.plots.against import SMALL, TITLES
from tedlens.plots.style import AXES, COLOURS, FONT, METRICS, OTHERS, SYMBOLS_IN_TURN, styled

PANELS = {
    "JF": METRICS["JF"],
    "AssA": METRICS["AssA"],
    "matching": "matching accuracy (%)",
    "velocity": "velocity, R<sup>2</sup>",
}
MATCHED = {"queries": "solid", "features": "dash", "chance": "dot"}  # by what, and the line's dash
KEYS = {"solid": "queries with keys", "dash": "features", "dot": "chance; ceiling of the grid"}  # as the legend says
CONTROLS = ("place", "colour", "velocity")
IN_TURN = [*COLOURS.values(), *OTHERS]


def comparison(found: xr.Dataset) -> go.Figure:
    """J&F, AssA, matching accuracy and decoded velocity over log-SNR: a line for each model, with standard errors.

    Noise grows to the right. Of J&F the ceiling of each model's grid is a dotted line in its colour; of matching the
    line is of queries with keys, the dashed one of features, the dotted one of chance. What was not measured has no
    panel. Grey are what place, colour and true velocity score as features, on the grid with the highest ceiling.

    Raises
    ------
    TedlensError
        For results of another kind.
    """
    needed = {"JF", "AssA", "reference_JF", "reference_AssA", "ceiling", "matching", "velocity"}
    if not needed <= set(found.data_vars):
        raise TedlensError("comparison draws what tl.compare gives; these are other results.")
    panels = [name for name in PANELS if bool(found[name].notnull().any())]
    figure = make_subplots(1, len(panels), horizontal_spacing=0.24 / len(panels))
    for column, name in enumerate(panels, start=1):
        for number, model in enumerate(found["model"].values):
            for trace in _lines(found.sel(model=model), name, number):
                figure.add_trace(trace.update(showlegend=trace.showlegend and column == 1), row=1, col=column)
        figure.update_yaxes(title=PANELS[name], row=1, col=column)
        if name != "velocity":
            figure.update_yaxes(rangemode="tozero", row=1, col=column)
    for name in ("JF", "AssA"):
        _draw_references(figure, found, name, panels.index(name) + 1)
    if "matching" in panels:
        for dash, key in KEYS.items():
            line = {"color": FONT["color"], "width": 2, "dash": dash}
            figure.add_trace(go.Scatter(x=[None], y=[None], mode="lines", name=key, line=line), row=1, col=1)
    figure.update_xaxes(title=AXES["log_snr"], autorange="reversed")
    return styled(figure, width=60 + 320 * len(panels), height=340).update_layout(margin_r=24)


def _draw_references(figure: go.Figure, found: xr.Dataset, name: str, column: int) -> None:
    """What needs no model, on the grid with the highest ceiling, where that is most."""
    finest = found.isel(model=int(np.argmax(found["ceiling"].mean("clip").values)))
    for kind in CONTROLS:
        value = 100 * float(finest[f"reference_{name}"].sel(features=kind).mean("clip"))
        if np.isfinite(value):
            figure.add_hline(
                y=value,
                line={"color": "#999999", "width": 1.2, "dash": "dot"},
                layer="below",
                annotation={"text": TITLES[kind], "font": SMALL, "x": 1, "xanchor": "right", "yanchor": "bottom"},
                row=1,
                col=column,
            )


def _lines(of_model: xr.Dataset, name: str, number: int) -> list[go.Scatter]:
    """The lines of a model in a panel; the first stands in the legend."""
    model, levels = str(of_model["model"].values), of_model["log_snr"].values
    colour = IN_TURN[number % len(IN_TURN)]
    symbol = SYMBOLS_IN_TURN[number % len(SYMBOLS_IN_TURN)]

    def line(values: xr.DataArray, dash: str, label: str, error: xr.DataArray | None = None) -> go.Scatter:
        known = np.isfinite(values.values)
        return go.Scatter(
            x=levels[known],
            y=values.values[known],
            error_y=None if error is None else {"array": error.values[known], "thickness": 1.2, "width": 3},
            name=model,
            legendgroup=model,
            showlegend=error is not None,
            mode="lines" if error is None else "lines+markers",
            line={"color": colour, "width": 1.2 if error is None else 2, "dash": dash},
            marker={"symbol": symbol, "size": 7},
            hovertemplate=f"{model}{label}: %{{y:.3g}}<extra></extra>",
        )

    if name == "velocity":
        return [line(of_model["velocity"], "solid", "", of_model["velocity_error"])]
    if name == "matching":
        by = {each: of_model["matching"].sel(by=each) for each in MATCHED}
        mean = {each: _mean(values) for each, values in by.items()}
        marked = {each: _error(values) if each != "chance" else None for each, values in by.items()}
        labels = {"queries": ", queries with keys", "features": ", features", "chance": ", chance"}
        return [line(mean[each], dash, labels[each], marked[each]) for each, dash in MATCHED.items()]
    ceiling = xr.full_like(_mean(of_model[name]), 100 * float(of_model["ceiling"].mean()))
    lines = [line(_mean(of_model[name]), "solid", "", _error(of_model[name]))]
    return [*lines, line(ceiling, "dot", ", ceiling of its grid")] if name == "JF" else lines


def _mean(values: xr.DataArray) -> xr.DataArray:
    """Over clips, in percent."""
    return 100 * values.mean("clip")


def _error(values: xr.DataArray) -> xr.DataArray:
    """The standard error of the mean over clips, in percent."""
    clips = values.sizes["clip"]
    return 100 * values.std("clip", ddof=1) / np.sqrt(clips) if clips > 1 else 0 * values.mean("clip")
