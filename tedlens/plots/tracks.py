"""Tracks against the truth: pictures of both, and scores along the clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from tedlens.align import check_of_clip, in_order
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.media import object_colours
from tedlens.media import overlay as overlay_frames
from tedlens.plots.pictures import PICTURE, chosen_frames, panels, picture
from tedlens.plots.style import AXES, SYMBOLS_IN_TURN, styled


def tracks(labels: xr.DataArray, clip: Clip, *, frames: Sequence[int] | None = None, side: int = PICTURE) -> go.Figure:
    """The true and the tracked masks over some frames.

    Parameters
    ----------
    labels
        (frame, y, x) at the clip's size, for example ``tl.track(...)["labels"]``.
    clip
        With masks.
    frames
        Which frames; by default six, evenly spread.
    side
        Height of a picture, in pixels of the figure.
    """
    if clip.masks is None:
        raise TedlensError(f"Clip {clip.name!r} has no masks, so there is no truth to compare with; use overlay().")
    check_of_clip(labels, clip, "labels")
    labels = in_order(labels)
    if labels.shape != clip.masks.shape:
        raise TedlensError(
            f"Labels of shape {labels.shape} do not fit masks of {clip.masks.shape}; give the clip that was tracked."
        )
    chosen = chosen_frames(len(clip), frames)
    size = (clip.height, clip.width)
    rows = [
        (name, [[picture(image, size)] for image in overlay_frames(clip.frames[chosen], masks[chosen])])
        for name, masks in (("truth", clip.masks), ("tracked", labels.values))
    ]
    return panels(rows, [f"frame {f}" for f in chosen], size, side=side)


def track_curves(scores: xr.Dataset, swapped: xr.DataArray | None = None, *, frame: int | None = None) -> go.Figure:
    """J (lines) and F (dotted) of each object over the clip's frames, and where it was swapped (crosses).

    Parameters
    ----------
    scores
        ``J`` and ``F`` (object, frame) from `evaluate`; with ``protocol="all"`` they have every frame.
    swapped
        From `tedlens.analysis.swaps`.
    frame
        A frame to mark.
    """
    missing = [name for name in ("J", "F") if name not in scores or set(scores[name].dims) != {"object", "frame"}]
    if missing:
        raise TedlensError(
            f"The scores hold no {missing[0]} over object and frame alone; give what evaluate() returns."
        )
    figure = go.Figure()
    for number, o in enumerate(scores["object"].values):
        colour = "rgb({},{},{})".format(*object_colours()[o])  # as in the pictures; the symbols tell without colour
        for name, dash in (("J", "solid"), ("F", "dot")):
            curve = 100 * scores[name].sel(object=o)
            figure.add_scatter(
                x=curve["frame"].values,
                y=curve.values,
                name=f"{name} of object {o}",
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": dash},
                marker={"symbol": SYMBOLS_IN_TURN[number % len(SYMBOLS_IN_TURN)], "size": 7},
                hovertemplate=f"frame %{{x}}: {name} %{{y:.1f}}<extra>object {o}</extra>",
            )
        if swapped is not None:
            hit = swapped.sel(object=o).where(lambda s: s > 0, drop=True)
            at = np.intersect1d(hit["frame"].values, scores["frame"].values)
            figure.add_scatter(
                x=at,
                y=100 * scores["J"].sel(object=o, frame=at).values,
                name=f"object {o} swapped",
                mode="markers",
                marker={"symbol": "x", "size": 11, "color": colour, "line": {"color": "black", "width": 1}},
                customdata=hit.sel(frame=at).values,
                hovertemplate=f"frame %{{x}}: object {o} on object %{{customdata}}<extra></extra>",
                showlegend=len(at) > 0,
            )
    figure.update_xaxes(title=AXES["frame"])
    figure.update_yaxes(title="score (%)", range=[-3, 103])
    if frame is not None:
        figure.add_vline(x=frame, line={"color": "#999999", "width": 1, "dash": "dot"}, opacity=1)
    return styled(figure, width=640, height=320).update_layout(legend_font_size=11)
