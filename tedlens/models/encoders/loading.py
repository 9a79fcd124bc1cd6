"""From a name to an encoder: the baselines' own checkpoints, and transformers' models by hub id or folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tedlens.errors import TedlensError
from tedlens.models.encoders.checkpoint import State, read_state
from tedlens.models.encoders.encoder import IMAGENET_MEAN, IMAGENET_STD, FrameEncoder, Look, Network
from tedlens.models.encoders.resnet import Shape, Stages, resnet_of
from tedlens.models.encoders.sfc import SFC
from tedlens.models.encoders.vit import VisionTransformer, dino_of
from tedlens.models.loading import (
    device_named,
    dtype_named,
    read_config,
    revision_of,
    transformers_folder,
    transformers_model,
)

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Baseline:
    """A baseline that is a file of torch.

    Attributes
    ----------
    files
        Names of its files, as published.
    held
        Under which names they hold the weights.
    build
        From their tensors to the network.
    block
        Where the baseline takes its features.
    look
        How it wants its pictures.
    """

    files: tuple[str, ...]
    held: tuple[str, ...]
    build: Callable[..., Network]
    block: str = "layer3"
    look: Look = field(default_factory=Look)


def _moco(state: State, layers: int = 4) -> Any:
    return resnet_of(state, "module.encoder_q.", Shape(), layers=layers)


def _sfc(fine: State, semantic: State) -> Network:
    return SFC(resnet_of(fine, "online_encoder.", Shape(), layers=3), _moco(semantic, layers=3))


DINO_LOOK = Look(std=(0.228, 0.224, 0.225))  # of DINO's evaluation on DAVIS
BASELINES = {
    "moco": Baseline(("moco_v1_200ep_pretrain.pth.tar",), ("state_dict",), _moco),
    "crw": Baseline(
        ("pretrained.pth",), ("model",), lambda state: resnet_of(state, "encoder.model.", Shape(padding="reflect"))
    ),
    "sfc": Baseline(("pretrained_fc.pth", "moco_v1_200ep_pretrain.pth.tar"), ("model", "state_dict"), _sfc, "out"),
    "vfs": Baseline(
        ("r50_nc_sgd_cos_100e_r5_1xNx2_k400-d7ce3ad0.pth",),
        ("state_dict",),
        lambda state: resnet_of(state, "backbone.", Shape(), mmcv=True),
    ),
    "spa-then-temp": Baseline(
        ("its ResNet-50 of stride 4",),
        ("state_dict",),
        lambda state: resnet_of(state, "backbone.", Shape((1, 1, 1, 1), pool="mean"), mmcv=True),
        look=Look((50, 0, 0), (50, 127, 127), lab=True),
    ),
    # The last layer's output, before the final normalisation.
    "smtc": Baseline(("its checkpoint",), ("model_state_dict",), lambda state: dino_of(state, "encoder."), "block_11"),
    "dino": Baseline(
        ("dino_deitsmall8_pretrain.pth",), ("state_dict",), lambda state: dino_of(state, ""), "out", DINO_LOOK
    ),
}
HUB_ENCODERS = {
    "dino": "facebook/dino-vits8",
    "dinov2": "facebook/dinov2-base",
    "dinov2-small": "facebook/dinov2-small",
    "dinov2-large": "facebook/dinov2-large",
    "dinov3": "facebook/dinov3-vitl16-pretrain-lvd1689m",  # the one of DINOv3's own notebook on tracking
    "v-jepa-2": "facebook/vjepa2-vitl-fpc64-256",
}
# `model_type` in a folder's config.json to the class of transformers.
BACKBONES = {
    "vit": "ViTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",
    "vjepa2": "VJEPA2Model",
    "resnet": "ResNetBackbone",
}
SIZE = 480  # DAVIS at its short side, as CRW, SFC, VFS, Spa-then-Temp, SMTC and DINO see it
DINOV3_SIZE = 960


def load_encoder(
    name: str | Path,
    checkpoint: Paths | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    revision: str | None = None,
) -> FrameEncoder:
    """Load an encoder of frames, which has no noise level: appearance features at tau 0.

    Parameters
    ----------
    name
        With a `checkpoint`: ``"moco"``, ``"crw"``, ``"sfc"``, ``"vfs"``, ``"spa-then-temp"``, ``"smtc"``, ``"dino"``.
        Without: ``"dino"``, ``"dinov2"``, ``"dinov2-small"``, ``"dinov2-large"``, ``"dinov3"``, ``"v-jepa-2"``, or a
        hub id or folder with a ViT, DINOv2, DINOv3, V-JEPA 2 or ResNet of transformers, in safetensors.
    checkpoint
        The baseline's own file, of which tensors alone are read; for ``"sfc"`` two, its own and MoCo's, or the folder
        that holds both under their published names.
    device, dtype
        See `load_video_model`.
    revision
        Of a hub id: its branch, tag or commit.

    Returns
    -------
    FrameEncoder
        A ResNet has blocks ``layer1`` .., by default the baselines' ``layer3`` (at stride 8; Spa-then-Temp at 4), and
        takes frames of any size. SFC has ``out``, its two ResNets' features together. A transformer has ``block_0`` ..
        and ``out``, its last hidden state (SMTC's default is ``block_11``, its last layer), on the grid of its patches.

    Raises
    ------
    TedlensError
        For an unknown name, a checkpoint that is not given, missing, damaged, holds more than tensors, or lacks some;
        a folder or hub id that cannot be read, or of another architecture; an unknown device or dtype.
    """
    place, number_type = device_named(device), dtype_named(dtype)
    if checkpoint is not None or (str(name) in BASELINES and str(name) not in HUB_ENCODERS):
        encoder = _baseline(str(name), checkpoint, number_type, revision)
    else:
        encoder = _backbone(str(name), number_type, revision)
    encoder.unet.to(place)
    return encoder


def encoder_names() -> list[str]:
    """Names that `load_encoder` knows."""
    return list(dict.fromkeys([*BASELINES, *HUB_ENCODERS]))


def is_encoder(name: str | Path) -> bool:
    """Whether a name, or what a folder holds, is an encoder's; of a hub id nothing is known but its name."""
    if str(name) in encoder_names() or str(name) in HUB_ENCODERS.values():
        return True
    config = Path(name) / "config.json"
    return config.is_file() and read_config(config).get("model_type") in BACKBONES


# --- baselines ------------------------------------------------------------------------------------


def _baseline(name: str, checkpoint: Paths | None, dtype: torch.dtype, revision: str | None) -> FrameEncoder:
    if name not in BASELINES:
        raise TedlensError(f"{name!r} takes no checkpoint; the encoders that do are {', '.join(BASELINES)}.")
    if revision is not None:
        raise TedlensError(
            f"revision={revision!r} is of a hub id, and {name!r} is read from a checkpoint; leave it out."
        )
    baseline = BASELINES[name]
    paths = _paths(checkpoint, baseline.files)
    if len(paths) != len(baseline.files):
        raise TedlensError(
            f"The encoder {name!r} is read from {' and '.join(baseline.files)}; give the path of each as checkpoint= "
            f"({len(paths)} given)."
        )
    try:
        states = [read_state(path, held) for path, held in zip(paths, baseline.held, strict=True)]
        network = baseline.build(*states).to(dtype)
    except TedlensError as error:
        raise TedlensError(f"Cannot load the {name} checkpoint {', '.join(map(str, paths))}: {error}") from error
    about = {"checkpoint": ", ".join(path.name for path in paths)}
    multiple = network.patch if isinstance(network, VisionTransformer) else 1
    return FrameEncoder(
        network, look=baseline.look, multiple=multiple, about=about, name=name, size=SIZE, block=baseline.block
    )


def _paths(checkpoint: Paths | None, files: Sequence[str]) -> list[Path]:
    if checkpoint is None:
        return []
    if isinstance(checkpoint, str | Path):
        path = Path(checkpoint)
        return [path / file for file in files] if path.is_dir() and len(files) > 1 else [path]
    return [Path(path) for path in checkpoint]


# --- transformers ---------------------------------------------------------------------------------


def _backbone(name: str, dtype: torch.dtype, revision: str | None) -> FrameEncoder:
    folder = _folder(name, revision)
    config = read_config(folder / "config.json")
    kind = config.get("model_type")
    if kind not in BACKBONES:
        raise TedlensError(
            f"{name} is a model of type {kind!r}, which is no encoder of frames that tedlens knows; it knows "
            f"{', '.join(BACKBONES)}, and by name {', '.join(encoder_names())}."
        )
    model = transformers_model(folder, BACKBONES[kind], dtype, {"add_pooling_layer": False} if kind == "vit" else {})
    network: Network = Stages(model) if kind == "resnet" else VisionTransformer(model)
    blocks = list(network.blocks())
    return FrameEncoder(
        network,
        look=DINO_LOOK if name == "dino" else _look(folder),
        multiple=1 if kind == "resnet" else int(config["patch_size"]),
        about={"network": BACKBONES[kind]},
        name=name,
        revision=revision_of(folder),
        # V-JEPA 2 has no protocol for labels: the size of its training.
        size={"dinov3_vit": DINOV3_SIZE, "vjepa2": int(model.config.to_dict().get("crop_size", SIZE))}.get(kind, SIZE),
        block=blocks[min(2, len(blocks) - 1)] if kind == "resnet" else "out",
    )


def _folder(name: str, revision: str | None) -> Path:
    """Folder of a model of transformers: of a hub id, in the local cache, downloaded where it is not there yet."""
    no_such = f"There is no encoder {name!r}; choose {', '.join(encoder_names())}, "
    return transformers_folder(HUB_ENCODERS.get(name, name), revision, no_such)


def _look(folder: Path) -> Look:
    """How a model wants its pictures, as its folder says; by default ImageNet's mean and deviation."""
    for path in sorted(folder.glob("*preprocessor_config.json")):
        said = read_config(path)
        return Look(tuple(said.get("image_mean", IMAGENET_MEAN)), tuple(said.get("image_std", IMAGENET_STD)))
    return Look()
