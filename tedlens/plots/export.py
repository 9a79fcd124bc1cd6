"""Figures to files: HTML always, PNG, SVG and PDF where a Chrome is found."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import plotly.graph_objects as go

STATIC = ("png", "svg", "pdf")
HOW_TO = (
    "{why}, so figures were saved as HTML only; for PNG, SVG and PDF install Chrome or Chromium (Debian: apt-get "
    "install chromium; anywhere: plotly_get_chrome)."
)


def save_figures(figures: dict[str, go.Figure], folder: str | Path, formats: Iterable[str] = STATIC) -> list[Path]:
    """Save each figure as ``folder/name.html`` and, where a Chrome is found, in `formats`.

    Without a Chrome that runs, a warning says how to get one. Returns the paths written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    formats = tuple(formats)  # read once for each figure
    written = []
    for name, figure in figures.items():
        written.append(folder / f"{name}.html")
        # plotly.js in the file: a figure must open on a machine without network.
        figure.write_html(written[-1], include_plotlyjs=True)
    wanted = [(figure, folder / f"{name}.{kind}") for name, figure in figures.items() for kind in formats]
    if not wanted:
        return written
    if not chrome_found():
        warnings.warn(HOW_TO.format(why="No Chrome was found"), stacklevel=2)
        return written
    from plotly.io import write_images

    paths = [path for _, path in wanted]
    try:
        write_images(
            [figure for figure, _ in wanted],
            paths,
            # Else all are drawn at plotly's default size, whatever their layout says.
            width=[figure.layout.width for figure, _ in wanted],
            height=[figure.layout.height for figure, _ in wanted],
            scale=2,
        )
    except RuntimeError:  # choreographer's and plotly's, of a browser that ends at once or is gone
        warnings.warn(HOW_TO.format(why="Chrome was found but does not run"), stacklevel=2)
        return written
    return written + paths


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
