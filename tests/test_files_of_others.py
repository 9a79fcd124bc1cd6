"""Files as people have them, made by other programs: read whole, upright and in their own values, or refused."""

from __future__ import annotations

import contextlib
import itertools
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features
from test_clip import HEIGHT, WIDTH, cut, encode, moving_frames, moving_masks, one_sentence, save

from tedlens.clip import read_clip
from tedlens.errors import TedlensError
from tedlens.media import palette, write_video

Array = np.ndarray[Any, Any]


# --- stacks of pictures ---------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["webp", "tif", "png", "apng", "gif", "avif"])
def test_a_stack_of_pictures_is_read_whole(tmp_path: Path, suffix: str) -> None:
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    flat = np.repeat(np.arange(6, dtype=np.uint8) * 40, 32 * 48 * 3).reshape(6, 32, 48, 3)
    first, *rest = map(Image.fromarray, flat)
    how: dict[str, Any] = {} if suffix in ("tif", "gif", "avif") else {"lossless": True}
    path = tmp_path / f"a.{suffix}"
    first.save(path, save_all=True, append_images=rest, duration=50, **how)
    clip = read_clip(path)
    assert np.abs(clip.frames.astype(int) - flat).max() <= 6
    if suffix != "tif":
        assert clip.fps == 20
        assert read_clip(path, stride=2).fps == (20 if suffix == "gif" else 10) or suffix == "gif"
    assert len(read_clip(path, start=1, stop=5, stride=2)) == 2


def test_a_picture_for_programs_that_do_not_animate_is_no_frame(tmp_path: Path) -> None:
    pictures = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (250, 10, 90)]
    pictures[0].save(tmp_path / "a.png", save_all=True, append_images=pictures[1:], default_image=True)
    assert read_clip(tmp_path / "a.png").frames[:, 0, 0, 0].tolist() == [10, 90]


def test_stacks_in_a_folder_and_of_several_sizes_are_refused(tmp_path: Path) -> None:
    small, large = (Image.new("RGB", (8, side)) for side in (8, 12))
    (tmp_path / "folder").mkdir()
    small.save(tmp_path / "folder/0.webp", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
    with one_sentence("0.webp", "2 pictures"):
        read_clip(tmp_path / "folder")
    small.save(tmp_path / "a.tif", save_all=True, append_images=[large])
    with one_sentence("several sizes"):
        read_clip(tmp_path / "a.tif")


# --- videos ---------------------------------------------------------------------------------------


def test_a_cover_picture_is_no_film(tmp_path: Path) -> None:
    film = encode(tmp_path / "film.mp4")
    save(tmp_path / "cover.png", np.zeros((300, 300, 3)))
    with av.open(str(tmp_path / "both.mp4"), "w") as out, av.open(str(film)) as video:
        cover = out.add_stream("png", rate=1)
        cover.width = cover.height = 300
        cover.pix_fmt = "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        track = out.add_stream_from_template(video.streams.video[0])
        out.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((300, 300, 3), np.uint8), "rgb24")))
        out.mux(cover.encode())
        for packet in video.demux(video.streams.video[0]):
            if packet.dts is not None:
                packet.stream = track
                out.mux(packet)
    np.testing.assert_array_equal(read_clip(tmp_path / "both.mp4").frames, read_clip(film).frames)


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """The display matrix of an mp4's track, set by hand."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix lies 40 bytes into the box
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


EIGHT = [(a, 0, 0, d) for a, d in itertools.product((1, -1), repeat=2)] + [
    (0, b, c, 0) for b, c in itertools.product((1, -1), repeat=2)
]


@pytest.mark.parametrize("matrix", EIGHT)
def test_all_eight_orientations_are_shown_upright(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    corners = np.zeros((3, 64, 96, 3), np.uint8)
    corners[:, :32, :48], corners[:, :32, 48:], corners[:, 32:, :48], corners[:, 32:, 48:] = 0, 80, 160, 240
    write_video(corners, tmp_path / "a.mp4")
    plain = read_clip(tmp_path / "a.mp4").frames
    turned = read_clip(with_matrix(tmp_path / "a.mp4", *matrix)).frames
    # Where each pixel goes to by the definition: x' = a x + c y, y' = b x + d y, moved back to the corner.
    a, b, c, d = matrix
    y, x = np.mgrid[:64, :96]
    to_x, to_y = a * x + c * y, b * x + d * y
    expected = np.empty((3, int(np.ptp(to_y)) + 1, int(np.ptp(to_x)) + 1, 3), np.uint8)
    expected[:, to_y - to_y.min(), to_x - to_x.min()] = plain
    np.testing.assert_array_equal(turned, expected)


def avi_with_empty_packets(path: Path) -> Path:
    """An AVI that counts 12 pictures, four of which are dropped."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        for t, frame in enumerate(moving_frames(8)):
            picture = av.VideoFrame.from_ndarray(frame, "rgb24")
            picture.pts = t + t // 2 * 1  # gaps are filled with empty packets
            for packet in stream.encode(picture):
                out.mux(packet)
        out.mux(stream.encode())
    return path


