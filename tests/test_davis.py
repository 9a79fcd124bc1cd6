"""DAVIS 2017 from a folder of its layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import tedlens as tl

NAMES = {"val": ["b-clip", "a-clip", "c-clip"], "train": ["d-clip"]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("davis") / "DAVIS"
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "Annotations" / "480p").mkdir(parents=True)
    for number, (subset, names) in enumerate(NAMES.items()):
        (root / "ImageSets" / "2017" / f"{subset}.txt").write_text("\n".join(names) + "\n")
        for place, name in enumerate(names):
            clip = tl.datasets.similar(10 * number + place, frames=3 + place, size=(24, 40))
            frames = root / "JPEGImages" / "480p" / name
            frames.mkdir(parents=True)
            for t, frame in enumerate(clip.frames):
                PIL.Image.fromarray(frame).save(frames / f"{t:05d}.jpg")
            tl.write_masks(clip.masks, root / "Annotations" / "480p" / name)
    return root


def test_clips_in_the_order_of_the_list(root: Path) -> None:
    clips = tl.datasets.davis(root)
    assert clips.names == ("b-clip", "a-clip", "c-clip")
    assert [len(clip) for clip in clips] == [3, 4, 5]
    assert clips[1].name == clips["a-clip"].name == clips[-2].name == "a-clip"
    expected = tl.datasets.similar(1, frames=4, size=(24, 40))
    np.testing.assert_array_equal(clips["a-clip"].masks, expected.masks)
    assert clips[0].fps == 24
    assert clips[1:].names == ("a-clip", "c-clip")
    assert [clip.name for clip in tl.datasets.davis(str(root), subset="train")] == ["d-clip"]
    with pytest.raises(IndexError):
        clips[3]


def test_a_clip_is_read_when_it_is_asked_for(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "DAVIS"
    shutil.copytree(root, copy)
    (copy / "JPEGImages" / "480p" / "a-clip" / "00001.jpg").write_bytes(b"broken")
    clips = tl.datasets.davis(copy)
    assert len(clips[0]) == 3
    with pytest.raises(tl.TedlensError, match=r"00001\.jpg"):
        clips[1]


def test_what_is_no_davis(root: Path, tmp_path: Path) -> None:
    with pytest.raises(tl.TedlensError, match=r"no lists of clips .* ImageSets/2017"):
        tl.datasets.davis(tmp_path)
    with pytest.raises(tl.TedlensError, match=r"subset='test' .* train, val"):
        tl.datasets.davis(root, subset="test")
    with pytest.raises(tl.TedlensError, match=r"no clip 'e-clip' here; choose one of b-clip"):
        tl.datasets.davis(root)["e-clip"]
    copy = tmp_path / "DAVIS"
    shutil.copytree(root, copy)
    shutil.rmtree(copy / "Annotations" / "480p" / "c-clip")
    with pytest.raises(tl.TedlensError, match=r"Annotations/480p lacks 1 of 3 clips \(c-clip\)"):
        tl.datasets.davis(copy)


def test_a_list_that_leaves_its_folder_is_refused(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "DAVIS")
    (tmp_path / "DAVIS/ImageSets/2017/val.txt").write_text("a-clip\n../../Annotations/480p/a-clip\n")
    with pytest.raises(tl.TedlensError, match=r"val\.txt names \.\./\.\..*no folder's name"):
        tl.datasets.davis(tmp_path / "DAVIS")
