"""Scores over noise levels and blocks, and the track behind each point."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import plotly.graph_objects as go
import xarray as xr

from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.plots.curves import noise_axis_of, tau_curve
from tedlens.plots.layers import tau_block_map
from tedlens.plots.pictures import pca_map
from tedlens.plots.style import METRICS
from tedlens.plots.tracks import tracks
from tedlens.widgets.explorer import (
    HIGH,
    LABELS,
    WIDE,
    Explorer,
    choice,
    drop_down,
    explained,
    open_labels,
    open_set,
    open_tree,
    side_for,
)
from tedlens.widgets.live import LiveFigure

AVERAGED = ("clip", "seed", "object", "frame")  # the axes that curves are means over
KINDS = ("features", "model")  # those that curves show all of, and the map one
DRAWN = ("tau", "log_snr", "block", *KINDS)  # those that curves and the map show; any other has a control
CURVES, HEIGHT = 460, 280  # width of the curves, and height of them and of the map beside them


def tau_explorer(
    scores: xr.Dataset | str | Path,
    *,
    clip: Clip | None = None,
    labels: xr.DataArray | xr.Dataset | str | Path | None = None,
    feats: xr.DataTree | xr.DataArray | str | Path | None = None,
    references: xr.Dataset | str | Path | None = None,
) -> Explorer:
    """Scores against noise level, a line for each block, model and kind of features, beside a map of blocks and levels.

    Bands are standard errors over clips. A click on a point or a cell opens what is behind it, for one clip: its
    tracked masks and its PCA map.

    Parameters
    ----------
    scores
        From `sweep`, or from `evaluate` joined along ``tau``; or the path where they were saved.
    clip
        The clip to show, with masks.
    labels
        Its tracked masks (.., frame, y, x), along the swept axes that they were kept for.
    feats
        Its features, from `probe`.
    references
        From `reference_scores`, of the same sweep, or the path where they were saved: lines in the curves, and the map
        as shares of the grid's ceiling.

    Returns
    -------
    A widget. What does not fit is said in it, in one sentence.
    """
    return explained(lambda: TauExplorer(scores, clip, labels, feats, references))


class TauExplorer(Explorer):
    """Controls ``metric``, ``x``, those of the map in ``kinds``, and one for each further axis, in ``further``.

    They stand over the figures ``curves`` and ``map``, and over ``track`` and ``pca``, of the clicked point.
    """

    def __init__(
        self,
        scores: xr.Dataset | str | Path,
        clip: Clip | None,
        labels: xr.DataArray | xr.Dataset | str | Path | None,
        feats: xr.DataTree | xr.DataArray | str | Path | None,
        references: xr.Dataset | str | Path | None = None,
    ) -> None:
        super().__init__()
        self.scores = _scores(open_set(scores, "scores"))
        self.against = None if references is None else open_set(references, "references").load()
        self.clip, self.feats = clip, None if feats is None else open_tree(feats, "features")
        self.labels = None if labels is None else open_labels(labels)
        self.metric = drop_down("score", [name for name in ("JF", *METRICS) if name in self.scores])
        self.along = noise_axis_of(self.scores)
        axes = [self.along, *({"tau", "log_snr"} & set(map(str, self.scores.coords)) - {self.along})]
        self.x = drop_down("x axis", axes)
        others = [str(d) for d in self.scores[self.metric.value].dims if d not in (*AVERAGED, *DRAWN)]
        self.further = {axis: choice(axis, self.scores[axis].values) for axis in others}
        kinds = [axis for axis in KINDS if axis in self.scores.dims]
        self.kinds = {axis: choice("map of", self.scores[axis].values) for axis in kinds}
        self.curves, self.map = LiveFigure(self.open_point), LiveFigure(self.open_point)
        self.track, self.pca = LiveFigure(), LiveFigure()
        self.opened = ipywidgets.VBox([])  # empty until a point is clicked
        controls, figures = [self.metric, self.x, *self.further.values()], [self.curves]
        if "block" in self.scores.dims:
            figures.append(self.map)
            controls += self.kinds.values()
        click = "Click a point of a curve or a cell of the map to see what is behind it."
        behind = clip is not None and (labels is not None or feats is not None)
        self.arrange(controls, figures, [self.opened], click=click if behind else "")

    def draw(self) -> None:
        metric, x = self.metric.value, self.x.value
        further = {axis: control.value for axis, control in self.further.items()}
        chosen = self.scores.sel(further)
        how: dict[str, Any] = {"metric": metric, "references": self.against}
        self.curves.show_figure((metric, x, further), lambda: _sized(tau_curve(chosen, x=x, **how), CURVES))
        if "block" in chosen.dims:
            kind = self._kind()
            one = chosen.sel(kind).dropna("block", how="all", subset=[metric])  # models differ in their blocks
            self.map.show_figure((metric, further, kind), lambda: _map(one, how))

    def _kind(self) -> dict[str, Any]:
        """Which features and model the map is of."""
        return {axis: control.value for axis, control in self.kinds.items()}

    def open_point(self, trace: Any, x: Any, y: Any) -> None:
        """Show the track and the features behind a point of a curve, or a cell of the map."""
        on_map = trace.type == "heatmap"
        if on_map:
            row = y if isinstance(y, str) else trace.text[int(y)][0]  # the map of many layers has numbered rows
            shown = {"block": row, **self._kind()}
        else:
            shown = trace.meta or {}
        one = self.scores.sel({axis: value for axis, value in shown.items() if axis in KINDS})
        at = np.abs(one[self.along if on_map else self.x.value].values - float(x)).argmin()
        further = {axis: control.value for axis, control in self.further.items()}
        cell = {**further, "tau": int(one["tau"][at]), **shown}
        self.explain(lambda: self._open(cell))

    def _open(self, cell: dict[str, Any]) -> None:
        if self.clip is None or (self.labels is None and self.feats is None):
            raise TedlensError(
                "To see what is behind a point, give tau_explorer() clip=, and labels= or feats= or both."
            )
        side, shown = side_for(self.clip, columns=6, rows=3, wide=WIDE - LABELS, high=HIGH - HEIGHT - 60), []
        if self.labels is not None:
            labels, clip = _at(self.labels, cell), self.clip
            self.track.show_figure(cell, lambda: tracks(labels, clip, side=side))
            shown.append(self.track)
        if self.feats is not None and cell.get("features") != "appearance":  # they are the video model's
            feats, clip = self.feats, self.clip
            block, tau = cell.get("block"), cell["tau"]
            self.pca.show_figure((block, tau), lambda: pca_map(feats, block=block, tau=tau, side=side))
            shown.append(self.pca)
        title = ipywidgets.HTML(escape(", ".join(f"{axis} {value}" for axis, value in cell.items())))
        self.opened.children = [title, *shown]


def _map(scores: xr.Dataset, how: dict[str, Any]) -> go.Figure:
    figure = _sized(tau_block_map(scores, **how), WIDE - CURVES)
    if figure.data[0].texttemplate:  # each number is in its place
        figure.update_traces(showscale=False, selector={"type": "heatmap"})
    return figure


def _sized(figure: go.Figure, width: int) -> go.Figure:
    return figure.update_layout(width=width, height=HEIGHT)


def _scores(scores: xr.Dataset) -> xr.Dataset:
    """Scores over at least two noise levels, loaded."""
    known = [metric for metric in METRICS if metric in scores]
    if not known:
        raise TedlensError(
            f"There are no scores among {', '.join(map(str, scores)) or 'nothing'}; give J, F, JF or identity over tau."
        )
    if scores[known[0]].sizes.get("log_snr", scores[known[0]].sizes.get("tau", 1)) < 2:
        raise TedlensError("The scores have one noise level only; give those of several, joined along tau.")
    return scores.load()


def _at(labels: xr.DataArray, cell: dict[str, Any]) -> xr.DataArray:
    """The masks (frame, y, x) of a cell, of which labels may have fewer axes than scores."""
    for axis, value in cell.items():
        if axis in labels.dims:
            if value not in labels[axis].values:
                known = ", ".join(map(str, labels[axis].values))
                raise TedlensError(f"The labels have no {axis} {value}; those of {known} were kept.")
            labels = labels.sel({axis: value})
    spare = [str(d) for d in labels.dims if d not in ("frame", "y", "x")]
    return labels.isel(dict.fromkeys(spare, 0))
