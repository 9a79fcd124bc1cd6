"""What all explorers are made of: controls, a line that says what a click does, figures, and a way to save them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from itertools import count
from pathlib import Path
from typing import Any

import IPython
import ipywidgets
import numpy as np
import xarray as xr
from scipy.ndimage import distance_transform_edt

from tedlens import store
from tedlens.align import labels_in
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.labels import VOID
from tedlens.plots.export import write_pictures
from tedlens.widgets.live import LiveFigure

# Room in an output on a screen of 1280x800, in pixels: its width, and the height that is left below the controls.
WIDE, HIGH = 840, 500
LABELS = 120  # of the width, what names of rows take
SLIDER = "18em"
STEP = 250  # milliseconds between frames while playing: slow enough for every frame to be drawn


class Explorer(ipywidgets.VBox):  # type: ignore[misc]
    """Controls over figures. What a click does is said in `hint`, and what cannot be shown in `message`.

    A subclass makes its controls and figures, hands them to `arrange`, and draws in `draw`. What it holds is freed
    when it is closed, and it is closed when the notebook's cell that made it is run again: ipywidgets itself keeps
    every widget, with all that hangs on it, until then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hint, self.message = ipywidgets.HTML(), ipywidgets.HTML(layout={"flex": "1 1 0"})
        self.save = ipywidgets.Button(description="Save this view", tooltip="As PNG, and as PDF of a column's width")
        self.save.layout = {"width": "auto", "flex": "none"}
        self.save.on_click(lambda button: self.explain(self.save_view))
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

    def arrange(
        self, controls: Sequence[ipywidgets.Widget], *rows: Sequence[ipywidgets.Widget], click: str = ""
    ) -> None:
        """Place the controls above rows of figures, draw, and draw again whenever a control is moved.

        `click` says what a click does.
        """
        self.hint.value = escape(click)
        line = ipywidgets.HBox([self.hint, self.message, self.save])  # one, so that figures stay where they are
        wrapping = ipywidgets.Layout(flex_flow="row wrap", align_items="center")
        boxes = [ipywidgets.HBox(list(row), layout=ipywidgets.Layout(flex_flow="row wrap")) for row in rows]
        self.children = [ipywidgets.HBox(list(controls), layout=wrapping), line, *boxes]
        for control in controls:
            control.layout.margin = "2px 12px 2px 2px"
            if hasattr(control.style, "description_width"):
                control.style.description_width = "initial"
            if not isinstance(control, ipywidgets.Play | ipywidgets.Button):  # Play moves the slider it is linked to
                control.observe(lambda change: self.explain(self.draw), "value")
        self.explain(self.draw)

    def draw(self) -> None:
        """Show what the controls ask for."""
        raise NotImplementedError

    def explain(self, do: Callable[[], str | None]) -> None:
        """Do something and say what it returns, or why it cannot be done."""
        try:
            said = do()
        except TedlensError as error:
            self.say(str(error))
        else:
            self.say(said or "")

    def say(self, sentence: str) -> None:
        self.message.value = f"<b>{escape(sentence)}</b>" if sentence else ""

    def save_view(self) -> str:
        """Write the figures on show to the next free folder ``view-1``, ``view-2``, ..; says where they are."""
        shown = [part for part in _within(self) if isinstance(part, LiveFigure) and part.data]
        names = {id(value): name for name, value in vars(self).items()}
        folder = next(path for n in count(1) if not (path := Path(f"view-{n}")).exists())
        written = write_pictures({names[id(part)]: part.figure for part in shown}, folder)
        return f"Saved in {folder}: {', '.join(path.name for path in written)}."


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


# --- controls -------------------------------------------------------------------------------------


def frame_controls(first: int, last: int) -> tuple[ipywidgets.IntSlider, ipywidgets.Play]:
    """A slider over frames, and the button that plays it."""
    slider = ipywidgets.IntSlider(first, first, last, description="frame", layout={"width": SLIDER})
    play = ipywidgets.Play(
        value=first, min=first, max=last, interval=STEP, repeat=True, show_repeat=False, layout={"width": "6em"}
    )
    play.linked = ipywidgets.jslink((play, "value"), (slider, "value"))  # closed with it
    return slider, play


def side_for(clip: Clip, *, columns: int = 1, rows: int = 1, wide: int = WIDE, high: int = HIGH) -> int:
    """Height of pictures of a clip, so many across and down, that fill what room there is."""
    return int(max(24, min(high / rows, wide / columns * clip.height / clip.width)))


def first_query(clip: Clip) -> tuple[int, float, float]:
    """Frame, y and x of a pixel to begin with: the innermost of an object, or the middle of a clip without masks."""
    for frame, mask in enumerate(() if clip.masks is None else clip.masks):
        objects = (mask != 0) & (mask != VOID)
        if objects.any():
            within = distance_transform_edt(np.pad(mask == mask[objects].min(), 1))[1:-1, 1:-1]
            y, x = np.unravel_index(within.argmax(), within.shape)
            return frame, float(y), float(x)
    return 0, float(clip.height // 2), float(clip.width // 2)


def lambda_slider() -> ipywidgets.FloatSlider:
    return ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.01, description="λ (motion)", layout={"width": SLIDER})


def choice(name: str, values: Iterable[Any]) -> ipywidgets.Widget:
    """A slider over the values of an axis of numbers, a list of names for any other."""
    options = [v.item() if hasattr(v, "item") else v for v in values]
    numbers = all(isinstance(v, int | float) for v in options)
    if numbers and len(options) > 1:
        return ipywidgets.SelectionSlider(options=options, description=name, layout={"width": SLIDER})
    return drop_down(name, options)


def drop_down(name: str, options: Sequence[Any]) -> ipywidgets.Dropdown:
    """A list to choose from, as wide as its longest name needs."""
    longest = max(len(str(option)) for option in options)
    return ipywidgets.Dropdown(options=options, description=name, layout={"width": f"{8 + 0.6 * longest:.0f}em"})


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
