"""Figures at the size at which they are printed: a width in millimetres and text in points."""

from __future__ import annotations

import plotly.graph_objects as go

from tedlens.errors import TedlensError

Width = str | float  # a name, or millimetres
# Of a page's text in NeurIPS' style (5.5 inches), and of a column in CVPR's and IEEE's two (3.25 inches).
MILLIMETRES: dict[str, float] = {"column": 82.55, "text": 139.7}
PIXELS_A_MM = 96 / 25.4  # of a browser, which draws the files
PIXELS_A_POINT = 96 / 72
FONT_SIZE = 8.0  # points, a little below a caption's nine
DOTS = 300 / 96  # of a PNG for print, 300 to the inch
NARROWEST = 20.0
FONT_PIXELS = 13  # of the house style's text
SMALLEST_PLOT = 240  # pixels of a plot's width, below which a legend beside it goes beneath
# Pixels of a legend's entry beside its text, of a letter, and of a row of entries.
LINE_AND_SYMBOL, LETTER, ROW = 60, 7, 22


def printed(figure: go.Figure, width: Width, font_size: float | None = None) -> tuple[go.Figure, float]:
    """A figure laid out anew for print, and how much larger than its layout it is to be drawn.

    All of it, text, lines and marks, has one scale, so that text of the house size (13 pixels) has `font_size`. What is
    left of the width goes to the plot, which keeps its height on that scale.

    Parameters
    ----------
    figure
        Of `tedlens.plots`, or any of plotly's with a size of its own. It stays as it is.
    width
        ``"column"`` (82.55 mm: CVPR, IEEE), ``"text"`` (139.7 mm: NeurIPS), or millimetres.
    font_size
        Points; 8 by default.

    Raises
    ------
    TedlensError
        For another name, or sizes that are none.
    """
    wide, points = millimetres(width), text_points(font_size)
    scale = points * PIXELS_A_POINT / FONT_PIXELS
    laid_out = go.Figure(figure).update_layout(width=wide * PIXELS_A_MM / scale)
    margin = laid_out.layout.margin
    if laid_out.layout.legend.orientation == "v" and laid_out.layout.width - margin.l - margin.r < SMALLEST_PLOT:
        _legend_below(laid_out)
    return laid_out, scale


def legend_names(figure: go.Figure) -> list[str]:
    """The entries of a figure's legend."""
    return [trace.name for trace in figure.data if trace.showlegend is not False and trace.name]


def entry_width(names: list[str]) -> int:
    """Pixels that the widest entry of a legend takes."""
    return LINE_AND_SYMBOL + LETTER * max(map(len, names))


def _legend_below(figure: go.Figure) -> None:
    """Put a legend beside the plot beneath it, in as many columns as there is room for."""
    layout = figure.layout
    named = legend_names(figure)
    entry = entry_width(named)
    right = max(22, layout.margin.r - entry)  # room for the last tick's number
    columns = max(1, int((layout.width - layout.margin.l - right) // entry))  # plotly takes the plot's width
    rows = -(-len(named) // columns)
    figure.update_layout(
        legend={
            "orientation": "h",
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "entrywidth": entry - LINE_AND_SYMBOL,
        }
        | {"y": 0, "yref": "container", "yanchor": "bottom"},
        margin={"r": right, "b": layout.margin.b + ROW * rows},
        height=layout.height + ROW * rows,
    )


def text_points(font_size: float | None) -> float:
    """A size of text in points, that of the house where none is given."""
    points = FONT_SIZE if font_size is None else font_size
    if not 3 <= points <= 40:
        raise TedlensError(f"font_size={points} is no size of print; give 3 to 40 points.")
    return points


def check_print(width: Width | None, font_size: float | None) -> None:
    """See that these are sizes of print, or None, before the work whose figures have them."""
    if width is not None:
        millimetres(width)
    text_points(font_size)


def millimetres(width: Width) -> float:
    """A width in millimetres, by its name or as it is."""
    if isinstance(width, str) and width in MILLIMETRES:
        return MILLIMETRES[width]
    try:
        value = float(width)
    except ValueError:
        value = 0.0
    if not NARROWEST <= value <= 1000:
        known = ", ".join(map(repr, MILLIMETRES))
        raise TedlensError(f"width={width!r} is no width of print; choose {known}, or millimetres from 20 to 1000.")
    return value
