"""How alike features are, as a map."""

from __future__ import annotations

import plotly.graph_objects as go
import xarray as xr

from tedlens.errors import TedlensError
from tedlens.plots.style import SEQUENTIAL, styled


def cka_map(likeness: xr.DataArray) -> go.Figure:
    """CKA of each two features, from `tedlens.analysis.cka`, 0 to 1.

    Raises
    ------
    TedlensError
        For an array over other axes.
    """
    if set(likeness.dims) != {"first", "second"}:
        raise TedlensError(
            f"cka_map draws (first, second), not {tuple(likeness.dims)}; give what tl.analysis.cka gives."
        )
    ordered = likeness.transpose("second", "first")
    names = [str(name) for name in ordered["first"].values]
    heat = go.Heatmap(
        x=names,
        y=[str(name) for name in ordered["second"].values],
        z=ordered.values,
        zmin=0,
        zmax=1,
        colorscale=SEQUENTIAL,
        colorbar={"title": {"text": "CKA", "side": "top"}, "thickness": 12, "outlinewidth": 0},
        texttemplate="%{z:.2f}" if len(names) <= 10 else None,
        hovertemplate="%{x}, %{y}: %{z:.2f}<extra></extra>",
    )
    figure = go.Figure(heat)
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category", autorange="reversed")
    longest, side = max(map(len, names)), 40 * max(len(names), 4)
    styled(figure, width=120 + 7 * longest + side, height=80 + 5 * longest + side)
    return figure.update_layout(margin={"l": 30 + 7 * longest, "r": 80})
