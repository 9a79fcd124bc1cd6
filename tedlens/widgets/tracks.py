"""Frame by frame through a track: true and tracked masks, J and F, and where identities were swapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ipywidgets
import plotly.graph_objects as go
import xarray as xr

from tedlens.align import check_of_clip
from tedlens.analysis.tracks import swaps
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.metrics import evaluate, evaluate_identity
from tedlens.plots.tracks import track_curves, tracks
from tedlens.widgets.explorer import LABELS, WIDE, Explorer, explained, frame_controls, open_labels, side_for
from tedlens.widgets.live import LiveFigure

CURVES = 400  # width of the curves beside the pictures


def track_explorer(labels: xr.DataArray | xr.Dataset | str | Path, clip: Clip) -> Explorer:
    """The tracked and the true masks of each frame, with J and F over time and swaps marked.

    A slider and a play button go through the frames; a click on a curve goes to its frame.

    Parameters
    ----------
    labels
        (frame, y, x), as ``tl.track(...)["labels"]`` gives them, or what ``tl.track`` gives, or the path where
        it was saved.
    clip
        The clip that was tracked, with masks.

    Returns
    -------
    A widget. What does not fit is said in it, in one sentence.
    """
    return explained(lambda: TrackExplorer(labels, clip))


class TrackExplorer(Explorer):
    """Controls ``frame`` and ``play`` over the figures ``pictures`` and ``curves``."""

    def __init__(self, labels: xr.DataArray | xr.Dataset | str | Path, clip: Clip) -> None:
        super().__init__()
        self.labels, self.clip = open_labels(labels), clip
        if clip.masks is None:
            raise TedlensError(
                f"Clip {clip.name!r} has no masks to score by; give it with masks, or use plots.overlay."
            )
        check_of_clip(self.labels, clip, "labels")
        self.scores = evaluate(self.labels, clip.masks, protocol="all")
        self.swapped = swaps(self.labels, clip.masks)
        self.frame, self.play = frame_controls(0, len(clip) - 1)
        self.pictures, self.curves = LiveFigure(), LiveFigure(self.go_to)
        controls = [self.play, self.frame, ipywidgets.HTML(self.identities())]
        click = "Click a point of a curve to go to its frame; a cross says that an object lies on another."
        self.arrange(controls, [self.pictures, self.curves], click=click)

    def draw(self) -> None:
        frame = self.frame.value
        self.pictures.show_figure(frame, lambda: self._pictures(frame))
        self.curves.show_figure(frame, lambda: self._curves(frame))

    def _pictures(self, frame: int) -> go.Figure:
        side = side_for(self.clip, rows=2, wide=WIDE - CURVES - LABELS)
        return tracks(self.labels, self.clip, frames=[frame], side=side)

    def _curves(self, frame: int) -> go.Figure:
        return track_curves(self.scores, self.swapped, frame=frame).update_layout(width=CURVES, height=400)

    def identities(self) -> str:
        """In numbers, whether labels stay with their objects: the first frame is given, and left out."""
        assert self.clip.masks is not None
        told = evaluate_identity(self.labels.isel(frame=slice(1, None)), self.clip.masks[1:])
        last = float(self.scores["identity"].isel(frame=slice(-3, None)).mean())
        return (
            f"identity in the last three frames {last:.2f}, AssA {float(told['AssA'].mean()):.2f}, "
            f"ID switches {int(told['IDSW'])}"
        )

    def go_to(self, trace: Any, x: float, y: float) -> None:
        self.frame.value = int(x)
