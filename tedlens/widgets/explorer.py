"""What all explorers are made of: figures that change in place, controls, and a line for what cannot be shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import IPython
import ipywidgets
import plotly.graph_objects as go
import xarray as xr

from tedlens import store
from tedlens.align import labels_in
from tedlens.errors import TedlensError
from tedlens.widgets.plotly_once import Figure

Click = Callable[[Any, float, float], None]  # of a point: its trace, x and y
STEP = 250  # milliseconds between frames while playing: slow enough for every frame to be drawn


class Explorer(ipywidgets.VBox):  # type: ignore[misc]
    """Controls over figures. What cannot be shown is said in `message`, in one sentence.

    A subclass makes its controls and figures, hands them to `arrange`, and draws in `draw`. What it holds is freed
    when it is closed, and it is closed when the notebook's cell that made it is run again: ipywidgets itself keeps
    every widget, with all that hangs on it, until then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.message = ipywidgets.HTML()
        self._base = {*vars(self), "_base"}  # all else is the subclass's
        close_those_before(self)

    def close(self) -> None:
        """Remove it from the page, and free what it holds."""
        for part in _within(self):
            if part is not self:
                part.close()
        for name in vars(self).keys() - self._base:
            delattr(self, name)
        self.children: Any = []
        super().close()

    def arrange(self, controls: Sequence[ipywidgets.Widget], *rows: Sequence[ipywidgets.Widget]) -> None:
        """Place the controls above rows of figures, draw, and draw again whenever a control is moved."""
        wrapping = ipywidgets.Layout(flex_flow="row wrap", align_items="center")
        boxes = [ipywidgets.HBox(list(row), layout=ipywidgets.Layout(flex_flow="row wrap")) for row in rows]
        self.children = [ipywidgets.HBox(list(controls), layout=wrapping), self.message, *boxes]
        for control in controls:
            if not isinstance(control, ipywidgets.Play):  # it moves the slider that it is linked to
                control.observe(lambda change: self.explain(self.draw), "value")
        self.explain(self.draw)

    def draw(self) -> None:
        """Show what the controls ask for."""
        raise NotImplementedError

    def explain(self, do: Callable[[], None]) -> None:
        """Do something, or say why it cannot be done."""
        try:
            do()
        except TedlensError as error:
            self.say(str(error))
        else:
            self.say("")

    def say(self, sentence: str) -> None:
        self.message.value = f"<b>{escape(sentence)}</b>" if sentence else ""


# Explorers by the notebook's cell that made them, with the number of its run.
_made: dict[str, list[tuple[int, Explorer]]] = {}


def close_those_before(explorer: Explorer) -> None:
    """Close what an earlier run of this notebook's cell made, and remember what this one makes."""
    kernel = getattr(IPython.get_ipython(), "kernel", None)
    if kernel is None:
        return
    cell = kernel.get_parent().get("metadata", {}).get("cellId")
    if cell is None:  # a front end that does not say
        return
    run = IPython.get_ipython().execution_count
    made = _made.setdefault(cell, [])
    for earlier, other in made:
        if earlier != run:
            other.close()
    _made[cell] = [each for each in made if each[0] == run] + [(run, explorer)]


def _within(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    """A widget and all that belong to it."""
    for part in (*getattr(widget, "children", ()), getattr(widget, "linked", None)):
        if part is not None:
            yield from _within(part)
    for part in (getattr(widget, "layout", None), getattr(widget, "style", None)):
        if isinstance(part, ipywidgets.Widget):
            yield part
    yield widget


def explained(make: Callable[[], Explorer]) -> Explorer:
    """An explorer, or where what is given does not fit, one that only says so."""
    try:
        return make()
    except TedlensError as error:
        empty = Explorer()
        empty.children = [empty.message]
        empty.say(str(error))
        return empty


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


# --- controls -------------------------------------------------------------------------------------


def frame_controls(first: int, last: int) -> tuple[ipywidgets.IntSlider, ipywidgets.Play]:
    """A slider over frames, and the button that plays it."""
    slider = ipywidgets.IntSlider(first, first, last, description="frame")
    play = ipywidgets.Play(value=first, min=first, max=last, interval=STEP, repeat=True)
    play.linked = ipywidgets.jslink((play, "value"), (slider, "value"))  # closed with it
    return slider, play


def lambda_slider() -> ipywidgets.FloatSlider:
    return ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.01, description="λ (motion)")


def choice(name: str, values: Iterable[Any]) -> ipywidgets.Widget:
    """A slider over the values of an axis of numbers, a list of names for any other."""
    options = [v.item() if hasattr(v, "item") else v for v in values]
    numbers = all(isinstance(v, int | float) for v in options)
    kind = ipywidgets.SelectionSlider if numbers and len(options) > 1 else ipywidgets.Dropdown
    return kind(options=options, description=name)


# --- stored results -------------------------------------------------------------------------------


def open_tree(given: xr.DataTree | xr.DataArray | str | Path, what: str) -> xr.DataTree | xr.DataArray:
    """Features as they are, or from a store, opened lazily."""
    if not isinstance(given, str | Path):
        return given
    return store.open_tree(_store(given, what))


def open_set(given: xr.Dataset | str | Path, what: str) -> xr.Dataset:
    """A dataset as it is, or from a store, opened lazily."""
    if not isinstance(given, str | Path):
        return given
    return store.open_tree(_store(given, what)).to_dataset()


def open_labels(given: xr.DataArray | xr.Dataset | str | Path) -> xr.DataArray:
    """Masks as they are, or those in the result of `track`, or in its store."""
    labels: xr.DataArray = labels_in(given if isinstance(given, xr.DataArray) else open_set(given, "labels"))
    return labels


def _store(path: str | Path, what: str) -> Path:
    if not (Path(path) / "zarr.json").is_file():
        raise TedlensError(f"{path} is no Zarr store of {what}; give what tl.save() wrote, or the result itself.")
    return Path(path)
