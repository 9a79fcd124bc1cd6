"""Escape names from outside for the place where they are written."""

from __future__ import annotations

import re
from urllib.parse import quote

# Letters that mean something to LaTeX.
_LATEX = {letter: f"\\{letter}" for letter in "_&%#${}"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
}


def printable(text: object) -> str:
    """Text with control characters escaped, because a terminal executes some of them."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in str(text))


def in_latex(text: object) -> str:
    """Text for LaTeX: ``up_2`` becomes ``up\\_2``."""
    return "".join(_LATEX.get(letter, letter) for letter in printable(text))


def in_markdown(text: object) -> str:
    """Text for a cell of a Markdown table: no HTML, no link, no new column."""
    plain = printable(text).replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|])", r"\\\1", plain)


def picture_in_markdown(file: str, caption: object) -> str:
    """Markdown for a picture, with its path relative to the page."""
    return f"![{in_markdown(caption)}]({quote(file)})"


def in_spreadsheet(text: object) -> str:
    """Text for a CSV file; a quote is put before what a spreadsheet would read as a formula."""
    plain = printable(text)
    return f"'{plain}" if plain.startswith(("=", "+", "-", "@")) else plain
