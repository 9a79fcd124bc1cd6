"""Readers of data sets, each from a tiny folder in its official layout, with what is awkward in real ones."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.io
import xarray as xr
from PIL import Image
from test_clip import one_sentence

import tedlens as tl
from tedlens.datasets.layout import Clips

HEIGHT, WIDTH = 24, 36
Array = npt.NDArray[Any]
rng = np.random.default_rng(0)


def picture(shade: int = 90, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Array:
    """A smooth picture, of a shade that is still known after JPEG."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.stack([y + shade, x + shade, np.full(size, shade)], -1).astype(np.uint8)


def mask(*ids: int) -> Array:
    """Squares of 8 pixels side by side, one an id, on background."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for place, number in enumerate(ids):
        labels[4:12, 9 * place : 9 * place + 8] = number
    return labels


def write_video(folder: Path, names: Sequence[str], ending: str = ".jpg") -> None:
    folder.mkdir(parents=True)
    for shade, name in enumerate(names):
        Image.fromarray(picture(60 + 10 * shade)).save(folder / f"{name}{ending}")


def write_vos(split: Path, name: str, frames: Sequence[str], masks: Mapping[str, Array]) -> None:
    """A video in the layout of YouTube-VOS."""
    write_video(split / "JPEGImages" / name, frames)
    (split / "Annotations").mkdir(exist_ok=True)
    tl.write_masks(np.stack(list(masks.values())), split / "Annotations" / name, list(masks))


def steps(*numbers: int, digits: int = 5) -> list[str]:
    return [f"{number:0{digits}d}" for number in numbers]


def truth(data: xr.Dataset | None) -> xr.Dataset:
    assert data is not None
    return data


def masks_of(clip: tl.Clip) -> Array:
    assert clip.masks is not None
    return clip.masks


class TestClip:
    POINTS = xr.Dataset(
        {
            "position": (("point", "frame", "axis"), np.arange(16.0).reshape(2, 4, 2)),
            "visible": (("point", "frame"), np.eye(2, 4, dtype=bool)),
        },
        {"point": [0, 1], "frame": np.arange(4), "axis": ["x", "y"]},
    )

    @pytest.mark.parametrize("field", ["points", "joints", "flow", "objects"])
    def test_truths_are_cut_and_counted_alike(self, field: str) -> None:
        frames = np.stack([picture(s) for s in range(4)])
        part = tl.Clip(frames, **{field: self.POINTS})[1:3]
        cut = truth(getattr(part, field))
        assert cut["frame"].values.tolist() == [1, 2]
        xr.testing.assert_identical(cut, self.POINTS.sel(frame=[1, 2]))
        with one_sentence(f"{field} has 4 frames but the clip has 3; select the same frames from both."):
            tl.Clip(frames[:3], **{field: self.POINTS})

    def test_none_by_default(self) -> None:
        clip = tl.Clip(np.stack([picture()]))
        assert clip.points is clip.joints is clip.flow is None


# --- YouTube-VOS ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ytvos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``late``: starts at 00015, ids 2 and 7, 7 enters at 00025; ``early``: of train, 1 away in its first frame."""
    root = tmp_path_factory.mktemp("ytvos")
    late = steps(15, 20, 25, 30)
    write_vos(root / "train", "late", late, dict(zip(late, [mask(2), mask(2), mask(2, 7), mask(0, 7)], strict=True)))
    write_vos(root / "train", "early", steps(0, 5), {"00000": mask(), "00005": mask(1)})
    write_vos(root / "valid", "late", late, {"00015": mask(2), "00025": mask(0, 7)})
    write_vos(root / "valid", "whole", late, {"00015": mask(2), "00025": mask(2, 7)})
    write_vos(root / "test", "zoo", steps(0, 5, 10), {"00000": mask(1)})
    about = {"late": {"7": "hat", "2": "duck"}, "early": {"1": "ape"}, "whole": {"2": "a", "7": "b"}, "zoo": {"1": "x"}}
    for split, names in (("train", ["late", "early"]), ("valid", ["late", "whole"]), ("test", ["zoo"])):
        videos = {name: {"objects": {n: {"category": c} for n, c in about[name].items()}} for name in names}
        (root / split / "meta.json").write_text(json.dumps({"videos": videos}))
    return root


