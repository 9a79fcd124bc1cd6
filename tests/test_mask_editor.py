"""Masks drawn by hand, without a browser: which pixels an outline takes, and that files give the masks back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tedlens as tl
from tedlens.media.outlines import inside

pytest.importorskip("ipywidgets")
pytest.importorskip("anywidget")


@pytest.fixture
def clip() -> tl.Clip:
    return tl.Clip(np.random.default_rng(0).integers(0, 256, (4, 12, 16, 3), np.uint8), name="four")


def sentence(editor: Any) -> str:
    return str(editor.message.value.removeprefix("<b>").removesuffix("</b>"))


def draw(editor: Any, **shape: Any) -> None:
    """As the browser says that a shape was drawn."""
    editor.picture.plot.plotly_relayout({"shapes": [shape]})


def box(editor: Any, x0: float, y0: float, x1: float, y1: float) -> None:
    draw(editor, type="rect", x0=x0, y0=y0, x1=x1, y1=y1)


# --- outlines ---------------------------------------------------------------------------------------


def test_a_box_takes_the_pixels_whose_centres_it_holds() -> None:
    found = inside([(1.4, 2.0), (4.6, 2.0), (4.6, 5.0), (1.4, 5.0)], (8, 10))
    expected = np.zeros((8, 10), bool)
    expected[2:5, 2:5] = True  # the upper edge, at 2, takes its centres; the lower, at 5, does not
    np.testing.assert_array_equal(found, expected)


def test_neighbours_share_no_pixel_and_leave_none() -> None:
    rng = np.random.default_rng(1)
    middle = [tuple(point) for point in rng.integers(2, 14, (5, 2))]  # corners on centres, too
    left = inside([(-1, -1), *middle, (-1, 16)], (16, 16))
    right = inside([(16, 16), (-1, 16), *middle[::-1], (-1, -1), (16, -1)], (16, 16))
    np.testing.assert_array_equal(left ^ right, np.ones((16, 16), bool))


def test_any_outline_agrees_with_the_definition() -> None:
    """By the even-odd rule, counted for each pixel alone; direction and first corner do not matter."""
    rng = np.random.default_rng(2)
    for _ in range(20):
        outline = rng.uniform(-3, 15, (7, 2))  # crosses itself, and leaves the picture
        found = inside(outline, (10, 12))
        for y in range(10):
            for x in range(12):
                crossings = 0
                for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, 1, axis=0), strict=True):
                    if min(y0, y1) <= y < max(y0, y1):
                        crossings += x0 + (x1 - x0) * (y - y0) / (y1 - y0) > x
                assert found[y, x] == crossings % 2
        np.testing.assert_array_equal(found, inside(np.roll(outline[::-1], 3, axis=0), (10, 12)))


# --- the editor -------------------------------------------------------------------------------------


def test_what_is_drawn_becomes_a_mask(clip: tl.Clip) -> None:
    editor: Any = tl.widgets.mask_editor(clip)
    assert editor.clip.masks is None
    box(editor, 1.5, 1.5, 4.5, 3.5)
    editor.new.click()
    draw(editor, type="path", path="M6.5,5.5L9.5,5.5L9.5,8.5L6.5,8.5Z")
    expected = np.zeros((12, 16), np.uint8)
    expected[2:4, 2:5], expected[6:9, 7:10] = 1, 2
    np.testing.assert_array_equal(editor.clip.masks[0], expected)
    assert (editor.clip.masks[1:] == 255).all()  # nobody has said
    assert not editor.picture.plot.to_dict()["layout"]["shapes"]  # seen are the pixels
    assert editor.clip.object_ids == (1, 2)
    editor.object.value = "background"
    box(editor, 1.5, 1.5, 2.5, 3.5)
    expected[2:4, 2] = 0
    np.testing.assert_array_equal(editor.clip.masks[0], expected)
    editor.undo.click()
    expected[2:4, 2] = 1
    np.testing.assert_array_equal(editor.clip.masks[0], expected)
    shown = editor.picture.plot.data[0].source
    assert shown == tl.plots.overlay(editor.clip, editor.clip.masks, frames=[0]).data[0].source


def test_an_object_that_enters_later_leaves_the_rest_void(clip: tl.Clip) -> None:
    editor: Any = tl.widgets.mask_editor(clip)
    box(editor, -1, -1, 3.5, 3.5)
    editor.new.click()
    editor.frame.value = 2
    box(editor, 5.5, 5.5, 7.5, 7.5)
    later = np.full((12, 16), 255, np.uint8)
    later[6:8, 6:8] = 2
    np.testing.assert_array_equal(editor.clip.masks[2], later)
    assert set(np.unique(editor.clip.masks[0])) == {0, 1}
    editor.frame.value = 0
    editor.undo.click()
    assert editor.frame.value == 2  # where it was drawn
    assert (editor.clip.masks[2] == 255).all()


def test_a_polygon_is_closed_at_its_first_corner(clip: tl.Clip) -> None:
    editor: Any = tl.widgets.mask_editor(clip)
    editor.add_corner(None, 2, 2)  # of no polygon
    assert editor.corners == []
    editor.tool.value = "polygon"
    assert "click one corner" in editor.hint.value.lower()
    for x, y in ((2, 2), (10, 2), (15, 11), (10, 9)):
        editor.add_corner(None, x, y)
    editor.undo.click()  # the last corner
    assert list(editor.picture.plot.data[1].x) == [2, 10, 15]
    assert editor.clip.masks is None
    editor.add_corner(None, 10, 9)
    editor.add_corner(None, 2, 2)
    np.testing.assert_array_equal(editor.clip.masks[0] == 1, inside([(2, 2), (10, 2), (15, 11), (10, 9)], (12, 16)))
    assert len(editor.picture.plot.data[1].x) == 0


def test_masks_of_the_clip_can_be_changed(clip: tl.Clip) -> None:
    masks = np.full((4, 12, 16), 255, np.uint8)
    masks[1] = 0
    masks[1, 3:6, 3:6] = 7
    masks[1, 0] = 255
    editor: Any = tl.widgets.mask_editor(tl.Clip(clip.frames, masks))
    np.testing.assert_array_equal(editor.clip.masks, masks)
    assert editor.object.value == 7
    editor.frame.value = 1
    box(editor, 5.5, 2.5, 7.5, 5.5)
    masks[1, 3:6, 6:8] = 7
    np.testing.assert_array_equal(editor.clip.masks, masks)


def test_files_give_the_masks_back(clip: tl.Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tl.write_video(np.repeat(np.repeat(clip.frames, 4, 1), 4, 2), "video.mp4")
    editor: Any = tl.widgets.mask_editor("video.mp4")
    box(editor, 3, 3, 20, 20)
    for frame, x in ((2, 30), (3, 40)):
        editor.new.click()
        editor.frame.value = frame
        box(editor, x, 10, x + 8, 40)
    editor.save_as.click()
    assert sentence(editor) == "Saved in masks: 4 masks, 3 of them drawn; tl.read_clip(.., masks=..) reads them."
    np.testing.assert_array_equal(tl.read_clip("video.mp4", masks="masks").masks, editor.clip.masks)
    editor.undo.click()
    editor.save_as.click()  # its own masks are replaced
    np.testing.assert_array_equal(tl.read_clip("video.mp4", masks="masks").masks, editor.clip.masks)
    labels = tl.propagate(tl.analysis.references(editor.clip, (12, 16))["colour"], editor.clip.masks)
    assert set(np.unique(labels[2:])) == {0, 1, 2}


def test_files_are_named_as_the_frames_are(clip: tl.Clip, tmp_path: Path) -> None:
    from PIL import Image

    frames = tmp_path / "frames"
    frames.mkdir()
    for number, frame in enumerate(clip.frames, start=1):
        Image.fromarray(frame).save(frames / f"{number:05d}.png")
    editor: Any = tl.widgets.mask_editor(frames)
    editor.frame.value = 1
    box(editor, 1, 1, 9, 9)
    editor.save_masks(tmp_path / "masks")
    np.testing.assert_array_equal(tl.read_clip(frames, masks=tmp_path / "masks").masks, editor.clip.masks)


def test_masks_of_a_part_are_of_its_frames(clip: tl.Clip, tmp_path: Path) -> None:
    tl.write_video(np.repeat(np.repeat(clip.frames, 4, 1), 4, 2), tmp_path / "video.mp4")
    editor: Any = tl.widgets.mask_editor(tl.read_clip(tmp_path / "video.mp4", start=1, stride=2))
    editor.frame.value = 1  # the last of the video
    box(editor, 1, 1, 9, 9)
    editor.save_masks(tmp_path / "masks")
    whole = tl.read_clip(tmp_path / "video.mp4", masks=tmp_path / "masks")
    assert whole.annotated.tolist() == [False, False, False, True]
    np.testing.assert_array_equal(whole.masks[[1, 3]], editor.clip.masks)


def test_what_cannot_be_is_said(clip: tl.Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    editor: Any = tl.widgets.mask_editor(clip)
    editor.undo.click()
    assert sentence(editor) == "Nothing was drawn that could be undone."
    editor.save_as.click()
    assert sentence(editor) == "There are no masks to save; draw an object first."
    box(editor, 1.2, 1.2, 1.4, 1.4)
    assert "no pixel" in sentence(editor)
    assert editor.clip.masks is None
    box(editor, 1, 1, 5, 5)
    assert sentence(editor) == ""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    editor.folder.value = "mine"
    editor.save_as.click()
    assert "holds notes.txt" in sentence(editor)
    editor.folder.value = " "
    editor.save_as.click()
    assert "folder is empty" in sentence(editor)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "notes.txt"]
    assert "does not exist" in sentence(tl.widgets.mask_editor(tmp_path / "none.mp4"))
    ids = np.full((4, 12, 16), 254, np.uint8)
    editor = tl.widgets.mask_editor(tl.Clip(clip.frames, ids))
    editor.new.click()
    assert "254 is in use" in sentence(editor)
