"""What the TED paper printed (arXiv 2512.02339, tables 1 to 7), as data."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

Row = dict[str, Any]

FIGURES = {"J&F": "J&F_m", "J": "J_m", "F": "F_m"}  # ours to the paper's words
# Where the paper's figures 6 and 7 have their best, by data set.
BEST_TAU = {"Youtube-Similar": 600, "Kubric-Similar": 900}
BEST_LAM = {"Kubric-Similar": 1.0}


@cache
def paper() -> dict[str, Any]:
    """The file as it is; figures are in percent, None stands for a dash."""
    text = files("tedlens.benchmark.field").joinpath("ted_paper.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def rows(table: int) -> list[Row]:
    """The rows of a table, in its order."""
    found: list[Row] = paper()["tables"][str(table)]["rows"]
    return found


def row(table: int, **where: Any) -> Row | None:
    """The row of a table with these values; None where it has none."""
    return next((each for each in rows(table) if all(each.get(key) == value for key, value in where.items())), None)


def mask_figures(title: str, method: str) -> dict[str, float | None]:
    """J&F, J and F (%) of a method on the data set of a title, of table 1 or 7; empty where neither has it."""
    for table in (1, 7):
        found = row(table, method=method)
        if found is not None and title in found:
            return {ours: found[title][theirs] for ours, theirs in FIGURES.items()}
    return {}
