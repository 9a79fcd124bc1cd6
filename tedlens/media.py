"""Files in and out: videos, folders of pictures, masks. Arrays only; what they mean is `clip`'s affair.

What is written appears whole under its name or not at all, and what is read is all there: a file that
breaks off is an error, never a shorter clip.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
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
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".apng", ".bmp", ".tif", ".tiff", ".webp", ".avif")
STACKS = (".png", ".apng", ".tif", ".tiff", ".webp", ".avif")  # of these, which can hold several pictures
PLAYLISTS = ("hls", "concat", "dash", "image2", "sdp")  # formats of FFmpeg that name other files
ARRAY_SUFFIXES = (".npz", ".npy")
MOST_IDS = 64  # different values in one mask; with more it is a photograph or has soft edges
FIRST_OBJECTS = ("E69F00", "56B4E9", "CC79A7", "F0E442", "009E73", "D55E00", "0072B2")  # rgb, where objects are shown
BT709 = 1  # in FFmpeg's and PyAV's numbering of colour spaces


@dataclass(frozen=True)
class Footage:
    """Frames as they lie in a file or folder, and what is needed to find their masks."""

    frames: Pictures
    start: int  # number of the first of `frames` in the source
    stride: int  # of every so manieth frame of the source
    size: tuple[int, int]  # height and width in the source, which its masks have
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


@dataclass(frozen=True)
class Part:
    """What is asked for of a source: every `stride`-th frame from `start` to `stop` (not included), at a size."""

    start: int = 0
    stop: int | None = None
    stride: int = 1
    size: int | tuple[int, int] | None = None  # short side, or height and width, in pixels

    @property
    def frames(self) -> slice:
        return slice(self.start, self.stop, self.stride)

    def holds(self, number: int) -> bool:
        """Whether a frame of the source is asked for; those from `stop` on are never asked about."""
        return number >= self.start and (number - self.start) % self.stride == 0

    def fitted(self, picture: Pictures) -> Pictures:
        """A picture (H, W, 3) at the size asked for."""
        from PIL import Image

        if self.size is None:
            return picture
        height, width = picture.shape[:2]
        if isinstance(self.size, int):
            scale = self.size / min(height, width)
            wanted = max(1, round(height * scale)), max(1, round(width * scale))
        else:
            wanted = self.size
        if wanted == (height, width):
            return picture
        return np.asarray(Image.fromarray(picture).resize(wanted[::-1], Image.Resampling.BICUBIC))


def read_footage(path: Path, part: Part) -> Footage:
    """The part that is asked for of a video, a folder of pictures, a stack of pictures or an .npz."""
    start, stop = part.start, part.stop
    if start < 0 or (stop is not None and stop <= start) or part.stride < 1:
        raise TedlensError(
            f"start={start}, stop={stop}, stride={part.stride} choose no frame of {path}; "
            "give 0 <= start < stop and a stride of at least 1."
        )
    sides = (part.size,) if isinstance(part.size, int | None) else part.size
    if len(sides) > 2 or any(side is not None and not 1 <= side <= 16384 for side in sides):
        raise TedlensError(
            f"size={part.size} is no size of a picture; give its short side, or (height, width), in pixels."
        )
    if not path.exists():
        raise TedlensError(f"{path} does not exist; give a video file, a folder of pictures or an .npz.")
    if path.is_dir():
        footage = _read_folder(path, part)
    elif path.suffix.lower() in ARRAY_SUFFIXES:
        arrays = _load(path, "frames", "masks")
        frames = check_frames(arrays["frames"], f"frames in {path}")
        chosen = [part.fitted(frame) for frame in frames[part.frames]]
        footage = _footage(path, chosen, frames.shape[1:3], part, len(frames), masks=arrays.get("masks"))
    elif path.suffix.lower() in PICTURE_SUFFIXES:
        footage = _read_stack(path, part)
    else:
        footage = _read_video(path, part)
    if len(footage.frames) == 0:
        raise TedlensError(f"{path} has {footage.total} frames, so none from start={start} on; give a smaller start.")
    return footage


def _footage(
    path: Path, pictures: list[Pictures], size: tuple[int, ...], part: Part, total: int | None, **known: Any
) -> Footage:
    """Pictures of one size as frames."""
    if len({picture.shape for picture in pictures}) > 1:
        raise TedlensError(f"{path} changes its picture size midway; all frames of a clip must be of one size.")
    frames = np.stack(pictures) if pictures else np.empty((0, 0, 0, 3), np.uint8)
    return Footage(frames, part.start, part.stride, (size[0], size[1]), total, **known)


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files with one of `suffixes`, in natural order; hidden ones (.DS_Store, ._x.jpg) left out."""
    from natsort import natsorted

    found = [f for f in folder.iterdir() if f.suffix.lower() in suffixes and not f.name.startswith(".") and f.is_file()]
    return list(natsorted(found, key=lambda f: f.name))