class TestYoutubeVos:
    def test_every_object_is_drawn_in_train(self, ytvos: Path) -> None:
        clips = tl.datasets.youtube_vos(ytvos, "train")
        assert clips.names == ("early", "late")
        clip = clips["late"]
        assert (clip.name, len(clip), clip.fps, clip.object_ids) == ("late", 4, 6, (2, 7))
        np.testing.assert_array_equal(masks_of(clip), [mask(2), mask(2), mask(2, 7), mask(0, 7)])
        objects = truth(clip.objects)
        assert objects["category"].sel(object=[7, 2]).values.tolist() == ["hat", "duck"]
        assert objects["file"].values.tolist() == ["00015", "00020", "00025", "00030"]
        assert truth(clip[1:3].objects)["file"].values.tolist() == ["00020", "00025"]

    def test_an_object_can_be_absent_in_the_first_frame(self, ytvos: Path) -> None:
        np.testing.assert_array_equal(masks_of(tl.datasets.youtube_vos(ytvos, "train")["early"]), [mask(), mask(1)])

    def test_a_later_mask_of_valid_says_nothing_of_what_it_does_not_draw(self, ytvos: Path) -> None:
        clip = tl.datasets.youtube_vos(ytvos)["late"]
        later = np.where(mask(0, 7) == 0, 255, mask(0, 7))
        nobody = np.full((HEIGHT, WIDTH), 255)
        np.testing.assert_array_equal(masks_of(clip), [mask(2), nobody, later, nobody])
        assert clip.annotated.tolist() == [True, False, True, False]

    def test_masks_that_draw_everything_are_left_as_they_are(self, ytvos: Path) -> None:
        np.testing.assert_array_equal(masks_of(tl.datasets.youtube_vos(ytvos)["whole"])[2], mask(2, 7))

    def test_some_by_name_or_by_a_list(self, ytvos: Path, tmp_path: Path) -> None:
        assert tl.datasets.youtube_vos(ytvos, names=["whole"]).names == ("whole",)
        (tmp_path / "similar.txt").write_text("whole\nlate\n")
        assert tl.datasets.youtube_vos(ytvos, names=tmp_path / "similar.txt").names == ("whole", "late")
        with one_sentence("does not tell of zoo; choose from late, whole."):
            tl.datasets.youtube_vos(ytvos, names=["zoo"])
        (tmp_path / "similar.txt").write_text("../train\n")
        with one_sentence("similar.txt names '../train', which is no folder's name"):
            tl.datasets.youtube_vos(ytvos, names=tmp_path / "similar.txt")

    def test_names_with_gaps_and_capitals(self, ytvos: Path, tmp_path: Path) -> None:
        root = shutil.copytree(ytvos, tmp_path / "root")
        for folder, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
            (root / "train" / folder / "late" / f"00020.{ending}").unlink()
        drawn = root / "train/Annotations/late/00030.png"
        drawn.rename(drawn.with_suffix(".PNG"))
        with pytest.warns(UserWarning, match="frames 15 and 25 but none between"):
            clip = tl.datasets.youtube_vos(root, "train")["late"]
        assert clip.fps == 6
        np.testing.assert_array_equal(masks_of(clip), [mask(2), mask(2, 7), mask(0, 7)])
        assert truth(clip.objects)["file"].values.tolist() == ["00015", "00025", "00030"]

    @pytest.mark.parametrize(
        ("meta", "said"),
        [
            ("{", "is no JSON"),
            ("[]", "no table by name"),
            ("{}", "no table of 'videos'"),
            ('{"videos": {"../train": {"objects": {}}}}', "names '../train', which is no folder's name"),
            ('{"videos": {"..": {"objects": {}}}}', "names '..'"),
            ('{"videos": {"a\\\\b": {"objects": {}}}}', "no folder's name"),
            ('{"videos": {"late": {"objects": {"255": {}}}}}', "ids from 1 to 254"),
            ('{"videos": {"late": {}}}', "tells of no objects"),
            ('{"videos": {"gone": {"objects": {}}}}', "JPEGImages lacks 1 of 1 clips (gone)"),
        ],
    )
    def test_lists_that_cannot_be(self, ytvos: Path, tmp_path: Path, meta: str, said: str) -> None:
        root = shutil.copytree(ytvos, tmp_path / "root")
        (root / "valid" / "meta.json").write_text(meta)
        with one_sentence(said, "get YouTube-VOS 2018 or 2019 from https://youtube-vos.org"):
            tl.datasets.youtube_vos(root)

    def test_no_such_split(self, ytvos: Path) -> None:
        with one_sentence("split='val' is not known; choose one of test, train, valid."):
            tl.datasets.youtube_vos(ytvos, "val")
        (name,) = tl.datasets.youtube_vos(ytvos, "test").names
        assert name == "zoo"


# --- MOSE, LVOS -----------------------------------------------------------------------------------


class TestMose:
    def test_by_the_folder_alone(self, tmp_path: Path) -> None:
        frames = steps(0, 1, 2)
        write_vos(tmp_path / "train", "b", frames, dict(zip(frames, [mask(1, 3), mask(3), mask(1, 3)], strict=True)))
        write_vos(tmp_path / "valid", "c", frames, {"00000": mask(1, 3)})
        write_vos(tmp_path / "valid", "a", frames, {"00000": mask(1), "00002": mask(0, 2)})
        (clip,) = tl.datasets.mose(tmp_path, "train")
        np.testing.assert_array_equal(masks_of(clip), [mask(1, 3), mask(3), mask(1, 3)])
        clips = tl.datasets.mose(tmp_path)
        assert clips.names == ("a", "c")
        assert clips["c"].annotated.tolist() == [True, False, False]
        assert set(np.unique(masks_of(clips["a"])[2])) == {2, 255}
        shutil.rmtree(tmp_path / "valid" / "Annotations" / "c")
        with one_sentence("Annotations lacks 1 of 2 clips (c); get MOSE from"):
            tl.datasets.mose(tmp_path)


