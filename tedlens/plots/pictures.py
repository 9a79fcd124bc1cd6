"""Pictures over the frames of a clip: overlays of masks, and PCA maps of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.express as px
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from tedlens.analysis.pca import pca
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.media import overlay as overlay_frames
from tedlens.plots.style import styled

PICTURE = 110  # height of a small picture, in pixels
LABEL = 110  # room for the names of rows

Images = npt.NDArray[np.uint8]


def overlay(
    clip: Clip, labels: xr.DataArray | npt.NDArray[np.uint8], *, frames: Sequence[int] | None = None
) -> go.Figure:
    """Masks drawn over some frames of a clip.

    Parameters
    ----------
    labels
        (frame, y, x) at the clip's size, for example ``tl.track(...)["labels"]``.
    frames
        Which frames; by default six, evenly spread.
    """
    values = np.asarray(labels)
    if values.shape != clip.frames.shape[:3]:
        raise TedlensError(
            f"Labels of shape {values.shape} do not fit clip {clip.name!r} of {clip.frames.shape[:3]}; "
            "give one mask a frame, at the clip's size."
        )
    chosen = chosen_frames(len(clip), frames)
    return strip([("", overlay_frames(clip.frames[chosen], values[chosen]))], chosen)


def pca_map(
    feats: xr.DataTree | xr.DataArray,
    clip: Clip,
    *,
    block: str | None = None,
    tau: int | Sequence[int] | None = None,
    seed: int | None = None,
    frames: Sequence[int] | None = None,
) -> go.Figure:
    """First three principal components of features as red, green and blue, under the clip's frames.

    One basis for all frames of a tau, so that a colour means the same along a row.

    Parameters
    ----------
    feats
        From `probe`, or one block's features.
    block
        By default the last of the tree.
    tau, seed
        By default all taus and the first seed.
    frames
        Which frames; by default six, evenly spread.
    """
    features = _features(feats, block)
    if features.sizes["frame"] != len(clip):
        raise TedlensError(
            f"Features of {features.sizes['frame']} frames do not fit clip {clip.name!r} of {len(clip)}; "
            "give the clip that was probed."
        )
    if "seed" in features.dims:
        features = features.isel(seed=0) if seed is None else _choose(features, "seed", seed)
    if "tau" not in features.dims:
        features = features.expand_dims("tau")
    levels = features["tau"].values if tau is None else np.atleast_1d(tau)
    chosen = chosen_frames(len(clip), frames)
    rows = [("clip", np.asarray(clip.frames[chosen]))]
    for level in levels:
        name = f"τ = {level}" if "tau" in features.coords else "features"
        one = _choose(features, "tau", level) if "tau" in features.coords else features.isel(tau=0)
        rows.append((name, pca_colours(one)[chosen]))
    return strip(rows, chosen)


def pca_colours(features: xr.DataArray) -> Images:
    """(frame, y, x, 3): three components between their 1st and 99th percentile."""
    score = pca(features.transpose("frame", "channel", "y", "x"))["score"].transpose("frame", "y", "x", "component")
    low, high = np.percentile(score.values, [1, 99], axis=(0, 1, 2))
    scaled = np.clip((score.values - low) / np.maximum(high - low, 1e-12), 0, 1)
    return np.asarray(np.round(scaled * 255), np.uint8)


def strip(rows: Sequence[tuple[str, Images]], frames: Sequence[int]) -> go.Figure:
    """Rows of pictures (name, (frame, y, x, 3)), a column for each frame."""
    height, width = rows[0][1].shape[1:3]
    figure = make_subplots(
        rows=len(rows),
        cols=len(frames),
        horizontal_spacing=0.008,
        vertical_spacing=0.02,
        column_titles=[f"frame {f}" for f in frames],
    )
    for row, (name, images) in enumerate(rows, start=1):
        add_pictures(figure, row, name, images, (height, width))
    named = any(name for name, _ in rows)
    styled(
        figure,
        width=int(len(frames) * PICTURE * width / height) + (LABEL if named else 20),
        height=len(rows) * (PICTURE + 4) + 30,
    )
    figure.update_layout(margin={"l": LABEL - 10 if named else 10, "r": 10, "t": 26, "b": 4})
    return figure


def add_pictures(figure: go.Figure, row: int, name: str, images: Images, size: tuple[int, int]) -> None:
    """Fill a row of subplots with pictures (frame, y, x, 3), and write its name to the left."""
    for column, image in enumerate(images, start=1):
        figure.add_trace(picture(image, size), row=row, col=column)
        figure.update_xaxes(visible=False, row=row, col=column)
        figure.update_yaxes(visible=False, row=row, col=column)
    first = (row - 1) * len(images) + 1  # number of the row's first y axis
    figure.add_annotation(
        text=name,
        xref="paper",
        yref=f"y{first if first > 1 else ''} domain",
        x=-0.01,
        y=0.5,
        xanchor="right",
        yanchor="middle",
        align="right",
        showarrow=False,
    )


def picture(image: Images, size: tuple[int, int]) -> go.Image:
    """An image stretched over the clip's pixels, whatever its own grid."""
    rows, columns = image.shape[:2]
    dy, dx = size[0] / rows, size[1] / columns
    # As a PNG inside the figure and not as numbers, so that files and notebooks stay small.
    source = px.imshow(image, binary_string=True).data[0].source
    return go.Image(source=source, x0=dx / 2 - 0.5, dx=dx, y0=dy / 2 - 0.5, dy=dy, hoverinfo="skip")


def chosen_frames(count: int, frames: Sequence[int] | None, default: int = 6) -> list[int]:
    """Indices of frames: those asked for, or some evenly spread."""
    chosen = list(frames) if frames is not None else sorted({*np.linspace(0, count - 1, default).round().astype(int)})
    outside = [int(f) for f in chosen if not 0 <= f < count]
    if outside or not chosen:
        raise TedlensError(f"frames={chosen} are not all in the clip; choose from 0 to {count - 1}.")
    return [int(f) for f in chosen]


def _features(feats: xr.DataTree | xr.DataArray, block: str | None) -> xr.DataArray:
    if isinstance(feats, xr.DataArray):
        return feats
    blocks = list(feats.children)
    name = block or blocks[-1]
    if name not in blocks:
        raise TedlensError(f"These features have no block {block!r}; choose from {', '.join(blocks)}.")
    found: xr.DataArray = feats[name].to_dataset()["features"]
    return found


def _choose(features: xr.DataArray, axis: str, value: Any) -> xr.DataArray:
    if value not in features[axis].values:
        known = ", ".join(str(v) for v in features[axis].values)
        raise TedlensError(f"These features have no {axis}={value}; choose from {known}.")
    return features.sel({axis: value})