def _read_folder(folder: Path, part: Part) -> Footage:
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
    _warn_of_gaps(folder, list(seen))
    pictures: list[Pictures] = []
    size: tuple[int, ...] = ()
    for file in files[part.frames]:
        (picture, *more), _ = _pictures(file)
        if more:
            raise TedlensError(
                f"{file} holds {1 + len(more)} pictures, but each file of a folder is one frame; give the file "
                "itself, or one picture a file."
            )
        if size and picture.shape[:2] != size:
            raise TedlensError(
                f"{file} is {_size(picture)} but {files[part.start].name} is {size[0]}x{size[1]}; "
                "all frames of a clip must be of one size."
            )
        size = picture.shape[:2]
        pictures.append(part.fitted(picture))
    return _footage(folder, pictures, size or (0, 0), part, len(files), stems=tuple(seen))


def _warn_of_gaps(folder: Path, stems: list[str]) -> None:
    """Say so where frames are numbered and some numbers are missing between them."""
    numbers = [_number(stem) for stem in stems]
    known = [n for n in numbers if n is not None]
    if len(known) < max(3, len(stems)) or len({re.sub(r"[0-9]+$", "", stem) for stem in stems}) > 1:
        return
    steps = np.diff(known)
    usual = int(np.median(steps))
    wide = np.flatnonzero(steps > usual)
    if usual > 0 and len(wide):
        after = known[int(wide[0])]
        warnings.warn(
            f"{folder} has frames {after} and {known[int(wide[0]) + 1]} but none between: they are read as neighbours. "
            "Add the missing frames, or read a part without the gap.",
            stacklevel=5,
        )


def _read_stack(path: Path, part: Part) -> Footage:
    """A file of one picture or, of an animation or a scan, of several."""
    pictures, fps = _pictures(path)
    chosen = [part.fitted(picture) for picture in pictures[part.frames]]
    if len({picture.shape for picture in pictures}) > 1:
        raise TedlensError(f"{path} holds pictures of several sizes; all frames of a clip must be of one size.")
    stems = (path.stem,) if len(pictures) == 1 else None
    rate = fps and fps / part.stride
    return _footage(path, chosen, pictures[0].shape, part, len(pictures), stems=stems, fps=rate)


def _pictures(path: Path) -> tuple[list[Pictures], float | None]:
    """All pictures of a file, upright, and how many of them it shows a second."""
    pictures: list[Pictures] = []
    shown: list[float] = []
    with _picture_file(path) as image:
        count = getattr(image, "n_frames", 1) if path.suffix.lower() in STACKS else 1
        # The first picture of an animated PNG can be one for programs that do not animate it.
        for number in range(int(bool(getattr(image, "default_image", False)) and count > 1), count):
            image.seek(number)
            if image.mode.startswith(("I", "F")):
                raise TedlensError(
                    f"{path} has more than 8 bits a channel ({image.mode}); save it with 8 bits a channel."
                )
            pictures.append(_upright_picture(image, "RGB"))
            shown.append(float(image.info.get("duration") or 0))
    total = sum(shown)
    return pictures, 1000 * len(shown) / total if len(shown) > 1 and total > 0 else None


