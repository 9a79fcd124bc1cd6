"""What all loaders share: devices and types by name, files of torch, and the sentence where something fails."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import torch
import transformers
from safetensors import SafetensorError

from tedlens.errors import TedlensError

# What diffusers and safetensors raise for missing, damaged or unsafe files.
LOADING_ERRORS = (OSError, ValueError, RuntimeError, SafetensorError, AttributeError, TypeError)


def cannot_load(source: str, error: Exception) -> TedlensError:
    reason = " ".join(str(error).split())
    return TedlensError(
        f"Cannot load {source}: {reason[:300]} "
        "(a hub id needs a network or a local cache, a folder needs whole safetensors files)."
    )


@contextmanager
def quiet(bars: bool) -> Iterator[None]:
    """Without diffusers' and transformers' notes (deprecation, torchvision), which no user can act on.

    Progress bars show for models large enough to wait for: all but the embedded ones.
    """
    shown = diffusers.utils.logging.is_progress_bar_enabled()
    if shown and not bars:
        diffusers.utils.logging.disable_progress_bar()
    libraries = (diffusers.utils.logging, transformers.utils.logging, huggingface_hub.utils.logging)
    levels = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
        if shown:
            diffusers.utils.logging.enable_progress_bar()


def revision_of(folder: Path) -> str | None:
    """The hub's commit, which its cache keeps as the name of the snapshot's folder."""
    found = re.search(r"snapshots[/\\]([0-9a-f]{40})", str(folder))
    return found.group(1) if found else None


def device_named(device: str | None) -> torch.device:
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(chosen)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise TedlensError(
            f"There is no device {chosen!r} on this machine; choose 'cpu', or 'cuda' with a GPU."
        ) from error
    return place


def dtype_named(dtype: str) -> torch.dtype:
    allowed = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in allowed:
        raise TedlensError(f"dtype={dtype!r} is not one that models run in; choose from {', '.join(allowed)}.")
    return allowed[dtype]


def unpickled(path: Path) -> Any:
    """What `torch.save` wrote, on the CPU: tensors and plain values, no code."""
    zipped = zipfile.is_zipfile(path)  # torch.save's format since 1.6; older files cannot be mapped
    if zipped:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch does not look at the checksums
                raise zipfile.BadZipFile(damaged)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
