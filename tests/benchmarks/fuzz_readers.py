"""Readers against files that were cut, flipped, spliced: no traceback, no hang, no shorter clip without a sentence.

    python tests/benchmarks/fuzz_readers.py --seconds 3600

Every case that fails is kept in the folder named by --out. The seed of each case is its number.
"""

from __future__ import annotations

import argparse
import collections
import random
import signal
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image

import tedlens as tl
from tedlens.media import palette

LIMIT = 30  # seconds that one file may take


class Hang(BaseException):
    """Raised by the alarm; no reader may catch it."""


def seeds(folder: Path) -> dict[Path, int]:
    """Small files of every kind that the readers know, with their number of frames (masks: 0)."""
    rng = np.random.default_rng(0)
    frames = (rng.random((6, 32, 48, 3)) * 255).astype(np.uint8)
    masks = (np.indices((32, 48)).sum(0) // 20).astype(np.uint8)
    pictures = [PIL.Image.fromarray(frame) for frame in frames]
    made: dict[Path, int] = {}
    for name in ("a.gif", "a.webp", "a.png", "a.tif", "a.avif"):
        try:
            pictures[0].save(folder / name, save_all=True, append_images=pictures[1:], duration=100)
        except (KeyError, OSError):  # a Pillow without that codec
            continue
        made[folder / name] = len(frames)
    for name in ("one.jpg", "one.bmp", "one.png"):
        pictures[0].save(folder / name)
        made[folder / name] = 1
    for name, container, codec in (
        ("a.mp4", "mp4", "libx264"),
        ("a.mkv", "matroska", "libx264"),
        ("a.webm", "webm", "libvpx-vp9"),
        ("a.avi", "avi", "mpeg4"),
        ("a.mov", "mov", "libx264"),
        ("a.mpg", "mpeg", "mpeg2video"),
    ):
        with av.open(str(folder / name), "w", format=container) as file:
            stream: Any = file.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
            for frame in frames:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")))
            file.mux(stream.encode(None))
        made[folder / name] = len(tl.read_clip(folder / name))
    np.savez(folder / "a.npz", frames=frames, masks=np.stack([masks] * 6))
    made[folder / "a.npz"] = len(frames)
    indexed = PIL.Image.fromarray(masks)
    indexed.putpalette(palette().tobytes())
    indexed.save(folder / "m_palette.png")
    PIL.Image.fromarray(masks).save(folder / "m_grey.png")
    PIL.Image.fromarray((masks > 0).astype(np.uint8) * 255).convert("1").save(folder / "m_bits.png")
    np.save(folder / "m.npy", masks)
    return made | {folder / name: 0 for name in ("m_palette.png", "m_grey.png", "m_bits.png", "m.npy")}


def mutated(data: bytes, other: bytes, rng: random.Random) -> tuple[bytes, bool]:
    """The data with some damage, and whether that was a mere cut."""
    kind = rng.choice(["cut", "flip", "flip", "bytes", "block", "splice", "insert", "zero"])
    at, size = rng.randrange(len(data)), rng.choice([1, 2, 4, 16, 256])
    if kind == "cut":
        return data[:at], True
    if kind == "flip":
        changed = bytearray(data)
        for _ in range(rng.choice([1, 2, 8, 64])):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed), False
    if kind == "bytes":
        return data[:at] + rng.choice([b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff"]) + data[at + 4 :], False
    if kind == "block":
        return data[:at] + data[at + size :], False
    if kind == "splice":
        return data[:at] + other[rng.randrange(len(other)) :], False
    if kind == "insert":
        return data[:at] + rng.randbytes(size) + data[at:], False
    return data[:at] + bytes(min(size, len(data) - at)) + data[at + size :], False


def case(number: int, made: dict[Path, int], folder: Path, still: tl.Clip) -> tuple[str, Path]:
    """Read one damaged file: what came of it, and the file."""
    rng = random.Random(number)
    source, other = rng.choice(list(made)), rng.choice(list(made))
    data, cut = mutated(source.read_bytes(), other.read_bytes(), rng)
    path = folder / f"x{source.suffix}"
    path.write_bytes(data)
    frames = made[source]
    signal.alarm(LIMIT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if frames:
                found = tl.read_clip(path)
                # An MPEG program stream has neither an index nor an end, so nothing tells that it was cut.
                if cut and len(found) < frames and source.suffix != ".mpg":
                    return f"SHORT {source.name}: {len(found)} of {frames} frames", path
            else:
                tl.read_clip(still_path(folder, still), masks=path)
    except tl.TedlensError as error:
        return ("sentence" if "\n" not in str(error) else f"LINES {error}"), path
    except Hang:
        return f"HANG {source.name}", path
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"TRACE {source.name} {type(error).__name__} {where.filename.rsplit('/', 1)[-1]}:{where.lineno}", path
    finally:
        signal.alarm(0)
    return "read", path


def still_path(folder: Path, clip: tl.Clip) -> Path:
    """A clip for masks to belong to."""
    path = folder / "still.npz"
    if not path.exists():
        np.savez(path, frames=clip.frames)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="processor time to spend")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--out", type=Path, default=Path("fuzz"), help="folder for files that fail")
    asked = parser.parse_args()

    def alarm(*_: Any) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, alarm)
    av.logging.set_level(av.logging.PANIC)
    counts: collections.Counter[str] = collections.Counter()
    still = tl.Clip(np.zeros((6, 32, 48, 3), np.uint8))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "seeds").mkdir()
        made = seeds(folder / "seeds")
        number = asked.first
        while time.process_time() < asked.seconds:
            found, path = case(number, made, folder, still)
            counts[found] += 1
            if found not in ("read", "sentence") and counts[found] == 1:
                asked.out.mkdir(exist_ok=True)
                (asked.out / f"{number}{path.suffix}").write_bytes(path.read_bytes())
                print(number, found, flush=True)
            path.unlink()
            number += 1
            if number % 5000 == 0:
                print(f"{number} files, {time.process_time():.0f} s", dict(counts), flush=True)
    print("files:", sum(counts.values()), dict(counts))


if __name__ == "__main__":
    main()