def _upright_picture(image: Image.Image, mode: str | None = None) -> npt.NDArray[Any]:
    """A picture as its EXIF data say that it is held."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    return np.array(upright if mode is None else upright.convert(mode))


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


def _read_video(path: Path, part: Part) -> Footage:
    import av

    try:
        # The absolute path, so that no part of a name ("http:...") is taken for a protocol.
        with av.open(str(path.absolute()), options={"protocol_whitelist": "file"}) as container:
            if set(container.format.name.split(",")) & set(PLAYLISTS):
                raise TedlensError(f"{path} is a list of other files and no video; give the video itself.")
            stream = _main_track(container)
            # FFmpeg draws the letters of any text file as a video.
            if container.format.name == "tty" or stream is None:
                raise TedlensError(f"{path} holds no video; give a video file, a folder of pictures or an .npz.")
            rate = stream.average_rate
            pictures, size, total = _decode(path, container, stream, part)
    except av.error.FFmpegError as error:
        raise TedlensError(
            f"{path} cannot be opened as a video ({error.strerror}): it is cut short, damaged or no video; "
            "get a whole copy of the file."
        ) from None
    return _footage(path, pictures, size, part, total, fps=float(rate) / part.stride if rate else None)


def _main_track(container: InputContainer) -> VideoStream | None:
    """The track that a player shows: never a cover picture that is attached to a film."""
    from av.stream import Disposition

    films = [s for s in container.streams.video if not Disposition(s.disposition) & Disposition.attached_pic]
    best = container.streams.best("video")
    return next((film for film in films if film == best), films[0] if films else None)


def _decode(
    path: Path, container: InputContainer, stream: VideoStream, part: Part
) -> tuple[list[Pictures], tuple[int, ...], int | None]:
    """The frames asked for, the size of a picture, and how many frames there are in all (None: not read to the end).

    Pictures that the file leaves out (empty or not-coded packets of an AVI) are not repeated.
    """
    import av

    pictures: list[Pictures] = []
    size: tuple[int, ...] = (0, 0)
    count = packets = 0
    promised, whole = _promised(container, stream), True
    try:
        for packet in container.demux(stream):
            decoded = [] if packet.is_corrupt else packet.decode()
            whole = not packet.is_corrupt and not any(frame.is_corrupt for frame in decoded)
            if not whole:
                break
            packets += packet.size > 0
            for frame in decoded:
                if part.holds(count):
                    picture = _upright(frame)
                    size = picture.shape[:2]
                    pictures.append(part.fitted(picture))
                count += 1
                if count == part.stop:
                    return pictures, size, None
    except av.error.FFmpegError:
        whole = False
    if not whole or packets < promised or _is_cut(path, container):
        of = f" of {promised}" if promised > count else ""
        advice = f", or read what is left with stop={count}" if count > part.start else ""
        raise TedlensError(
            f"{path} is cut short or damaged, it breaks off after {count}{of} frames; get a whole copy of it{advice}."
        )
    return pictures, size, count


def _promised(container: InputContainer, stream: VideoStream) -> int:
    """How many packets the file's index lists; 0 where it has none. What the header counts may be in no packet."""
    indexed = bool({"mp4", "avi"} & set(container.format.name.split(",")))
    return min(stream.frames, len(stream.index_entries)) if indexed else 0


