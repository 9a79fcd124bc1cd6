"""A JupyterLab of its own with a notebook, in a headless Chromium, and what a user does there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nbformat
from playwright.sync_api import Locator, Page, sync_playwright

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT = 120_000  # milliseconds, at most: kernels start slowly on busy machines
# No question about news, and every cell drawn, on screen or not.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


@contextmanager
def notebook_page(folder: Path, cells: Sequence[str]) -> Iterator[tuple[Page, list[str]]]:
    """A page with a notebook of these cells in `folder`, all run, and a list of what its console calls errors."""
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, folder / "notebook.ipynb")
    errors: list[str] = []
    with jupyterlab(folder) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(f"{address}/lab/tree/notebook.ipynb")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        execute(page, "notebook:run-all-cells")
        yield page, errors
        browser.close()


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """Address of a JupyterLab that knows nothing of the user's settings."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--ip=127.0.0.1", f"--port={port}"]
    options += ["--ServerApp.token=", "--ServerApp.password=", f"--ServerApp.root_dir={folder}"]
    with tempfile.TemporaryDirectory() as home, (Path(home) / "log").open("w") as log:
        for name, settings in SETTINGS.items():
            path = Path(home) / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(settings))
        environment = os.environ | {
            "JUPYTERLAB_SETTINGS_DIR": f"{home}/settings",
            "JUPYTER_CONFIG_DIR": f"{home}/config",
            "JUPYTER_RUNTIME_DIR": f"{home}/runtime",
            "IPYTHONDIR": f"{home}/ipython",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        }
        command = [sys.executable, "-m", "jupyterlab", *options]
        running = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            _wait_for(f"http://127.0.0.1:{port}", running)
            yield f"http://127.0.0.1:{port}"
        finally:
            running.terminate()
            running.wait(timeout=30)


def _wait_for(address: str, running: subprocess.Popen[bytes]) -> None:
    for _ in range(WAIT // 500):
        assert running.poll() is None, "JupyterLab ended before it answered"
        try:
            urllib.request.urlopen(f"{address}/api/status", timeout=5)
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise TimeoutError("JupyterLab did not answer")


def execute(page: Page, command: str) -> None:
    page.wait_for_function("window.jupyterapp && jupyterapp.shell.currentWidget?.sessionContext?.isReady")
    # Not awaited: a restart asks first, and its answer is ours to give.
    page.evaluate(f"() => {{ jupyterapp.commands.execute('{command}') }}")


# --- what is on the page ----------------------------------------------------------------------------


def cell(page: Page, number: int) -> Locator:
    found = page.locator(".jp-Notebook .jp-CodeCell").nth(number)
    found.locator(".widget-vbox").first.wait_for()
    found.scroll_into_view_if_needed()
    return found


def figure(page: Page, number: int, place: int) -> Locator:
    """The figure at a place in a cell, once it is drawn."""
    found = cell(page, number).locator(".js-plotly-plot").nth(place)
    found.locator(".main-svg").first.wait_for()
    return found


DRAWN = "(plot, part) => JSON.stringify(part === 'layout' ? [plot.layout.shapes, plot.layout.annotations] : plot.data)"


def drawn(plot: Locator, part: str = "data") -> str:
    """The data of a figure as text, numbers and pictures and all."""
    return str(plot.evaluate(DRAWN, part))


def changes(plot: Locator, before: str, part: str = "data") -> str:
    """Waits until a figure is another than it was."""
    for _ in range(WAIT // 100):
        if drawn(plot, part) != before:
            return drawn(plot, part)
        time.sleep(0.1)
    raise AssertionError("the figure stayed as it was")


def move(page: Page, number: int, slider: str, key: str = "ArrowRight") -> None:
    """One step of a slider, found by its name."""
    box = cell(page, number).locator(".widget-hslider", has_text=slider).first
    box.locator(".noUi-handle").first.focus()
    page.keyboard.press(key)


def click(page: Page, target: Locator, share: tuple[float, float] = (0.5, 0.5)) -> None:
    """A real click, at a place within what is clicked."""
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    assert box is not None
    x, y = box["x"] + share[0] * box["width"], box["y"] + share[1] * box["height"]
    page.mouse.move(x - 3, y - 3)
    page.mouse.move(x, y, steps=3)
    page.wait_for_timeout(300)  # plotly clicks what it found under the pointer
    page.mouse.click(x, y)


def drag(page: Page, target: Locator, shares: Sequence[tuple[float, float]]) -> None:
    """The mouse held down from place to place within what is dragged over."""
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    assert box is not None
    for number, (x, y) in enumerate(shares):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4 if number else 1)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def chosen(page: Page, number: int, place: int) -> str:
    """What a drop-down shows."""
    shown = "select => select.options[select.selectedIndex].text"
    return str(cell(page, number).locator("select").nth(place).evaluate(shown))
