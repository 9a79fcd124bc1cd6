"""From the step of a slider to the changed picture, in JupyterLab in a headless Chromium.

    python tests/benchmarks/widgets.py

On a small store, and on one of three taus of 640 channels in 16 frames of 64x64 cells (500 MB), opened lazily.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import xarray as xr
from jupyter_page import figure, move, notebook_page
from playwright.sync_api import Page
from stored_results import store_all, tree_of

import tedlens as tl

STEPS = 8  # of each slider
CHANNELS, FRAMES, SIDE, TAUS = 640, 16, 64, [100, 600, 900]
CELLS = [
    "import tedlens as tl\nsmall, large = (tl.datasets.similar(2, size=s, frames=f) for s, f in ((64, 8), (128, 16)))",
    "tl.widgets.pca_explorer('feats.zarr', small, appearance='appearance.zarr')",
    "tl.widgets.tau_explorer('scores.zarr')",
    "tl.widgets.decomposition_explorer('matches.zarr', small)",
    "tl.widgets.pca_explorer('large.zarr', large)",
    "tl.widgets.decomposition_explorer('large_matches.zarr', large)",
]
# What is moved: name, cell, slider, figure that changes.
SLIDERS = [
    ("PCA, small store: frame", 1, "frame", 0),
    ("PCA, small store: τ", 1, "τ", 0),
    ("PCA, small store: λ, of similarities", 1, "λ", 1),
    ("decomposition, 16x16 cells, 8 frames: λ", 3, "λ", 0),
    ("PCA, large store: frame", 4, "frame", 0),
    ("PCA, large store: τ, first seen and again", 4, "τ", 0),
    ("decomposition, 64x64 cells, 16 frames: λ", 5, "λ", 0),
]


def store_large(folder: Path) -> None:
    """Random features, and matches of as many candidates as such features were seen to have."""
    rng = np.random.default_rng(0)
    frames, cells = np.arange(FRAMES), 2.0 * np.arange(SIDE) + 0.5
    shape = (len(TAUS), 1, FRAMES, CHANNELS, SIDE, SIDE)
    dims = ("tau", "seed", "frame", "channel", "y", "x")
    coords = {"tau": TAUS, "seed": [0], "frame": frames, "y": cells, "x": cells}
    feats = xr.DataArray(rng.standard_normal(shape, np.float32), dims=dims, coords=coords)
    tl.save(tree_of({"up_2": feats}), folder / "large.zarr")
    clip = tl.datasets.similar(2, size=2 * SIDE, frames=FRAMES)
    assert clip.masks is not None
    truth = tl.clip.on_grid(clip.masks, (SIDE, SIDE))[1:]
    matched = np.sort(rng.random((2, 11, 3, FRAMES - 1, SIDE, SIDE), np.float32), 1)
    axes = ("candidate", "object", "frame", "y", "x")
    matches = xr.Dataset(
        {"motion": (axes, matched[0][::-1]), "appearance": (axes, matched[1]), "truth": (axes[2:], truth)},
        coords={"object": [0, 1, 2], "frame": frames[1:], "y": cells, "x": cells},
    )
    tl.save(matches, folder / "large_matches.zarr")


# In the page, so that nothing else is timed: from the key until the figure is another and the screen was painted.
TIMED = """plot => {
    const drawn = () => JSON.stringify(plot.data), before = drawn()
    window.stepTaken = new Promise((done, fail) => {
        document.addEventListener('keydown', () => {
            const pressed = performance.now()
            const look = setInterval(() => {
                if (drawn() !== before) {
                    clearInterval(look)
                    requestAnimationFrame(() => requestAnimationFrame(() => done((performance.now() - pressed) / 1000)))
                } else if (performance.now() - pressed > 30000) {
                    clearInterval(look)
                    fail('the figure stayed as it was')
                }
            }, 10)
        }, {once: true, capture: true})
    })
}"""
ASK_KERNEL = """async code => {
    const asked = jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code})
    let answer = ''
    asked.onIOPub = message => { answer += message.content.text ?? '' }
    await asked.done
    return answer
}"""


def step_seconds(page: Page, number: int, slider: str, place: int) -> list[float]:
    """Seconds from each key press to the changed figure."""
    plot, taken = figure(page, number, place), []
    for step in range(STEPS):
        plot.evaluate(TIMED)
        move(
            page, number, slider, "ArrowRight" if step % 4 < 2 else "ArrowLeft"
        )  # two up, two down: there are three taus
        taken.append(float(page.evaluate("stepTaken")))
        page.wait_for_timeout(500)
    return taken


def kernel_megabytes(page: Page) -> float:
    """The most memory that the kernel has had."""
    code = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    return float(page.evaluate(ASK_KERNEL, code))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store_all(folder)
        store_large(folder)
        with notebook_page(folder, CELLS) as (page, _):
            for number in range(1, len(CELLS)):
                figure(page, number, 0)
            page.wait_for_timeout(3000)  # until nothing is drawn any more
            print("| slider | median s | longest s |\n|---|---|---|")
            for name, number, slider, place in SLIDERS:
                taken = step_seconds(page, number, slider, place)
                print(f"| {name} | {statistics.median(taken):.2f} | {max(taken):.2f} |", flush=True)
            print(f"\nMemory of the kernel, at most: {kernel_megabytes(page):.0f} MB")


if __name__ == "__main__":
    main()
