"""Where attention looks, and what its heads do."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from tedlens.align import check_of_clip
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.plots.pictures import PICTURE, heat, panels, picture
from tedlens.plots.style import SEQUENTIAL, styled

MARK = "#CC79A7"  # seen on all of the scale
WORDS = {"query_frame": "query's frame", "key_frame": "key's frame"}


def attention_map(maps: xr.DataArray, clip: Clip, *, side: int = PICTURE) -> go.Figure:
    """Weights of an attention layer: pictures over the clip, or, of attention over frames, matrices.

    Parameters
    ----------
    maps
        From `tl.attention`. Attention over frames is drawn as a matrix for each head, the mean over cells (or of the
        cells that ``.sel`` leaves). Of other maps at most two axes may be left beside ``y`` and ``x`` (or ``key_y`` and
        ``key_x``), such as query and head: choose with ``.sel``, or take a mean.
    clip
        The clip that was looked at.
    side
        Height of a picture, in pixels of the figure.

    Raises
    ------
    TedlensError
        For maps of another clip, or with more axes.
    """
    check_of_clip(maps, clip, "maps")
    if "key_frame" in maps.dims:
        maps = maps.mean([dim for dim in ("y", "x") if dim in maps.dims])
    if "key_y" in maps.dims and not {"y", "x"} & {*maps.dims}:
        maps = maps.drop_vars(["y", "x"], errors="ignore").rename(key_y="y", key_x="x")
    if "key_y" in maps.dims or maps.ndim < 2:
        raise _too_many(maps)
    return _pictures(maps, clip, side) if "y" in maps.dims else _matrices(maps)


def head_map(statistics: xr.Dataset, statistic: str = "accuracy") -> go.Figure:
    """One statistic of every head of every layer.

    Parameters
    ----------
    statistics
        From `tl.head_statistics`, at one noise level (``.sel(tau=..)`` where there are several).
    statistic
        ``"accuracy"``, ``"entropy"``, ``"frames_away"`` or ``"pixels_away"``.

    Raises
    ------
    TedlensError
        For another statistic, or several noise levels.
    """
    if statistic not in statistics:
        raise TedlensError(f"statistic={statistic!r} is not known; choose from {', '.join(map(str, statistics))}.")
    values = statistics[statistic]
    if "tau" in values.dims:
        if values.sizes["tau"] > 1:
            raise TedlensError("These statistics are of several noise levels; choose one with .sel(tau=..).")
        values = values.isel(tau=0)
    values = values.transpose("layer", "head")
    layers = [str(name) for name in values["layer"].values]
    title = str(values.attrs.get("long_name", statistic))
    chart = go.Heatmap(
        x=[str(head) for head in values["head"].values],
        y=layers,
        z=_plain(values.values),
        colorscale=SEQUENTIAL,
        colorbar={"title": {"text": title, "side": "right"}, "thickness": 12, "outlinewidth": 0},
        hovertemplate="%{y}, head %{x}: %{z:.3g}<extra></extra>",
    )
    figure = go.Figure(chart)
    figure.update_xaxes(title="head", type="category")
    figure.update_yaxes(type="category", autorange="reversed")
    longest = max(map(len, layers))
    styled(figure, width=220 + 7 * longest + 40 * values.sizes["head"], height=110 + 24 * len(layers))
    return figure.update_layout(margin={"l": 30 + 7 * longest, "r": 90})


# --- parts ----------------------------------------------------------------------------------------


def _pictures(maps: xr.DataArray, clip: Clip, side: int) -> go.Figure:
    """A row for each value of one axis, a column for each of the other; queries are marked in their own frame."""
    others: list[str] = [dim for dim in ("query", "head", "frame", "token") if dim in maps.dims]
    if len(others) > 2 or maps.ndim != len(others) + 2:
        raise _too_many(maps)
    while len(others) < 2:
        new = f"one {len(others)}"
        maps, others = maps.expand_dims(new), [new, *others]
    down, across = others
    maps = maps.transpose(down, across, "y", "x")
    size = (clip.height, clip.width)
    rows = []
    for number in range(maps.sizes[down]):
        row = maps.isel({down: number})
        most = float(np.nanmax(row.values))
        cells: list[list[Any]] = [
            [heat(one.values, size, colorscale=SEQUENTIAL, zmin=0, zmax=most, showscale=False, hovertemplate=HOVER)]
            for one in row
        ]
        if down == "query":
            shown: list[Any] = [picture(clip.frames[int(row["query_frame"])], size)]
            cells = [[*each, mark(float(row["query_y"]), float(row["query_x"]))] for each in (shown, *cells)]
        rows.append((_named(maps, down, number), cells))
    columns = [_named(maps, across, number) for number in range(maps.sizes[across])]
    return panels(rows, ["clip", *columns] if down == "query" else columns, size, side=side)


def _matrices(maps: xr.DataArray) -> go.Figure:
    """A matrix for each value of the first axis: of query's and key's frame, or of head and key."""
    pair = ["query_frame", "key_frame"] if "query_frame" in maps.dims else ["head", str(maps.dims[-1])]
    others = [str(dim) for dim in maps.dims if dim not in pair]
    if len(others) > 1 or not set(pair) <= set(maps.dims):
        raise _too_many(maps)
    each = maps.transpose(*others, *pair)
    each = each if others else each.expand_dims("all")
    names = [_named(each, others[0], n) for n in range(len(each))] if others else [""]
    figure = make_subplots(1, len(each), subplot_titles=names, shared_yaxes=True, horizontal_spacing=0.02)
    most = float(np.nanmax(each.values))
    for number, matrix in enumerate(each, start=1):
        chart = go.Heatmap(
            x=matrix[pair[1]].values,
            y=matrix[pair[0]].values,
            z=_plain(matrix.values),
            zmin=0,
            zmax=most,
            colorscale=SEQUENTIAL,
            showscale=number == 1,
            colorbar={"title": {"text": "weight", "side": "right"}, "thickness": 10, "outlinewidth": 0},
            hovertemplate="%{y} to %{x}: %{z:.3f}<extra></extra>",
        )
        figure.add_trace(chart, row=1, col=number)
    figure.update_xaxes(title=WORDS.get(pair[1], pair[1]))
    figure.update_yaxes(autorange="reversed")
    if pair[0] == "head":
        figure.update_yaxes(type="category")
    figure.update_yaxes(title=WORDS.get(pair[0], pair[0]), col=1)
    styled(figure, width=130 + 190 * len(each), height=280)
    return figure.update_layout(margin={"t": 34, "r": 70})


HOVER = "%{z:.4f}<extra></extra>"


def _named(maps: xr.DataArray, axis: str, number: int) -> str:
    if axis.startswith("one"):
        return ""
    return f"{axis} {maps[axis].values[number] if axis in maps.coords else number}"


def mark(y: float, x: float) -> go.Scatter:
    """A ring about a query."""
    marker = {"symbol": "circle-open", "size": 9, "color": MARK, "line": {"color": MARK, "width": 3}}
    return go.Scatter(x=[x], y=[y], mode="markers", marker=marker, hoverinfo="skip", showlegend=False)


def _plain(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Without NaN, which JSON does not have."""
    plain = values.astype(object)
    plain[np.isnan(values)] = None
    return plain


def _too_many(maps: xr.DataArray) -> TedlensError:
    return TedlensError(
        f"These maps lie over {', '.join(map(str, maps.dims))}, which is not two axes and a picture; choose one value "
        "with .sel, take a mean, or give query points to tl.attention."
    )
