"""Files in and out: videos, folders of pictures, masks. Arrays only; what they mean is `clip`'s affair.

What is written appears whole under its name or not at all, and what is read is all there: a file that
breaks off is an error, never a shorter clip.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from tedlens.errors import TedlensError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from PIL import Image

Pictures = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]

VOID = 255  # in masks, as in DAVIS: nobody has said what is here
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
ARRAY_SUFFIXES = (".npz", ".npy")
MOST_IDS = 64  # different values in one mask; with more it is a photograph or has soft edges
FIRST_OBJECTS = ("E69F00", "56B4E9", "CC79A7", "F0E442", "009E73", "D55E00", "0072B2")  # rgb, where objects are shown
BT709 = 1  # in FFmpeg's and PyAV's numbering of colour spaces


@dataclass(frozen=True)
class Footage:
    """Frames as they lie in a file or folder, and what is needed to find their masks."""

    frames: Pictures
    start: int  # number of the first of `frames` in the source
    total: int | None  # frames in the source; None: reading stopped before its end
    stems: tuple[str, ...] | None = None  # of all the source's files, if it is a folder
    fps: float | None = None
    masks: Labels | None = None  # (total, H, W) or (H, W), if the source holds them itself


def as_labels(values: npt.ArrayLike, what: str = "masks") -> Labels:
    """`values` as uint8 labels of the same shape; bool counts as 0 and 1.

    Raises
    ------
    TedlensError
        If they are not whole numbers from 0 to 255.
    """
    array = _array(values, what)
    if array.dtype == np.uint8:
        return array
    if array.dtype != np.bool_:
        if not np.issubdtype(array.dtype, np.integer):
            raise TedlensError(f"{what} is of type {array.dtype}; give integers: 0 background, 1.. objects, 255 void.")
        if array.size and (array.min() < 0 or array.max() > 255):
            raise TedlensError(
                f"{what} holds values from {array.min()} to {array.max()}; "
                "object ids go from 1 to 254, 0 is background and 255 is void."
            )
    return array.astype(np.uint8)


def _array(values: npt.ArrayLike, what: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except (ValueError, TypeError):  # a ragged list, a tensor on another device
        raise TedlensError(f"{what} is a {type(values).__name__} that is no array; give a numpy array.") from None


def ids_in(labels: Labels) -> set[int]:
    """All values that occur, 0 and void included."""
    found = np.zeros(256, np.bool_)
    for row in labels:  # a part at a time, because bincount makes an int64 copy
        found |= np.bincount(row.ravel(), minlength=256) > 0
    return {int(i) for i in np.flatnonzero(found)}


def from_first(first: Labels, frames: int, what: str = "masks") -> Labels:
    """A mask (H, W) of the first frame as masks (T, H, W), the rest void."""
    if ids_in(first) == {0, VOID}:
        raise TedlensError(
            f"{what} holds only 0 and 255, and 255 means void; give a binary mask as bool, such as `mask > 0`."
        )
    masks = np.full((frames, *first.shape), VOID, np.uint8)
    masks[0] = first
    return masks


# --- frames ---------------------------------------------------------------------------------------


def read_footage(path: Path, start: int, stop: int | None) -> Footage:
    """Frames `start` to `stop` (not included; None: the end) of a video, a folder of pictures or an .npz."""
    if start < 0 or (stop is not None and stop <= start):
        raise TedlensError(f"start={start}, stop={stop} choose no frame of {path}; give 0 <= start < stop.")
    if not path.exists():
        raise TedlensError(f"{path} does not exist; give a video file, a folder of pictures or an .npz.")
    if path.is_dir():
        footage = _read_folder(path, start, stop)
    elif path.suffix.lower() in ARRAY_SUFFIXES:
        arrays = _load(path, "frames", "masks")
        frames = check_frames(arrays["frames"], f"frames in {path}")
        footage = Footage(frames[start:stop], start, len(frames), masks=arrays.get("masks"))
    elif path.suffix.lower() in PICTURE_SUFFIXES:
        footage = Footage(_read_picture(path)[None][start:stop], start, 1, stems=(path.stem,))
    else:
        footage = _read_video(path, start, stop)
    if len(footage.frames) == 0:
        raise TedlensError(f"{path} has {footage.total} frames, so none from start={start} on; give a smaller start.")
    return footage


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files with one of `suffixes`, in natural order; hidden ones (.DS_Store, ._x.jpg) left out."""
    from natsort import natsorted

    found = [f for f in folder.iterdir() if f.suffix.lower() in suffixes and not f.name.startswith(".") and f.is_file()]
    return list(natsorted(found, key=lambda f: f.name))


