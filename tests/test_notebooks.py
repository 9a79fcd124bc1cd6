"""Every notebook runs from a clean kernel."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    # And is committed with its outputs, for readers who do not run it.
    committed = nbformat.read(path, as_version=4)
    assert not any(output.get("name") == "stderr" for cell in committed.cells for output in cell.get("outputs", []))
    assert all(cell.outputs for cell in committed.cells if cell.cell_type == "code" and draws(cell.source))


def draws(source: str) -> bool:
    return source.startswith("tl.plots.")
