"""Masks drawn by hand: the first mask of a clip, and those of objects that enter later."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets
import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from tedlens.clip import Clip, as_clip
from tedlens.errors import TedlensError
from tedlens.labels import VOID
from tedlens.media import object_colours, overlay, write_masks
from tedlens.media.outlines import inside
from tedlens.plots.pictures import panels, picture
from tedlens.widgets.explorer import Explorer, explained, frame_controls, side_for
from tedlens.widgets.live import LiveFigure

# What is chosen, how plotly lets it be drawn, and how that is done.
TOOLS = {
    "brush": ("drawclosedpath", "Draw around the object with the mouse held down; the line closes by itself."),
    "box": ("drawrect", "Drag from one corner of the box to the other."),
    "polygon": (False, "Click one corner after the other, and the first one again to close the polygon."),
}
BACKGROUND = "background"
NEAR = 8  # pixels on the screen within which a click means the first corner
WIDE, HIGH = 840, 430  # room for the picture


def mask_editor(clip: Clip | str | Path) -> Explorer:
    """Draw masks of objects in the notebook; ``editor.clip`` is the clip with them.

    Objects are outlined with a brush, boxes or polygons, each in its colour; what is drawn later lies on top, and
    ``background`` erases. A pixel belongs to an object where its centre is within the outline. Masks that the clip has
    already can be changed.

    A frame in which nothing is drawn has no mask. In the first frame with a mask, all else is background; in later
    ones, which are for objects that enter there, all else is void, as nobody has said what it is.

    Parameters
    ----------
    clip
        A clip, or a path that `tl.read_clip` reads.

    Returns
    -------
    A widget. ``clip`` is the clip with the masks as they are, and ``save_masks(folder)`` does what the button does:
    it writes a folder of palette PNGs, named as the frames are (``clip.frame_names``), from which
    ``tl.read_clip(video, masks=folder)`` reads them back, for all of the video or any part of it.
    """
    return explained(lambda: MaskEditor(as_clip(clip)))


class Stroke(NamedTuple):
    """An outline that was drawn: all pixels within it are one object's, or nobody's (0)."""

    frame: int
    label: int
    outline: npt.NDArray[Any]  # (corner, axis = x, y)


class MaskEditor(Explorer):
    """Controls over ``picture``.

    They are ``tool``, ``object``, ``new``, ``undo``, ``frame``, ``play``, ``folder`` and ``save_as``.
    """

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.given = clip
        self.strokes: list[Stroke] = []
        self.corners: list[tuple[float, float]] = []  # of a polygon that is not closed yet
        self.tool = ipywidgets.ToggleButtons(options=list(TOOLS), style={"button_width": "6em"})
        self.object = ipywidgets.Dropdown(options=[*(clip.object_ids or (1,)), BACKGROUND], description="object")
        self.object.layout.width = "14em"
        self.new, self.undo = (_button(name) for name in ("New object", "Undo"))
        self.frame, self.play = frame_controls(0, len(clip) - 1)
        self.folder = ipywidgets.Text("masks", description="folder", layout={"width": "18em"})
        self.save_as = _button("Save masks")
        self.picture = LiveFigure(self.add_corner)
        buttons = {self.new: self.add_object, self.undo: self.take_back, self.save_as: self.save_masks}
        for button, do in buttons.items():
            button.on_click(lambda _, do=do: self.explain(do))
        self.tool.observe(lambda change: self.corners.clear(), "value")
        self.frame.observe(lambda change: self.corners.clear(), "value")
        controls = [self.tool, self.object, self.new, self.undo, self.play, self.frame, self.folder, self.save_as]
        self.save.layout.display = "none"  # what is kept of an editor are masks
        self.arrange(controls, [self.picture])
        self.picture.plot.layout.on_change(self._drawn, "shapes")

    # --- what is drawn ----------------------------------------------------------------------------

    @property
    def masks(self) -> npt.NDArray[np.uint8] | None:
        """(T, H, W), or None while there are none."""
        given = self.given
        masks = np.full(given.frames.shape[:3], VOID, np.uint8) if given.masks is None else given.masks.copy()
        annotated = np.flatnonzero(given.annotated)
        first = min([*annotated, *(stroke.frame for stroke in self.strokes)], default=None)
        if first is not None and first not in annotated:
            masks[first] = 0
        for stroke in self.strokes:
            mask = masks[stroke.frame]
            mask[inside(stroke.outline, mask.shape)] = stroke.label
        return None if first is None else masks

    @property
    def clip(self) -> Clip:
        """The clip with its masks as they are now."""
        return replace(self.given, masks=self.masks)

    def add_stroke(self, outline: npt.ArrayLike) -> None:
        """An outline (corner, axis = x, y) for the object and frame that are chosen."""
        label = 0 if self.object.value == BACKGROUND else int(self.object.value)
        stroke = Stroke(self.frame.value, label, np.asarray(outline, float))
        if not inside(stroke.outline, (self.given.height, self.given.width)).any():
            raise TedlensError(
                "There is no pixel's centre within this outline, so nothing was drawn; draw a larger one."
            )
        self.strokes.append(stroke)
        self.draw()

    def add_corner(self, trace: Any, x: float, y: float) -> None:
        """A corner of a polygon; one near the first closes it."""
        if self.tool.value != "polygon":
            return
        near = NEAR * self.given.height / self._side
        if len(self.corners) >= 3 and np.hypot(*np.subtract(self.corners[0], (x, y))) <= near:
            corners, self.corners = self.corners, []
            self.explain(lambda: self.add_stroke(corners))
        else:
            self.corners.append((float(x), float(y)))
            self.explain(self.draw)

    def add_object(self) -> None:
        """Choose an id that is not in use."""
        used = [label for label in self.object.options if label != BACKGROUND]
        if max(used) + 1 == VOID:
            raise TedlensError("The ids of objects go from 1 to 254, and 254 is in use; no object can be added.")
        self.object.options = [*used, max(used) + 1, BACKGROUND]
        self.object.value = max(used) + 1

    def take_back(self) -> None:
        """Undo the last corner of an open polygon, else the last outline, going to its frame."""
        if self.corners:
            self.corners.pop()
        elif self.strokes:
            self.frame.value = self.strokes.pop().frame
        else:
            raise TedlensError("Nothing was drawn that could be undone.")
        self.draw()

    def save_masks(self, folder: str | Path | None = None) -> str:
        """Write a palette PNG for each frame to a folder, by default the one in the field; says what it wrote."""
        masks, folder = self.masks, self.folder.value if folder is None else folder
        if masks is None:
            raise TedlensError("There are no masks to save; draw an object first.")
        if not str(folder).strip():
            raise TedlensError("The field for the folder is empty; write the name of the folder for the masks.")
        write_masks(masks, folder, self.given.frame_names)
        drawn = int((masks != VOID).any(axis=(1, 2)).sum())
        return f"Saved in {folder}: {len(masks)} masks, {drawn} of them drawn; tl.read_clip(.., masks=..) reads them."

    # --- what is shown ----------------------------------------------------------------------------

    @property
    def _side(self) -> int:
        return side_for(self.given, wide=WIDE, high=HIGH)

    def draw(self) -> None:
        self.hint.value = TOOLS[self.tool.value][1]
        what = (self.frame.value, self.tool.value, self.object.value, len(self.strokes), tuple(self.corners))
        self.picture.show_figure(what, self._figure)

    def _figure(self) -> go.Figure:
        frame, masks, size = self.frame.value, self.masks, (self.given.height, self.given.width)
        shown = self.given.frames[frame]
        if masks is not None:
            shown = overlay(shown[None], masks[[frame]])[0]
        colour = (
            "white" if self.object.value == BACKGROUND else "rgb({},{},{})".format(*object_colours()[self.object.value])
        )
        x, y = zip(*self.corners, strict=True) if self.corners else ((), ())
        line = go.Scatter(x=x, y=y, mode="lines+markers", line={"color": colour, "width": 2}, hoverinfo="skip")
        figure = panels([("", [[picture(shown, size), line]])], [f"frame {frame}"], size, side=self._side)
        newshape = {"line": {"color": colour, "width": 2}, "fillcolor": colour, "opacity": 0.5}
        return figure.update_layout(dragmode=TOOLS[self.tool.value][0], newshape=newshape, showlegend=False)

    def _drawn(self, layout: Any, shapes: Any) -> None:
        """What was drawn in the browser becomes a stroke, and its shape goes: what is seen are the pixels."""
        plot = self.picture.plot
        drawn = plot.to_dict()["layout"].get("shapes")  # plotly's objects do not know of what the browser has sent
        if drawn:
            plot.plotly_relayout({"shapes": []})
            self.explain(lambda: self.add_stroke(outline_of(drawn[-1])))


def _button(name: str) -> ipywidgets.Button:
    return ipywidgets.Button(description=name, layout={"width": "auto"})


def outline_of(shape: dict[str, Any]) -> npt.NDArray[Any]:
    """Corners (corner, axis = x, y) of a box or a closed path as plotly describes it."""
    if shape["type"] == "rect":
        x0, y0, x1, y1 = (shape[name] for name in ("x0", "y0", "x1", "y1"))
        return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", shape["path"])]
    return np.array(numbers).reshape(-1, 2)
