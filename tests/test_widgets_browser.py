"""The explorers in a real JupyterLab, in a headless Chromium: what a user moves and clicks changes the pictures.

Screenshots of each step are left in build/screenshots/.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from stored_results import store_all

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if importlib.util.find_spec("playwright") is None or CHROMIUM is None:
    pytest.skip("needs playwright (pip) and a Chromium (Debian: apt-get install chromium)", allow_module_level=True)

from playwright.sync_api import Locator, Page, sync_playwright  # noqa: E402

ROOT = Path(__file__).parents[1]
SCREENSHOTS = ROOT / "build" / "screenshots"
WAIT = 120_000  # milliseconds, at most: kernels start slowly on busy machines
CELLS = [
    "import tedlens as tl\nclip = tl.datasets.similar(2, size=64, frames=8)",
    "tl.widgets.pca_explorer('feats.zarr', clip, appearance='appearance.zarr')",
    "tl.widgets.tau_explorer('scores.zarr', clip=clip, labels='labels.zarr', feats='feats.zarr')",
    "tl.widgets.decomposition_explorer('matches.zarr', clip)",
    "import xarray as xr\n"
    "labels = xr.open_zarr('labels.zarr', consolidated=False)['labels'].sel(tau=600, block='up_2')\n"
    "tl.widgets.track_explorer(labels, clip)",
    "tl.widgets.track_explorer(labels, tl.Clip(clip.frames))",
]
PCA, TAU, DECOMPOSITION, TRACK, WRONG = range(1, 6)  # cells
# What is no fault of a page of ours: a machine without network, and favicons.
HARMLESS = ("favicon", "ERR_INTERNET_DISCONNECTED", "ERR_NAME_NOT_RESOLVED")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a JupyterLab of its own, whose folder has the notebook and the stores."""
    folder, home = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("home")
    store_all(folder)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "explorers.ipynb")
    # No question about news, and every cell drawn, on screen or not.
    for name, settings in (
        ("apputils-extension/notification", {"fetchNews": "false", "checkForUpdates": False}),
        ("notebook-extension/tracker", {"windowingMode": "none"}),
    ):
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }
    options = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--ip=127.0.0.1", f"--port={port}"]
    options += ["--ServerApp.token=", "--ServerApp.password=", f"--ServerApp.root_dir={folder}"]
    with (home / "log").open("w") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=environment, cwd=folder, stdout=log, stderr=log
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(address, running)
            yield address
        finally:
            running.terminate()
            running.wait(timeout=30)


