"""Every block or layer of a network at every noise level, as a heat map."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import xarray as xr

from tedlens.analysis.references import CEILING
from tedlens.analysis.statistics import clip_statistics
from tedlens.errors import TedlensError
from tedlens.plots.against import of_these
from tedlens.plots.curves import need_axis, noise_axis_of
from tedlens.plots.style import AXES, METRICS, SEQUENTIAL, styled

LEAST_ROOM = 20  # points of 100 between place and the ceiling, below which a grid tells nothing
NO_ROOM = "#D9D9D9"
FEW = 12  # rows and columns, at most, whose numbers are written in
MANY = 80  # rows, above which the block that a layer is in has a name, and the layer itself one where the pointer is

Array = npt.NDArray[Any]


def tau_block_map(scores: xr.Dataset, *, metric: str = "JF", references: xr.Dataset | None = None) -> go.Figure:
    """Score of every block at every noise level, as a heat map; its best cell is framed.

    Parameters
    ----------
    scores
        As for `tau_curve`, with ``block`` and ``tau`` the only swept axes besides clip and seed.
    metric
        ``"J"``, ``"F"``, ``"JF"``, ``"identity"``, ``"HOTA"``, ``"DetA"``, ``"AssA"`` or ``"IDF1"``.
    references
        From `reference_scores`, of the same sweep. With them scores are shown as shares of what the block's grid can
        show at best (its ceiling), so that coarse and fine layers compare. Blocks whose ceiling lies less than 20
        points above what place alone reaches are grey: there a high share says nothing.
    """
    along = noise_axis_of(scores)
    need_axis(scores, "block")
    mean = clip_statistics(scores, metric)["mean"].sortby(along)
    others = [str(d) for d in mean.dims if d not in (along, "block")]
    if others:
        raise TedlensError(f"The scores were swept over {', '.join(others)} too; choose one value of each with .sel().")
    values = 100 * mean.transpose("block", along).values
    title, shown, room = METRICS[metric], values, np.ones(len(values), bool)
    if references is not None:
        ceiling, room = _room(of_these(references, scores), metric, mean["block"].values)
        shown = np.where(room[:, None], 100 * values / ceiling[:, None], np.nan)
        title = f"{METRICS[metric]},<br>% of ceiling"
    figure = go.Figure(_heat(shown, values, mean[along].values, mean["block"].values, title))
    _frame_best(figure, shown)
    for row in np.flatnonzero(~room):
        edges = {"x0": -0.5, "x1": values.shape[1] - 0.5, "y0": row - 0.5, "y1": row + 0.5}
        figure.add_shape(type="rect", fillcolor=NO_ROOM, opacity=1, line_width=0, **edges)
    figure.update_xaxes(title=AXES[along], type="category")
    figure.update_yaxes(title=AXES["block"], type="category", dtick=1, automargin=True)
    rows = len(values)
    height = min(34, max(15, 900 // rows)) * rows if rows <= MANY else 2 * rows
    styled(figure, width=520, height=110 + height)
    if rows <= MANY:
        figure.update_yaxes(tickfont_size=min(13, int(0.72 * height / rows)))
    else:
        _name_blocks(figure, [str(block) for block in mean["block"].values])
    figure.update_traces(colorbar={"len": min(260, max(150, height)), "y": 1.08, "yanchor": "top"})
    if not room.all():
        said = "grey: grids on which place alone comes near the ceiling"
        at = {"x": 1, "y": 1, "xref": "paper", "yref": "paper", "xanchor": "right", "yanchor": "bottom"}
        figure.add_annotation(text=said, showarrow=False, font_size=11, **at).update_layout(margin_t=28)
    return figure.update_layout(margin_r=80)


def _room(references: xr.Dataset, metric: str, blocks: Array) -> tuple[Array, Array]:
    """Ceiling of each block's grid, in percent, and whether it leaves room above what place alone reaches."""
    means = 100 * clip_statistics(references, metric)["mean"]
    spare = [str(d) for d in means.dims if d not in ("features", "block")]
    if spare:
        raise TedlensError(f"The references lie over {', '.join(spare)} too; choose one value of each with .sel().")
    if "block" not in means.dims:
        means = means.expand_dims(block=blocks)
    ceiling = means.sel(features=CEILING, block=blocks).values
    return ceiling, ceiling - means.sel(features="place", block=blocks).values >= LEAST_ROOM


def _heat(shown: Array, scores: Array, levels: Array, blocks: Array, title: str) -> go.Heatmap:
    few = max(shown.shape) <= FEW
    share = " (%{z:.0f} % of the ceiling)" if shown is not scores else ""
    return go.Heatmap(
        x=[f"{level:g}" for level in levels],
        y=[str(block) for block in blocks],
        z=shown,
        customdata=scores,
        colorscale=SEQUENTIAL,
        colorbar={"title": {"text": title, "side": "top"}, "thickness": 12, "outlinewidth": 0, "lenmode": "pixels"},
        texttemplate="%{z:.0f}" if few else None,
        hovertemplate=f"%{{x}}, %{{y}}: %{{customdata:.1f}}{share}<extra></extra>",
        hoverongaps=True,
    )


def _name_blocks(figure: go.Figure, layers: list[str]) -> None:
    """Names of blocks beside all their layers, with lines between them; the heat map's rows are numbered for it."""
    starts: dict[str, list[int]] = {}
    for row, layer in enumerate(layers):
        starts.setdefault(layer.split(".", 1)[0], []).append(row)
    figure.update_yaxes(
        type="linear",
        tickvals=[(rows[0] + rows[-1]) / 2 for rows in starts.values()],
        ticktext=list(starts),
        range=[-0.5, len(layers) - 0.5],
        dtick=None,
    )
    figure.update_traces(y=list(range(len(layers))), text=[[name] * len(figure.data[0].x) for name in layers])
    figure.update_traces(hovertemplate=str(figure.data[0].hovertemplate).replace("%{y}", "%{text}"))
    for rows in list(starts.values())[1:]:
        figure.add_hline(y=rows[0] - 0.5, line={"color": "white", "width": 1}, opacity=1)


def _frame_best(figure: go.Figure, shown: Array) -> None:
    if np.isfinite(shown).any():
        row, column = np.unravel_index(np.nanargmax(shown), shown.shape)
        edge = {"x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
        figure.add_shape(type="rect", line={"color": "black", "width": 3}, fillcolor="rgba(0,0,0,0)", opacity=1, **edge)
