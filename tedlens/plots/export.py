"""Figures to files: HTML always, PNG, SVG and PDF where a Chrome is found."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import plotly.graph_objects as go

from tedlens.errors import TedlensError
from tedlens.plots.printing import DOTS, MILLIMETRES, PIXELS_A_MM, Width, printed
from tedlens.store import whole_folder

STATIC = ("png", "svg", "pdf")
START_LIMIT, PICTURE_LIMIT = 60, 20  # seconds that Chrome may take to start, and for each picture
SHARP = 2  # pixels of a PNG for each pixel of the figure's layout
COLUMN = MILLIMETRES["text"] * PIXELS_A_MM  # of a figure's layout
INSTALL = "install Chrome or Chromium (Debian: apt-get install chromium; anywhere: plotly_get_chrome)."
HOW_TO = "{why}, so figures were saved as HTML only; for PNG, SVG and PDF " + INSTALL
NOTHING = "{why}, so nothing was saved; " + INSTALL


def save_figures(
    figures: go.Figure | Mapping[str, go.Figure],
    folder: str | Path,
    formats: Iterable[str] = STATIC,
    *,
    width: Width | None = None,
    font_size: float | None = None,
) -> list[Path]:
    """Save each figure as ``folder/name.html`` and, where a Chrome is found, in `formats`; one alone as ``figure``.

    Without a Chrome that runs and answers, a warning says how to get one.

    Parameters
    ----------
    figures
        One, or several by the names of their files.
    folder
        Made where it is not there.
    formats
        Of ``"png"``, ``"svg"`` and ``"pdf"``.
    width, font_size
        Of all but HTML, for print: ``"column"`` (82.55 mm), ``"text"`` (139.7 mm) or millimetres, and points (8 by
        default), see `tedlens.plots.printing.printed`. PDF and SVG are then just so wide, PNG has 300 dots an inch.
        Without either, figures have their own size on the screen.

    Returns
    -------
    Paths of the files that were written.

    Raises
    ------
    TedlensError
        For anything but figures, or a size that is none.
    """
    figures = {"figure": figures} if isinstance(figures, go.Figure) else figures
    if not isinstance(figures, Mapping) or not all(isinstance(figure, go.Figure) for figure in figures.values()):
        raise TedlensError(
            f"A {type(figures).__name__} holds no figures by name; give a plotly figure, or figures by the name of "
            'their file, as in {"curve": figure}.'
        )
    formats = tuple(formats)  # read once for each figure
    drawings = {name: _drawings(figure, name, formats, width, font_size) for name, figure in figures.items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        written.append(folder / f"{name}.html")
        # plotly.js in the file: a figure must open on a machine without network.
        figure.write_html(written[-1], include_plotlyjs=True)
    wanted = [each._replace(path=folder / each.path) for several in drawings.values() for each in several]
    if not wanted:
        return written
    problem = _draw(wanted)
    if problem is not None:
        warnings.warn(HOW_TO.format(why=problem), stacklevel=2)
        return written
    return written + [each.path for each in wanted]


def _drawings(
    figure: go.Figure, name: str, formats: Iterable[str], width: Width | None, font_size: float | None
) -> list[Drawing]:
    """Files of a figure on the screen's scale, or at a width and size of text for print."""
    if width is None and font_size is None:
        return [Drawing(figure, Path(f"{name}.{kind}"), SHARP) for kind in formats]
    own = (figure.layout.width or 700) / PIXELS_A_MM  # millimetres, at the browser's 96 pixels an inch
    laid_out, scale = printed(figure, own if width is None else width, font_size)
    return [Drawing(laid_out, Path(f"{name}.{kind}"), scale * (DOTS if kind == "png" else 1)) for kind in formats]


def write_pictures(figures: Mapping[str, go.Figure], folder: Path) -> list[Path]:
    """Write ``name.png`` and ``name.pdf`` of each figure to a new folder, all of them or none; returns the paths.

    A PDF is as wide as a column of text, or as the figure where that is less.

    Raises
    ------
    TedlensError
        Without a Chrome that runs and answers.
    """
    with whole_folder(folder) as part:
        wanted = []
        for name, figure in figures.items():
            wanted.append(Drawing(figure, part / f"{name}.png", SHARP))
            wanted.append(Drawing(figure, part / f"{name}.pdf", min(1, COLUMN / figure.layout.width)))
        problem = _draw(wanted)
        if problem is not None:
            raise TedlensError(NOTHING.format(why=problem))
    return [folder / each.path.name for each in wanted]


class Drawing(NamedTuple):
    """A figure, the file it goes to, and how much larger than its layout says."""

    figure: go.Figure
    path: Path
    scale: float


def _draw(wanted: Sequence[Drawing]) -> str | None:
    """Draw figures to files with Chrome; what is wrong with it, if it does not."""
    if not chrome_found():
        return "No Chrome was found"
    from plotly.io import write_images

    errors: list[BaseException] = []

    def work() -> None:
        try:
            write_images(
                [each.figure for each in wanted],
                [each.path for each in wanted],
                # Else all are drawn at plotly's default size, whatever their layout says.
                width=[each.figure.layout.width for each in wanted],
                height=[each.figure.layout.height for each in wanted],
                scale=[each.scale for each in wanted],
            )
        except BaseException as error:
            errors.append(error)

    # In a thread of its own, which may be left behind: a browser that starts and never answers is waited for else.
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(START_LIMIT + PICTURE_LIMIT * len(wanted))
    if worker.is_alive():
        return "Chrome was found but does not answer"
    for error in errors:
        if not isinstance(error, RuntimeError):  # choreographer's and plotly's, of a browser that ends or is gone
            raise error
        return "Chrome was found but does not run"
    return None


def notebook_renderer(*, live: bool = True) -> str:
    """For ``plotly.io.renderers.default``: live in JupyterLab, with a PNG beside it where a Chrome is found.

    The PNG is what readers see where a notebook is only displayed, as on code-hosting pages. With ``live=False``
    it is all there is, where it can be made: a notebook of many maps then stays small.
    """
    if not chrome_found():
        return "plotly_mimetype"
    return "plotly_mimetype+png" if live else "png"


def chrome_found() -> bool:
    """Whether kaleido will find the browser that it draws with."""
    from choreographer.browsers.chromium import Chromium

    return Chromium.find_browser(skip_local=False) is not None
