"""Tables, figures and a page of what was found on a benchmark of the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tedlens.benchmark.field.asked import Found
from tedlens.escaping import in_latex, in_markdown, picture_in_markdown
from tedlens.models.registry import Model
from tedlens.plots import save_figures
from tedlens.plots.tables import markdown_table, spreadsheet_table
from tedlens.presets import PRESETS
from tedlens.store import save, whole_folder

TITLES = {
    "table_1": "Table 1: {title}",
    "table_2": "Table 2: motion features alone, by block",
    "table_3": "Table 3: video and image models",
    "table_5": "Table 5: time and memory a frame",
    "table_6": "Table 6: {title}",
    "table_7": "Table 7: {title}",
    "points": "Points: {title}",
}


@dataclass(frozen=True)
class Written:
    """Tables to read, by title: rows with figures of one's own; and what was written, where all rows are."""

    tables: dict[str, pd.DataFrame]
    files: dict[str, Path]


def write(found: Found, out: Path) -> Written:
    """Tables, figures, scores and ``report.md`` in the folder `out`, all of them or none."""
    texts = {
        TITLES[name].format(title=found.asked.benchmark.title): as_text(table) for name, table in found.tables.items()
    }
    with whole_folder(out, marked=True) as folder:
        for (name, table), text in zip(found.tables.items(), texts.values(), strict=True):
            spreadsheet_table(table).to_csv(folder / f"{name}.csv", encoding="utf-8")
            (folder / f"{name}.tex").write_text(latex(text), encoding="utf-8")
        for name, scores in found.scores.items():
            slug = "".join(letter if letter.isalnum() else "_" for letter in name)
            save(scores.drop_attrs(), folder / "scores" / f"{slug}.zarr")
        drawn = save_figures(found.figures, folder / "figures") if found.figures else []
        pictures = [path.name for path in drawn if path.suffix == ".png"]
        (folder / "report.md").write_text("\n".join(page(found, texts, pictures)), encoding="utf-8")
    files = {"report": out / "report.md"} | {name: out / f"{name}.csv" for name in found.tables}
    own = {
        title: _in_short(text, table) for (title, text), table in zip(texts.items(), found.tables.values(), strict=True)
    }
    return Written(own, files | ({"figures": out / "figures"} if found.figures else {}))


def _in_short(text: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """For a terminal: the rows with figures of one's own, and of the paper's figures the first."""
    own = table.iloc[:, 0].notna().values
    theirs = [column for column in text.columns if column.startswith("paper ")]
    kept = theirs if "low" not in table else theirs[:1]
    return text[[column for column in text.columns if column in kept or column not in theirs]][own]


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers with one decimal, intervals in brackets, a dash where there is none."""
    shown = {}
    for column in table.columns:
        values = table[column]
        if column in ("low", "high"):
            continue
        sign = "+" if column == "less paper" else ""
        shown[column] = [f"{value:{sign}.1f}" if np.isfinite(value) else "–" for value in values.astype(float)]
        if len(shown) == 1 and "low" in table:
            bounds = zip(table["low"], table["high"], strict=True)
            shown[f"95 % of {column}"] = [f"{low:.1f}–{high:.1f}" if np.isfinite(low) else "–" for low, high in bounds]
    return pd.DataFrame(shown, index=table.index)


def latex(text: pd.DataFrame) -> str:
    """A table of texts in LaTeX (booktabs)."""
    plain = text.map(in_latex).rename(index=in_latex, columns=in_latex)
    plain.index.name = in_latex(str(text.index.name))
    return str(plain.reset_index().to_latex(index=False, escape=False, column_format="l" + "r" * len(text.columns)))


def page(found: Found, texts: Mapping[str, pd.DataFrame], pictures: Sequence[str]) -> list[str]:
    """The report as Markdown, with the pictures in ``figures``."""
    asked = found.asked
    lines = [f"# {asked.benchmark.title}", ""]
    for method in found.methods:
        words = ", ".join(f"{name}={value}" for name, value in method.words.items())
        models = ", ".join(_called(model) for model in (method.motion, method.appearance) if model is not None)
        preset = f"preset {method.preset}, " if method.preset else ""
        lines.append(in_markdown(f"- {', '.join(method.lams)}: {models}; {preset}{words}."))
    lines += ["", f"Clips: {len(asked.clips)}. In percent, beside the figures of the TED paper (arXiv 2512.02339).", ""]
    notes = [asked.benchmark.note, *(PRESETS[m.preset].note for m in found.methods if m.preset)]
    lines += [f"- {in_markdown(note)}" for note in dict.fromkeys(filter(None, notes))]
    for title, table in texts.items():
        lines += ["", f"## {in_markdown(title)}", "", *markdown_table(table)]
    for file in pictures:
        title = file.removesuffix(".png").replace("_", " ").capitalize()
        lines += ["", f"## {title}", "", picture_in_markdown(f"figures/{file}", title)]
    return [*lines, ""]


def _called(model: Model) -> str:
    return str(model["name"] if isinstance(model, Mapping) else getattr(model, "name", model))