@pytest.fixture
def lvos(tmp_path: Path) -> Path:
    root = tmp_path / "LVOS"
    frames = steps(1, 6, 11, 16, digits=8)
    write_vos(root / "valid", "pond", frames, dict(zip(frames, [mask(1), mask(1, 2), mask(0, 2), mask()], strict=True)))
    write_vos(root / "valid", "stair", frames, {name: mask(4) for name in frames})
    write_vos(root / "test", "hill", frames, {frames[0]: mask(1), frames[2]: mask(0, 2)})

    def about(start: str, end: str) -> dict[str, Any]:
        return {"frame_range": {"start": start, "end": end, "frame_nums": "3"}}

    videos = {
        "pond": {"objects": {"2": about("00000006", "00000011"), "1": about("1", "16")}},
        "stair": {"objects": {"4": about("00000002", "00000012")}},
    }
    (root / "valid" / "valid_meta.json").write_text(json.dumps({"videos": videos}))
    (root / "test" / "test_meta.json").write_text(json.dumps({"videos": {"hill": {"objects": {"1": {}, "2": {}}}}}))
    (root / "unseen_videos.txt").write_text("stair\n")
    return root


class TestLvos:
    def test_each_object_has_a_range(self, lvos: Path) -> None:
        clips = tl.datasets.lvos(lvos)
        assert clips.names == ("pond", "stair")
        pond = truth(clips["pond"].objects)
        assert pond["object"].values.tolist() == [1, 2]
        assert pond["first_frame"].values.tolist() == [0, 1]
        assert pond["last_frame"].values.tolist() == [3, 2]
        assert not pond["unseen"].any()
        assert truth(clips["stair"].objects)["unseen"].all()
        assert clips[0].fps == 6
        np.testing.assert_array_equal(masks_of(clips[0])[3], mask())

    def test_a_range_between_frames_holds_those_within(self, lvos: Path) -> None:
        stair = truth(tl.datasets.lvos(lvos)["stair"].objects)
        assert (int(stair["first_frame"][0]), int(stair["last_frame"][0])) == (1, 2)

    def test_ranges_hold_where_a_clip_is_cut(self, lvos: Path) -> None:
        part = truth(tl.datasets.lvos(lvos)["pond"][1:].objects)
        kept = part["frame"] >= part["first_frame"].sel(object=2)
        assert part["file"][kept].values.tolist() == ["00000006", "00000011", "00000016"]

    def test_test_draws_only_what_is_new(self, lvos: Path) -> None:
        clip = tl.datasets.lvos(lvos, "test")["hill"]
        assert set(np.unique(masks_of(clip)[2])) == {2, 255}
        assert "first_frame" not in truth(clip.objects)

    def test_without_the_list_of_unseen_nothing_is_said(self, lvos: Path) -> None:
        (lvos / "unseen_videos.txt").rename(lvos / "valid" / "unseen_videos.txt")
        assert "unseen" in truth(tl.datasets.lvos(lvos)[0].objects)
        (lvos / "valid" / "unseen_videos.txt").unlink()
        assert "unseen" not in truth(tl.datasets.lvos(lvos)[0].objects)

    @pytest.mark.parametrize("given", [None, {"start": "x", "end": "2"}, {"start": "17", "end": "90"}, {"start": "1"}])
    def test_ranges_that_cannot_be(self, lvos: Path, given: Any) -> None:
        videos = {"pond": {"objects": {"1": {"frame_range": given}}}}
        (lvos / "valid" / "valid_meta.json").write_text(json.dumps({"videos": videos}))
        with one_sentence(f"gives the range {given} for object 1 of pond, whose frames are 00000001 to 00000016"):
            tl.datasets.lvos(lvos)[0]


# --- VIP, JHMDB -----------------------------------------------------------------------------------


@pytest.fixture
def vip(tmp_path: Path) -> Path:
    root = tmp_path / "VIP_Fine"
    frames = steps(1, 26, 51, digits=12)
    write_video(root / "Images" / "videos7", frames)
    folder = root / "Annotations" / "Category_ids" / "videos7"
    folder.mkdir(parents=True)
    for name in (frames[0], frames[2]):
        Image.fromarray(np.where(mask(1, 19, 20) == 0, mask(0, 0, 0, 255), mask(1, 19, 20))).save(
            folder / f"{name}.png"
        )
    (root / "lists").mkdir()
    (root / "lists" / "val_videos.txt").write_text("videos7\n")
    return root