def test_what_an_avi_s_header_counts_is_a_hint(tmp_path: Path) -> None:
    path = avi_with_empty_packets(tmp_path / "a.avi")
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > 8
    assert len(read_clip(path)) == 8
    with one_sentence("cut short"):
        read_clip(cut(path))


def test_a_part_of_a_long_video_takes_what_is_asked_for(tmp_path: Path) -> None:
    write_video(moving_frames(60), tmp_path / "a.mp4", fps=24)
    whole = read_clip(tmp_path / "a.mp4")
    some = read_clip(tmp_path / "a.mp4", start=3, stop=50, stride=10)
    np.testing.assert_array_equal(some.frames, whole.frames[3:50:10])
    assert some.fps == 2.4
    small = read_clip(tmp_path / "a.mp4", size=16)
    assert small.frames.shape == (60, 16, 24, 3)
    assert read_clip(tmp_path / "a.mp4", size=(20, 30)).frames.shape == (60, 20, 30, 3)
    for wrong in ({"stride": 0}, {"size": 0}, {"size": (1, 2, 3)}):
        with one_sentence(next(iter(wrong))):
            read_clip(tmp_path / "a.mp4", **wrong)  # type: ignore[arg-type]


def test_masks_follow_stride_and_size(tmp_path: Path) -> None:
    frames, masks = moving_frames(12), moving_masks(12)
    np.savez(tmp_path / "a.npz", frames=frames, masks=masks)
    (tmp_path / "masks").mkdir()
    for t in range(12):
        save(tmp_path / f"masks/{t}.png", masks[t])
    for given_masks in (None, tmp_path / "masks", masks):
        clip = read_clip(tmp_path / "a.npz", given_masks, start=1, stride=4, size=16)
        assert clip.masks is not None
        np.testing.assert_array_equal(clip.masks, masks[1::4, 1::2, 1::2])


def test_a_list_of_other_files_is_no_video(tmp_path: Path) -> None:
    encode(tmp_path / "film.mp4")
    (tmp_path / "a.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path / 'film.mp4'}\n")
    (tmp_path / "a.ffconcat").write_text("ffconcat version 1.0\nfile film.mp4\n")
    for name in ("a.m3u8", "a.ffconcat"):
        with one_sentence(name):
            read_clip(tmp_path / name)


# --- masks ----------------------------------------------------------------------------------------