def _is_cut(path: Path, container: InputContainer) -> bool:
    """Whether a file is shorter than it says itself."""
    if container.format.name == "avi":
        with path.open("rb") as file:
            head = file.read(8)
        return head[:4] == b"RIFF" and path.stat().st_size < 8 + int.from_bytes(head[4:], "little")
    return _webm_is_cut(path, container)


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
    """A frame as a player shows it: telephones film on their side or mirrored, and note it in a matrix."""
    picture = frame.to_ndarray(format="rgb24")
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        # A point moves to x' = a x + c y and y' = b x + d y.
        a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
        right, down = a, d
        if abs(b) + abs(c) > abs(a) + abs(d):
            picture, right, down = picture.transpose(1, 0, 2), c, b
        picture = picture[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
    return cast(Pictures, np.ascontiguousarray(picture))


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
    height, width = _read_mask(files[0]).ids.shape
    blank = np.broadcast_to(np.zeros((), np.uint8), (len(files), height, width, 3))
    return Footage(blank, 0, 1, (height, width), len(files), tuple(file.stem for file in files))


def _cut(labels: Labels, what: str, footage: Footage) -> Labels:
    """Labels of the whole source, or of the first frame read, for the frames that were read."""
    count = len(footage.frames)
    check_size(labels, *footage.size, what)
    if labels.ndim == 2:
        return _fitted(from_first(labels, count, what), footage)
    end = footage.start + (count - 1) * footage.stride + 1
    if len(labels) != footage.total and (footage.total is not None or len(labels) < end):
        raise TedlensError(
            f"{what} has {len(labels)} masks for {footage.total or end} frames; give as many masks as the source has "
            "frames (255 where there is none), or one of shape (H, W) for the first."
        )
    if ids_in(labels) == {0, VOID} and any(len(ids_in(mask)) == 2 for mask in labels):
        raise TedlensError(
            f"{what} holds only 0 and 255, and 255 means void; give binary masks as bool, such as `masks > 0`."
        )
    return _fitted(labels[footage.start : end : footage.stride], footage)


def _fitted(masks: Labels, footage: Footage) -> Labels:
    """Masks (T, H, W) at the size of the frames: nearest neighbour."""
    grid = footage.frames.shape[1:3]
    return masks if masks.shape[1:] == grid else on_grid(masks, (grid[0], grid[1]))


def on_grid(masks: Labels, grid: tuple[int, int]) -> Labels:
    """Masks (..., H, W) on a grid of cells: nearest neighbour, at the cells' centres."""
    sides = zip(grid, masks.shape[-2:], strict=True)
    rows, columns = (np.floor((np.arange(g) + 0.5) * s / g).astype(int) for g, s in sides)
    return masks[..., rows, :][..., columns]


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
        _refuse_frame_and_object(folder, files, stems)
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


def _refuse_frame_and_object(folder: Path, files: list[Path], stems: Sequence[str]) -> None:
    """Names such as 00000_1.png, 00000_2.png are of frames and objects, and their last number is no frame's."""
    parts = [re.fullmatch(r"(.*[0-9].*?)[_.-]+[A-Za-z]*[0-9]+", file.stem) for file in files]
    begins = [part.group(1) for part in parts if part]
    if len(begins) == len(files) and (set(begins) <= set(stems) or len(set(begins)) < len(begins)):
        raise TedlensError(
            f"masks={folder} holds {files[0].name}, which seems to be named by frame and object; "
            "give one PNG a frame, named as the frame, whose values are the objects' ids."
        )


def _number(stem: str) -> int | None:
    digits = re.search(r"[0-9]+$", stem)
    return int(digits.group()) if digits else None


def _read_mask_files(given: Path, files: dict[int, Path], footage: Footage) -> Labels:
    """Masks (T, H, W) from a PNG for each of some frames, the others void."""
    count = len(footage.frames)
    masks = np.full((count, *footage.size), VOID, np.uint8)
    places = {i: divmod(i - footage.start, footage.stride) for i in files}
    inside = {k: files[i] for i, (k, rest) in places.items() if rest == 0 and 0 <= k < count}
    if not inside:
        raise TedlensError(
            f"masks={given} has no mask for frames {footage.start} to {footage.start + (count - 1) * footage.stride}; "
            "choose frames that have one, or leave masks out."
        )
    read = {index: _read_mask(file) for index, file in inside.items()}
    for index, mask in read.items():
        check_size(mask.ids, *footage.size, str(inside[index]))
    ids = _ids_by_colour(given, read)
    for index, labels in ids.items():
        masks[index] = labels
    grey = all(mask.colours is None for mask in read.values())
    if grey and all(map(_is_binary, ids.values())) and all(_is_binary(_read_mask(f).ids) for f in files.values()):
        for index in inside:
            masks[index] //= VOID
    return _fitted(masks, footage)


@dataclass(frozen=True)
class _Mask:
    """What a PNG holds: values (H, W) and, of a palette PNG, the colour (rgb) of each value that occurs."""

    ids: Labels
    colours: dict[int, tuple[int, ...]] | None


def _read_mask(path: Path) -> _Mask:
    with _picture_file(path) as image:
        mode = image.mode
        if mode not in ("P", "L", "1") and not mode.startswith("I"):
            raise TedlensError(
                f"{path} is a colour picture ({mode}), from which object ids cannot be told; "
                "save it as a palette or grey PNG whose values are the ids."
            )
        ids = as_labels(_upright_picture(image, "L" if mode == "1" else None), str(path))
        shades = np.array(image.getpalette("RGB") or [], int).reshape(-1, 3) if mode == "P" else None
    if mode == "L":  # Pillow spreads grey values of 2 and 4 bits over 0..255
        ids = ids // (VOID // (2 ** _grey_bits(path) - 1))
    values = ids_in(ids)
    if len(values) > MOST_IDS:
        raise TedlensError(
            f"{path} holds {len(values)} different values, too many to be object ids; "
            "give a mask with hard edges in which 0 is background and 1, 2, .. are objects."
        )
    if mode == "L" and _has_soft_edges(ids):
        raise TedlensError(
            f"{path} has soft edges: between 0 and 255 it holds {len(values - {0, VOID})} values that fill no "
            "area; save it without smoothing, or resize it with nearest neighbour."
        )
    colours = None if shades is None else {i: tuple(shades[i].tolist()) for i in values if i < len(shades)}
    return _Mask(ids, colours)


def _grey_bits(path: Path) -> int:
    """Bits of a value of a grey PNG, from its header; 8 for other files."""
    with path.open("rb") as file:
        head = file.read(26)
    is_grey = head[:8] == b"\x89PNG\r\n\x1a\n" and head[25] == 0
    return min(head[24], 8) if is_grey else 8


def _has_soft_edges(mask: Labels) -> bool:
    """Whether only 255 and perhaps 0 fill areas, and other values lie along their edges: a binary mask, smoothed."""
    between = ids_in(mask) - {0, VOID}
    if not between or VOID not in ids_in(mask):
        return False
    # Squares of 3 x 3 pixels of one value.
    filled = np.ones((max(mask.shape[0] - 2, 0), max(mask.shape[1] - 2, 0)), np.bool_)
    middle = mask[1:-1, 1:-1]
    for dy in range(3):
        for dx in range(3):
            filled &= mask[dy : dy + filled.shape[0], dx : dx + filled.shape[1]] == middle
    areas = set(np.unique(middle[filled]).tolist())
    return VOID in areas and not areas & between


def _ids_by_colour(given: Path, masks: dict[int, _Mask]) -> dict[int, Labels]:
    """Ids of each mask: its values, or what their colours mean where palettes were sorted anew.

    Programs that make PNGs smaller put colours in any order, another one in each file. The colours of the DAVIS palette
    then tell the ids. Other colours must stand for one value throughout, and black for no other than 0.
    """
    tied = [mask.colours for mask in masks.values() if mask.colours is not None]
    seen = {pair for colours in tied for pair in colours.items()}
    known = {colour: i for i, colour in reversed(list(enumerate(map(tuple, palette().tolist()))))}
    different = all(len(set(colours.values())) == len(colours) for colours in tied)
    if not (different and all(colour in known for _, colour in seen)):
        misplaced = different and any(value != 0 and colour == (0, 0, 0) for value, colour in seen)
        if misplaced or len({value for value, _ in seen}) < len(seen):
            raise TedlensError(
                f"masks={given}: palettes disagree on which value is which colour, or have black elsewhere than at 0, "
                "and their colours are not those of DAVIS; save all masks with one palette, black as 0."
            )
        return {index: mask.ids for index, mask in masks.items()}
    tables = {index: np.arange(256, dtype=np.uint8) for index in masks}
    for index, mask in masks.items():
        for value, colour in (mask.colours or {}).items():
            tables[index][value] = known[colour]
    return {index: tables[index][mask.ids] for index, mask in masks.items()}


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
