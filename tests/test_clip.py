"""Clips from files and back: what is read is exactly what lies there, or one sentence says why not."""

import base64
import io
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import xarray as xr
from PIL import Image

import tedlens as tl
from tedlens.clip import Clip, read_clip
from tedlens.errors import TedlensError
from tedlens.media import overlay, palette, write_masks, write_video
from tedlens.media.video import BT709

FRAMES, HEIGHT, WIDTH = 12, 32, 48


@contextmanager
def one_sentence(*parts: object) -> Iterator[None]:
    """A TedlensError of one line that holds all `parts`, without another error behind it."""
    with pytest.raises(TedlensError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert "Traceback" not in message
    for part in parts:
        assert str(part) in message
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def moving_frames(
    frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Smooth colours that drift, so that each frame differs and survives compression."""
    t, y, x = np.mgrid[:frames, :height, :width]
    return np.stack([4 * x + 6 * t, 5 * y + 3 * t, 100 + x + y], -1).clip(0, 255).astype(np.uint8)


def moving_masks(frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Objects 1, 3 and 7, with void along the right edge."""
    masks = np.zeros((frames, height, width), np.uint8)
    for t in range(frames):
        for i, number in enumerate((1, 3, 7)):
            masks[t, 8 * i + 2 : 8 * i + 8, t : t + 10] = number
    masks[:, :, -2:] = 255
    return masks


def save(path: Path, values: Any, mode: str | None = None) -> Path:
    image = Image.fromarray(np.asarray(values, np.uint8))
    (image if mode is None else image.convert(mode)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """frame1.png .. frame12.png, without leading zeros."""
    made = tmp_path / "walk"
    made.mkdir()
    for t, frame in enumerate(moving_frames()):
        save(made / f"frame{t + 1}.png", frame)
    return made


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_video(moving_frames(), tmp_path / "walk.mp4", fps=24)
    return tmp_path / "walk.mp4"


def encode(path: Path, *, options: dict[str, str] | None = None, gop: int = 250, rotation: int | None = None) -> Path:
    """A video made without tedlens."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=24, options={"g": str(gop)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for frame in moving_frames(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return path


def cut(path: Path, share: float = 0.5) -> Path:
    whole = path.read_bytes()
    short = path.with_stem(path.stem + "-cut")
    short.write_bytes(whole[: int(len(whole) * share)])
    return short


class TestClip:
    def test_knows_its_objects_and_annotated_frames(self) -> None:
        masks = moving_masks()
        masks[4:6] = 255
        clip = Clip(moving_frames(), masks, fps=24, name="walk")
        assert clip.object_ids == (1, 3, 7)
        assert (len(clip), clip.height, clip.width) == (FRAMES, HEIGHT, WIDTH)
        np.testing.assert_array_equal(np.flatnonzero(~clip.annotated), [4, 5])
        assert repr(clip) == "Clip('walk', 12 frames 32x48, 3 objects (masks in 10), 24 fps)"

    def test_without_masks(self) -> None:
        clip = Clip(moving_frames(1))
        assert clip.object_ids == ()
        assert clip.annotated.tolist() == [False]
        assert repr(clip) == "Clip('clip', 1 frame 32x48, no masks, 8 fps)"

    def test_says_what_truths_it_carries(self) -> None:
        clip = tl.datasets.similar(0, frames=3, size=16)
        assert repr(clip).endswith("2 objects, 8 fps, truth: objects)")
        assert "truth: objects" in clip._repr_html_()
        assert clip.objects is not None
        assert ", ".join(map(str, clip.objects.data_vars)) in clip._repr_html_()

    def test_in_a_notebook(self) -> None:
        frames = moving_frames()
        clip = Clip(frames, moving_masks(), fps=24, name="<script>alert(1)</script>\x1b[31m")
        shown = clip._repr_html_()
        assert "<script" not in shown
        assert "\x1b" not in shown
        assert "&lt;script&gt;" in shown
        for fact in ("12 at 24 fps (0.5 s)", "32 x 48 pixels", "3 objects", "1, 3, 7"):
            assert fact in shown
        pictures = [base64.b64decode(each) for each in re.findall(r"data:image/png;base64,([^\"]+)", shown)]
        assert len(pictures) == 5
        assert len(shown) < 200_000
        for picture, number in zip(pictures, (0, 3, 6, 8, 11), strict=True):
            with Image.open(io.BytesIO(picture)) as opened:
                assert opened.height == 72
                small = np.asarray(opened.resize((clip.width, clip.height), Image.Resampling.NEAREST))
            np.testing.assert_array_equal(small, frames[number])

    def test_thumbnails_of_a_large_clip_are_small(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (3, 480, 854, 3), np.uint8)  # which nothing packs
        assert len(Clip(noise)._repr_html_()) < 200_000
        assert Clip(noise[:1])._repr_html_().count("<img") == 1

    def test_one_mask_is_of_the_first_frame(self) -> None:
        first = moving_masks()[0]
        clip = Clip(moving_frames(), first)
        assert clip.masks is not None
        np.testing.assert_array_equal(clip.masks[0], first)
        assert (clip.masks[1:] == 255).all()
        assert clip.annotated.tolist() == [True] + [False] * (FRAMES - 1)

    @pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.bool_])
    def test_converts_integers_that_fit(self, dtype: type) -> None:
        masks = (moving_masks() == 3).astype(dtype)
        clip = Clip(moving_frames(), masks)
        assert clip.masks is not None
        assert clip.masks.dtype == np.uint8
        np.testing.assert_array_equal(clip.masks, masks)

    def test_labels_of_xarray_are_masks(self) -> None:
        masks = xr.DataArray(moving_masks().astype(np.int32), dims=("frame", "y", "x"))
        clip = Clip(moving_frames(), masks)  # type: ignore[arg-type]
        assert isinstance(clip.masks, np.ndarray)
        assert clip.object_ids == (1, 3, 7)

    def test_slices_everything_alike(self) -> None:
        truth = xr.Dataset(
            {"depth": (("object", "frame"), np.arange(2.0 * FRAMES).reshape(2, -1)), "size": ("object", [1.0, 2.0])},
            coords={"object": [1, 3], "frame": np.arange(FRAMES)},
        )
        part = Clip(moving_frames(), moving_masks(), fps=24, name="walk", objects=truth)[2:-4]
        assert (len(part), part.fps, part.name) == (6, 24, "walk")
        np.testing.assert_array_equal(part.frames, moving_frames()[2:8])
        np.testing.assert_array_equal(part.masks, moving_masks()[2:8])
        assert part.objects is not None
        assert part.objects["frame"].values.tolist() == [2, 3, 4, 5, 6, 7]
        np.testing.assert_array_equal(part.objects["depth"], truth["depth"].sel(frame=slice(2, 7)))

    def test_a_part_keeps_the_names_of_its_frames(self) -> None:
        assert Clip(moving_frames())[2:5].frame_names == ("00002", "00003", "00004")
        named = Clip(moving_frames(3), frame_names=["a", "c", "b"])
        assert named[1:].frame_names == ("c", "b")
        assert named[1:][1:].frame_names == ("b",)

    @pytest.mark.parametrize("index", [3, slice(None, None, 2), slice(None, None, -1), slice(12, 20), slice(5, 5)])
    def test_slices_are_frames_in_a_row(self, index: Any) -> None:
        with one_sentence("clip["):
            Clip(moving_frames())[index]

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"frames": moving_frames().astype(np.float32)}, "float32"),
            ({"frames": moving_frames()[0]}, "frames[None]"),
            ({"frames": moving_frames()[..., :2]}, "(12, 32, 48, 2)"),
            ({"frames": moving_frames()[:0]}, "empty"),
            ({"frames": [[1], [1, 2]]}, "list"),
            ({"masks": moving_masks()[:5]}, "5 frames but frames has 12"),
            ({"masks": moving_masks()[:, 1:]}, "31x48"),
            ({"masks": moving_masks()[None]}, "(1, 12, 32, 48)"),
            ({"masks": moving_masks() / 2}, "float64"),
            ({"masks": moving_masks().astype(int) + 1}, "256"),
            ({"masks": moving_masks().astype(int) - 1}, "-1"),
            ({"masks": (moving_masks()[0] == 3) * np.uint8(255)}, "mask > 0"),
            ({"fps": 0}, "fps=0"),
            ({"fps": float("nan")}, "fps=nan"),
            ({"objects": xr.Dataset(coords={"frame": range(3)})}, "3 frames but the clip has 12"),
            ({"frame_names": ["0", "1"]}, "2 different names for 12 frames"),
            ({"frame_names": ["same"] * FRAMES}, "1 different names for 12 frames"),
        ],
    )
    def test_says_what_does_not_fit(self, arguments: dict[str, Any], says: str) -> None:
        with one_sentence(says):
            Clip(**{"frames": moving_frames(), **arguments})


class TestFolder:
    def test_frames_in_natural_order(self, folder: Path) -> None:
        (folder / "notes.txt").write_text("not a picture")
        (folder / "._frame1.png").write_bytes(b"what macOS leaves behind")
        clip = read_clip(folder)
        np.testing.assert_array_equal(clip.frames, moving_frames())
        assert (clip.name, clip.fps, clip.masks) == ("walk", 8.0, None)

    def test_some_frames_under_another_name(self, folder: Path) -> None:
        clip = read_clip(str(folder), name="part", fps=30, start=3, stop=7)
        np.testing.assert_array_equal(clip.frames, moving_frames()[3:7])
        assert (clip.name, clip.fps) == ("part", 30)

    def test_grey_and_palette_pictures_become_rgb(self, tmp_path: Path) -> None:
        grey = moving_frames()[0, ..., 0]
        save(tmp_path / "0.png", grey)
        Image.fromarray(grey).convert("RGBA").save(tmp_path / "1.png")
        clip = read_clip(tmp_path)
        np.testing.assert_array_equal(clip.frames, np.repeat(grey[None, :, :, None], 2, 0).repeat(3, -1))

    def test_pictures_are_turned_upright(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was held a quarter to the left
        Image.fromarray(moving_frames()[0]).save(tmp_path / "0.png", exif=exif)
        np.testing.assert_array_equal(read_clip(tmp_path).frames[0], np.rot90(moving_frames()[0], -1))

    def test_frames_of_two_sizes(self, folder: Path) -> None:
        save(folder / "frame5.png", moving_frames(1, HEIGHT, WIDTH - 1)[0])
        with one_sentence(folder / "frame5.png", "32x47", "32x48"):
            read_clip(folder)

    def test_two_pictures_of_one_frame(self, folder: Path) -> None:
        save(folder / "frame5.jpg", moving_frames()[0])
        with one_sentence(folder, "frame5.jpg", "frame5.png"):
            read_clip(folder)

    @pytest.mark.parametrize("damage", ["text", "cut", "empty"])
    def test_damaged_picture(self, folder: Path, damage: str) -> None:
        file = folder / "frame5.png"
        whole = file.read_bytes()
        file.write_bytes({"text": b"no picture", "cut": whole[: len(whole) // 2], "empty": b""}[damage])
        with one_sentence(file):
            read_clip(folder)

    def test_sixteen_bits(self, folder: Path) -> None:
        Image.fromarray(np.full((HEIGHT, WIDTH), 3000, np.uint16)).save(folder / "frame5.png")
        with one_sentence(folder / "frame5.png", "8 bits"):
            read_clip(folder)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with one_sentence(tmp_path, "no pictures"):
            read_clip(tmp_path)
        with one_sentence(tmp_path / "gone", "does not exist"):
            read_clip(tmp_path / "gone")

    @pytest.mark.parametrize(("start", "stop"), [(12, None), (3, 3), (-2, None)])
    def test_no_frame_chosen(self, folder: Path, start: int, stop: int | None) -> None:
        with one_sentence(folder, f"start={start}"):
            read_clip(folder, start=start, stop=stop)


class TestMasks:
    def test_round_trip_is_exact(self, folder: Path, tmp_path: Path) -> None:
        masks = moving_masks()
        masks[3] = 255
        masks[0, 0, :20] = np.arange(20, 40)
        write_masks(masks, tmp_path / "masks")
        assert sorted(f.name for f in (tmp_path / "masks").iterdir()) == [f"{t:05d}.png" for t in range(FRAMES)]
        np.testing.assert_array_equal(read_clip(folder, tmp_path / "masks").masks, masks)

    def test_files_are_as_in_davis(self, tmp_path: Path) -> None:
        write_masks(moving_masks(), tmp_path / "masks")
        with Image.open(tmp_path / "masks" / "00000.png") as image:
            assert image.mode == "P"
            colours = np.array(image.getpalette()).reshape(-1, 3)
        np.testing.assert_array_equal(colours, palette())
        # As published for PASCAL VOC: background, aeroplane, bicycle, bird, boat, cat, person, tv, void.
        assert colours[[0, 1, 2, 3, 4, 8, 15, 20, 255]].tolist() == [
            [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [64, 0, 0], [192, 128, 128],
            [0, 64, 128], [224, 224, 192],
        ]  # fmt: skip

    def test_some_frames_by_stem(self, folder: Path, tmp_path: Path) -> None:
        chosen = [0, 4, 9]
        write_masks(moving_masks()[chosen], tmp_path / "masks", names=[f"frame{t + 1}" for t in chosen])
        clip = read_clip(folder, tmp_path / "masks")
        assert clip.masks is not None
        assert np.flatnonzero(clip.annotated).tolist() == chosen
        np.testing.assert_array_equal(clip.masks[chosen], moving_masks()[chosen])
        part = read_clip(folder, tmp_path / "masks", start=3, stop=6)
        np.testing.assert_array_equal(part.masks, clip.masks[3:6])

    def test_by_number_where_no_stem_agrees(self, folder: Path, tmp_path: Path) -> None:
        write_masks(moving_masks()[[4]], tmp_path / "masks", names=["mask_005"])  # frame5 is the fifth
        clip = read_clip(folder, tmp_path / "masks")
        assert np.flatnonzero(clip.annotated).tolist() == [4]

    def test_by_position_where_no_number_agrees(self, tmp_path: Path) -> None:
        (tmp_path / "walk").mkdir()
        for t in range(3):
            save(tmp_path / "walk" / f"{t + 100}.png", moving_frames()[t])
        write_masks(moving_masks()[:2], tmp_path / "masks", names=["00000", "00002"])
        assert read_clip(tmp_path / "walk", tmp_path / "masks").annotated.tolist() == [True, False, True]

    def test_stems_that_agree_in_part_are_a_mistake(self, tmp_path: Path) -> None:
        (tmp_path / "walk").mkdir()
        for t in range(4):
            save(tmp_path / "walk" / f"{t + 1:05d}.png", moving_frames()[t])  # counted from 1
        write_masks(moving_masks()[:4], tmp_path / "masks")  # counted from 0
        with one_sentence(tmp_path / "masks", "00000.png"):
            read_clip(tmp_path / "walk", tmp_path / "masks")

    def test_of_a_video_by_position(self, video: Path, tmp_path: Path) -> None:
        write_masks(moving_masks()[[0, 5]], tmp_path / "masks", names=["00000", "00005"])
        assert np.flatnonzero(read_clip(video, tmp_path / "masks").annotated).tolist() == [0, 5]
        assert np.flatnonzero(read_clip(video, tmp_path / "masks", start=2, stop=7).annotated).tolist() == [3]

    def test_that_belongs_to_no_frame(self, folder: Path, video: Path, tmp_path: Path) -> None:
        write_masks(moving_masks()[:2], tmp_path / "masks", names=["frame2", "frame99"])
        for path in (folder, video):
            with one_sentence(tmp_path / "masks", "frame99.png", "no frame"):
                read_clip(path, tmp_path / "masks")

    def test_two_of_one_frame(self, video: Path, tmp_path: Path) -> None:
        write_masks(moving_masks()[:2], tmp_path / "masks", names=["a2", "b2"])
        with one_sentence(tmp_path / "masks", "a2.png", "b2.png"):
            read_clip(video, tmp_path / "masks")

    def test_none_for_the_frames_chosen(self, folder: Path, tmp_path: Path) -> None:
        write_masks(moving_masks()[:1], tmp_path / "masks", names=["frame9"])
        with one_sentence(tmp_path / "masks" / "frame9.png", "frames 0 to 3"):
            read_clip(folder, tmp_path / "masks" / "frame9.png", stop=4)

    def test_one_file(self, folder: Path, tmp_path: Path) -> None:
        write_masks(moving_masks()[:2], tmp_path / "masks", names=["first", "frame6"])
        first = read_clip(folder, tmp_path / "masks" / "first.png")
        assert np.flatnonzero(first.annotated).tolist() == [0]
        assert read_clip(folder, tmp_path / "masks" / "first.png", start=5).annotated.tolist() == [True] + 6 * [False]
        sixth = read_clip(folder, tmp_path / "masks" / "frame6.png")
        assert np.flatnonzero(sixth.annotated).tolist() == [5]

    def test_grey_values_are_ids(self, folder: Path, tmp_path: Path) -> None:
        save(tmp_path / "grey.png", moving_masks()[0])
        clip = read_clip(folder, tmp_path / "grey.png")
        np.testing.assert_array_equal(clip.masks[0] if clip.masks is not None else None, moving_masks()[0])

    @pytest.mark.parametrize("mode", [None, "1"])
    def test_binary_grey_is_object_1(self, folder: Path, tmp_path: Path, mode: str | None) -> None:
        binary = moving_masks()[0] == 3
        clip = read_clip(folder, save(tmp_path / "binary.png", binary * np.uint8(255), mode))
        assert clip.masks is not None
        np.testing.assert_array_equal(clip.masks[0], binary)
        assert (clip.masks[1:] == 255).all()

    def test_binary_is_decided_for_the_whole_folder(self, folder: Path, tmp_path: Path) -> None:
        made = tmp_path / "masks"
        made.mkdir()
        void_only = np.where(moving_masks()[0] == 255, 255, 0)  # object 3 has left, the void border is still there
        save(made / "frame1.png", moving_masks()[0])
        save(made / "frame2.png", void_only)
        for start in (0, 1):
            clip = read_clip(folder, made, start=start, stop=2)
            assert clip.masks is not None
            np.testing.assert_array_equal(clip.masks[-1], void_only)
        save(made / "frame1.png", np.full((HEIGHT, WIDTH), 255))  # all in the folder are binary now
        clip = read_clip(folder, made)
        assert clip.masks is not None
        assert (clip.masks[0] == 1).all()
        np.testing.assert_array_equal(clip.masks[1], void_only == 255)

    def test_binary_of_one_and_of_eight_bits(self, folder: Path, tmp_path: Path) -> None:
        made = tmp_path / "masks"
        made.mkdir()
        binary = moving_masks()[:2] == 3
        save(made / "frame1.png", binary[0] * np.uint8(255))
        save(made / "frame2.png", binary[1] * np.uint8(255), "1")
        clip = read_clip(folder, made)
        assert clip.masks is not None
        np.testing.assert_array_equal(clip.masks[:2], binary)

    def test_from_arrays(self, folder: Path, tmp_path: Path) -> None:
        masks = moving_masks()
        np.save(tmp_path / "all.npy", masks)
        np.savez(tmp_path / "all.npz", masks=masks.astype(np.int64))
        np.savez_compressed(tmp_path / "first.npz", masks=masks[2])
        for given in (tmp_path / "all.npy", tmp_path / "all.npz", masks):
            np.testing.assert_array_equal(read_clip(folder, given).masks, masks)
            np.testing.assert_array_equal(read_clip(folder, given, start=2, stop=5).masks, masks[2:5])
        for given in (tmp_path / "first.npz", masks[2]):
            clip = read_clip(folder, given, start=2)
            assert clip.masks is not None
            np.testing.assert_array_equal(clip.masks[0], masks[2])
            assert clip.annotated.sum() == 1

    def test_arrays_that_do_not_fit(self, folder: Path, video: Path, tmp_path: Path) -> None:
        np.save(tmp_path / "few.npy", moving_masks()[:5])
        np.save(tmp_path / "large.npy", np.zeros((FRAMES, HEIGHT, WIDTH + 1), np.uint8))
        np.save(tmp_path / "binary.npy", (moving_masks() == 3) * np.uint8(255))
        for name, says in (("few", "5 masks for 12 frames"), ("large", "32x49"), ("binary", "masks > 0")):
            with one_sentence(tmp_path / f"{name}.npy", says):
                read_clip(folder, tmp_path / f"{name}.npy")
        with one_sentence("5 masks for 8 frames"):  # where the video ends is not known
            read_clip(video, moving_masks()[:5], start=2, stop=8)

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
    def test_colour(self, folder: Path, tmp_path: Path, mode: str) -> None:
        with one_sentence(tmp_path / "colour.png", mode, "palette or grey"):
            read_clip(folder, save(tmp_path / "colour.png", moving_frames()[0], mode))

    def test_photograph(self, folder: Path, tmp_path: Path) -> None:
        with one_sentence(tmp_path / "photo.png", "too many"):
            read_clip(folder, save(tmp_path / "photo.png", moving_frames()[0], "L"))

    def test_another_size(self, folder: Path, tmp_path: Path) -> None:
        write_masks(moving_masks(1, HEIGHT, WIDTH - 1), tmp_path / "masks", names=["frame3"])
        with one_sentence(tmp_path / "masks" / "frame3.png", "32x47", "32x48"):
            read_clip(folder, tmp_path / "masks")

    def test_missing_or_no_mask(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "mask.txt").write_text("no mask")
        (tmp_path / "text.png").write_text("no mask")
        for name, says in (
            ("gone.png", "does not exist"),
            ("empty", "no PNG"),
            ("mask.txt", "is no mask"),
            ("text.png", "damaged"),
        ):
            with one_sentence(tmp_path / name, says):
                read_clip(folder, tmp_path / name)


class TestNamesOfFrames:
    """Masks of a part of a source find its frames again, whatever part is read then; else one sentence says why not."""

    STEMS = ("frame{}", "{:05d}", "f{:03d}_left")

    @pytest.fixture(params=[*STEMS, "gaps", "video", "arrays"])
    def source(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        """Twelve frames: in a folder, numbered from 1 or with gaps, a video, or arrays."""
        if request.param == "video":
            write_video(moving_frames(), tmp_path / "walk.mp4")
            return tmp_path / "walk.mp4"
        if request.param == "arrays":
            np.savez(tmp_path / "walk.npz", frames=moving_frames())
            return tmp_path / "walk.npz"
        stem, step = ("{:05d}", 5) if request.param == "gaps" else (request.param, 1)
        (tmp_path / "walk").mkdir()
        for t, frame in enumerate(moving_frames()):
            save(tmp_path / "walk" / f"{stem.format(step * t + 1)}.png", frame)
        return tmp_path / "walk"

    @pytest.mark.parametrize(
        "part", [{}, {"start": 1}, {"stride": 2}, {"start": 3, "stop": 10, "stride": 3}, {"start": 5, "stop": 6}]
    )
    def test_masks_of_a_part_find_its_frames(self, source: Path, tmp_path: Path, part: dict[str, int]) -> None:
        chosen = np.arange(FRAMES)[part.get("start", 0) : part.get("stop") : part.get("stride", 1)]
        masks = moving_masks()[chosen]
        clip = read_clip(source, **part)  # type: ignore[arg-type]
        write_masks(masks, tmp_path / "masks", clip.frame_names)
        np.testing.assert_array_equal(read_clip(source, tmp_path / "masks", **part).masks, masks)  # type: ignore[arg-type]
        whole = read_clip(source, tmp_path / "masks")
        assert whole.masks is not None
        assert np.flatnonzero(whole.annotated).tolist() == chosen.tolist()
        np.testing.assert_array_equal(whole.masks[chosen], masks)
        one = read_clip(source, tmp_path / "masks" / f"{clip.frame_names[-1]}.png")  # each mask, too, knows its frame
        assert np.flatnonzero(one.annotated).tolist() == [chosen[-1]]

    def test_masks_of_a_slice_find_its_frames(self, source: Path, tmp_path: Path) -> None:
        clip = read_clip(source, start=2)[1:6]
        write_masks(moving_masks()[3:8], tmp_path / "masks", clip.frame_names)
        np.testing.assert_array_equal(read_clip(source, tmp_path / "masks", start=3, stop=8).masks, moving_masks()[3:8])

    @pytest.mark.parametrize("part", [{"start": 1}, {"stride": 2}, {"start": 5, "stop": 6}])
    def test_masks_that_count_anew_are_refused(self, source: Path, tmp_path: Path, part: dict[str, int]) -> None:
        """They could be of the source's first frames, too."""
        clip = read_clip(source, **part)  # type: ignore[arg-type]
        write_masks(moving_masks()[: len(clip)], tmp_path / "masks")
        with one_sentence(tmp_path / "masks", f"masks 0 to {len(clip) - 1}", "clip.frame_names"):
            read_clip(source, tmp_path / "masks", **part)  # type: ignore[arg-type]

    def test_masks_of_a_video_counted_from_1(self, video: Path, tmp_path: Path) -> None:
        write_masks(moving_masks(), tmp_path / "masks", [f"{t + 1:05d}" for t in range(FRAMES)])
        with one_sentence(tmp_path / "masks", "00012.png", "no frame"):
            read_clip(video, tmp_path / "masks")
        with one_sentence(tmp_path / "masks", "1 to 12", "counted from 1"):  # where the video ends is not known
            read_clip(video, tmp_path / "masks", stop=6)
        (tmp_path / "masks" / "00001.png").rename(tmp_path / "masks" / "00000.png")
        (tmp_path / "masks" / "00012.png").unlink()
        assert read_clip(video, tmp_path / "masks", stop=6).annotated.tolist() == [True, False, True, True, True, True]

    def test_one_mask_of_a_frame_that_is_not_read(self, video: Path, tmp_path: Path) -> None:
        write_masks(moving_masks()[:1], tmp_path / "masks")
        with one_sentence(tmp_path / "masks" / "00000.png", "by its name", "frames 3 to 11"):
            read_clip(video, tmp_path / "masks" / "00000.png", start=3)
        (tmp_path / "masks" / "00000.png").rename(tmp_path / "first.png")
        assert np.flatnonzero(read_clip(video, tmp_path / "first.png", start=3).annotated).tolist() == [0]


class TestArrays:
    def test_frames_and_masks(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "walk.npz", frames=moving_frames(), masks=moving_masks())
        clip = read_clip(tmp_path / "walk.npz", start=1, stop=4)
        np.testing.assert_array_equal(clip.frames, moving_frames()[1:4])
        np.testing.assert_array_equal(clip.masks, moving_masks()[1:4])
        assert clip.name == "walk"
        other = read_clip(tmp_path / "walk.npz", moving_masks()[0] > 0)  # masks given come before those inside
        assert other.object_ids == (1,)

    def test_no_code_is_loaded(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "sprung",)

        np.savez(tmp_path / "objects.npz", frames=np.array([Trap()], object))
        with one_sentence(tmp_path / "objects.npz", "plain arrays"):
            read_clip(tmp_path / "objects.npz")
        assert not (tmp_path / "sprung").exists()

    def test_what_does_not_fit(self, tmp_path: Path) -> None:
        file = tmp_path / "walk.npz"
        np.savez(file, pictures=moving_frames())
        with one_sentence(file, "pictures", "'frames'"):
            read_clip(file)
        np.savez(file, frames=moving_frames() / 255)
        with one_sentence(file, "float64"):
            read_clip(file)
        np.savez(file, frames=moving_frames(), masks=moving_masks()[:, 1:])
        with one_sentence(file, "31x48"):
            read_clip(file)
        with one_sentence(cut(file)):
            read_clip(cut(file))
        file.write_text("no arrays")
        with one_sentence(file):
            read_clip(file)


class TestVideo:
    def test_round_trip(self, video: Path) -> None:
        clip = read_clip(video)
        assert clip.frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
        assert (clip.fps, clip.name) == (24, "walk")
        error = np.abs(clip.frames.astype(int) - moving_frames())
        assert error.mean() < 3
        # Each frame is nearest to itself: none is lost, doubled or out of order.
        apart = np.abs(clip.frames[:, None].astype(int) - moving_frames()[None]).mean(axis=(2, 3, 4))
        assert apart.argmin(axis=1).tolist() == list(range(FRAMES))

    @pytest.mark.parametrize("colour", [(200, 30, 0), (20, 190, 40), (10, 20, 220)])
    def test_colours_survive(self, tmp_path: Path, colour: tuple[int, int, int]) -> None:
        write_video(np.full((2, 16, 16, 3), colour, np.uint8), tmp_path / "flat.mp4")
        assert np.abs(read_clip(tmp_path / "flat.mp4").frames.astype(int) - colour).max() <= 3

    def test_is_what_browsers_play(self, video: Path) -> None:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert int(stream.codec_context.colorspace) == BT709
        whole = video.read_bytes()
        assert whole.index(b"moov") < whole.index(b"mdat")

    def test_odd_sizes_repeat_the_edge(self, tmp_path: Path) -> None:
        frames = moving_frames(3, 31, 47)
        write_video(frames, tmp_path / "odd.mp4")
        clip = read_clip(tmp_path / "odd.mp4")
        assert clip.frames.shape == (3, 32, 48, 3)
        assert np.abs(clip.frames[:, :31, :47].astype(int) - frames).mean() < 3
        assert np.abs(clip.frames[:, 31, :47].astype(int) - frames[:, 30]).mean() < 6

    @pytest.mark.parametrize("fps", [30000 / 1001, 23.976, 0.5, 60])
    def test_rates(self, tmp_path: Path, fps: float) -> None:
        write_video(moving_frames(3), tmp_path / "rate.mp4", fps)
        assert read_clip(tmp_path / "rate.mp4").fps == pytest.approx(fps, rel=1e-9)

    def test_some_frames(self, video: Path) -> None:
        np.testing.assert_array_equal(read_clip(video, start=2, stop=5).frames, read_clip(video).frames[2:5])
        assert len(read_clip(video, start=10, stop=99)) == 2
        with one_sentence(video, "12 frames", "start=12"):
            read_clip(video, start=12)

    def test_is_turned_upright(self, tmp_path: Path) -> None:
        # One file, decoded twice: two encodings of the same frames need not be the same to the bit.
        file = encode(tmp_path / "turned.mp4", rotation=90)
        with av.open(str(file)) as container:
            lying = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        upright = read_clip(file).frames
        np.testing.assert_array_equal(upright, np.rot90(lying, axes=(1, 2)))
        assert np.abs(upright.astype(int) - np.rot90(moving_frames(30), axes=(1, 2))).mean() < 5

    @pytest.mark.parametrize("gop", [5, 250])
    def test_frames_hidden_by_an_edit_list_are_not_missing(self, tmp_path: Path, gop: int) -> None:
        whole = bytearray(encode(tmp_path / "whole.mp4", gop=gop).read_bytes())
        at = whole.index(b"elst") + 12
        struct.pack_into(">I", whole, at, struct.unpack_from(">I", whole, at)[0] // 2)  # show the first half
        (tmp_path / "trimmed.mp4").write_bytes(whole)
        shown = read_clip(tmp_path / "trimmed.mp4").frames
        np.testing.assert_array_equal(shown, read_clip(tmp_path / "whole.mp4").frames[:15])

    def test_cut_before_the_index(self, tmp_path: Path) -> None:
        short = cut(encode(tmp_path / "late.mp4"))
        with one_sentence(short, "cannot be opened"):
            read_clip(short)

    @pytest.mark.parametrize("share", [0.5, 0.8, 0.97])
    def test_cut_after_the_index(self, tmp_path: Path, share: float) -> None:
        short = cut(encode(tmp_path / "early.mp4", options={"movflags": "faststart"}), share)
        with one_sentence(short, "cut short", "of 30 frames"):
            read_clip(short)

    def test_cut_between_two_frames(self, tmp_path: Path) -> None:
        whole = encode(tmp_path / "early.mp4", options={"movflags": "faststart"})
        with av.open(str(whole)) as container:
            tenth = container.streams.video[0].index_entries[9]
            end = tenth.pos + tenth.size  # while it is open: PyAV frees the index on closing
        (tmp_path / "short.mp4").write_bytes(whole.read_bytes()[:end])  # no packet is broken
        with one_sentence(tmp_path / "short.mp4", "10 of 30 frames", "stop=10"):
            read_clip(tmp_path / "short.mp4")
        np.testing.assert_array_equal(read_clip(tmp_path / "short.mp4", stop=8).frames, read_clip(whole, stop=8).frames)

    def test_cut_matroska(self, tmp_path: Path) -> None:
        whole = encode(tmp_path / "whole.mkv")
        assert len(read_clip(whole)) == 30
        for share in (0.6, 0.99):
            with one_sentence(cut(whole, share), "cut short"):
                read_clip(cut(whole, share))

    @pytest.mark.parametrize(
        ("name", "says"), [("notes.txt", "no video"), ("notes.mp4", "no video"), ("notes.srt", "no video")]
    )
    def test_text(self, tmp_path: Path, name: str, says: str) -> None:
        (tmp_path / name).write_text("1\n00:00:00,000 --> 00:00:01,000\nno video\n" * 30)
        with one_sentence(tmp_path / name, f"{name} ", says):
            read_clip(tmp_path / name)

    def test_text_is_not_drawn(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("hello\nworld\n" * 50)  # FFmpeg would make 3 frames of it
        with one_sentence(tmp_path / "notes.txt", "holds no video"):
            read_clip(tmp_path / "notes.txt")

    def test_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "empty.mp4").touch()
        with one_sentence(tmp_path / "empty.mp4"):
            read_clip(tmp_path / "empty.mp4")


def fail_midway(*arguments: Any) -> None:
    next(a for a in arguments if isinstance(a, Path)).write_bytes(b"half")
    raise OSError(28, "No space left on device")


class TestWriting:
    def test_masks_leave_nothing_behind(self, tmp_path: Path) -> None:
        with one_sentence(tmp_path / "masks", "too long"):
            write_masks(moving_masks()[:2], tmp_path / "masks", names=["fine", "x" * 300])
        assert list(tmp_path.iterdir()) == []

    def test_masks_that_were_there_stay_on_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_masks(moving_masks(), tmp_path / "masks")
        rename: Callable[..., Path] = Path.rename

        def only_away(self: Path, target: Path) -> Path:
            if self.name.endswith(".part"):
                raise OSError(5, "Input/output error")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", only_away)
        with one_sentence(tmp_path / "masks", "Input/output error"):
            write_masks(np.zeros_like(moving_masks()), tmp_path / "masks")
        assert [f.name for f in tmp_path.iterdir()] == ["masks"]
        with Image.open(tmp_path / "masks" / "00003.png") as image:
            np.testing.assert_array_equal(image, moving_masks()[3])

    def test_masks_are_replaced_whole(self, tmp_path: Path) -> None:
        write_masks(moving_masks()[:3], tmp_path / "masks")
        write_masks(np.zeros_like(moving_masks()), tmp_path / "masks")
        assert len(list((tmp_path / "masks").iterdir())) == FRAMES
        assert [f.name for f in tmp_path.iterdir()] == ["masks"]
        with Image.open(tmp_path / "masks" / "00000.png") as image:
            assert not np.asarray(image).any()

    @pytest.mark.parametrize("stranger", ["notes.txt", "00099.png", "00000.png"])
    def test_masks_do_not_mix_with_other_files(self, tmp_path: Path, stranger: str) -> None:
        file = tmp_path / stranger
        if stranger.endswith(".png"):
            save(file, moving_frames()[0])  # a frame, whatever its name
        else:
            file.write_text("mine")
        before = file.read_bytes()
        with one_sentence(tmp_path, stranger):
            write_masks(moving_masks(), tmp_path)
        assert file.read_bytes() == before
        assert list(tmp_path.iterdir()) == [file]

    @pytest.mark.parametrize(
        ("masks", "names"),
        [
            (moving_masks()[0], None),
            (moving_masks()[:0], None),
            (moving_masks() * 1.0, None),
            (moving_masks()[:2], ["a"]),
            (moving_masks()[:2], ["a", "a"]),
            (moving_masks()[:2], ["a", "../b"]),
            (moving_masks()[:2], ["a", ""]),
        ],
    )
    def test_masks_that_cannot_be_written(self, tmp_path: Path, masks: Any, names: list[str] | None) -> None:
        with one_sentence():
            write_masks(masks, tmp_path / "masks", names)
        assert list(tmp_path.iterdir()) == []

    def test_video_leaves_nothing_behind(self, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = video.read_bytes()
        monkeypatch.setattr("tedlens.media.video._encode", fail_midway)
        for path in (video, video.with_name("new.mp4")):
            with one_sentence(path, "No space left"):
                write_video(moving_frames(), path)
        assert list(video.parent.iterdir()) == [video]
        assert video.read_bytes() == before

    def test_video_too_large_for_the_codec(self, tmp_path: Path) -> None:
        with one_sentence(tmp_path / "wide.mp4", "2x16500"):
            write_video(np.zeros((1, 2, 16500, 3), np.uint8), tmp_path / "wide.mp4")
        assert list(tmp_path.iterdir()) == []

    def test_what_cannot_be_written(self, tmp_path: Path) -> None:
        with one_sentence(tmp_path / "walk.avi", ".mp4"):
            write_video(moving_frames(), tmp_path / "walk.avi")
        with one_sentence(tmp_path / "gone" / "walk.mp4", "parent folder"):
            write_video(moving_frames(), tmp_path / "gone" / "walk.mp4")
        with one_sentence(tmp_path / "gone" / "masks", "parent folder"):
            write_masks(moving_masks(), tmp_path / "gone" / "masks")
        with one_sentence("fps=0"):
            write_video(moving_frames(), tmp_path / "walk.mp4", fps=0)
        with one_sentence("float64"):
            write_video(moving_frames() / 255, tmp_path / "walk.mp4")  # type: ignore[arg-type]


class TestOverlay:
    def test_tints_objects_only(self) -> None:
        frames, masks = moving_frames(), moving_masks()
        before = frames.copy()
        out = overlay(frames, masks)
        np.testing.assert_array_equal(frames, before)
        nothing = (masks == 0) | (masks == 255)
        np.testing.assert_array_equal(out[nothing], frames[nothing])
        assert (out[~nothing] != frames[~nothing]).any(axis=-1).all()

    def test_mixes_tint_and_picture(self) -> None:
        masks = np.zeros((1, 9, 9), np.uint8)
        masks[:, 2:7, 2:7] = 1
        grey = np.full((1, 9, 9, 3), 100, np.uint8)
        only = overlay(grey, masks, alpha=1)[0]
        half = overlay(grey, masks, alpha=0.5)[0]
        none = overlay(grey, masks, alpha=0)[0]
        assert only[4, 4].tolist() == [0xE6, 0x9F, 0x00]
        assert half[4, 4].tolist() == [(100 + part) // 2 for part in only[4, 4].astype(int) + 1]  # rounded
        assert none[4, 4].tolist() == [100, 100, 100]
        assert (none[2, 2:7] == only[2, 2:7]).all()  # the outline is the same at any alpha
        assert only[2, 4].tolist() != only[4, 4].tolist()
        assert (none[2:7, 2:7] != 100).any(axis=-1).sum() == 16

    def test_no_outline_along_the_picture(self) -> None:
        out = overlay(np.full((1, 9, 9, 3), 100, np.uint8), np.ones((1, 9, 9), np.uint8))
        assert len(np.unique(out.reshape(-1, 3), axis=0)) == 1

    def test_colours_differ(self) -> None:
        ids = np.arange(1, 64, dtype=np.uint8).repeat(9).reshape(63, 3, 3)
        out = overlay(np.zeros((63, 3, 3, 3), np.uint8), ids, alpha=1)
        assert len(np.unique(out.reshape(-1, 3), axis=0)) == 63

    def test_what_does_not_fit(self) -> None:
        with one_sentence("labels", "(5, 32, 48)"):
            overlay(moving_frames(), moving_masks()[:5])
        with one_sentence("alpha=2"):
            overlay(moving_frames(), moving_masks(), alpha=2)


def test_importing_is_light() -> None:
    import subprocess
    import sys

    heavy = "torch", "av", "PIL", "xarray", "natsort", "pandas"
    code = f"import sys, tedlens.clip, tedlens.media; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
