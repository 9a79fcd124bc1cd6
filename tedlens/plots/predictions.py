"""What a model takes a clip to be: predictions beside the clip, and how near they are over noise levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.plots.curves import noise_axis
from tedlens.plots.pictures import chosen_frames, strip
from tedlens.plots.style import COLOURS, styled

GREY = "#999999"


def prediction_strip(clip: Clip, predictions: Mapping[str, Clip], *, frames: Sequence[int] | None = None) -> go.Figure:
    """A clip, and below it what a model takes it to be: a row for each prediction.

    Parameters
    ----------
    clip
        The clip itself.
    predictions
        By the names of their rows, clips from `tl.predict`: of several noise levels, or with and without a layer.
    frames
        Which frames; by default six, evenly spread.

    Raises
    ------
    TedlensError
        For a prediction of another length or size than the clip.
    """
    for name, prediction in predictions.items():
        if prediction.frames.shape != clip.frames.shape:
            raise TedlensError(
                f"Prediction {name!r} has the shape {prediction.frames.shape[:3]} and clip {clip.name!r} "
                f"{clip.frames.shape[:3]} (frames, height, width); give those of the same clip."
            )
    chosen = chosen_frames(len(clip), frames)
    return strip([(name, each.frames[chosen]) for name, each in {"clip": clip, **predictions}.items()], chosen)


def prediction_curves(scores: xr.Dataset, *, x: str = "tau") -> go.Figure:
    """PSNR of predictions, with its ceiling, and the error inside and outside of objects, against noise level.

    Means over frames, objects and seeds.

    Parameters
    ----------
    scores
        From `tl.prediction_scores` over several noise levels.
    x
        ``"tau"`` or ``"log_snr"``, as for `tau_curve`.

    Raises
    ------
    TedlensError
        For scores without noise levels.
    """
    if "psnr" not in scores or "tau" not in scores.dims:
        raise TedlensError("These are no scores over noise levels; give those of tl.prediction_scores(.., tau=[..]).")
    inside = "error_inside" in scores
    ordered = scores.sortby("tau")
    figure = make_subplots(1, 2, horizontal_spacing=0.14)
    _line(figure, ordered, "psnr", x, 1, "prediction", "black")
    ceiling = float(scores["ceiling"].mean())
    figure.add_hline(y=ceiling, line={"color": GREY, "width": 1}, annotation_text="no noise, no model", row=1, col=1)
    if inside:
        _line(figure, ordered, "error_inside", x, 2, "inside objects", COLOURS["motion"])
        _line(figure, ordered, "error_outside", x, 2, "outside", COLOURS["appearance"])
    else:
        _line(figure, ordered, "error", x, 2, "all pixels", COLOURS["appearance"])
    noise_axis(figure, x, short=True)
    figure.update_yaxes(title="PSNR (dB)", row=1, col=1)
    figure.update_yaxes(title="error (grey levels)", rangemode="tozero", row=1, col=2)
    return styled(figure, width=720, height=340)


def _line(figure: go.Figure, scores: xr.Dataset, name: str, x: str, column: int, title: str, colour: str) -> None:
    mean = scores[name].mean([dim for dim in scores[name].dims if dim != "tau"])
    line = go.Scatter(x=scores[x].values, y=mean.values, name=title, mode="lines+markers", line={"color": colour})
    figure.add_trace(line, row=1, col=column)
