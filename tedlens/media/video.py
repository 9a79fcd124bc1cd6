"""Read videos as a player shows them (the main track, upright and complete), and write videos for browsers."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tedlens.errors import TedlensError
from tedlens.media.files import aside, target_of
from tedlens.media.footage import Footage, Part, Pictures, check_frames, footage_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

PLAYLISTS = ("hls", "concat", "dash", "image2", "sdp")  # formats of FFmpeg that name other files
BT709 = 1  # in FFmpeg's and PyAV's numbering of colour spaces


def read_video(path: Path, part: Part) -> Footage:
    import av

    try:
        # The absolute path, so that no part of a name ("http:...") is taken for a protocol.
        # Metadata such as titles may have any encoding or be damaged; nothing here depends on it.
        with av.open(
            str(path.absolute()), options={"protocol_whitelist": "file"}, metadata_errors="replace"
        ) as container:
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
    return footage_of(path, pictures, size, part, total, fps=float(rate) / part.stride if rate else None)


def _main_track(container: InputContainer) -> VideoStream | None:
    """The track that a player shows: never a cover picture that is attached to a film."""
    from av.stream import Disposition

    films = [s for s in container.streams.video if not Disposition(s.disposition) & Disposition.attached_pic]
    best = container.streams.best("video")
    return next((film for film in films if film == best), films[0] if films else None)


def _decode(
    path: Path, container: InputContainer, stream: VideoStream, part: Part
) -> tuple[list[Pictures], tuple[int, ...], int | None]:
    """The requested frames, the size of a picture, and the total number of frames (None: not read to the end).

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
    """Number of packets in the index of the file; 0 if it has none. The header may count more than there are."""
    indexed = bool({"mp4", "avi"} & set(container.format.name.split(",")))
    return min(stream.frames, len(stream.index_entries)) if indexed else 0


def _is_cut(path: Path, container: InputContainer) -> bool:
    """Whether a file is shorter than the length it declares."""
    if container.format.name == "avi":
        with path.open("rb") as file:
            head = file.read(8)
        return head[:4] == b"RIFF" and path.stat().st_size < 8 + int.from_bytes(head[4:], "little")
    if container.format.name == "gif":
        return _gif_is_cut(path.read_bytes())
    return _webm_is_cut(path, container)


def _gif_is_cut(data: bytes) -> bool:
    """Whether a GIF ends before its trailer; each of its blocks declares its own length."""

    def table(flags: int) -> int:
        """Bytes of the colour table that the flags declare."""
        return 3 * 2 << (flags & 7) if flags & 0x80 else 0

    try:
        at = 13 + table(data[10])
        while data[at] in (0x21, 0x2C):  # an extension, a picture; else the trailer, or nothing that one can tell
            at += 2 if data[at] == 0x21 else 11 + table(data[at + 9])
            while data[at]:
                at += 1 + data[at]
            at += 1
    except IndexError:
        return True
    return False


def _webm_is_cut(path: Path, container: InputContainer) -> bool:
    """Whether a Matroska or WebM file is shorter than it declares; it has no frame count to check."""
    if "matroska" not in container.format.name:
        return False
    with path.open("rb") as file:
        head = file.read(4096)

    def number(at: int) -> tuple[int | None, int]:
        """An EBML number and the position after it: leading zero bits give its length, all ones mean unknown."""
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
    """A frame as a player shows it: phones record rotated or mirrored and store a matrix that says so."""
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


def write_video(frames: Pictures, path: str | os.PathLike[str], fps: float = 8.0) -> None:
    """Write frames as an mp4 that browsers play (H.264, yuv420p), completely or not at all.

    For viewing only: the compression loses a little, and not always the same bits. Keep frames for
    computation as arrays.

    Parameters
    ----------
    frames
        (T, H, W, 3) uint8. An odd height or width is made even by repeating the last row or column,
        because yuv420p has one colour for four pixels.
    path
        The file, ending in ``.mp4``; an existing file is replaced.
    fps
        Frames per second.

    Raises
    ------
    TedlensError
        For frames of the wrong type or shape, another file ending, or a file that cannot be written.
    """
    import av

    frames = check_frames(frames)
    target = target_of(path)
    if target.suffix.lower() != ".mp4" or target.is_dir():
        raise TedlensError(f"{target} cannot be written as a video; give a file name that ends in .mp4.")
    if not 0.01 <= fps <= 1000:
        raise TedlensError(f"fps={fps} is no rate for a video; give frames a second, from 0.01 to 1000.")
    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    try:
        with aside(target, target) as part:
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
        # Without this, players guess the colour space from the size.
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = 1  # 16..235
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=BT709)))
        container.mux(stream.encode(None))
