"""Clips and models in a notebook: small pictures and tables of facts, as self-contained HTML."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tedlens.escaping import printable

THUMBNAILS, HEIGHT = 5, 72  # of a clip's frames, and pixels of each
WIDEST = 200


def facts_html(title: str, facts: Mapping[str, str], pictures: str = "") -> str:
    """A title, pictures (HTML) and a table of facts, which are escaped as text; colours are those of the page."""
    rows = "".join(
        f'<tr><th style="text-align:left">{_text(name)}</th><td style="text-align:left">{_text(fact)}</td></tr>'
        for name, fact in facts.items()
    )
    return f"<div><strong>{_text(title)}</strong><div>{pictures}</div><table>{rows}</table></div>"


def thumbnails_html(frames: npt.NDArray[np.uint8]) -> str:
    """A few of the frames (frame, y, x, channel) of a clip, first to last, as PNG in the page."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, THUMBNAILS).round().astype(int))
    return "".join(
        f'<img src="data:image/png;base64,{_thumbnail(frames[number])}" title="frame {number}" alt="frame {number}" '
        f'style="display:inline-block;margin:2px;max-width:{WIDEST}px">'
        for number in chosen.tolist()
    )


def _thumbnail(frame: npt.NDArray[np.uint8]) -> str:
    import PIL.Image  # only now: a clip does without

    picture = PIL.Image.fromarray(frame)
    # Pixels of a very small clip are shown large, without blur.
    how = PIL.Image.Resampling.BOX if picture.height > HEIGHT else PIL.Image.Resampling.NEAREST
    # A frame that is nearly a line loses its shape here, so that it does not fill the memory.
    width = min(max(1, round(picture.width * HEIGHT / picture.height)), 4 * HEIGHT)
    written = io.BytesIO()
    picture.resize((width, HEIGHT), how).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


def _text(given: str) -> str:
    return html.escape(printable(given))
