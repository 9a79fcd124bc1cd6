"""Motion or appearance? The votes of each frame, following a slider of lambda."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import xarray as xr

from tedlens.analysis.decomposition import PARTS, votes
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.plots.maps import LEGEND, decomposition, margin_curves
from tedlens.plots.style import KINDS
from tedlens.widgets.explorer import (
    LABELS,
    WIDE,
    Explorer,
    explained,
    frame_controls,
    lambda_slider,
    open_set,
    side_for,
)
from tedlens.widgets.live import LiveFigure

CLICK = "Click a margin to go to its frame."
MARGINS = 430  # width of the curves beside the maps


def decomposition_explorer(matches: xr.Dataset | str | Path, clip: Clip) -> Explorer:
    """Which share of each vote is motion's and which appearance's, what either alone would say, and the errors.

    A slider of lambda weighs the votes anew at once; a slider and a play button go through the frames; a click
    on a margin goes to its frame.

    Parameters
    ----------
    matches
        From `tedlens.analysis.decomposition`, or the path where it was saved. With truth it shows outcomes and
        errors, too.
    clip
        The clip that was probed.

    Returns
    -------
    A widget. What does not fit is said in it, in one sentence.
    """
    return explained(lambda: DecompositionExplorer(matches, clip))


class DecompositionExplorer(Explorer):
    """Controls ``lam``, ``frame`` and ``play`` over the figures ``maps`` and ``margins``."""

    def __init__(self, matches: xr.Dataset | str | Path, clip: Clip) -> None:
        super().__init__()
        found = open_set(matches, "matches")
        if not set(PARTS) <= set(found):
            raise TedlensError(
                f"There are no matches by motion and appearance among {', '.join(map(str, found)) or 'nothing'}; "
                "give what analysis.decomposition() gives."
            )
        self.matches, self.clip = found.load(), clip  # small: few candidates, not features
        self.lam = lambda_slider()
        frames = self.matches["frame"].values
        self.frame, self.play = frame_controls(int(frames[0]), int(frames[-1]))
        self.maps, self.margins = LiveFigure(), LiveFigure(self.go_to)
        self.arrange([self.lam, self.play, self.frame], [self.maps, self.margins], click=CLICK)

    def draw(self) -> None:
        lam, frame = self.lam.value, self.frame.value
        weighed = votes(self.matches, lam)
        self.maps.show_figure((lam, frame), lambda: self._maps(weighed, frame))
        self.margins.show_figure((lam, frame), lambda: self._margins(weighed, frame))

    def _maps(self, weighed: xr.Dataset, frame: int) -> go.Figure:
        rows = 3 + sum(kind in weighed for kind in KINDS)
        side = side_for(self.clip, rows=rows, wide=WIDE - MARGINS - LABELS - LEGEND)
        return decomposition(weighed, self.clip, frames=[frame], side=side)

    def _margins(self, weighed: xr.Dataset, frame: int) -> go.Figure:
        figure = margin_curves(weighed, frame=frame)
        return figure.update_layout(width=min(MARGINS, figure.layout.width))

    def go_to(self, trace: Any, x: float, y: float) -> None:
        self.frame.value = int(x)
