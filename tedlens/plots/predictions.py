"""What a model takes a clip to be: predictions beside the clip, and how near they are over noise levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.plots.curves import noise_axis
from tedlens.plots.pictures import PICTURE, chosen_frames, strip
from tedlens.plots.style import COLOURS, styled

GREY = "#999999"
PSNR_COLOURS = ["black", *COLOURS.values()]


def prediction_strip(
    clip: Clip, predictions: Mapping[str, Clip], *, frames: Sequence[int] | None = None, side: int = PICTURE
) -> go.Figure:
    """A clip, and below it what a model takes it to be: a row for each prediction.

    Parameters
    ----------
    clip
        The clip itself.
    predictions
        By the names of their rows, clips from `tl.predict`: of several noise levels, or with and without a layer.
    frames
        Which frames; by default six, evenly spread.
    side
        Height of a picture, in pixels of the figure.

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
    rows = [(name, each.frames[chosen]) for name, each in {"clip": clip, **predictions}.items()]
    return strip(rows, chosen, side=side)


def prediction_curves(
    scores: xr.Dataset | Mapping[str, xr.Dataset], *, x: str = "tau", tau: int | None = None
) -> go.Figure:
    """PSNR of predictions, with its ceiling, and the error inside and outside of objects, against noise level.

    Means over frames, objects and seeds.

    Parameters
    ----------
    scores
        From `tl.prediction_scores` over several noise levels; of several models by their names, such as with and
        without a layer.
    x
        ``"tau"`` or ``"log_snr"``, as for `tau_curve`.
    tau
        A noise level to mark.

    Raises
    ------
    TedlensError
        For scores without noise levels.
    """
    single = isinstance(scores, xr.Dataset)
    named = {"prediction": scores} if isinstance(scores, xr.Dataset) else dict(scores)
    if any("psnr" not in each or "tau" not in each.dims for each in named.values()):
        raise TedlensError("These are no scores over noise levels; give those of tl.prediction_scores(.., tau=[..]).")
    figure = make_subplots(1, 2, horizontal_spacing=0.14)
    for number, (name, each) in enumerate(named.items()):
        colour = PSNR_COLOURS[number % len(PSNR_COLOURS)]
        ordered, of = each.sortby("tau"), "" if single else f"{name}, "
        _line(figure, ordered, "psnr", x, 1, name, colour)
        if "error_inside" in each:
            _line(figure, ordered, "error_inside", x, 2, f"{of}inside objects", COLOURS["motion"] if single else colour)
            outside = COLOURS["appearance"] if single else colour
            _line(figure, ordered, "error_outside", x, 2, f"{of}outside", outside, dash="solid" if single else "dot")
        else:
            _line(figure, ordered, "error", x, 2, f"{of}all pixels", COLOURS["appearance"] if single else colour)
        ceiling = float(each["ceiling"].mean())
        text = {"annotation_text": "no noise, no model"} if number == 0 else {}
        figure.add_hline(y=ceiling, line={"color": GREY, "width": 1}, **text, row=1, col=1)
    noise_axis(figure, x, short=True)
    if tau is not None:
        place = next(iter(named.values()))[x].sel(tau=tau).item()
        figure.add_vline(x=place, line={"color": GREY, "width": 1, "dash": "dot"}, opacity=1)
    figure.update_yaxes(title="PSNR (dB)", row=1, col=1)
    figure.update_yaxes(title="error (grey levels)", rangemode="tozero", row=1, col=2)
    return styled(figure, width=720, height=340)


def _line(
    figure: go.Figure,
    scores: xr.Dataset,
    name: str,
    x: str,
    column: int,
    title: str,
    colour: str,
    dash: str = "solid",
) -> None:
    mean = scores[name].mean([dim for dim in scores[name].dims if dim != "tau"])
    look = {"mode": "lines+markers", "line": {"color": colour, "dash": dash}}
    figure.add_trace(go.Scatter(x=scores[x].values, y=mean.values, name=title, **look), row=1, col=column)