class TestVip:
    def test_values_are_classes(self, vip: Path) -> None:
        (clip,) = tl.datasets.vip(vip)
        left_out = np.where(mask(0, 0, 1, 1) == 1, 255, mask(1, 19))
        np.testing.assert_array_equal(masks_of(clip), [left_out, np.full_like(left_out, 255), left_out])
        objects = truth(clip.objects)
        assert objects["object"].values.tolist() == list(range(1, 20))
        assert objects["category"].sel(object=[1, 14, 19]).values.tolist() == ["hat", "right-arm", "left-shoe"]

    def test_classes_are_never_read_by_colour(self, vip: Path) -> None:
        """Palettes of any colours, those of DAVIS at other places included."""
        file = vip / "Annotations/Category_ids/videos7/000000000001.png"
        image = Image.fromarray(mask(1, 2))
        image.putpalette([0, 128, 0, 128, 0, 0, 0, 0, 0])
        image.save(file)
        np.testing.assert_array_equal(masks_of(tl.datasets.vip(vip)[0])[0], mask(1, 2))

    def test_what_is_no_class(self, vip: Path) -> None:
        file = vip / "Annotations/Category_ids/videos7/000000000001.png"
        Image.fromarray(picture()).save(file)
        with one_sentence(file, "is no picture of ids (RGB)"):
            tl.datasets.vip(vip)[0]
        file.write_bytes(png(np.full((HEIGHT, WIDTH // 2), 0x11, np.uint8), kind=0, bits=4, width=WIDTH))
        with one_sentence(file, "grey of 8 bits"):
            tl.datasets.vip(vip)[0]
        file.rename(file.with_name("000000000002.png"))
        with one_sentence("000000000002.png belongs to no frame in Images/videos7"):
            tl.datasets.vip(vip)[0]

    def test_no_list(self, vip: Path) -> None:
        with one_sentence("split='train' is not known; choose one of val."):
            tl.datasets.vip(vip, "train")
        (vip / "lists" / "val_videos.txt").write_text("videos7\n../../x\n")
        with one_sentence("names '../../x'"):
            tl.datasets.vip(vip)


JOINTS = rng.uniform(-3, 50, (2, 15, 3))  # x and y counted from 1, some outside of the picture


@pytest.fixture
def jhmdb(tmp_path: Path) -> Path:
    root = tmp_path / "JHMDB"
    lists = {"wave": "clip_a.avi 2 \n", "jump": "clip_c.avi 2 \nclip_b.avi 2 \nclip_d.avi 1 \nclip_e.avi 0 \n"}
    (root / "splits").mkdir(parents=True)
    for action, lines in lists.items():
        (root / "splits" / f"{action}_test_split1.txt").write_text(lines)
    for number, (action, name) in enumerate([("wave", "clip_a"), ("jump", "clip_b"), ("jump", "clip_c")]):
        write_video(root / "Rename_Images" / action / name, steps(*range(1, 4 + number)), ".png")
        folder = root / "joint_positions" / action / name
        folder.mkdir(parents=True)
        known = JOINTS[..., :1] if name == "clip_b" else JOINTS
        scipy.io.savemat(folder / "joint_positions.mat", {"pos_img": known, "scale": np.ones((1, 3))})
    return root


class TestJhmdb:
    def test_test_clips_with_their_joints(self, jhmdb: Path) -> None:
        clips = tl.datasets.jhmdb(jhmdb)
        assert clips.names == ("clip_c", "clip_b", "clip_a")
        clip = clips["clip_a"]
        assert (len(clip), clip.fps, clip.masks) == (3, 30, None)
        joints = truth(clip.joints)
        np.testing.assert_array_equal(joints["position"].transpose("axis", "joint", "frame"), JOINTS - 1)
        ankle = joints["position"].sel(joint="left_ankle", axis="y").values
        np.testing.assert_array_equal(ankle, JOINTS[1, 14] - 1)

    def test_more_pictures_than_joints(self, jhmdb: Path) -> None:
        position = truth(tl.datasets.jhmdb(jhmdb)["clip_c"].joints)["position"].values
        assert position.shape == (15, 5, 2)
        assert np.isfinite(position[:, :3]).all()
        assert np.isnan(position[:, 3:]).all()

    def test_joints_of_one_frame(self, jhmdb: Path) -> None:
        position = truth(tl.datasets.jhmdb(jhmdb)["clip_b"].joints)["position"].values
        np.testing.assert_array_equal(position[:, 0], JOINTS[..., 0].T - 1)
        assert np.isnan(position[:, 1:]).all()

    def test_what_is_no_jhmdb(self, jhmdb: Path, tmp_path: Path) -> None:
        file = jhmdb / "joint_positions/wave/clip_a/joint_positions.mat"
        scipy.io.savemat(file, {"pos_img": rng.random((2, 15, 9))})
        with one_sentence(file, "has joints of 9 frames, but there are 3 pictures"):
            tl.datasets.jhmdb(jhmdb)["clip_a"]
        scipy.io.savemat(file, {"pos_img": rng.random((2, 14, 3))})
        with one_sentence(file, "shape (2, 14, 3), not finite numbers (2, 15, frames)"):
            tl.datasets.jhmdb(jhmdb)["clip_a"]
        file.write_bytes(file.read_bytes()[:200])
        with one_sentence(file, "cannot be read as joints"):
            tl.datasets.jhmdb(jhmdb)["clip_a"]
        with one_sentence("split=4 is not known; choose one of 1, 2, 3."):
            tl.datasets.jhmdb(jhmdb, 4)
        with one_sentence("no lists such as splits/jump_test_split2.txt"):
            tl.datasets.jhmdb(jhmdb, 2)
        (jhmdb / "splits" / "wave_test_split1.txt").write_text("../../clip_a.avi 2\n")
        with one_sentence("names '../../clip_a'"):
            tl.datasets.jhmdb(jhmdb)
        (jhmdb / "splits" / "wave_test_split1.txt").write_text("clip_b.avi 2\n")
        with one_sentence("lists clip_b, which jump/clip_b has too"):
            tl.datasets.jhmdb(jhmdb)
        (jhmdb / "splits" / "wave_test_split1.txt").write_text("clip_a.avi\n")
        with one_sentence("has a line 'clip_a.avi', which is not like 'CLIP.avi 2'"):
            tl.datasets.jhmdb(jhmdb)


# --- Kubric ---------------------------------------------------------------------------------------


def png(values: Array, kind: int = 2, bits: int = 16, width: int = WIDTH) -> bytes:
    """A PNG that Pillow cannot write: 16-bit RGB (kind 2), or packed grey (kind 0)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, len(values), bits, kind, 0, 0, 0)
    packed = zlib.compress(rows)
    data = [chunk(b"IDAT", packed[start : start + 999]) for start in range(0, len(packed), 999)]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(data) + chunk(b"IEND", b"")


STORED = rng.integers(0, 65536, (2, 3, HEIGHT, WIDTH, 3)).astype(np.uint16)  # forward, backward; frame, y, x, rgb
RANGES = [(-2.5, 10.0), (-0.5, 0.25)]
DEPTH = rng.uniform(5, 9, (3, HEIGHT, WIDTH)).astype(np.float32)
COLOURS = [0, 0, 0, 219, 94, 87, 87, 219, 94]


def instance(number: int) -> dict[str, Any]:
    places = [[0.5 + 0.25 * number * t, 0.125 * t] for t in range(3)]
    return {
        "image_positions": places,
        "positions": [[float(number), float(t), 4.0] for t in range(3)],
        "velocities": [[0.0, 1.0, 0.0]] * 3,
        "quaternions": [[1.0, 0.0, 0.0, 0.0]] * 3,
        "visibility": [64, 0, 64],
        "bbox_frames": [0, 2],
        "bboxes": [[0.0, 0.0, 0.5, 0.5]] * 2,
        "color": [0.5, 0.25, 1.0],
        "shape": "sphere",
        "mass": 2.5,
    }


@pytest.fixture
def kubric(tmp_path: Path) -> Path:
    """``100% scene_2`` and ``scene_10``; numbers begin at 3, instance 2 is hidden at first."""
    root = tmp_path / "scenes"
    about = {
        "camera": {"positions": [[0.0, 0.0, 9.0]] * 3, "quaternions": [[1.0, 0.0, 0.0, 0.0]] * 3, "focal_length": 35.0},
        "metadata": {"frame_rate": 12, "num_frames": 3, "resolution": [WIDTH, HEIGHT]},
        "instances": [instance(1), instance(2)],
    }
    for name in ("100% scene_2", "scene_10"):
        folder = root / name
        folder.mkdir(parents=True)
        for t in range(3):
            number = f"{t + 3:05d}"
            alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
            Image.fromarray(np.concatenate([picture(60 + t), alpha], -1)).save(folder / f"rgba_{number}.png")
            labels = Image.fromarray(mask(1) if t == 0 else mask(1, 2))
            labels.putpalette(COLOURS)
            labels.save(folder / f"segmentation_{number}.png")
            for values, way in zip(STORED, ("forward", "backward"), strict=True):
                (folder / f"{way}_flow_{number}.png").write_bytes(png(values[t]))
            Image.fromarray(DEPTH[t]).save(folder / f"depth_{number}.tiff")
        (folder / "metadata.json").write_text(json.dumps(about))
        ranges = {
            f"{way}_flow": {"min": r[0], "max": r[1]} for way, r in zip(("forward", "backward"), RANGES, strict=True)
        }
        (folder / "data_ranges.json").write_text(json.dumps(ranges))
    (root / "notes").mkdir()
    return root


class TestKubric:
    def test_pictures_and_masks(self, kubric: Path) -> None:
        clips = tl.datasets.kubric(kubric)
        assert clips.names == ("100% scene_2", "scene_10")
        clip = clips[0]
        np.testing.assert_array_equal(clip.frames, [picture(60), picture(61), picture(62)])
        np.testing.assert_array_equal(masks_of(clip), [mask(1), mask(1, 2), mask(1, 2)])
        assert (clip.fps, clip.name) == (12, "100% scene_2")
        assert clip.frame_names == ("00003", "00004", "00005")

    def test_flow_keeps_all_16_bits(self, kubric: Path) -> None:
        flow = truth(tl.datasets.kubric(kubric)[0].flow)
        for number, way in enumerate(("forward", "backward")):
            low, high = RANGES[number]
            expected = STORED[number, ..., :2] / 65535 * (high - low) + low
            np.testing.assert_allclose(flow[way], expected, atol=1e-6)
            assert np.abs(flow[way] - expected).max() < (high - low) / 65535 / 100
        assert flow["axis"].values.tolist() == ["y", "x"]
        assert flow["forward"].dims == ("frame", "y", "x", "axis")
        np.testing.assert_array_equal(flow["depth"], DEPTH)

    def test_instances_and_camera(self, kubric: Path) -> None:
        objects = truth(tl.datasets.kubric(kubric)[0].objects)
        second = objects.sel(object=2)
        centre = [[0.125 * t * HEIGHT - 0.5, (0.5 + 0.5 * t) * WIDTH - 0.5] for t in range(3)]
        np.testing.assert_allclose(second["centre"], centre)
        np.testing.assert_allclose(second["velocity"], [[3, 18]] * 3)
        np.testing.assert_allclose(second["depth"], [np.sqrt(4 + t * t + 25) for t in range(3)])
        assert second["pixels"].values.tolist() == [64, 0, 64]
        np.testing.assert_array_equal(second["world_velocity"], [[0, 1, 0]] * 3)
        np.testing.assert_array_equal(second["colour"], [0.5, 0.25, 1])
        assert (str(second["shape"].values), float(second["mass"])) == ("sphere", 2.5)
        assert objects.attrs == {"dataset": "kubric", "focal_length": 35.0}
        np.testing.assert_array_equal(objects["camera_position"], [[0, 0, 9]] * 3)

    def test_a_slice_cuts_all(self, kubric: Path) -> None:
        part = tl.datasets.kubric(kubric)[0][1:]
        np.testing.assert_array_equal(truth(part.flow)["depth"], DEPTH[1:])
        assert truth(part.objects)["centre"].sizes["frame"] == 2

    def test_layers_that_are_not_there(self, kubric: Path) -> None:
        folder = kubric / "scene_10"
        for file in [*folder.glob("*flow*"), folder / "data_ranges.json"]:
            file.unlink()
        flow = truth(tl.datasets.kubric(kubric)["scene_10"].flow)
        assert list(flow) == ["depth"]
        for file in folder.glob("depth*"):
            file.unlink()
        assert tl.datasets.kubric(kubric)["scene_10"].flow is None
        (folder / "segmentation_00004.png").unlink()
        with one_sentence(folder, "segmentation of 2 frames and 3 pictures"):
            tl.datasets.kubric(kubric)["scene_10"]

    def test_own_ids(self, kubric: Path) -> None:
        self.edit(kubric, lambda about: about["instances"][0].update(segmentation_id=9))
        assert truth(tl.datasets.kubric(kubric)["scene_10"].objects)["object"].values.tolist() == [9, 2]
        self.edit(kubric, lambda about: about["instances"][0].update(segmentation_id=2))
        with one_sentence("the ids [2, 2], not different ones"):
            tl.datasets.kubric(kubric)["scene_10"]

    @pytest.mark.parametrize(
        ("file", "said"),
        [
            ("forward_flow_00003.png", "no PNG"),
            ("depth_00003.tiff", "cannot be read as a picture"),
            ("rgba_00004.png", "cannot be read as a picture"),
            ("metadata.json", "is no JSON"),
        ],
    )
    def test_files_that_are_cut(self, kubric: Path, file: str, said: str) -> None:
        path = kubric / "scene_10" / file
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        with one_sentence(path, said):
            tl.datasets.kubric(kubric)["scene_10"]

    def test_numbers_that_cannot_be(self, kubric: Path) -> None:
        folder = kubric / "scene_10"
        Image.fromarray(picture()).save(folder / "forward_flow_00003.png")
        with one_sentence("forward_flow_00003.png is a PNG of kind rgb24, not of RGB with 16 bits"):
            tl.datasets.kubric(kubric)["scene_10"]
        (folder / "data_ranges.json").write_text('{"forward_flow": {"min": 2, "max": 1}}')
        with one_sentence("the range {'min': 2, 'max': 1}, not a min and a max"):
            tl.datasets.kubric(kubric)["scene_10"]
        self.edit(kubric, lambda about: about["instances"][1].update(image_positions=[[0.0, float("nan")]] * 3))
        with one_sentence("image_positions that are no numbers of shape (3, 2)"):
            tl.datasets.kubric(kubric)["scene_10"]

    @staticmethod
    def edit(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
        file = root / "scene_10" / "metadata.json"
        about = json.loads(file.read_text())
        change(about)
        file.write_text(json.dumps(about))


# --- TAP-Vid --------------------------------------------------------------------------------------


def video(frames: int, points: int) -> dict[str, Any]:
    return {
        "video": np.stack([picture(60 + t) for t in range(frames)]),
        "points": rng.uniform(-0.1, 1.1, (points, frames, 2)).astype(np.float32),
        "occluded": rng.random((points, frames)) < 0.3,
    }


VIDEOS = {"kite": video(4, 3), "marble": video(2, 1)}


class _Stranger:
    """Unpickling it would call something."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


class TestTapvid:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "tapvid.pkl").write_bytes(pickle.dumps(VIDEOS, 4))
        return tmp_path / "tapvid.pkl"

    def test_on_the_protocols_raster(self, file: Path) -> None:
        clips = tl.datasets.tapvid(file)
        assert clips.names == ("kite", "marble")
        clip = clips["kite"]
        assert (clip.frames.shape, clip.masks, clip.name) == ((4, 256, 256, 3), None, "kite")
        resized = Image.fromarray(picture(62)).resize((256, 256), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(clip.frames[2], resized)
        points = truth(clip.points)
        assert points["position"].dtype == np.float64
        np.testing.assert_array_equal(points["position"], VIDEOS["kite"]["points"].astype(np.float64) * 256)
        np.testing.assert_array_equal(points["visible"], ~VIDEOS["kite"]["occluded"])
        assert points["axis"].values.tolist() == ["x", "y"]

    def test_of_other_sizes(self, file: Path) -> None:
        clip = tl.datasets.tapvid(file, size=None)["kite"]
        np.testing.assert_array_equal(clip.frames, VIDEOS["kite"]["video"])
        expected = VIDEOS["kite"]["points"].astype(np.float64) * [WIDTH, HEIGHT]
        np.testing.assert_array_equal(truth(clip.points)["position"], expected)
        assert clip.frames.flags.writeable
        assert tl.datasets.tapvid(file, size=(16, 8))[1].frames.shape == (2, 16, 8, 3)
        with one_sentence("size=(0, 8) is no size of a picture"):
            tl.datasets.tapvid(file, size=(0, 8))

    @pytest.mark.parametrize("protocol", [3, 4, 5])
    @pytest.mark.parametrize("old", [False, True])
    def test_pickles_of_all_kinds(self, tmp_path: Path, protocol: int, old: bool) -> None:
        """Of old and new numpy; arrays in other orders, a list as RGB-stacking has it, JPEGs as Kinetics has them."""
        jpegs = []
        for t in range(4):
            file = io.BytesIO()
            Image.fromarray(VIDEOS["kite"]["video"][t]).save(file, "JPEG")
            jpegs.append(file.getvalue())
        turned = VIDEOS["kite"] | {"points": np.asfortranarray(VIDEOS["kite"]["points"]), "frames": np.int64(4)}
        swapped = VIDEOS["kite"] | {"points": VIDEOS["kite"]["points"].transpose(2, 0, 1).copy().transpose(1, 2, 0)}
        big = VIDEOS["kite"] | {"points": VIDEOS["kite"]["points"].astype(">f4")}
        listed = [
            turned,
            swapped,
            big,
            VIDEOS["kite"] | {"video": jpegs},
            VIDEOS["kite"] | {"video": np.array(jpegs, object)},
        ]
        data = pickle.dumps(listed, protocol)
        if old and protocol < 4:  # as written by numpy 1; names have their length before them from protocol 4 on
            data = data.replace(b"numpy._core", b"numpy.core")
        elif old:
            data = data.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
            data = data.replace(b"\x8c\x13numpy._core.numeric", b"\x8c\x12numpy.core.numeric")
            data = data[:2] + data[11:] if data[2:3] == b"\x95" else data  # its frame's length no longer holds
        (tmp_path / "list.pkl").write_bytes(data)
        clips = tl.datasets.tapvid(tmp_path / "list.pkl", size=None)
        assert clips.names == ("0", "1", "2", "3", "4")
        expected = VIDEOS["kite"]["points"].astype(np.float64) * [WIDTH, HEIGHT]
        for clip in clips:
            np.testing.assert_array_equal(truth(clip.points)["position"], expected)
            assert np.abs(clip.frames.astype(int) - VIDEOS["kite"]["video"]).max() < 8

    @pytest.mark.parametrize(
        ("stranger", "said"),
        [
            (_Stranger(print, "run"), "builtins.print"),
            (_Stranger(eval, "1"), "builtins.eval"),
            (_Stranger(shutil.rmtree, "/nowhere"), "shutil.rmtree"),
            (_Stranger(np.load, "x"), "numpy.load"),
            (np.memmap, "numpy.memmap"),
            (np.array([("a", 1)], [("a", "U1"), ("b", "i4")]), "numbers of type 'V8'"),
            (np.array(["text"]), "numbers of type 'U4'"),
            (Path("x"), "Path"),
        ],
    )
    def test_a_pickle_that_holds_more_than_arrays_is_refused(
        self, tmp_path: Path, stranger: Any, said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "bad.pkl").write_bytes(pickle.dumps(VIDEOS | {"evil": stranger}, 4))
        with one_sentence("bad.pkl is refused, for it holds", said, "only plain arrays are read"):
            tl.datasets.tapvid(tmp_path / "bad.pkl")
        assert not capsys.readouterr().out

    def test_classes_behind_allowed_names_are_refused(self, tmp_path: Path) -> None:
        """Dotted names, numpy's own functions beside the allowed ones, and types that would forge objects."""
        for module, name in (("numpy", "ndarray.tofile"), ("numpy.core.multiarray", "fromfile"), ("os", "system")):
            code = (
                b"\x80\x04\x8c" + bytes([len(module)]) + module.encode() + b"\x8c" + bytes([len(name)]) + name.encode()
            )
            (tmp_path / "bad.pkl").write_bytes(code + b"\x93.")
            with one_sentence(f"it holds {module}.{name}"):
                tl.datasets.tapvid(tmp_path / "bad.pkl")

    def test_a_pickle_changes_nothing_that_it_names(self, file: Path, tmp_path: Path) -> None:
        """Attributes of a function or a class, set by the instruction BUILD."""
        for name in (b"numpy.core.multiarray\nscalar", b"numpy.core.numeric\n_frombuffer", b"numpy\nndarray"):
            (tmp_path / "bad.pkl").write_bytes(b"\x80\x04c" + name + b"\nN}\x8c\x0c__defaults__)s\x86b.")
            with one_sentence("bad.pkl is damaged"):
                tl.datasets.tapvid(tmp_path / "bad.pkl")
        reader = sys.modules["tedlens.datasets.tapvid"]
        assert reader._frombuffer.__defaults__ == (None,)
        assert reader._scalar.__defaults__ is None
        assert not hasattr(reader._Array, "__defaults__")
        assert len(tl.datasets.tapvid(file)) == 2

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"no pickle",
            pickle.dumps(VIDEOS)[:-40],
            pickle.dumps(3),
            pickle.dumps({"a": 3}),
            pickle.dumps({"a": {"video": 1}}),
            b"\x80\x04cnumpy\nndarray\n)R}b.",  # an array without values
        ],
    )
    def test_damaged(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "bad.pkl").write_bytes(data)
        with one_sentence("bad.pkl is damaged, or no pickle of videos", "get TAP-Vid from"):
            tl.datasets.tapvid(tmp_path / "bad.pkl")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"points": VIDEOS["kite"]["points"][:, 1:]}, "(N, T, 2) and (N, T)"),
            ({"points": "somewhere"}, "is no array of numbers"),
            ({"points": np.full((3, 4, 2), np.nan), "occluded": np.zeros((3, 4), bool)}, "visible but nowhere (NaN)"),
            ({"video": VIDEOS["kite"]["video"].astype(np.float32)}, "is of type float32"),
            ({"video": [b"no JPEG"] * 4}, "damaged or no JPEG"),
            ({"video": []}, "neither an array nor JPEGs"),
        ],
    )
    def test_what_does_not_fit(self, tmp_path: Path, change: dict[str, Any], said: str) -> None:
        (tmp_path / "odd.pkl").write_bytes(pickle.dumps({"kite": VIDEOS["kite"] | change}))
        with one_sentence("kite in", said):
            tl.datasets.tapvid(tmp_path / "odd.pkl")[0]

    def test_npz(self, tmp_path: Path) -> None:
        file = tmp_path / "tapvid.npz"
        arrays = {f"{name}/{key}": array for name, each in VIDEOS.items() for key, array in each.items()}
        np.savez(file, **arrays)
        clips = tl.datasets.tapvid(file)
        assert clips.names == ("kite", "marble")
        expected = VIDEOS["marble"]["points"].astype(np.float64) * 256
        np.testing.assert_array_equal(truth(clips[1].points)["position"], expected)
        np.savez(file, **{key: array for key, array in arrays.items() if key != "marble/occluded"})
        with one_sentence(file, "lacks marble/occluded"):
            tl.datasets.tapvid(file)
        np.savez(file, **arrays | {"kite/points": np.array([None])})
        with one_sentence("kite in", "no plain array"):
            tl.datasets.tapvid(file)[0]
        file.write_bytes(b"PK")
        with one_sentence(file, "cannot be read as plain arrays"):
            tl.datasets.tapvid(file)
        assert not zipfile.is_zipfile(file)

    def test_a_file_that_changed_is_read_anew(self, file: Path) -> None:
        assert len(tl.datasets.tapvid(file)) == 2
        file.write_bytes(pickle.dumps({"kite": VIDEOS["kite"]}, 4))
        assert len(tl.datasets.tapvid(file)) == 1


