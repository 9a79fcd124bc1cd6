"""Every notebook runs from a clean kernel."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

# A Chrome for the preview of each figure takes half of the time, and is tested with the plots.
NO_PREVIEWS = (
    "import tedlens.plots.export\ntedlens.plots.export.notebook_renderer = lambda live=True: 'plotly_mimetype'"
)
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"), reverse=True)  # the longest first
CASES = [pytest.param(path, id=path.stem) for path in NOTEBOOKS]
# Each takes up to a minute, with a kernel of its own.
pytestmark = pytest.mark.release


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


class TestOddNotebooks:  # a class is one process's: so two share them
    @pytest.mark.parametrize("path", CASES[::2])
    def test_notebook_runs(self, path: Path, tmp_path: Path) -> None:
        run(path, tmp_path)


class TestEvenNotebooks:
    @pytest.mark.parametrize("path", CASES[1::2])
    def test_notebook_runs(self, path: Path, tmp_path: Path) -> None:
        run(path, tmp_path)


def run(path: Path, folder: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(NO_PREVIEWS))
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    # And is committed with its outputs, for readers who do not run it.
    committed = nbformat.read(path, as_version=4)
    assert not any(output.get("name") == "stderr" for cell in committed.cells for output in cell.get("outputs", []))
    assert all(cell.outputs for cell in committed.cells if cell.cell_type == "code" and draws(cell.source))


def draws(source: str) -> bool:
    return source.startswith("tl.plots.")
