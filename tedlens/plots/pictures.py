"""Pictures over the frames of a clip: overlays of masks, and PCA maps of features."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import plotly.graph_objects as go
import xarray as xr
from plotly.basedatatypes import BaseTraceType

from tedlens.align import check_of_clip, labels_in, listed
from tedlens.analysis.features import check_clip, choose, choose_block
from tedlens.analysis.pca import pca
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.media import overlay as overlay_frames
from tedlens.plots.style import styled

PICTURE = 110  # height of a small picture, in pixels
LABEL = 110  # room for the names of rows

Images = npt.NDArray[np.uint8]
Traces = Sequence[BaseTraceType]


def overlay(
    clip: Clip, labels: xr.Dataset | xr.DataArray | npt.NDArray[np.uint8], *, frames: Sequence[int] | None = None
) -> go.Figure:
    """Masks drawn over some frames of a clip.

    Parameters
    ----------
    labels
        (frame, y, x) at the clip's size, or what `track` gives. Labels of some of the clip's frames belong to those
        that their coordinates name.
    frames
        Which frames; by default six, evenly spread.
    """
    labels = labels_in(labels)
    shown = np.arange(len(clip))
    if isinstance(labels, xr.DataArray):
        check_of_clip(labels, clip, "labels")
        if "frame" in labels.coords:
            shown = labels["frame"].values
    values = np.asarray(labels)
    if values.shape != (len(shown), clip.height, clip.width) or not np.isin(shown, np.arange(len(clip))).all():
        raise TedlensError(
            f"Labels of shape {values.shape} do not fit clip {clip.name!r} of {clip.frames.shape[:3]}; "
            "give one mask a frame, at the clip's size."
        )
    places = chosen_frames(len(shown), None if frames is None else [_place_of(frame, shown) for frame in frames])
    chosen = [int(shown[place]) for place in places]
    return strip([("", overlay_frames(clip.frames[chosen], values[places]))], chosen)


def _place_of(frame: int, shown: npt.NDArray[Any]) -> int:
    """Where a frame is among those that have labels."""
    found = np.flatnonzero(shown == frame)
    if not len(found):
        raise TedlensError(f"frame={frame} has no labels; choose from {listed(shown)}.")
    return int(found[0])


def pca_map(
    feats: xr.DataTree | xr.DataArray,
    clip: Clip | None = None,
    *,
    block: str | None = None,
    tau: int | Sequence[int] | None = None,
    seed: int | None = None,
    frames: Sequence[int] | None = None,
    side: int = PICTURE,
) -> go.Figure:
    """First three principal components of features as red, green and blue, under the clip's frames.

    One basis for all frames of a tau, so that a colour means the same along a row.

    Parameters
    ----------
    feats
        From `probe`, or one block's features.
    clip
        The clip that was probed; without it, its frames are left out.
    block
        By default the last of the tree.
    tau, seed
        By default all taus and the first seed.
    frames
        Which frames; by default six, evenly spread.
    side
        Height of a picture, in pixels of the figure.
    """
    features = choose_block(feats, block)
    if clip is not None:
        check_clip(features, clip)
    if "seed" in features.dims:
        features = features.isel(seed=0) if seed is None else choose(features, "seed", seed)
    if "tau" not in features.dims:
        features = features.expand_dims("tau")
    levels = features["tau"].values if tau is None else np.atleast_1d(tau)
    chosen = chosen_frames(features.sizes["frame"], frames)
    rows = [] if clip is None else [("clip", np.asarray(clip.frames[chosen]))]
    for level in levels:
        name = f"τ = {level}" if "tau" in features.coords else "features"
        one = choose(features, "tau", level) if "tau" in features.coords else features.isel(tau=0)
        rows.append((name, pca_colours(one)[chosen]))
    return strip(rows, chosen, side=side)


def pca_colours(features: xr.DataArray, masks: npt.NDArray[np.uint8] | None = None) -> Images:
    """(..., y, x, 3): three components between their 1st and 99th percentile over all axes; `masks` as for `pca`."""
    score = pca(features.transpose(..., "channel", "y", "x"), masks=masks)["score"].transpose(..., "component")
    low, high = np.percentile(score.values.reshape(-1, 3), [1, 99], axis=0)
    scaled = np.clip((score.values - low) / np.maximum(high - low, 1e-12), 0, 1)
    return np.asarray(np.round(scaled * 255), np.uint8)


def strip(rows: Sequence[tuple[str, Images]], frames: Sequence[int], *, side: int = PICTURE) -> go.Figure:
    """Rows of pictures (name, (frame, y, x, 3)), `side` pixels high, a column for each frame."""
    height, width = rows[0][1].shape[1:3]
    size = (height, width)
    named = [(name, [[picture(image, size)] for image in images]) for name, images in rows]
    return panels(named, [f"frame {f}" for f in frames], size, side=side)


def panels(
    rows: Sequence[tuple[str, Sequence[Traces]]],
    columns: Sequence[str],
    size: tuple[int, int],
    *,
    side: int = PICTURE,
    legend: int = 0,
) -> go.Figure:
    """A grid of small pictures of `size` (height, width): for each row its name, and the traces of each column.

    `side` is the height of a picture and `legend` the room to the right of them, in pixels of the figure.
    """
    # By hand: make_subplots takes several times as long, which is felt where a slider moves.
    data: list[BaseTraceType] = []
    layout: dict[str, Any] = {}
    notes = [
        _note(text, x=_middle(column_domain(c, len(columns))), y=1, xanchor="center", yanchor="bottom")
        for c, text in enumerate(columns)
    ]
    for row, (name, cells) in enumerate(rows):
        down = row_domain(row, len(rows))
        notes.append(_row_name(name, yref="paper", y=_middle(down)))
        for column, traces in enumerate(cells):
            number = row * len(columns) + column + 1
            n = str(number) if number > 1 else ""  # plotly calls its first axis x, and its second x2
            for trace in traces:
                trace.xaxis, trace.yaxis = f"x{n}", f"y{n}"
            data += traces
            fixed = {"visible": False, "constrain": "domain"}
            across = {"domain": column_domain(column, len(columns)), "range": [-0.5, size[1] - 0.5], "anchor": f"y{n}"}
            upward = {"domain": down, "range": [size[0] - 0.5, -0.5], "anchor": f"x{n}", "scaleanchor": f"x{n}"}
            layout |= {f"xaxis{n}": fixed | across, f"yaxis{n}": fixed | upward}
    named = any(name for name, _ in rows)
    figure = styled(
        go.Figure(data, layout | {"annotations": notes}),
        width=int(len(columns) * side * size[1] / size[0]) + (LABEL if named else 20) + legend,
        height=len(rows) * (side + 4) + 30,
    )
    return figure.update_layout(margin={"l": LABEL - 10 if named else 10, "r": 10 + legend, "t": 26, "b": 4})


def add_pictures(figure: go.Figure, row: int, name: str, images: Images, size: tuple[int, int]) -> None:
    """Fill a row of subplots with pictures (frame, y, x, 3), and write its name to the left."""
    for column, image in enumerate(images, start=1):
        figure.add_trace(picture(image, size), row=row, col=column)
        figure.update_xaxes(visible=False, row=row, col=column)
        figure.update_yaxes(visible=False, row=row, col=column)
    first = (row - 1) * len(images) + 1  # number of the row's first y axis
    figure.add_annotation(_row_name(name, yref=f"y{first if first > 1 else ''} domain", y=0.5))


def row_domain(row: int, rows: int) -> list[float]:
    """Lower and upper end of a row of panels, the first on top, as shares of the figure."""
    return _domain(rows - 1 - row, rows, 0.02)


def column_domain(column: int, columns: int) -> list[float]:
    """Left and right end of a column of panels, as shares of the figure."""
    return _domain(column, columns, 0.008)


def _domain(place: int, count: int, gap: float) -> list[float]:
    size = (1 - gap * (count - 1)) / count
    return [place * (size + gap), place * (size + gap) + size]


def _middle(domain: Sequence[float]) -> float:
    return sum(domain) / 2


def _row_name(name: str, **place: Any) -> dict[str, Any]:
    return _note(name, x=-0.01, xanchor="right", yanchor="middle", align="right", **place)


def _note(text: str, **place: Any) -> dict[str, Any]:
    return {"text": text, "xref": "paper", "yref": "paper", "showarrow": False} | place


def picture(image: Images, size: tuple[int, int]) -> go.Image:
    """An image stretched over the clip's pixels, whatever its own grid."""
    # As a PNG inside the figure and not as numbers, so that files and notebooks stay small.
    png = BytesIO()
    PIL.Image.fromarray(image).save(png, "png")
    source = f"data:image/png;base64,{b64encode(png.getvalue()).decode()}"
    return go.Image(source=source, **_stretched(image.shape, size), hoverinfo="none")