# --- all alike ------------------------------------------------------------------------------------


READERS: dict[str, tuple[Callable[..., Clips], str]] = {
    "youtube_vos": (tl.datasets.youtube_vos, "https://youtube-vos.org"),
    "mose": (tl.datasets.mose, "https://mose.video"),
    "lvos": (tl.datasets.lvos, "https://lingyihongfd.github.io"),
    "davis": (tl.datasets.davis, "https://davischallenge.org"),
    "kubric": (tl.datasets.kubric, "https://github.com/google-research/kubric"),
    "jhmdb": (tl.datasets.jhmdb, "http://jhmdb.is.tue.mpg.de"),
    "vip": (tl.datasets.vip, "https://www.sysu-hcp.net/lip"),
    "tapvid": (tl.datasets.tapvid, "https://github.com/google-deepmind/tapnet"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_data_set_that_is_not_there_says_where_to_get_it(name: str, tmp_path: Path) -> None:
    reader, where = READERS[name]
    for root in (tmp_path, tmp_path / "nowhere", str(tmp_path)):
        with one_sentence(root, where, "give"):
            reader(root)


@pytest.mark.parametrize("name", ["youtube_vos", "lvos", "kubric", "jhmdb", "vip"])
def test_sequences_are_lazy_and_go_to_workers(name: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue({"youtube_vos": "ytvos"}.get(name, name))
    clips = READERS[name][0](root)
    assert repr(clips) == f"{name}({len(clips)} clips in {root})"
    sent = pickle.loads(pickle.dumps(clips))
    assert sent.names == clips.names
    np.testing.assert_array_equal(sent[0].frames, clips[0].frames)
    assert clips[-1].name == clips[len(clips) - 1].name == clips[clips.names[-1]].name
    assert isinstance(clips[:1], Clips)
    assert clips[:1].names == clips.names[:1]
    with one_sentence("There is no clip 'nothing' here; choose one of"):
        clips["nothing"]
    with pytest.raises(IndexError):
        clips[len(clips)]


def test_many_names_are_not_all_listed(tmp_path: Path) -> None:
    clips = Clips("many", tmp_path, [f"c{number}" for number in range(500)], tl.read_clip)
    with one_sentence("choose one of c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, .. (500 in all)."):
        clips["nothing"]