def grey_png(path: Path, values: Array, bits: int, transparent: bool = False) -> Path:
    """A grey PNG of 1, 2, 4, 8 or 16 bits a value, byte by byte."""
    height, width = values.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b""
    for row in values.astype(int):
        packed = "".join(format(int(value), f"0{bits}b") for value in row)
        packed += "0" * (-len(packed) % 8)
        rows += b"\0" + int(packed, 2).to_bytes(len(packed) // 8, "big")
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    clear = chunk(b"tRNS", struct.pack(">H", 0)) if transparent else b""
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + clear + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


def ids_of(path: Path, size: tuple[int, int]) -> Array:
    np.savez(path.with_name("frames.npz"), frames=np.zeros((1, *size, 3), np.uint8))
    masks = read_clip(path.with_name("frames.npz"), path).masks
    assert masks is not None
    return masks[0]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bits=st.sampled_from([1, 2, 4, 8, 16]),
    transparent=st.booleans(),
    size=st.tuples(st.integers(6, 13), st.integers(6, 13)),
    data=st.data(),
)
def test_grey_masks_are_read_by_value(
    tmp_path: Path, bits: int, transparent: bool, size: tuple[int, int], data: st.DataObject
) -> None:
    top = min(2**bits - 1, 200)
    ids = data.draw(st.lists(st.integers(0, top), min_size=1, max_size=4, unique=True))
    values = np.zeros(size, int)
    for place, number in enumerate(ids):  # stripes
        values[:, place * 3 : place * 3 + 3] = number
    found = ids_of(grey_png(tmp_path / "mask.png", values, bits, transparent), size)
    np.testing.assert_array_equal(found, values)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(orders=st.lists(st.permutations(range(4)), min_size=2, max_size=3), depth=st.sampled_from([2, 8]))
def test_ids_of_palettes_sorted_anew_are_told_by_colour(tmp_path: Path, orders: list[list[int]], depth: int) -> None:
    ids = np.repeat([0, 1, 2, 3], 4)[None].repeat(6, 0).astype(np.uint8)
    folder = tmp_path / "masks"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for t, order in enumerate(orders):
        image = Image.fromarray(np.argsort(order)[ids].astype(np.uint8))
        image.putpalette(palette()[order].tobytes())
        image.save(folder / f"{t}.png", bits=depth)
    np.savez(tmp_path / "frames.npz", frames=np.zeros((len(orders), *ids.shape, 3), np.uint8))
    masks = read_clip(tmp_path / "frames.npz", folder).masks
    assert masks is not None
    np.testing.assert_array_equal(masks, np.broadcast_to(ids, masks.shape))


