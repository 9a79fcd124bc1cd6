"""What all loaders share: devices and types by name, files of torch, and the sentence where something fails."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import torch
import transformers
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError

from tedlens.errors import TedlensError

# What diffusers and safetensors raise for missing, damaged or unsafe files.
LOADING_ERRORS = (OSError, ValueError, RuntimeError, SafetensorError, AttributeError, TypeError)

# Of a model of transformers on the hub.
TRANSFORMERS_FILES = [
    *("config.json", "*preprocessor_config.json", "model*.safetensors", "model.safetensors.index.json"),
]


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
        return torch.empty(0, device=chosen).device  # with its number, as tensors there have it
    except (RuntimeError, AssertionError) as error:
        raise TedlensError(
            f"There is no device {chosen!r} on this machine; choose 'cpu', or 'cuda' with a GPU."
        ) from error


@contextmanager
def room_for(model: str) -> Iterator[None]:
    """Around loading and encoding: says in a sentence that GPU memory ran out.

    Raises
    ------
    TedlensError
        Where GPU memory runs out.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TedlensError(
            f"The GPU has no room for all of {model!r}; load it with offload='layers' (weights wait on the CPU), "
            "dtype='bfloat16' or device='cpu', or give a smaller size."
        ) from error


def dtype_named(dtype: str) -> torch.dtype:
    allowed = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in allowed:
        raise TedlensError(f"dtype={dtype!r} is not one that models run in; choose from {', '.join(allowed)}.")
    return allowed[dtype]


def transformers_folder(source: str, revision: str | None, no_such: str) -> Path:
    """Folder of a model of transformers: of a hub id, in the local cache, downloaded where it is not there yet.

    `no_such` begins the sentence for what is neither.
    """
    if Path(source).is_dir():
        if revision is not None:
            raise TedlensError(f"revision={revision!r} is of a hub id, and {source} is a folder; leave it out.")
        return Path(source)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise TedlensError(f"{no_such}a hub id (owner/name), or a folder that transformers' save_pretrained wrote.")
    try:
        with quiet(bars=True):
            return Path(huggingface_hub.snapshot_download(source, revision=revision, allow_patterns=TRANSFORMERS_FILES))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise cannot_load(source, error) from error


def transformers_model(
    folder: Path, cls: str, dtype: torch.dtype, options: dict[str, Any], may_lack: Collection[str] = ()
) -> Any:
    """A model of transformers with every tensor that it needs: no pickled weights, no remote code.

    `may_lack` are tensors that the caller fills in where the file has none.
    """
    try:
        with quiet(bars=True):
            model, said = getattr(transformers, cls).from_pretrained(
                folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
            )
    except LOADING_ERRORS as error:
        raise cannot_load(str(folder), error) from error
    if missing := sorted(set(map(str, said["missing_keys"])) - set(may_lack)):
        raise TedlensError(
            f"Cannot load {folder}: {len(missing)} of the {len(model.state_dict())} tensors of its {cls} are missing, "
            f"{', '.join(missing[:3])}{', ..' if len(missing) > 3 else ''}; the file is not whole."
        )
    return model


def read_config(path: Path) -> dict[str, Any]:
    """What a ``config.json`` says."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TedlensError(
            f"{path} cannot be read; give the folder that transformers' save_pretrained wrote."
        ) from error
    return found


def unpickled(path: Path) -> Any:
    """What `torch.save` wrote, on the CPU: tensors and plain values, no code."""
    zipped = zipfile.is_zipfile(path)  # torch.save's format since 1.6; older files cannot be mapped
    if zipped:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch does not look at the checksums
                raise zipfile.BadZipFile(damaged)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
