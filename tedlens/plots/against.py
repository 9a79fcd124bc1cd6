"""What scores are read against, in figures and tables: the references that belong to them, by their labels."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from tedlens.analysis.references import CEILING
from tedlens.analysis.statistics import clip_statistics, greatest
from tedlens.errors import TedlensError
from tedlens.ted.settings import SETTINGS

TITLES = {
    "place": "place",
    "colour": "colour",
    "velocity": "true velocity",
    "masks": "true masks",
    "ceiling": "ceiling of the grid",
}
SHARED = ("clip", "block", "model", *SETTINGS)  # axes by which references belong to scores
SMALL = {"size": 11, "color": "#555555"}
LABEL = 16  # pixels between two labels, at least
ROOM = 150  # pixels beside a figure for them


def of_these(references: xr.Dataset, scores: xr.Dataset) -> xr.Dataset:
    """Those references that belong to some scores: of the same clips, blocks and settings.

    Raises
    ------
    TedlensError
        Where references are missing, or it is not said to which of them scores belong.
    """
    if "features" not in references.dims:
        raise TedlensError(
            f"references= has axes {', '.join(map(str, references.dims))} and no features; give what "
            "tl.reference_scores gives for these scores."
        )
    for axis in SHARED:
        if axis not in references.dims:
            continue
        if axis not in scores.coords:
            raise TedlensError(
                f"The references have an axis {axis}, and the scores do not say theirs; choose one of it."
            )
        wanted = scores[axis].values
        lacking = [str(value) for value in np.atleast_1d(wanted) if value not in references[axis].values]
        if lacking:
            raise TedlensError(
                f"The references have no {axis} {', '.join(lacking)}; give tl.reference_scores(clips, scores) of these."
            )
        # Where each clip has a value of its own, references of a clip are taken at that.
        own = scores[axis].dims == ("clip",) and axis != "clip"
        references = references.sel({axis: scores[axis].variable if own else wanted})
    return references


def draw_references(figure: go.Figure, references: xr.Dataset, scores: xr.Dataset, metric: str) -> None:
    """Mean of each reference as a dotted line, with its name at the right.

    Where blocks or settings differ in them, those of the highest ceiling are drawn, and it is said of which they are.
    """
    means = 100 * clip_statistics(of_these(references, scores), metric)["mean"]
    finest = greatest(means.sel(features=CEILING, drop=True))
    values = means.sel(finest).to_series().sort_values()
    top = 1.06 * max(values.max(), *(np.nanmax(np.asarray(trace.y, float), initial=0) for trace in figure.data))
    layout = figure.layout
    step = LABEL * top / (layout.height - layout.margin.t - layout.margin.b)
    for (name, value), at in zip(values.items(), apart(values.tolist(), step, top), strict=True):
        figure.add_hline(y=value, line={"color": "#999999", "width": 1.2, "dash": "dot"}, layer="below", opacity=1)
        _label(figure, at, f"{TITLES.get(str(name), str(name))} {value:.0f}")
    if finest:
        where = {"x": 1.01, "xref": "paper", "xanchor": "left", "y": 1.0, "yref": "paper", "yanchor": "bottom"}
        of = f"<i>on the grid of {', '.join(map(str, finest.values()))}:</i>"
        figure.add_annotation(text=of, showarrow=False, font=SMALL, **where)
    figure.update_yaxes(range=[0, top])
    figure.update_layout(width=layout.width + ROOM - layout.margin.r, margin_r=ROOM)


def apart(heights: list[float], step: float, top: float) -> list[float]:
    """Ascending heights moved as little as keeps them a step apart and below the top."""
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + step) if places else height)
    limit = top
    for number in reversed(range(len(places))):
        places[number] = min(places[number], limit)
        limit = places[number] - step
    return places


def _label(figure: go.Figure, at: float, text: str) -> None:
    place = {"x": 1.01, "xref": "paper", "y": at, "xanchor": "left", "yanchor": "middle"}
    figure.add_annotation(text=text, showarrow=False, font=SMALL, **place)