def heat(values: npt.NDArray[Any], size: tuple[int, int], **how: Any) -> go.Heatmap:
    """A map of numbers (y, x) stretched over the clip's pixels, whatever its own grid."""
    # A live figure sends a map as JSON, which has no NaN.
    unknown = np.isnan(values)
    if unknown.any():
        values = values.astype(object)
        values[unknown] = None
    return go.Heatmap(z=values, **_stretched(values.shape, size), **how)


def _stretched(shape: tuple[int, ...], size: tuple[int, int]) -> dict[str, float]:
    """Where cells lie: the centre of the first, and the distance to the next."""
    dy, dx = size[0] / shape[0], size[1] / shape[1]
    return {"x0": dx / 2 - 0.5, "dx": dx, "y0": dy / 2 - 0.5, "dy": dy}


def chosen_frames(count: int, frames: Sequence[int] | None) -> list[int]:
    """Indices of frames: those asked for, or six evenly spread."""
    chosen = list(frames) if frames is not None else sorted({*np.linspace(0, count - 1, 6).round().astype(int)})
    outside = [int(f) for f in chosen if not 0 <= f < count]
    if outside or not chosen:
        raise TedlensError(f"frames={chosen} are not all in the clip; choose from 0 to {count - 1}.")
    return [int(f) for f in chosen]
