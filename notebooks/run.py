"""Run notebooks from a clean kernel and keep their outputs, as they are committed.

    python notebooks/run.py                        # all of them
    python notebooks/run.py 02_tau_and_blocks ...  # some

What a widget shows is left out: it would not move without its kernel, and the plot below it is its picture. So is
what goes to stderr.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"


def run(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources=resources, store_widget_state=False
        ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not left_out(output)]
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


def left_out(output: nbformat.NotebookNode) -> bool:
    """Widgets, and what libraries log of the machine that they ran on."""
    return WIDGET in output.get("data", {}) or output.get("name") == "stderr"


if __name__ == "__main__":
    here = Path(__file__).parent
    for name in sys.argv[1:] or [path.stem for path in sorted(here.glob("*.ipynb"))]:
        began = time.monotonic()
        run(here / f"{name}.ipynb")
        print(f"{name}: {time.monotonic() - began:.0f} s")
