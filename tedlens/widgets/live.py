"""A figure that becomes another one in place, and hears clicks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets
import plotly.graph_objects as go

from tedlens.widgets.plotly_once import Figure

Click = Callable[[Any, float, float], None]  # of a point: its trace, x and y


class LiveFigure(ipywidgets.VBox):  # type: ignore[misc]
    """A figure that becomes another one, and hears clicks.

    Nothing is drawn that is on show already. Where the new figure has as many traces of the same kinds, only what
    differs goes to the browser; else another plot takes the old one's place, because plotly.js fails on traces that
    come and go together with their axes.
    """

    def __init__(self, on_click: Click | None = None) -> None:
        self._clicked = on_click
        self._shown: Any = None
        self._figure = go.Figure()  # on show, as it was drawn
        self.plot = self._plotted(self._figure)
        super().__init__([self.plot])

    @property
    def data(self) -> Any:
        """Traces on show."""
        return self.plot.data

    @property
    def figure(self) -> go.Figure:
        """What is on show, as it was drawn."""
        return self._figure

    def show_figure(self, what: Any, draw: Callable[[], go.Figure]) -> None:
        """Show what `draw` draws, unless it is on show: `what` is all that the figure depends on."""
        if what != self._shown:
            figure = draw()
            self._become(figure)
            self._shown, self._figure = what, figure

    def _become(self, figure: go.Figure) -> None:
        plot = self.plot
        if [trace.type for trace in plot.data] != [trace.type for trace in figure.data]:
            self.plot = self._plotted(figure)
            self.children = [self.plot]
            plot.close()
            return
        before, after = self._figure.layout, figure.layout
        # The template is the same for all, and costs more to compare than all the rest.
        differs = [name for name in after if name != "template" and (name not in before or after[name] != before[name])]
        with plot.batch_update():
            for live, old, new in zip(plot.data, self._figure.data, figure.data, strict=True):
                if new != old:  # most of a figure stays: to look costs less than to set
                    live.update(new.to_plotly_json(), overwrite=True)
            for name in differs:
                plot.layout[name] = after[name]

    def _plotted(self, figure: go.Figure) -> Figure:
        plot = Figure(figure)
        plot._config = plot._config | {"displayModeBar": False}  # it would lie over what stands on top
        for trace in plot.data if self._clicked else ():
            trace.on_click(self._hear)
        return plot

    def _hear(self, trace: Any, points: Any, state: Any) -> None:
        if self._clicked is not None and points.xs:
            self._clicked(trace, points.xs[0], points.ys[0])
