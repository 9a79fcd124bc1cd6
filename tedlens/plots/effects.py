"""What breaks when something is cut: interventions against noise level."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from tedlens.errors import TedlensError
from tedlens.plots.style import AXES, DIVERGING, PLAIN_METRICS, styled


def effect_map(effects: xr.Dataset) -> go.Figure:
    """Effect of each intervention at every noise level, in points of 100; a dot where its interval contains 0.

    Parameters
    ----------
    effects
        From `tedlens.analysis.effects`, over intervention and tau; of other axes with several values choose one with
        ``.sel``.

    Raises
    ------
    TedlensError
        For other axes.
    """
    single = [axis for axis, size in effects.sizes.items() if size == 1 and axis not in ("intervention", "tau")]
    effects = effects.squeeze(single, drop=True)
    if "intervention" not in effects.dims or set(effects["mean"].dims) - {"intervention", "tau"}:
        raise TedlensError(
            "effect_map draws interventions against tau, and these effects lie over "
            f"{', '.join(map(str, effects['mean'].dims))}; give those of tl.analysis.effects, and choose one value of "
            "every other axis with .sel."
        )
    if "tau" not in effects.dims:
        effects = effects.expand_dims("tau")
    ordered = effects.sortby("tau").transpose("intervention", "tau")
    values = 100 * ordered["mean"].values
    taus = [str(tau) for tau in ordered["tau"].values]
    names = [str(name) for name in ordered["intervention"].values]
    most = float(np.nanmax(np.abs(values), initial=0)) or 1.0
    title = PLAIN_METRICS.get(str(effects.attrs.get("metric")), "score")
    heat = go.Heatmap(
        x=taus,
        y=names,
        z=values,
        zmin=-most,
        zmax=most,
        colorscale=DIVERGING,
        colorbar={"title": {"text": f"Δ {title}", "side": "top"}, "thickness": 12, "outlinewidth": 0},
        customdata=100 * np.stack([ordered["low"].values, ordered["high"].values], axis=-1),
        hovertemplate="%{y}, τ = %{x}: %{z:.1f} (%{customdata[0]:.1f} to %{customdata[1]:.1f})<extra></extra>",
    )
    figure = go.Figure(heat)
    rows, columns = np.nonzero((ordered["low"] <= 0).values & (ordered["high"] >= 0).values)
    figure.add_scatter(
        x=[taus[c] for c in columns],
        y=[names[r] for r in rows],
        mode="markers",
        marker={"size": 4, "color": "#555555"},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.update_xaxes(title=AXES["tau"], type="category")
    figure.update_yaxes(type="category", autorange="reversed")
    longest = max(map(len, names))
    styled(figure, width=460 + 7 * longest, height=110 + 26 * len(names))
    return figure.update_layout(margin={"l": 30 + 7 * longest, "r": 80})
