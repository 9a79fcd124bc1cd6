"""Maps over the frames of a clip: which part of the features decides, and where a cell is found again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from tedlens.align import check_of_clip
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.media import overlay as overlay_frames
from tedlens.plots.pictures import PICTURE, Traces, chosen_frames, heat, panels, picture, row_domain
from tedlens.plots.style import AXES, COLOURS, DIVERGING, KINDS, NAMES, SEQUENTIAL, styled

LEGEND = 120  # room for legends and colour bars, in pixels

Array = npt.NDArray[Any]


def decomposition(
    votes: xr.Dataset, clip: Clip, *, frames: Sequence[int] | None = None, side: int = PICTURE
) -> go.Figure:
    """Which part of the features decides, in rows of maps over some frames.

    Labels; motion's share of each winning vote; the part of the margin that is motion's less that which is
    appearance's; and, with truth, where either alone would be right, and what kind of error there is.

    Parameters
    ----------
    votes
        From `tedlens.analysis.votes`.
    clip
        The clip that was probed.
    frames
        Which frames; by default six, evenly spread. The first has no votes.
    side
        Height of a picture, in pixels of the figure.
    """
    _check(votes, clip)
    chosen = chosen_frames(len(clip), frames) if frames is not None else _spread(votes["frame"].values)
    voted = votes.sel(frame=[f for f in chosen if f in votes["frame"].values])
    if voted.sizes["frame"] < len(chosen):
        raise TedlensError(f"frames={chosen} hold the first, which has no votes; choose from 1 to {len(clip) - 1}.")
    size = (clip.height, clip.width)
    full = _at_size(voted["label"].values, size)
    pictures = overlay_frames(clip.frames[chosen], full)
    margin = votes["margin"].sel(part="motion") - votes["margin"].sel(part="appearance")
    lead = margin.sel(frame=voted["frame"]).values
    rows: list[tuple[str, Sequence[Traces]]] = [
        ("labels", [[picture(image, size)] for image in pictures]),
        ("motion's share<br>of the vote", [[heat(v, size, coloraxis="coloraxis1")] for v in voted["share"].values]),
        ("margin:<br>motion less<br>appearance", [[heat(v, size, coloraxis="coloraxis2")] for v in lead]),
    ]
    kinds = [name for name in KINDS if name in voted]
    for name in kinds:
        rows.append((KIND_TITLES[name], [[_categories(v, size, name)] for v in voted[name].values]))
    figure = panels(rows, [f"frame {f}" for f in chosen], size, side=side, legend=LEGEND)
    most = float(np.nanpercentile(np.abs(margin.values), 99))
    for number, (low, high) in enumerate(((0, 1), (-most, most)), start=1):
        bar = _bar(row_domain(number, len(rows)))
        figure.layout[f"coloraxis{number}"] = {"colorscale": DIVERGING, "cmin": low, "cmax": high, "colorbar": bar}
    for number, name in enumerate(kinds, start=3):
        _add_legend(figure, number, sum(row_domain(number, len(rows))) / 2, name, votes[name])
    return figure


def margin_curves(votes: xr.Dataset, *, frame: int | None = None) -> go.Figure:
    """For each object the margin of its votes over time, as the sum of motion's part and appearance's.

    Parameters
    ----------
    votes
        From `tedlens.analysis.votes`. Margins are means over an object's own cells, in fused similarity;
        above 0 in sum the object is told apart.
    frame
        A frame to mark.
    """
    objects = [int(o) for o in votes["object"].values if o != 0]
    if not objects:
        raise TedlensError("The votes are for no object, only for the background; give a mask that shows one.")
    columns = min(3, len(objects))
    rows = -(-len(objects) // columns)
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=[f"object {o}" for o in objects],
        shared_yaxes="all",
        horizontal_spacing=0.04,
        vertical_spacing=0.25 if rows > 1 else 0,
    )
    for number, o in enumerate(objects):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        margin = votes["object_margin"].sel(object=o)
        for part in ("motion", "appearance"):
            values = margin.sel(part=part).values
            bar = go.Bar(x=margin["frame"].values, y=values, name=NAMES[part], marker_color=COLOURS[part])
            figure.add_trace(bar.update(legendgroup=part, showlegend=number == 0, **HOVER), **place)
        total = go.Scatter(x=margin["frame"].values, y=margin.sum("part", skipna=False).values, name="sum")
        total.update(mode="lines+markers", line={"color": "black", "width": 2}, marker_size=5, **HOVER)
        figure.add_trace(total.update(legendgroup="sum", showlegend=number == 0), **place)
        figure.add_hline(y=0, line={"color": "#999999", "width": 1}, opacity=1, layer="below", **place)
    figure.update_xaxes(title=AXES["frame"])
    figure.update_yaxes(title="margin", col=1)
    if frame is not None:
        figure.add_vline(x=frame, line={"color": "#999999", "width": 1, "dash": "dot"}, opacity=1)
    styled(figure, width=max(420, 80 + 230 * columns), height=100 + 200 * rows)
    return figure.update_layout(barmode="relative", bargap=0.15, margin_t=60, legend_y=1 + 34 / (200 * rows))


def similarity_map(
    similarities: xr.DataArray, clip: Clip, *, frames: Sequence[int] | None = None, side: int = PICTURE
) -> go.Figure:
    """Where a cell is found again: its similarity to every cell, in rows for motion, appearance and fused.

    The cell is circled in its own frame; in the others the most similar cell of each row has a cross.

    Parameters
    ----------
    similarities
        From `tedlens.analysis.similarity`.
    clip
        The clip that was probed.
    frames
        Which frames; by default six, evenly spread, and the cell's own.
    side
        Height of a picture, in pixels of the figure.
    """
    check_of_clip(similarities, clip, "similarities")
    own = int(similarities.attrs["frame"])
    chosen = chosen_frames(len(clip), frames)
    if frames is None and own not in chosen:
        chosen = sorted([*chosen, own])
    size = (clip.height, clip.width)
    at_cell = {"x": similarities.attrs["x"], "y": similarities.attrs["y"]}
    rows = [
        (
            "clip",
            [[picture(clip.frames[f], size), *([_mark(at_cell, "circle-open")] if f == own else [])] for f in chosen],
        )
    ]
    parts = [str(part) for part in similarities["part"].values]
    for number, part in enumerate(parts, start=1):
        cells = []
        for f in chosen:
            values = similarities.sel(part=part, frame=f)
            best = values.isel(values.argmax(["y", "x"]))
            mark = (
                _mark(at_cell, "circle-open")
                if f == own
                else _mark({"x": float(best["x"]), "y": float(best["y"])}, "x-thin")
            )
            cells.append([heat(values.values, size, coloraxis=f"coloraxis{number}"), mark])
        rows.append((NAMES[part].replace(" R", "<br>R"), cells))
    figure = panels(rows, [f"frame {f}" for f in chosen], size, side=side, legend=LEGEND)
    for number, part in enumerate(parts, start=1):
        low = float(np.percentile(similarities.sel(part=part), 1))
        bar = _bar(row_domain(number, len(rows)), "cosine")
        figure.layout[f"coloraxis{number}"] = {"colorscale": SEQUENTIAL, "cmin": low, "cmax": 1, "colorbar": bar}
    return figure


# --- parts ----------------------------------------------------------------------------------------

HOVER = {"hovertemplate": "frame %{x}: %{y:.3f}<extra>%{fullData.name}</extra>"}
MARK = "#CC79A7"  # seen on all of the scale of similarities
KIND_TITLES = {"outcome": "right alone", "error": "error"}


def _check(votes: xr.Dataset, clip: Clip) -> None:
    check_of_clip(votes, clip, "votes")
    if votes.sizes["frame"] != len(clip) - 1:
        raise TedlensError(
            f"Votes in {votes.sizes['frame']} frames do not fit clip {clip.name!r} of {len(clip)}, which has one in "
            "all but the first; give the clip that was probed."
        )


def _spread(frames: Array) -> list[int]:
    return [int(frames[i]) for i in chosen_frames(len(frames), None)]


def _at_size(labels: Array, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Labels (frame, y, x) of the grid at the clip's size."""
    rows, columns = ((np.arange(s) * g) // s for g, s in zip(labels.shape[1:], size, strict=True))
    return np.asarray(labels[:, rows][:, :, columns], np.uint8)


def _categories(values: Array, size: tuple[int, int], kind: str) -> go.Heatmap:
    """A map of small whole numbers, -1 being unknown, in the colours of their kind."""
    colours = list(KINDS[kind].values())
    count = len(colours)
    steps = [(edge, colour) for i, colour in enumerate(colours) for edge in (i / count, (i + 1) / count)]
    shown = np.where(values < 0, np.nan, values)
    how = {"colorscale": steps, "zmin": -0.5, "zmax": count - 0.5, "showscale": False}
    return heat(shown, size, hovertemplate="%{z}<extra></extra>", **how)


def _add_legend(figure: go.Figure, number: int, middle: float, kind: str, values: xr.DataArray) -> None:
    """Names of a kind's colours beside its row, with the share of all cells that are so."""
    known = max(1, int((values >= 0).sum()))
    legend = f"legend{number}"
    for code, (name, colour) in enumerate(KINDS[kind].items()):
        share = 100 * int((values == code).sum()) / known
        entry = go.Scatter(x=[None], y=[None], mode="markers", name=f"{name} {share:.1f} %", legend=legend)
        entry.update(marker={"symbol": "square", "size": 10, "color": colour, "line": {"color": "#999999", "width": 1}})
        figure.add_trace(entry)
    place = {"x": 1.005, "xanchor": "left", "y": middle, "yanchor": "middle", "orientation": "v"}
    figure.layout[legend] = place | {"font": {"size": 11}, "tracegroupgap": 0}


def _bar(domain: Sequence[float], title: str | None = None) -> dict[str, Any]:
    """A colour bar beside a row."""
    low, high = domain
    named = {"title": {"text": title, "side": "right"}} if title else {}
    return {
        "x": 1.005,
        "y": (low + high) / 2,
        "len": high - low,
        "thickness": 10,
        "outlinewidth": 0,
        "nticks": 4,
        **named,
    }


def _mark(at: dict[str, float], symbol: str) -> go.Scatter:
    marker = {"symbol": symbol, "size": 10, "color": MARK, "line": {"color": MARK, "width": 3}}
    return go.Scatter(x=[at["x"]], y=[at["y"]], mode="markers", marker=marker, hoverinfo="skip", showlegend=False)
