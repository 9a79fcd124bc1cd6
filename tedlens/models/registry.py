"""From a name, hub id or folder to a model behind its adapter; nothing unsafe is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from safetensors import SafetensorError

from tedlens.errors import TedlensError
from tedlens.models.base import DiffusionModel
from tedlens.models.i2vgen_xl import I2VGenXL
from tedlens.models.mini import recipe
from tedlens.models.svd import StableVideoDiffusion
from tedlens.models.unet2d import UNet2D

# Class of the UNet to its adapter.
VIDEO_ADAPTERS: dict[str, type[DiffusionModel]] = {
    "I2VGenXLUNet": I2VGenXL,
    "UNetSpatioTemporalConditionModel": StableVideoDiffusion,
}
IMAGE_ADAPTERS: dict[str, type[DiffusionModel]] = {"UNet2DModel": UNet2D}

# Short names of models on the hub.
HUB_VIDEO = {
    "i2vgen-xl": "ali-vilab/i2vgen-xl",
    "svd": "stabilityai/stable-video-diffusion-img2vid",
    "svd-xt": "stabilityai/stable-video-diffusion-img2vid-xt",
}
# Short names of embedded models: folder in the package, and what the adapter should know of it.
EMBEDDED_VIDEO: dict[str, tuple[str, dict[str, Any]]] = {"mini": ("video", {"size": recipe.SIZE})}
EMBEDDED_IMAGE: dict[str, tuple[str, dict[str, Any]]] = {"mini": ("image", {"size": recipe.SIZE, "block": "up_0"})}


def load_video_model(
    name: str | Path = "mini", *, device: str | None = None, dtype: str = "float32", **options: Any
) -> DiffusionModel:
    """Load a video diffusion model, the source of motion features.

    Parameters
    ----------
    name
        ``"mini"`` (embedded), ``"i2vgen-xl"``, ``"svd"``, ``"svd-xt"``, a hub id, or a folder in
        diffusers' pipeline format. Weights are read from safetensors only.
    device
        ``"cpu"``, ``"cuda"``, ...; by default CUDA where there is one.
    dtype
        ``"float32"``, ``"float16"`` or ``"bfloat16"``.
    **options
        Settings of the conditioning: `prompt`, `fps` (I2VGen-XL); `fps`, `motion_bucket_id`,
        `noise_aug_strength` (SVD).

    Raises
    ------
    TedlensError
        For an unknown name, a folder that is no pipeline, weights that are missing, damaged or no
        safetensors, an architecture without adapter, an unknown option or device.
    """
    return _load(name, "video", EMBEDDED_VIDEO, HUB_VIDEO, VIDEO_ADAPTERS, device, dtype, options)


def load_image_model(
    name: str | Path = "mini", *, device: str | None = None, dtype: str = "float32", **options: Any
) -> DiffusionModel:
    """Load an image diffusion model, the source of appearance features.

    `name` is ``"mini"`` (embedded), a hub id, or a folder in diffusers' pipeline format with a
    `UNet2DModel`. The other parameters and the errors are those of `load_video_model`.
    """
    return _load(name, "image", EMBEDDED_IMAGE, {}, IMAGE_ADAPTERS, device, dtype, options)


def embedded_folder(kind: str) -> Path:
    """Folder of the package that holds the embedded ``"video"`` or ``"image"`` model."""
    return Path(str(files("tedlens.models.mini"))) / kind


def _embedded_folders() -> list[Path]:
    return [embedded_folder(folder) for folder, _ in (*EMBEDDED_VIDEO.values(), *EMBEDDED_IMAGE.values())]


def _load(
    name: str | Path,
    kind: str,
    embedded: dict[str, tuple[str, dict[str, Any]]],
    hub: dict[str, str],
    adapters: dict[str, type[DiffusionModel]],
    device: str | None,
    dtype: str,
    options: dict[str, Any],
) -> DiffusionModel:
    place, number_type = _device(device), _dtype(dtype)
    common: dict[str, Any] = {"name": str(name)}
    source = hub.get(str(name), str(name))
    if str(name) in embedded:
        folder, known = embedded[str(name)]
        source, common = str(embedded_folder(folder)), common | known
    elif not Path(source).exists() and not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        known_names = ", ".join([*embedded, *hub])
        raise TedlensError(
            f"There is no {kind} model {str(name)!r}; choose {known_names}, a hub id (owner/name), "
            "or a folder in diffusers' pipeline format."
        )
    absent: dict[str, None] = {}
    if Path(source).exists():
        index = _index(Path(source))
        _adapter(index["unet"][1], source, kind, adapters)  # before gigabytes are read
        # Parts that a pipeline was saved without (the embedded models have no text encoder).
        absent = {part: None for part, place in index.items() if place == [None, None]}
    pipeline = _pipeline(source, number_type, absent)
    adapter = _adapter(type(pipeline.unet).__name__, source, kind, adapters)
    common["revision"] = _revision(pipeline)
    try:
        return adapter(pipeline.to(place), **(common | options))
    except TypeError as error:
        raise TedlensError(f"Model {str(name)!r} does not take these options: {error}.") from error


def _index(folder: Path) -> dict[str, Any]:
    """What a pipeline folder says it holds: name of the part to [library, class]."""
    path = folder / "model_index.json"
    if not path.is_file():
        raise TedlensError(
            f"{folder} is not a diffusers pipeline: it has no model_index.json; give the folder that "
            "save_pretrained wrote, or a hub id."
        )
    try:
        index: dict[str, Any] = json.loads(path.read_text())
        str(index["unet"][1])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise TedlensError(f"{path} names no unet, so there is nothing to probe in this pipeline.") from error
    return index


def _adapter(
    unet_class: str, source: str, kind: str, adapters: dict[str, type[DiffusionModel]]
) -> type[DiffusionModel]:
    if unet_class not in adapters:
        raise TedlensError(
            f"{source} has a {unet_class}, for which tedlens has no {kind} adapter; it has adapters for "
            f"{', '.join(adapters)}."
        )
    return adapters[unet_class]


def _pipeline(source: str, dtype: torch.dtype, absent: dict[str, None]) -> Any:
    try:
        # No custom pipelines, no remote code, no pickled weights.
        with _quiet(bars=source not in map(str, _embedded_folders())):
            return DiffusionPipeline.from_pretrained(source, dtype=dtype, use_safetensors=True, **absent)
    except (OSError, ValueError, RuntimeError, SafetensorError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise TedlensError(
            f"Cannot load {source}: {reason[:300]} "
            "(a hub id needs a network or a local cache, a folder needs whole safetensors files)."
        ) from error


@contextmanager
def _quiet(bars: bool) -> Iterator[None]:
    """Without diffusers' and transformers' notes (deprecation, torchvision), which no user can act on.

    Progress bars show for models large enough to wait for: all but the embedded ones.
    """
    shown = diffusers.utils.logging.is_progress_bar_enabled()
    if shown and not bars:
        diffusers.utils.logging.disable_progress_bar()
    libraries = (diffusers.utils.logging, transformers.utils.logging)
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


def _revision(pipeline: Any) -> str | None:
    """The hub's commit, which its cache keeps as the name of the snapshot's folder."""
    found = re.search(r"snapshots[/\\]([0-9a-f]{40})", str(pipeline.config.get("_name_or_path", "")))
    return found.group(1) if found else None


def _device(device: str | None) -> torch.device:
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(chosen)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise TedlensError(
            f"There is no device {chosen!r} on this machine; choose 'cpu', or 'cuda' with a GPU."
        ) from error
    return place


def _dtype(dtype: str) -> torch.dtype:
    allowed = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in allowed:
        raise TedlensError(f"dtype={dtype!r} is not one that models run in; choose from {', '.join(allowed)}.")
    return allowed[dtype]