def wait_for(address: str, running: subprocess.Popen[bytes]) -> None:
    for _ in range(WAIT // 500):
        assert running.poll() is None, "JupyterLab ended before it answered"
        try:
            urllib.request.urlopen(f"{address}/api/status", timeout=5)
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise TimeoutError("JupyterLab did not answer")


@pytest.fixture(scope="module")
def lab(server: str) -> Iterator[Page]:
    """The notebook, all cells run. At the end no error may have been written to the console."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(f"{server}/lab/tree/explorers.ipynb")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        run_all(page, "notebook:run-all-cells")
        yield page
        browser.close()
    assert [error for error in errors if not any(known in error for known in HARMLESS)] == []


def run_all(page: Page, command: str) -> None:
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


def screenshot(page: Page, number: int, name: str) -> None:
    cell(page, number).screenshot(path=SCREENSHOTS / f"{name}.png")


# --- the explorers ----------------------------------------------------------------------------------


def test_pca_explorer(lab: Page) -> None:
    pictures, similarities = figure(lab, PCA, 0), figure(lab, PCA, 1)
    screenshot(lab, PCA, "pca")
    before, similar = drawn(pictures), drawn(similarities)
    move(lab, PCA, "frame")
    before = changes(pictures, before)
    assert drawn(similarities) == similar  # they do not depend on the frame
    move(lab, PCA, "τ")
    before, similar = changes(pictures, before), changes(similarities, similar)
    cell(lab, PCA).locator("select").first.select_option("up_1")
    before, similar = changes(pictures, before), changes(similarities, similar)
    click(lab, pictures.locator("rect.nsewdrag").nth(2), (0.3, 0.4))
    changed = changes(similarities, similar)
    circle = next(trace for trace in json.loads(changed) if trace.get("marker", {}).get("symbol") == "circle-open")
    assert abs(circle["x"][0] - 0.3 * 64) < 8
    assert abs(circle["y"][0] - 0.4 * 64) < 8  # within a cell of the coarse block
    move(lab, PCA, "λ")
    changes(similarities, changed)
    screenshot(lab, PCA, "pca-clicked")


def test_tau_explorer(lab: Page) -> None:
    curves, blocks = figure(lab, TAU, 0), figure(lab, TAU, 1)
    screenshot(lab, TAU, "tau")
    before, map_before = drawn(curves), drawn(blocks)
    cell(lab, TAU).locator("select").first.select_option("F")
    before = changes(curves, before)
    changes(blocks, map_before)
    cell(lab, TAU).locator("select").nth(1).select_option("log_snr")
    changes(curves, before)
    click(lab, curves.locator(".scatterlayer .trace .points path").nth(1))
    track, pca = figure(lab, TAU, 2), figure(lab, TAU, 3)
    opened, colours = drawn(track), drawn(pca)
    click(lab, blocks.locator("rect.nsewdrag").first, (0.9, 0.8))
    changes(track, opened)
    changes(pca, colours)
    assert "tau 900, block up_1" in cell(lab, TAU).inner_text()
    screenshot(lab, TAU, "tau-clicked")


def test_decomposition_explorer(lab: Page) -> None:
    maps, margins = figure(lab, DECOMPOSITION, 0), figure(lab, DECOMPOSITION, 1)
    screenshot(lab, DECOMPOSITION, "decomposition")
    before, margin = drawn(maps), drawn(margins)
    move(lab, DECOMPOSITION, "λ", "PageUp")
    before, margin = changes(maps, before), changes(margins, margin)
    move(lab, DECOMPOSITION, "frame")
    before = changes(maps, before)
    assert drawn(margins) == margin  # all frames are there; only the mark moves
    mark = drawn(margins, "layout")
    click(lab, margins.locator(".scatterlayer .trace .points path").nth(5))
    changes(maps, before)
    changes(margins, mark, "layout")
    screenshot(lab, DECOMPOSITION, "decomposition-moved")


def test_track_explorer(lab: Page) -> None:
    pictures, curves = figure(lab, TRACK, 0), figure(lab, TRACK, 1)
    screenshot(lab, TRACK, "track")
    before, mark = drawn(pictures), drawn(curves, "layout")
    move(lab, TRACK, "frame")
    before, mark = changes(pictures, before), changes(curves, mark, "layout")
    click(lab, curves.locator(".scatterlayer .trace .points path").nth(5))
    before = changes(pictures, before)
    assert cell(lab, TRACK).locator(".widget-readout").first.inner_text() == "5"
    cell(lab, TRACK).locator(".widget-play button").first.click()
    changes(pictures, before)
    cell(lab, TRACK).locator(".widget-play button").first.click()
    screenshot(lab, TRACK, "track-moved")


def test_explorers_on_one_page_do_not_disturb_each_other(lab: Page) -> None:
    others = {n: drawn(figure(lab, n, 0)) for n in (PCA, TAU, DECOMPOSITION)}
    before = drawn(figure(lab, TRACK, 0))
    at_start = cell(lab, TRACK).locator(".widget-readout").first.inner_text() == "0"
    move(lab, TRACK, "frame", "End" if at_start else "Home")
    changes(figure(lab, TRACK, 0), before)
    assert {n: drawn(figure(lab, n, 0)) for n in others} == others


def test_what_does_not_fit_is_said_in_the_widget(lab: Page) -> None:
    wrong = cell(lab, WRONG)
    assert "has no masks to score by" in wrong.inner_text()
    # No traceback and no warning either, in any cell.
    assert lab.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert lab.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0
    screenshot(lab, WRONG, "no-masks")


def test_after_a_restart_of_the_kernel_everything_works_again(lab: Page) -> None:
    old: Any = figure(lab, DECOMPOSITION, 0).element_handle()
    run_all(lab, "notebook:restart-run-all")
    lab.locator(".jp-Dialog button.jp-mod-accept").click()
    lab.wait_for_function("old => !old.isConnected", arg=old)
    before = drawn(figure(lab, DECOMPOSITION, 0))
    move(lab, DECOMPOSITION, "λ", "PageUp")
    changes(figure(lab, DECOMPOSITION, 0), before)