def _read_folder(folder: Path, start: int, stop: int | None) -> Footage:
    files = _files(folder, PICTURE_SUFFIXES)
    if not files:
        raise TedlensError(f"{folder} holds no pictures; give a folder of {', '.join(PICTURE_SUFFIXES)} files.")
    seen: dict[str, Path] = {}
    for file in files:
        if file.stem in seen:
            raise TedlensError(
                f"{folder} holds both {seen[file.stem].name} and {file.name}; "
                "keep one picture for each frame, and masks in another folder."
            )
        seen[file.stem] = file
    pictures: list[Pictures] = []
    for file in files[start:stop]:
        picture = _read_picture(file)
        if pictures and picture.shape != pictures[0].shape:
            raise TedlensError(
                f"{file} is {_size(picture)} but {files[start].name} is {_size(pictures[0])}; "
                "all frames of a clip must be of one size."
            )
        pictures.append(picture)
    frames = np.stack(pictures) if pictures else np.empty((0, 0, 0, 3), np.uint8)
    return Footage(frames, start, len(files), stems=tuple(seen))


@contextmanager
def _picture_file(path: Path) -> Iterator[Image.Image]:
    """An opened picture; whatever Pillow finds wrong with it becomes one sentence."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except TedlensError:
        raise
    # Pillow's decoders complain in all these ways about broken files.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "damaged, cut short or no picture"
        raise TedlensError(f"{path} cannot be read as a picture ({reason}); replace the file or remove it.") from None


def _read_picture(path: Path) -> Pictures:
    from PIL import ImageOps

    with _picture_file(path) as image:
        if image.mode.startswith(("I", "F")):
            raise TedlensError(f"{path} has more than 8 bits a channel ({image.mode}); save it with 8 bits a channel.")
        ImageOps.exif_transpose(image, in_place=True)
        return np.array(image.convert("RGB"))


def _size(picture: npt.NDArray[Any]) -> str:
    return f"{picture.shape[0]}x{picture.shape[1]}"


def _load(path: Path, *keys: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays `keys` of an .npz, of which the first must be there; a lone .npy is the first."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {keys[0]: loaded}
        with loaded:
            arrays = {key: loaded[key] for key in keys if key in loaded.files}
            held = ", ".join(loaded.files) or "nothing"
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        wanted = ", ".join(f"{key}={key}" for key in keys)
        raise TedlensError(f"{path} cannot be read as plain arrays; save it with np.savez(path, {wanted}).") from None
    if keys[0] not in arrays:
        raise TedlensError(f"{path} holds {held}, but no array named {keys[0]!r}; save it under that name.")
    return arrays


# --- video ----------------------------------------------------------------------------------------


def _read_video(path: Path, start: int, stop: int | None) -> Footage:
    import av

    try:
        # The absolute path, so that no part of a name ("http:...") is taken for a protocol.
        with av.open(str(path.absolute()), options={"protocol_whitelist": "file"}) as container:
            # FFmpeg draws the letters of any text file as a video.
            if container.format.name == "tty" or not container.streams.video:
                raise TedlensError(f"{path} holds no video; give a video file, a folder of pictures or an .npz.")
            stream = container.streams.video[0]
            rate = stream.average_rate
            frames, total = _decode(path, container, stream, start, stop)
    except av.error.FFmpegError as error:
        raise TedlensError(
            f"{path} cannot be opened as a video ({error.strerror}): it is cut short, damaged or no video; "
            "get a whole copy of the file."
        ) from None
    return Footage(frames, start, total, fps=float(rate) if rate else None)


def _decode(
    path: Path, container: InputContainer, stream: VideoStream, start: int, stop: int | None
) -> tuple[Pictures, int | None]:
    """The frames asked for, and how many there are in all (None: not read to the end)."""
    import av

    pictures: list[Pictures] = []
    count = hidden = 0
    promised, whole = _promised(container, stream), True
    try:
        for packet in container.demux(stream):
            decoded = [] if packet.is_corrupt else packet.decode()
            whole = not packet.is_corrupt and not any(frame.is_corrupt for frame in decoded)
            if not whole:
                break
            hidden += packet.is_discard  # an edit list leaves these out on purpose
            for frame in decoded:
                if count >= start:
                    pictures.append(_upright(frame))
                count += 1
                if count == stop:
                    return _stack(path, pictures), None
    except av.error.FFmpegError:
        whole = False
    if not whole or count + hidden < promised or _webm_is_cut(path, container):
        of = f" of {promised}" if promised else ""
        advice = f", or read what is left with stop={count}" if count > start else ""
        raise TedlensError(
            f"{path} is cut short or damaged, it breaks off after {count}{of} frames; get a whole copy of it{advice}."
        )
    return _stack(path, pictures), count


def _promised(container: InputContainer, stream: VideoStream) -> int:
    """How many frames the container says it holds, shown or hidden; 0 if it does not say."""
    if "mp4" in container.format.name:  # an edit list can drop frames from the index, which is known at once
        return min(stream.frames, len(stream.index_entries))
    return stream.frames


def _webm_is_cut(path: Path, container: InputContainer) -> bool:
    """Whether a Matroska or WebM file is shorter than it says; it has no count of frames to go by."""
    if "matroska" not in container.format.name:
        return False
    with path.open("rb") as file:
        head = file.read(4096)

    def number(at: int) -> tuple[int | None, int]:
        """An EBML number and where it ends: leading zero bits tell its length, all ones mean unknown."""
        length = 9 - head[at].bit_length()
        most = (1 << 7 * length) - 1
        value = int.from_bytes(head[at : at + length], "big") & most
        return None if value == most else value, at + length

    header, at = number(4)
    at += header or 0
    if head[at : at + 4] != b"\x18\x53\x80\x67":  # the element that holds all the rest
        return False
    segment, at = number(at + 4)
    return segment is not None and path.stat().st_size < at + segment


def _upright(frame: VideoFrame) -> Pictures:
    picture = frame.to_ndarray(format="rgb24")
    # Telephones film on their side and note by how much to turn the picture anticlockwise.
    turned = np.rot90(picture, round(frame.rotation / 90) % 4)
    return cast(Pictures, np.ascontiguousarray(turned))


def _stack(path: Path, pictures: list[Pictures]) -> Pictures:
    if len({p.shape for p in pictures}) > 1:
        raise TedlensError(f"{path} changes its picture size midway; all frames of a clip must be of one size.")
    return np.stack(pictures) if pictures else np.empty((0, 0, 0, 3), np.uint8)


# --- masks ----------------------------------------------------------------------------------------


def read_masks(masks: str | os.PathLike[str] | npt.ArrayLike, footage: Footage, what: str = "masks") -> Labels:
    """Masks (T, H, W) for the frames of `footage`; see `tedlens.read_clip` for what `masks` can be."""
    if not isinstance(masks, (str, os.PathLike)):
        return _cut(as_labels(masks, what), what, footage)
    path = Path(masks).expanduser()
    if not path.exists():
        raise TedlensError(f"masks={path} does not exist; give a PNG, a folder of PNGs, an .npz or an .npy.")
    if path.is_dir():
        files = _files(path, (".png",))
        if not files:
            raise TedlensError(f"masks={path} holds no PNG; give a folder with a PNG for each frame that has a mask.")
        return _read_mask_files(path, _place(path, files, footage), footage)
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return _cut(as_labels(_load(path, "masks")["masks"], str(path)), str(path), footage)
    if path.suffix.lower() == ".png":
        stems = footage.stems or ()
        index = stems.index(path.stem) if path.stem in stems else footage.start
        return _read_mask_files(path, {index: path}, footage)
    raise TedlensError(f"masks={path} is no mask; give a PNG, a folder of PNGs, an .npz or an .npy.")


def mask_footage(folder: str | os.PathLike[str]) -> Footage:
    """What a folder of masks says of the frames they belong to: how many, their size and their stems."""
    path = Path(folder).expanduser()
    files = _files(path, (".png",)) if path.is_dir() else []
    if not files:
        raise TedlensError(f"{path} is no folder with PNGs in it; give a folder of masks.")
    size = _read_mask(files[0])[0].shape
    blank = np.broadcast_to(np.zeros((), np.uint8), (len(files), *size, 3))
    return Footage(blank, 0, len(files), tuple(file.stem for file in files))


def _cut(labels: Labels, what: str, footage: Footage) -> Labels:
    """Labels of the whole source, or of the first frame read, for the frames that were read."""
    count, height, width = footage.frames.shape[:3]
    check_size(labels, height, width, what)
    if labels.ndim == 2:
        return from_first(labels, count, what)
    end = footage.start + count
    if len(labels) != footage.total and (footage.total is not None or len(labels) < end):
        raise TedlensError(
            f"{what} has {len(labels)} masks for {footage.total or end} frames; give as many masks as the source has "
            "frames (255 where there is none), or one of shape (H, W) for the first."
        )
    if ids_in(labels) == {0, VOID} and any(len(ids_in(mask)) == 2 for mask in labels):
        raise TedlensError(
            f"{what} holds only 0 and 255, and 255 means void; give binary masks as bool, such as `masks > 0`."
        )
    return labels[footage.start : end]


def check_size(labels: Labels, height: int, width: int, what: str = "masks") -> None:
    """See that labels are (T, H, W) or (H, W) of the given size."""
    if labels.ndim not in (2, 3):
        raise TedlensError(f"{what} has shape {labels.shape}; give (T, H, W), or (H, W) for the first frame only.")
    if labels.shape[-2:] != (height, width):
        raise TedlensError(
            f"{what} is {labels.shape[-2]}x{labels.shape[-1]} (height x width) but the frames are {height}x{width}; "
            "give masks of the size of the frames."
        )


def _place(folder: Path, files: list[Path], footage: Footage) -> dict[int, Path]:
    """Masks by their frame: the one of the same stem, else of the same number, else at that position."""
    stems = footage.stems or ()
    keys: Sequence[str | int | None] = [file.stem for file in files]
    table: dict[Any, int] = {stem: i for i, stem in enumerate(stems)}
    if not any(key in table for key in keys):
        keys = [_number(file.stem) for file in files]
        table = {n: i for i, stem in enumerate(stems) if (n := _number(stem)) is not None}
        if len(table) < len(stems) or not all(key in table for key in keys):
            end = footage.total  # not known: all that follows is out of what was read anyway
            table = {i: i for i in (range(end) if end is not None else [k for k in keys if isinstance(k, int)])}
    placed: dict[int, Path] = {}
    for file, key in zip(files, keys, strict=True):
        if key not in table:
            raise TedlensError(
                f"masks={folder} holds {file.name}, which belongs to no frame; "
                "name a mask as its frame is named, or by the frame's number counted from 0."
            )
        if table[key] in placed:
            raise TedlensError(
                f"masks={folder} holds {placed[table[key]].name} and {file.name} for the same frame; keep one of them."
            )
        placed[table[key]] = file
    return placed


def _number(stem: str) -> int | None:
    digits = re.search(r"[0-9]+$", stem)
    return int(digits.group()) if digits else None


def _read_mask_files(given: Path, files: dict[int, Path], footage: Footage) -> Labels:
    """Masks (T, H, W) from a PNG for each of some frames, the others void."""
    count, height, width = footage.frames.shape[:3]
    masks = np.full((count, height, width), VOID, np.uint8)
    inside = {i - footage.start: file for i, file in files.items() if 0 <= i - footage.start < count}
    if not inside:
        raise TedlensError(
            f"masks={given} has no mask for frames {footage.start} to {footage.start + count - 1}; "
            "choose frames that have one, or leave masks out."
        )
    grey = True
    for index, file in inside.items():
        mask, mode = _read_mask(file)
        check_size(mask, height, width, str(file))
        masks[index] = mask
        grey &= mode != "P"
    if grey and all(_is_binary(masks[i]) for i in inside) and all(_is_binary(_read_mask(f)[0]) for f in files.values()):
        for index in inside:
            masks[index] //= VOID
    return masks


def _read_mask(path: Path) -> tuple[Labels, str]:
    """Labels (H, W) of a PNG, and its mode."""
    with _picture_file(path) as image:
        mode = image.mode
        if mode not in ("P", "L", "1") and not mode.startswith("I"):
            raise TedlensError(
                f"{path} is a colour picture ({mode}), from which object ids cannot be told; "
                "save it as a palette or grey PNG whose values are the ids."
            )
        mask = as_labels(np.array(image.convert("L") if mode == "1" else image), str(path))
    values = len(ids_in(mask))
    if values > MOST_IDS:
        raise TedlensError(
            f"{path} holds {values} different values, too many to be object ids; "
            "give a mask with hard edges in which 0 is background and 1, 2, .. are objects."
        )
    return mask, mode


def _is_binary(mask: Labels) -> bool:
    return ids_in(mask) <= {0, VOID}


# --- writing --------------------------------------------------------------------------------------


def palette() -> npt.NDArray[np.uint8]:
    """The 256 colours (id, rgb) of the DAVIS and PASCAL VOC palettes: the bits of the id, dealt out to rgb."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((ids >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def object_colours() -> npt.NDArray[np.uint8]:
    """The colours (id, rgb) in which objects are shown: seven that colour-blind readers tell apart (Okabe and Ito),
    then those of the palette, brighter. Files of masks have the palette itself.
    """
    colours: npt.NDArray[np.uint8] = np.minimum(palette().astype(int) * 255 // 192, 255).astype(np.uint8)
    colours[1 : len(FIRST_OBJECTS) + 1] = [tuple(bytes.fromhex(code)) for code in FIRST_OBJECTS]
    return colours


@contextmanager
def _aside(target: Path, given: Path) -> Iterator[Path]:
    """A hidden name beside `target` to write under; what is left there on an error is removed."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
    except OSError as error:
        raise TedlensError(f"{given} cannot be written ({error.strerror}); choose another place or name.") from None
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def _target(path: str | os.PathLike[str]) -> Path:
    target = Path(path).expanduser()
    if not target.absolute().parent.is_dir():
        raise TedlensError(f"{target} cannot be written, because its parent folder does not exist; make that first.")
    return target


def write_masks(masks: npt.ArrayLike, folder: str | os.PathLike[str], names: Sequence[str] | None = None) -> None:
    """Write masks as DAVIS does: a folder with one palette PNG a frame.

    Parameters
    ----------
    masks
        (T, H, W) integers: 0 background, 1..254 objects, 255 void.
    folder
        Written whole or not at all. If it exists, it may hold nothing but palette PNGs that this call
        replaces.
    names
        T file names without ``.png``; 00000, 00001, .. by default.

    Raises
    ------
    TedlensError
        For masks or names of another kind, or a folder that holds anything else or cannot be written.
    """
    from PIL import Image

    labels = as_labels(masks)
    if labels.ndim != 3 or labels.size == 0:
        raise TedlensError(f"masks has shape {labels.shape}; give (T, H, W), with at least one frame.")
    stems = [f"{t:05d}" for t in range(len(labels))] if names is None else [str(n) for n in names]
    if len(stems) != len(labels) or len(set(stems)) != len(stems) or any(not s or Path(s).name != s for s in stems):
        raise TedlensError(f"names={stems} does not fit; give {len(labels)} different file names without .png.")
    # Through links, so that the folder is replaced where it lies.
    given = _target(folder)
    target = given.resolve()
    _check_replaceable(given, target, {f"{s}.png" for s in stems})
    colours = palette().tobytes()
    with _aside(target, given) as part:
        part.mkdir()
        for stem, label in zip(stems, labels, strict=True):
            image = Image.fromarray(np.ascontiguousarray(label))
            image.putpalette(colours)
            image.save(part / f"{stem}.png")
        _swap_in(part, target)


def _check_replaceable(given: Path, target: Path, files: set[str]) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise TedlensError(f"{given} is a file; give the name of a folder for the masks.")
    for entry in sorted(target.iterdir()):
        ours = entry.name in files and entry.is_file()
        if ours:
            with _picture_file(entry) as image:
                ours = image.mode == "P"  # a frame called 00000.png is not ours to replace
        if not ours:
            raise TedlensError(
                f"{given} holds {entry.name}, which is none of the masks to be written; choose a new folder."
            )


def _swap_in(part: Path, target: Path) -> None:
    """Give the folder `part` the name `target`; one that had it goes only once that has worked."""
    if not target.exists():
        part.rename(target)
        return
    old = part.with_suffix(".old")
    target.rename(old)
    try:
        part.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_video(frames: Pictures, path: str | os.PathLike[str], fps: float = 8.0) -> None:
    """Write frames as an mp4 that browsers play (H.264, yuv420p), whole or not at all.

    For looking at: the compression loses a little, and not always the same to the bit. Keep what is
    to be computed with as arrays.

    Parameters
    ----------
    frames
        (T, H, W, 3) uint8. An odd height or width is made even by repeating the last row or column,
        because yuv420p has one colour for four pixels.
    path
        The file, ending in ``.mp4``; one that exists is replaced.
    fps
        Frames a second.

    Raises
    ------
    TedlensError
        For frames of another kind, another ending, or a file that cannot be written.
    """
    import av

    frames = check_frames(frames)
    target = _target(path)
    if target.suffix.lower() != ".mp4" or target.is_dir():
        raise TedlensError(f"{target} cannot be written as a video; give a file name that ends in .mp4.")
    if not 0.01 <= fps <= 1000:
        raise TedlensError(f"fps={fps} is no rate for a video; give frames a second, from 0.01 to 1000.")
    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    try:
        with _aside(target, target) as part:
            _encode(even, part, fps)
            os.replace(part, target)
    except av.error.FFmpegError as error:
        raise TedlensError(
            f"{target} cannot be written as a video of {height}x{width} pixels at {fps:g} fps ({error.strerror})."
        ) from None


def _encode(frames: Pictures, path: Path, fps: float) -> None:
    import av

    # The index goes first (faststart), so that a browser can play before it has loaded everything.
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        rate = Fraction(fps).limit_denominator(1001)  # 1001: 29.97 is 30000/1001
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # Unless told, players guess the colour space from the size.
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = 1  # 16..235
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=BT709)))
        container.mux(stream.encode(None))


def check_frames(frames: npt.ArrayLike, what: str = "frames") -> Pictures:
    """`frames` as an array, after a look at its type and shape."""
    array = _array(frames, what)
    if array.ndim != 4 or array.shape[-1] != 3:
        hint = "add a first axis with frames[None]" if array.ndim == 3 and array.shape[-1] == 3 else "give (T, H, W, 3)"
        raise TedlensError(f"{what} has shape {array.shape}, not (frame, height, width, 3); {hint}.")
    if array.size == 0:
        raise TedlensError(f"{what} has shape {array.shape}, so it is empty; give at least one frame.")
    if array.dtype != np.uint8:
        raise TedlensError(f"{what} is of type {array.dtype}; give uint8 from 0 to 255 (a float x in 0..1 times 255).")
    return array


def overlay(frames: Pictures, labels: npt.ArrayLike, alpha: float = 0.5) -> Pictures:
    """Pictures with their objects tinted and outlined, each in its colour (`object_colours`).

    Parameters
    ----------
    frames
        (T, H, W, 3) uint8.
    labels
        (T, H, W) integers. 0 (background) and 255 (void) are left as they are.
    alpha
        How much of the tint: 0 only outlines, 1 hides the picture.

    Returns
    -------
    (T, H, W, 3) uint8, a new array.

    Raises
    ------
    TedlensError
        For arrays of another kind, or of sizes that do not agree.
    """
    frames, ids = check_frames(frames), as_labels(labels, "labels")
    if ids.shape != frames.shape[:3]:
        raise TedlensError(f"labels has shape {ids.shape} but frames has {frames.shape}; give one label a pixel.")
    if not 0 <= alpha <= 1:
        raise TedlensError(f"alpha={alpha} is no share; give a number from 0 to 1.")
    tints = object_colours().astype(np.float32)
    lines = 0.8 * tints * (255 / np.maximum(tints.max(axis=1, keepdims=True), 1)) + 0.2 * 255
    edges = 1 + (min(frames.shape[1:3]) >= 240)
    out = frames.copy()
    for picture, label in zip(out, ids, strict=True):
        objects = (label != 0) & (label != VOID)
        tint = tints[label[objects]]
        picture[objects] = (picture[objects] * (1 - alpha) + tint * alpha + 0.5).astype(np.uint8)
        edge = objects & _border(label, edges)
        picture[edge] = lines[label[edge]].astype(np.uint8)
    return out


def _border(label: Labels, width: int) -> npt.NDArray[np.bool_]:
    """Pixels with another label at most `width` pixels above, below, left or right of them."""
    height, breadth = label.shape
    padded = np.pad(label, width, mode="edge")
    border = np.zeros(label.shape, np.bool_)
    for step in range(1, width + 1):
        for dy, dx in ((step, 0), (-step, 0), (0, step), (0, -step)):
            border |= padded[width + dy : width + dy + height, width + dx : width + dx + breadth] != label
    return border
