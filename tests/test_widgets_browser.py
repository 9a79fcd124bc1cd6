"""The explorers in a real JupyterLab, in a headless Chromium: what a user moves and clicks changes the pictures.

Screenshots of each step are left in build/screenshots/.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored_results import SIZE, make_clip, store_all

import tedlens as tl
from tedlens.media.outlines import inside

pytest.importorskip("playwright", reason="needs playwright, which drives the browser: pip install playwright")

from jupyter_page import CHROMIUM, ROOT, cell, changes, chosen, click, drag, drawn, execute, figure, move, notebook_page
from playwright.sync_api import Page

if CHROMIUM is None:
    pytest.skip("needs a Chromium (Debian: apt-get install chromium)", allow_module_level=True)

SCREENSHOTS = ROOT / "build" / "screenshots"
CELLS = [
    "import tedlens as tl\nclip = tl.datasets.similar(2, size=64, frames=8)",
    "tl.widgets.pca_explorer('feats.zarr', clip, appearance='appearance.zarr')",
    "tl.widgets.tau_explorer('scores.zarr', clip=clip, labels='labels.zarr', feats='feats.zarr')",
    "tl.widgets.decomposition_explorer('matches.zarr', clip)",
    "import xarray as xr\n"
    "labels = xr.open_zarr('labels.zarr', consolidated=False)['labels'].sel(tau=600, block='up_2')\n"
    "tl.widgets.track_explorer(labels, clip)",
    "tl.widgets.track_explorer(labels, tl.Clip(clip.frames))",
    "tl.widgets.track_explorer(labels, clip)",
    "editor = tl.widgets.mask_editor(tl.Clip(clip.frames))\neditor",
    "model, layers = tl.load_video_model('mini'), ['up_2.attentions.1', 'up_2.temp_attentions.1']\n"
    "tl.widgets.attention_explorer(model, clip, tau=[200, 800], layers=layers)",
    "models = {'intact': model, 'cut': tl.ablate(model, 'temporal layers')}\n"
    "tl.widgets.prediction_explorer(models, clip, tau=[200, 800])",
]
PCA, TAU, DECOMPOSITION, TRACK, WRONG, TWIN, EDITOR, ATTENTION, PREDICTIONS = range(1, 10)  # cells
# What is no fault of a page of ours: a machine without network, and favicons. And what plotly.js writes where a plot is
# taken off the page (an output that is cleared, a kernel that is restarted) while a draw of it still waits: its `purge`
# deletes the layout, in which the waiting step then looks for range sliders. Nobody sees it, as the plot is gone.
HARMLESS = ("favicon", "ERR_INTERNET_DISCONNECTED", "ERR_NAME_NOT_RESOLVED", "'_rangeSliderData'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the notebook is, and what it reads."""
    made = tmp_path_factory.mktemp("lab")
    store_all(made)
    return made


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[Page]:
    """The notebook, all cells run. At the end no error may have been written to the console."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with notebook_page(folder, CELLS) as (page, errors):
        yield page
    assert [error for error in errors if not any(known in error for known in HARMLESS)] == []


def screenshot(page: Page, number: int, name: str) -> None:
    cell(page, number).screenshot(path=SCREENSHOTS / f"{name}.png")


def move_far(page: Page, number: int) -> None:
    """The frame slider to its other end, wherever an earlier test left it."""
    at_start = cell(page, number).locator(".widget-readout").first.inner_text() == "0"
    move(page, number, "frame", "End" if at_start else "Home")


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


def test_masks_are_drawn_with_the_mouse(lab: Page, folder: Path) -> None:
    picture, editor = figure(lab, EDITOR, 0), cell(lab, EDITOR)
    plane, before = picture.locator("rect.nsewdrag").first, drawn(picture)
    around = [(0.2, 0.25), (0.45, 0.2), (0.5, 0.55), (0.3, 0.6)]
    drag(lab, plane, around)  # the brush, which closes by itself
    before = changes(picture, before)
    editor.get_by_role("button", name="New object").click()
    editor.get_by_role("button", name="box").click()
    lab.wait_for_function("plot => plot.layout.dragmode === 'drawrect'", arg=picture.element_handle())
    drag(lab, plane, [(0.625, 0.75), (0.875, 0.875)])
    before = changes(picture, before)
    editor.get_by_role("button", name="polygon").click()
    lab.wait_for_function("plot => plot.layout.dragmode === false", arg=picture.element_handle())
    triangle = [(0.7, 0.1), (0.9, 0.1), (0.9, 0.3)]
    for share in (*triangle, triangle[0]):
        click(lab, plane, share)
        before = changes(picture, before)
    screenshot(lab, EDITOR, "editor")
    assert picture.evaluate("plot => plot.layout.shapes.length") == 0
    editor.get_by_role("button", name="Save masks").click()
    editor.get_by_text("Saved in masks: 8 masks, 1 of them drawn").wait_for()
    np.savez(folder / "frames.npz", frames=make_clip().frames)
    masks = tl.read_clip(folder / "frames.npz", masks=folder / "masks").masks
    assert masks is not None
    brushed = inside(np.array(around) * SIZE - 0.5, (SIZE, SIZE))
    assert ((masks[0] == 1) ^ brushed).sum() < 0.1 * brushed.sum()
    expected = np.zeros((SIZE, SIZE), bool)
    expected[48:56, 40:56] = True
    corners = np.floor(np.array(triangle) * SIZE)  # a click is on a pixel
    np.testing.assert_array_equal(masks[0] == 2, expected | inside(corners, (SIZE, SIZE)))
    assert (masks[1:] == 255).all()


def test_attention_explorer(lab: Page) -> None:
    query, heads, maps = (figure(lab, ATTENTION, place) for place in range(3))
    screenshot(lab, ATTENTION, "attention")
    before, shown = drawn(query), drawn(maps)
    click(lab, query.locator("rect.nsewdrag").first, (0.8, 0.2))
    before, shown = changes(query, before), changes(maps, shown)
    mark = json.loads(before)[1]
    assert abs(mark["x"][0] - 0.8 * 64) < 2
    assert abs(mark["y"][0] - 0.2 * 64) < 2
    click(lab, heads.locator("rect.nsewdrag").first, (0.1, 0.5))  # of three layers the second, and its first head
    assert len(json.loads(shown)) == 8
    assert len(json.loads(changes(maps, shown))) == 1
    assert [chosen(lab, ATTENTION, place) for place in range(2)] == [
        "up_2.temp_attentions.1.transformer_blocks.0.attn1", "0",
    ]  # fmt: skip
    move(lab, ATTENTION, "frame")
    changes(query, before)
    screenshot(lab, ATTENTION, "attention-clicked")


def test_prediction_explorer(lab: Page) -> None:
    pictures, curves = figure(lab, PREDICTIONS, 0), figure(lab, PREDICTIONS, 1)
    screenshot(lab, PREDICTIONS, "predictions")
    before, mark = drawn(pictures), drawn(curves, "layout")
    move(lab, PREDICTIONS, "frame")
    before = changes(pictures, before)
    click(lab, curves.locator(".scatterlayer .trace .points path").nth(1))
    changes(pictures, before)
    changes(curves, mark, "layout")
    assert cell(lab, PREDICTIONS).locator(".widget-readout").first.inner_text() == "800"
    screenshot(lab, PREDICTIONS, "predictions-moved")


def test_explorers_on_one_page_do_not_disturb_each_other(lab: Page) -> None:
    others = {n: drawn(figure(lab, n, 0)) for n in (PCA, TAU, DECOMPOSITION)}
    before = drawn(figure(lab, TRACK, 0))
    move_far(lab, TRACK)
    changes(figure(lab, TRACK, 0), before)
    assert {n: drawn(figure(lab, n, 0)) for n in others} == others


def test_two_explorers_of_one_result_do_not_disturb_each_other(lab: Page) -> None:
    for moved, other in ((TWIN, TRACK), (TRACK, TWIN)):
        before, still = drawn(figure(lab, moved, 0)), drawn(figure(lab, other, 0))
        readout = cell(lab, other).locator(".widget-readout").first.inner_text()
        move_far(lab, moved)
        changes(figure(lab, moved, 0), before)
        assert drawn(figure(lab, other, 0)) == still
        assert cell(lab, other).locator(".widget-readout").first.inner_text() == readout


def test_a_cell_that_is_run_again_works(lab: Page) -> None:
    old: Any = figure(lab, PCA, 0).element_handle()
    other = drawn(figure(lab, DECOMPOSITION, 0))
    cell(lab, PCA).locator(".jp-InputArea-editor").click()
    execute(lab, "notebook:run-cell")
    lab.wait_for_function("old => !old.isConnected", arg=old)
    before = drawn(figure(lab, PCA, 0))
    move(lab, PCA, "frame")
    changes(figure(lab, PCA, 0), before)
    assert drawn(figure(lab, DECOMPOSITION, 0)) == other


def test_what_does_not_fit_is_said_in_the_widget(lab: Page) -> None:
    wrong = cell(lab, WRONG)
    assert "has no masks to score by" in wrong.inner_text()
    # No traceback and no warning either, in any cell.
    assert lab.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert lab.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0
    screenshot(lab, WRONG, "no-masks")


def test_after_a_restart_of_the_kernel_everything_works_again(lab: Page) -> None:
    old: Any = figure(lab, DECOMPOSITION, 0).element_handle()
    execute(lab, "notebook:restart-run-all")
    lab.locator(".jp-Dialog button.jp-mod-accept").click()
    lab.wait_for_function("old => !old.isConnected", arg=old)
    before = drawn(figure(lab, DECOMPOSITION, 0))
    move(lab, DECOMPOSITION, "λ", "PageUp")
    changes(figure(lab, DECOMPOSITION, 0), before)
