"""The main table: means with standard errors, for a spreadsheet or a paper."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, cast

import pandas as pd
import xarray as xr

from tedlens.analysis.statistics import clip_statistics
from tedlens.errors import TedlensError
from tedlens.escaping import in_latex, in_markdown, in_spreadsheet
from tedlens.plots.against import TITLES, of_these
from tedlens.plots.style import PLAIN_METRICS


def main_table(
    scores: xr.Dataset, *, metric: str = "JF", columns: str | None = None, references: xr.Dataset | None = None
) -> pd.DataFrame:
    """Mean and standard error over clips, in percent: a row for each cell of what was swept.

    Parameters
    ----------
    scores
        From `evaluate`, joined along whatever was swept.
    metric
        ``"J"``, ``"F"``, ``"JF"``, ``"identity"``, ``"HOTA"``, ``"DetA"``, ``"AssA"`` or ``"IDF1"``.
    columns
        A swept axis that runs across instead of down, for example the set of clips.
    references
        From `reference_scores`, of the same sweep: rows below the others, the same in every column of an axis that
        they do not depend on.

    Returns
    -------
    DataFrame of numbers with two levels of columns: the values of `columns` (or the metric's name), and in each
        ``mean`` and ``error``. ``to_csv`` writes it for a spreadsheet, `latex_table` for a paper. How many rows are
        references stands in ``attrs["references"]``.
    """
    table = _of_cells(scores, metric, columns)
    if references is None:
        return table
    rows = _of_references(table, of_these(references, scores), metric)
    both = pd.concat([table, rows])
    both.attrs["references"] = len(rows)
    return both


def _of_references(table: pd.DataFrame, references: xr.Dataset, metric: str) -> pd.DataFrame:
    """Rows for a table of scores, with its levels of rows and columns."""
    statistics = 100 * clip_statistics(references, metric)
    levels, across = [str(name) for name in table.index.names], str(table.columns.names[0])
    own = [name for name in levels if name in statistics.dims]
    free = next((level for level in levels if level not in own), None)  # where a reference can have its name
    places: list[Any] = list(table.columns)
    rows: dict[tuple[Any, ...], list[float]] = {}
    axes: list[list[Any]] = [statistics[axis].values.tolist() for axis in ("features", *own)]
    for each in product(*axes):
        title = TITLES.get(str(each[0]), str(each[0]))
        chosen = dict(zip(own, each[1:], strict=True))
        one = statistics.sel(features=each[0], **chosen)
        said = {level: chosen.get(level, "") for level in levels}
        if free is None:
            said[levels[0]] = f"{title}, {said[levels[0]]}"
        else:
            said[free] = title
        rows[tuple(said.values())] = [
            float(one[part].sel({across: value}) if across in one.dims else one[part]) for value, part in places
        ]
    index = pd.MultiIndex.from_tuples(list(rows), names=levels)
    made = pd.DataFrame(list(rows.values()), index=index, columns=table.columns)
    return made if len(levels) > 1 else made.set_axis(index.get_level_values(0))


def _of_cells(scores: xr.Dataset, metric: str, columns: str | None) -> pd.DataFrame:
    statistics = 100 * clip_statistics(scores, metric)
    if columns is None:
        statistics, columns = statistics.expand_dims(metric=[PLAIN_METRICS[metric]]), "metric"
    elif columns not in statistics.dims:
        swept = ", ".join(map(str, statistics.dims)) or "nothing"
        raise TedlensError(f"columns={columns!r} was not swept, but {swept}; choose an axis that was.")
    if statistics.sizes.keys() == {columns}:
        statistics = statistics.expand_dims(score=[PLAIN_METRICS[metric]])
    across = list(product(statistics[columns].values, ("mean", "error")))
    # To pandas' stubs a part of a table may be a column, which it is not here.
    table: Any = statistics[["mean", "error"]].to_dataframe()[["mean", "error"]].unstack(columns)
    return cast("pd.DataFrame", table.swaplevel(axis=1).reindex(columns=across))


def plain_table(table: pd.DataFrame) -> pd.DataFrame:
    """A table from `main_table` as texts to read: mean ± standard error, or the mean alone where there is one clip."""
    parts: list[Any] = [table.xs(name, axis=1, level=1) for name in ("mean", "error")]
    return _with_errors(parts[0].map("{:.1f}".format), parts[1], " ± ")


def _with_errors(means: pd.DataFrame, errors: pd.DataFrame, sign: str) -> pd.DataFrame:
    """Texts with their errors; without, where it is exactly 0: of one clip, whose error nobody knows."""
    return means.where(errors == 0, means + sign + errors.map("{:.1f}".format))


def latex_table(table: pd.DataFrame) -> str:
    """A table from `main_table` in LaTeX (booktabs): mean ± standard error, the best model of each column in bold."""
    parts: list[Any] = [table.xs(name, axis=1, level=1) for name in ("mean", "error")]
    means, errors = parts[0].round(1), parts[1]
    cells = means.map("{:.1f}".format)
    models = means.iloc[: len(means) - table.attrs.get("references", 0)]
    best = (models == models.max()).reindex(means.index, fill_value=False)
    cells = _with_errors(cells.mask(best, r"\textbf{" + cells + "}"), errors, r" $\pm$ ")
    cells.index = cells.index.map(lambda name: in_latex(_joined(name)))
    cells.columns = cells.columns.map(lambda name: in_latex(_joined(name)))
    cells.columns.name = None
    return str(cells.to_latex(escape=False))


def markdown_table(table: pd.DataFrame) -> list[str]:
    """Lines of Markdown, of a table of texts (`plain_table`)."""
    rows = {in_markdown(_joined(name)): cells for name, cells in table.iterrows()}
    lines = [
        f"| {', '.join(map(str, table.index.names))} | {' | '.join(map(in_markdown, table.columns))} |",
        "|---" * (len(table.columns) + 1) + "|",
    ]
    return lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]


def write_table(table: pd.DataFrame, folder: Path, name: str) -> None:
    """A table from `main_table` for a spreadsheet, a paper and a page: ``name.csv``, ``name.tex``, ``name.md``."""
    spreadsheet_table(table).to_csv(folder / f"{name}.csv", encoding="utf-8")
    (folder / f"{name}.tex").write_text(latex_table(table), encoding="utf-8")
    (folder / f"{name}.md").write_text("\n".join([*markdown_table(plain_table(table)), ""]), encoding="utf-8")


def spreadsheet_table(table: pd.DataFrame) -> pd.DataFrame:
    """The same table with names that no spreadsheet takes for formulas."""

    def safe(name: Any) -> Any:
        return (
            tuple(map(safe, name))
            if isinstance(name, tuple)
            else in_spreadsheet(name)
            if isinstance(name, str)
            else name
        )

    plain = table.copy()
    plain.index, plain.columns = plain.index.map(safe), plain.columns.map(safe)
    return plain


def _joined(name: object) -> str:
    """What a row or column is called."""
    return ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)
