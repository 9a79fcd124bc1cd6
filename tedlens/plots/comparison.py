"""Models side by side over noise, as `tedlens.compare` gives them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from tedlens.errors import TedlensError
from tedlens.plots.style import AXES, COLOURS, DASHES_IN_TURN, METRICS, OTHERS, SYMBOLS_IN_TURN, styled

PANELS = {"JF": METRICS["JF"], "AssA": METRICS["AssA"], "velocity": "velocity, R<sup>2</sup>"}
IN_TURN = [*COLOURS.values(), *OTHERS]


def comparison(found: xr.Dataset) -> go.Figure:
    """J&F, AssA and decoded velocity over log-SNR: a line for each model, with standard errors.

    Noise grows to the right. Of J&F the ceiling of each model's grid is a dotted line in its colour. What was not
    measured has no panel.

    Raises
    ------
    TedlensError
        For results of another kind.
    """
    if not {"JF", "AssA", "ceiling", "velocity"} <= set(found.data_vars):
        raise TedlensError("comparison draws what tl.compare gives; these are other results.")
    panels = [name for name in PANELS if bool(found[name].notnull().any())]
    figure = make_subplots(1, len(panels), horizontal_spacing=0.09)
    for column, name in enumerate(panels, start=1):
        for number, model in enumerate(found["model"].values):
            of_model = found.sel(model=model)
            mean, error = _statistics(of_model, name)
            known = np.isfinite(mean)
            colour = IN_TURN[number % len(IN_TURN)]
            figure.add_scatter(
                x=found["log_snr"].values[known],
                y=mean[known],
                error_y={"array": error[known], "thickness": 1.2, "width": 3},
                name=str(model),
                legendgroup=str(model),
                showlegend=column == 1,
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": DASHES_IN_TURN[number % len(DASHES_IN_TURN)]},
                marker={"symbol": SYMBOLS_IN_TURN[number % len(SYMBOLS_IN_TURN)], "size": 7},
                row=1,
                col=column,
            )
            if name == "JF":
                figure.add_scatter(
                    x=found["log_snr"].values[[0, -1]],
                    y=[100 * float(of_model["ceiling"].mean())] * 2,
                    mode="lines",
                    line={"color": colour, "width": 1, "dash": "dot"},
                    legendgroup=str(model),
                    showlegend=False,
                    hovertemplate=f"{model}: ceiling of its grid %{{y:.1f}}<extra></extra>",
                    row=1,
                    col=column,
                )
        figure.update_yaxes(title=PANELS[name], row=1, col=column)
        if name != "velocity":
            figure.update_yaxes(rangemode="tozero", row=1, col=column)
    figure.update_xaxes(title=AXES["log_snr"], autorange="reversed")
    return styled(figure, width=60 + 320 * len(panels), height=340).update_layout(margin_r=24)


def _statistics(of_model: xr.Dataset, name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard error over clips, in percent; of velocity as they are."""
    if name == "velocity":
        return of_model["velocity"].values, of_model["velocity_error"].values
    clips = max(1, of_model.sizes["clip"])
    spread = of_model[name].std("clip", ddof=1) / np.sqrt(clips) if clips > 1 else 0 * of_model[name].mean("clip")
    return 100 * of_model[name].mean("clip").values, 100 * spread.values
