"""Files and folders: list in natural order, read as plain arrays, write completely or not at all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tedlens.errors import TedlensError

if TYPE_CHECKING:
    pass

ARRAY_SUFFIXES = (".npz", ".npy")


def files_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files with one of `suffixes`, in natural order; hidden ones (.DS_Store, ._x.jpg) left out."""
    from natsort import natsorted

    found = [f for f in folder.iterdir() if f.suffix.lower() in suffixes and not f.name.startswith(".") and f.is_file()]
    return list(natsorted(found, key=lambda f: f.name))


def number_of(stem: str) -> int | None:
    digits = re.search(r"[0-9]+$", stem)
    return int(digits.group()) if digits else None


def load_arrays(path: Path, *keys: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays `keys` of an .npz, of which the first is required; an .npy file counts as the first."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {keys[0]: loaded}
        with loaded:
            arrays = {key: loaded[key] for key in keys if key in loaded.files}
            held = ", ".join(loaded.files) or "nothing"
    except Exception:  # found by fuzzing: numpy raises nearly anything on a broken header
        wanted = ", ".join(f"{key}={key}" for key in keys)
        raise TedlensError(f"{path} cannot be read as plain arrays; save it with np.savez(path, {wanted}).") from None
    if keys[0] not in arrays:
        raise TedlensError(f"{path} holds {held}, but no array named {keys[0]!r}; save it under that name.")
    return arrays


@contextmanager
def aside(target: Path, given: Path) -> Iterator[Path]:
    """A hidden name next to `target` to write to; after an error, the partial file or folder is removed."""
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


def target_of(path: str | os.PathLike[str]) -> Path:
    target = Path(path).expanduser()
    if not target.absolute().parent.is_dir():
        raise TedlensError(f"{target} cannot be written, because its parent folder does not exist; make that first.")
    return target


def swap_in(part: Path, target: Path) -> None:
    """Rename the folder `part` to `target`; an old `target` is removed only after this has worked."""
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
