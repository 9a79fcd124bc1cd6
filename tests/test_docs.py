"""What the documentation shows runs, and it shows every public name."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import nbformat
import plotly.io
import pytest

import tedlens as tl

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Cells marked python run as printed; those marked py need published weights or data.
RUN, SHOWN = (re.compile(rf"^```{word}\n(.*?)^```", re.DOTALL | re.MULTILINE) for word in ("python", "py"))
MODULES = {
    "tl": tl,
    "tl.analysis": tl.analysis,
    "tl.datasets": tl.datasets,
    "tl.plots": tl.plots,
    "tl.widgets": tl.widgets,
}
PUBLIC = {
    f"{place}.{name}": getattr(module, name)
    for place, module in MODULES.items()
    for name in module.__all__
    if not inspect.ismodule(getattr(module, name))
}
# Examples of these need files that are not here; other tests run them on files that they write.
NEED_FILES = {f"tl.datasets.{name}" for name in tl.datasets.__all__ if name != "similar"} | {
    "tl.load_encoder",
    "tl.load_sam2",
    "tl.track_sam2",
}


def cells(page: Path, fence: re.Pattern[str] = RUN) -> list[str]:
    return fence.findall(page.read_text())


def notebook_cells() -> list[str]:
    books = [nbformat.read(path, as_version=4) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    return [cell.source for book in books for cell in book.cells if cell.cell_type == "code"]


# README runs in every run of the tests, the guides, which take half a minute and more, before a release.
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[] if page.stem == "README" else pytest.mark.release)
        for page in PAGES
        if cells(page)
    ],
)
def test_page_runs_as_printed(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plotly.io.renderers, "default", "json")  # fig.show() would open a browser
    names: dict[str, Any] = {}
    for cell in cells(page):
        exec(compile(cell, page.name, "exec"), names)


def test_every_public_name_has_an_example() -> None:
    pages = [*PAGES, ROOT / "tedlens/models/README.md"]  # whose adapter test_models.py runs
    runs = "\n".join([*(cell for page in pages for cell in cells(page)), *notebook_cells()])
    shown = "\n".join(cell for page in PAGES for cell in cells(page, SHOWN))
    without = [
        name
        for name in PUBLIC
        if not re.search(rf"\b{re.escape(name)}\b", runs + shown if name in NEED_FILES else runs)
    ]
    assert without == []
