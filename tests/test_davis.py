"""DAVIS 2016 and 2017 from folders of their layouts."""

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
    with pytest.raises(tl.TedlensError, match=r"val\.txt names '\.\./\.\..*no folder's name"):
        tl.datasets.davis(tmp_path / "DAVIS")
    (tmp_path / "DAVIS/ImageSets/2017/val.txt").write_text("a-clip\n..\n")
    with pytest.raises(tl.TedlensError, match=r"val\.txt names '\.\.'"):
        tl.datasets.davis(tmp_path / "DAVIS")


def test_test_dev_has_the_first_mask_only(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "DAVIS")
    (copy / "ImageSets" / "2017" / "test-dev.txt").write_text("a-clip\n")
    for file in sorted((copy / "Annotations" / "480p" / "a-clip").iterdir())[1:]:
        file.unlink()
    (clip,) = tl.datasets.davis(copy, "test-dev")
    assert clip.annotated.tolist() == [True, False, False, False]


@pytest.fixture
def davis_2016(tmp_path: Path) -> Path:
    """Lists of pictures and their annotations, which are 0 and 255, and stay so where the object is away."""
    root = tmp_path / "DAVIS"
    masks = np.zeros((3, 24, 40), np.uint8)
    masks[:2, 4:16, 5:20] = 255
    lines = []
    for name in ("swan", "bear"):
        for kind, values in (("JPEGImages", np.stack([masks] * 3, -1)), ("Annotations", masks)):
            (root / kind / "480p" / name).mkdir(parents=True)
            for t, value in enumerate(values):
                ending = "jpg" if kind == "JPEGImages" else "png"
                PIL.Image.fromarray(value).save(root / kind / "480p" / name / f"{t:05d}.{ending}")
        lines += [f"/JPEGImages/480p/{name}/{t:05d}.jpg /Annotations/480p/{name}/{t:05d}.png " for t in range(3)]
    (root / "ImageSets" / "480p").mkdir(parents=True)
    (root / "ImageSets" / "480p" / "val.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("year", ["2016", 2016])
def test_one_object_in_2016(davis_2016: Path, year: str | int) -> None:
    clips = tl.datasets.davis(davis_2016, year=year)
    assert clips.names == ("swan", "bear")
    clip = clips["bear"]
    assert clip.masks is not None
    assert clip.object_ids == (1,)
    assert (clip.masks == 1).sum((1, 2)).tolist() == [180, 180, 0]
    assert clip.annotated.all()


def test_2016_out_of_the_archive_of_2017(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "DAVIS")
    (copy / "ImageSets" / "2016").mkdir()
    (copy / "ImageSets" / "2016" / "val.txt").write_text("a-clip\n")
    (clip,) = tl.datasets.davis(copy, year="2016")
    both = tl.datasets.davis(copy)["a-clip"]
    assert both.object_ids == (1, 2)
    assert both.masks is not None
    np.testing.assert_array_equal(clip.masks, both.masks > 0)


def test_what_is_no_davis_2016(davis_2016: Path) -> None:
    with pytest.raises(tl.TedlensError, match=r"year='2019' is no year .* 2016, 2017"):
        tl.datasets.davis(davis_2016, year="2019")
    with pytest.raises(tl.TedlensError, match=r"no lists of clips in ImageSets/2017; get DAVIS 2017 .*davischallenge"):
        tl.datasets.davis(davis_2016)
    (davis_2016 / "ImageSets/480p/val.txt").write_text("/JPEGImages/480p/../00000.jpg /Annotations/480p/../0.png\n")
    with pytest.raises(tl.TedlensError, match=r"val\.txt names '\.\.'"):
        tl.datasets.davis(davis_2016, year="2016")
    (davis_2016 / "ImageSets/480p/val.txt").write_text("/JPEGImages/1080p/bear/00000.jpg /Annotations/x.png\n")
    with pytest.raises(tl.TedlensError, match=r"val\.txt names '/JPEGImages/1080p/bear/00000\.jpg'"):
        tl.datasets.davis(davis_2016, year="2016")
