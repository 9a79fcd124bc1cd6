"""A paper's figures and tables from the stores of sweeps, with no hand work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tedlens import plots
from tedlens.errors import TedlensError
from tedlens.escaping import in_markdown, picture_in_markdown
from tedlens.figures.drawing import Figures, draw_all, file_prefix
from tedlens.figures.stores import Sweep, known_clips, open_sweeps, read_against
from tedlens.plots.printing import Width, check_print
from tedlens.plots.style import PLAIN_METRICS
from tedlens.plots.tables import markdown_table, plain_table, write_table
from tedlens.store import check_free, whole_folder
from tedlens.sweeping.clips import Clips

if TYPE_CHECKING:
    import pandas as pd

PAGE = "figures.md"


@dataclass(frozen=True)
class Made:
    """Tables to read, by title; the files that were written; and what was left out, by the reason."""

    tables: dict[str, pd.DataFrame]
    written: dict[str, Path]
    left_out: dict[str, list[str]]


def write_figures(
    stores: Sequence[str | Path],
    out: str | Path,
    *,
    clips: Clips = (),
    clip: str | None = None,
    metric: str = "JF",
    width: Width | None = None,
    font_size: float | None = None,
) -> Made:
    """Write the figures, tables and a page that the stores allow to the folder `out`, all of them or none.

    Of each store a table and, where it was swept, the score over tau, over lambda, over tau and block, and by each
    setting. Of stores that differ in the kind of features or in the overlap of windows, these side by side. And
    where features were kept, their principal components. With the clips: what scores are read against, maps as shares
    of the grid's ceiling, decomposition and decoding.

    Parameters
    ----------
    stores
        Paths or URLs of the stores of sweeps.
    clips
        The clips that were swept, as `sweep` takes them: stores do not hold frames. None are needed for scores.
    clip
        Name of the clip to show; by default the first.
    metric
        ``"J"``, ``"F"``, ``"JF"``, ``"identity"``, ``"HOTA"``, ``"DetA"``, ``"AssA"`` or ``"IDF1"``.
    width, font_size
        For print, see `tedlens.plots.save_figures`; by default figures have their own size.

    Returns
    -------
    Made
        What a curve holds fixed is chosen for each clip on the others; the page says so, and names what was left out
        and why.

    Raises
    ------
    TedlensError
        If `out` exists; for sizes that are none of print, stores that are no sweeps or hold no scores yet, clips that
        are not those swept, an unknown metric.
    """
    out = Path(out)
    check_free(out)
    check_print(width, font_size)
    sweeps = list(open_sweeps(stores, metric))
    found = known_clips(clips, sweeps)
    sweeps = [read_against(sweep, found) for sweep in sweeps]
    shown = clip or str(sweeps[0].scores["clip"].values[0])
    if not any(shown in sweep.scores["clip"] for sweep in sweeps):
        known = ", ".join(map(str, sweeps[0].scores["clip"].values))
        raise TedlensError(f"There is no clip {shown!r} in the stores; choose from {known}.")
    made, left_out = draw_all(sweeps, found, shown)
    numbers = {f"{file_prefix(sweep, sweeps)}main": _table(sweep) for sweep in sweeps}
    titles = [f"{PLAIN_METRICS[metric]} (%), {sweep.path}" for sweep in sweeps]
    tables = dict(zip(titles, map(plain_table, numbers.values()), strict=True))
    with whole_folder(out) as folder:
        for name, table in numbers.items():
            write_table(table, folder, name)
        drawn = {name: figure for name, (figure, _) in made.items()}
        files = {path.name for path in plots.save_figures(drawn, folder, width=width, font_size=font_size)}
        pictures = {f"{name}.png": caption for name, (_, caption) in made.items() if f"{name}.png" in files}
        (folder / PAGE).write_text(_page(sweeps, tables, made, left_out, pictures), encoding="utf-8")
    written = {name: out / name for name in (PAGE, *(f"{name}.csv" for name in numbers))}
    return Made(tables, written | {"figures": out}, left_out)


def _table(sweep: Sweep) -> pd.DataFrame:
    """All cells, noise levels across where there are several."""
    several = [axis for axis in sweep.best if sweep.scores.sizes[axis] > 1]
    single = {axis: value for axis, value in sweep.best.items() if axis not in several}
    # A row needs a name, also where nothing but noise levels was swept.
    if set(several) <= {"tau"} and "block" in single:
        single.pop("block")
    across = "tau" if "tau" in several else None
    return plots.main_table(sweep.scores.sel(single), metric=sweep.metric, columns=across, references=sweep.against)


def _page(
    sweeps: Sequence[Sweep],
    tables: Mapping[str, pd.DataFrame],
    made: Figures,
    left_out: Mapping[str, list[str]],
    pictures: Mapping[str, str],
) -> str:
    """What was drawn from what, as Markdown."""
    lines = ["# Figures", ""]
    for sweep in sweeps:
        sizes, done = sweep.scores.sizes, sweep.scores["J"].notnull().any(["object", "frame"])
        lines.append(
            f"- {in_markdown(sweep.path)}: {sweep.kind} features; clips: {sizes['clip']}, seeds: {sizes['seed']}; "
            f"computed: {int(done.sum())} of {done.size} scores."
        )
    lines += [
        "",
        "Scores are means and standard errors over clips. What a curve holds fixed was chosen, for each clip, on the",
        "other clips. With the clips (`--clips`), beside them stands what place, colour, true velocity, true masks and",
        "the ceiling of the grid reach with the same settings.",
        "",
    ]
    for title, table in tables.items():
        lines += [f"## {in_markdown(title)}", "", *markdown_table(table), ""]
    lines += ["## Files", "", *(f"- `{name}`: {in_markdown(caption)}." for name, (_, caption) in made.items()), ""]
    if left_out:
        lines += [
            "Left out:",
            "",
            *(f"- `{'`, `'.join(names)}`: {in_markdown(why)}." for why, names in left_out.items()),
            "",
        ]
    for file, caption in pictures.items():
        lines += [picture_in_markdown(file, caption), "", f"{in_markdown(caption)}.", ""]
    return "\n".join(lines)