def test_palettes_that_disagree_in_other_colours_are_refused(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    ids = np.repeat([0, 1], 8)[None].repeat(6, 0).astype(np.uint8)
    for t, colours in enumerate([[(0, 0, 0), (9, 90, 200)], [(9, 90, 200), (0, 0, 0)]]):
        image = Image.fromarray(ids if t == 0 else 1 - ids)
        image.putpalette(np.array(colours, np.uint8).tobytes())
        image.save(tmp_path / f"masks/{t}.png")
    np.savez(tmp_path / "frames.npz", frames=np.zeros((2, *ids.shape, 3), np.uint8))
    with one_sentence("palettes disagree"):
        read_clip(tmp_path / "frames.npz", tmp_path / "masks")


def test_palettes_of_other_colours_that_agree_keep_their_values(tmp_path: Path) -> None:
    """Also where several values have one colour, as in a palette that nobody filled."""
    (tmp_path / "masks").mkdir()
    ids = np.repeat([0, 1, 2], 4)[None].repeat(6, 0).astype(np.uint8)
    np.savez(tmp_path / "frames.npz", frames=np.zeros((1, *ids.shape, 3), np.uint8))
    for colours in ([(0, 0, 0), (9, 90, 200), (7, 7, 7)], [(0, 0, 0)] * 3, [(1, 2, 3), (128, 0, 0), (5, 5, 5)]):
        image = Image.fromarray(ids)
        image.putpalette(np.array(colours, np.uint8).tobytes())
        image.save(tmp_path / "masks/0.png")
        masks = read_clip(tmp_path / "frames.npz", tmp_path / "masks").masks
        assert masks is not None
        np.testing.assert_array_equal(masks[0], ids)


@pytest.mark.parametrize("how", ["BILINEAR", "BICUBIC", "LANCZOS"])
@pytest.mark.parametrize("side", [50, 77, 131])
def test_a_smoothed_mask_is_refused(tmp_path: Path, how: str, side: int) -> None:
    y, x = np.mgrid[:100, :100]
    mask = Image.fromarray((((y - 50) ** 2 + (x - 50) ** 2 < 900) * 255).astype(np.uint8))
    save(tmp_path / "mask.png", np.array(mask.resize((side, side), getattr(Image.Resampling, how))))
    with one_sentence("mask.png"):
        ids_of(tmp_path / "mask.png", (side, side))


def test_objects_with_void_around_them_are_no_smoothed_mask(tmp_path: Path) -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[5:20, 5:20], mask[25:30, 25:30] = 255, 255
    mask[7:18, 7:18], mask[26:29, 26:29] = 1, 2
    np.testing.assert_array_equal(ids_of(save(tmp_path / "mask.png", mask), (40, 40)), mask)


def test_masks_named_by_frame_and_object_are_refused(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "frames").mkdir()
    write_video(moving_frames(5), tmp_path / "a.mp4")
    for t in range(5):
        save(tmp_path / f"frames/{t:05d}.png", moving_frames(5)[t])
        for number in (1, 2):
            save(tmp_path / f"masks/{t:05d}_{number}.png", moving_masks(5)[t])
    for source in ("frames", "a.mp4"):
        with one_sentence("00000_1.png", "frame and object"):
            read_clip(tmp_path / source, tmp_path / "masks")


@pytest.mark.parametrize(
    ("numbers", "gap"), [([0, 1, 2, 4, 5], (2, 4)), ([0, 5, 10, 20], (10, 20)), ([0, 5, 10], None)]
)
def test_a_gap_in_numbered_frames_is_said(tmp_path: Path, numbers: list[int], gap: tuple[int, int] | None) -> None:
    for number in numbers:
        save(tmp_path / f"{number:03d}.png", np.zeros((8, 8, 3)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        read_clip(tmp_path)
    assert [str(one.message).split("frames ")[1].split(" but")[0] for one in said] == (
        [] if gap is None else [f"{gap[0]} and {gap[1]}"]
    )


# --- what fuzzing found (tests/benchmarks/fuzz_readers.py) ----------------------------------------


def animation(path: Path) -> bytes:
    pictures = [Image.fromarray(frame) for frame in np.random.default_rng(0).integers(0, 255, (4, 16, 24, 3), np.uint8)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    return path.read_bytes()


def test_a_gif_that_ends_between_two_pictures_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    whole = animation(path)
    assert len(read_clip(path)) == 4
    for end in range(20, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(TedlensError, match="cut short"):
            read_clip(path)
    path.write_bytes(whole + b"\0\0 and what some program adds")
    assert len(read_clip(path)) == 4


@pytest.mark.parametrize("suffix", ["tif", "avif", "webp", "png"])
def test_whatever_a_decoder_raises_is_one_sentence(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    whole = animation(path)
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 8):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(TedlensError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read_clip(path)


def test_a_picture_that_says_it_is_four_million_pixels_wide(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    whole = animation(path)
    at = whole.index(b"VP8X") + 12  # width less one, three bytes
    path.write_bytes(whole[:at] + (4_194_351).to_bytes(3, "little") + whole[at + 3 :])
    with pytest.raises(TedlensError, match="16x4194352 pixels"):
        read_clip(path)


def test_arrays_with_a_damaged_header(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 16, 24, 3), np.uint8))
    whole = path.read_bytes()
    for damage in (whole.replace(b"'descr'", b"'de(((("), whole.replace(b"(2, 16", b"(9999999999999, 16")):
        path.write_bytes(damage)
        with pytest.raises(TedlensError, match="cannot be read as plain arrays"):
            read_clip(path)


def test_a_title_in_no_known_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w", format="matroska") as file:
        file.metadata["title"] = "TITLE"
        stream: Any = file.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"\xff\xfe\xb1\x80\x81"))
    assert len(read_clip(path)) == 1
