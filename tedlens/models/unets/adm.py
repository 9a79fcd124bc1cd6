"""ADM: checkpoints of OpenAI's guided-diffusion, run as diffusers' `UNet2DModel`.

The two hold the same layers under other names, so the conversion is exact: no layer is added, left out
or approximated. What differs is the order of attention's rows. guided-diffusion keeps query, key and
value in one layer whose rows go by head, then by query, key and value, then by channel (its "legacy"
order, that of the unconditional models); diffusers has a layer for each.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from safetensors.torch import load_file
from torch import Tensor, nn

from tedlens.errors import TedlensError
from tedlens.models.loading import unpickled
from tedlens.models.unets.unet2d import UNet2D

State = Mapping[str, Tensor]

NORM_GROUPS = 32
DIFT_BLOCK = "out_7"  # the block of the DIFT-ADM protocol
# Where guided-diffusion keeps the blocks that are called in_0 .., mid, out_0 .. here.
LISTS = {"in": "input_blocks", "mid": "middle_block", "out": "output_blocks"}
# Layers by diffusers' name and guided-diffusion's; others are called the same in both.
LAYERS = {
    ResnetBlock2D: {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    },
    Attention: {"group_norm": "norm", "to_q": "qkv", "to_k": "qkv", "to_v": "qkv", "to_out.0": "proj_out"},
    Downsample2D: {"conv": "op"},
}


@dataclass(frozen=True)
class Heads:
    """How attention shares out its channels: so many to a head, or among so many heads at every width."""

    channels: int | None = None
    number: int | None = None

    def at(self, width: int) -> int:
        """Number of heads of a layer with `width` channels; what is given must divide that."""
        name, given = ("num_heads", self.number) if self.channels is None else ("head_channels", self.channels)
        if not isinstance(given, int) or given < 1 or width % given:
            raise TedlensError(
                f"{name}={given} does not divide an attention layer of {width} channels; give the num_head_channels, "
                "as head_channels, or the num_heads that the model was trained with."
            )
        return width // given if self.channels is not None else given


class ADM(UNet2D):
    """Adapter for guided-diffusion's UNets; each frame is seen alone, in pixels.

    Blocks are numbered as in guided-diffusion: ``in_0`` .. and ``out_0`` .. are its `input_blocks` and
    `output_blocks`, ``mid`` its `middle_block`. A block's output comes after its attention and, where
    it has one, its resampling layer. The protocol's block is ``out_7``, or the middle one of the
    output blocks where there are fewer.
    """

    def __init__(self, pipeline: Any, *, checkpoint: str, heads: Heads, **common: Any) -> None:
        super().__init__(pipeline, **common)
        self._options = {"checkpoint": checkpoint, "head_channels": heads.channels, "num_heads": heads.number}
        if common.get("block") is None:
            outputs = [name for name in self.blocks if name.startswith("out_")]
            self.block = DIFT_BLOCK if DIFT_BLOCK in outputs else outputs[len(outputs) // 2]

    @property
    def options(self) -> dict[str, Any]:
        return self._options

    @cached_property
    def block_modules(self) -> dict[str, nn.Module]:
        return {name: self.unet.get_submodule(paths[-1]) for name, paths in block_paths(self.unet).items()}


def load_adm(
    checkpoint: str | Path,
    *,
    head_channels: int | None = None,
    num_heads: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    name: str = "adm",
    size: int = 480,
    block: str | None = None,
) -> ADM:
    """Load a guided-diffusion checkpoint, such as ``256x256_diffusion_uncond.pt``.

    Widths, depth, levels with attention, the kind of time conditioning and of resampling, and learned
    variances are read from the shapes. The noise schedule is guided-diffusion's linear one of 1000
    steps, and attention's rows are in its legacy order (``use_new_attention_order=False``); shapes tell
    neither.

    Parameters
    ----------
    checkpoint
        What ``torch.save(model.state_dict(), ...)`` wrote, or the same tensors as ``.safetensors``.
        Only tensors are read, no code.
    head_channels, num_heads
        What the model's flags say, which its tensors do not: ``num_head_channels``, the channels of an attention
        head, or ``num_heads``, the heads at every width. By default 64 channels, as in the published unconditional
        checkpoints (``256x256_diffusion_uncond``, ``lsun_bedroom``, ``lsun_cat``, ``lsun_horse``);
        guided-diffusion's scripts train with ``num_heads=4`` where nothing else is said. With the wrong one features
        are silently others.
    device, dtype
        Where, and as which type of number, the model runs.
    name, size, block
        As in `DiffusionModel`; DIFT-ADM resizes to a short side of 480 pixels.

    Raises
    ------
    TedlensError
        For a file that is missing, damaged, or holds more than tensors; tensors that are no
        unconditional guided-diffusion UNet for RGB; `head_channels` or `num_heads` that does not divide a width.
    """
    path = Path(checkpoint)
    if head_channels is not None and num_heads is not None:
        raise TedlensError(
            f"head_channels={head_channels} and num_heads={num_heads} say the same in two ways; give the one that "
            "the model's flags name."
        )
    heads = Heads(64) if head_channels is None and num_heads is None else Heads(head_channels, num_heads)
    try:
        unet = to_diffusers(_read(path), heads, device, dtype)
    except TedlensError as error:
        raise TedlensError(f"Cannot load the ADM checkpoint {path}: {error}") from error
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_start=0.0001, beta_end=0.02, beta_schedule="linear")
    pipeline = DDPMPipeline(unet=unet, scheduler=scheduler)
    return ADM(pipeline, checkpoint=path.name, heads=heads, name=name, size=size, block=block)


# --- reading --------------------------------------------------------------------------------------


def _read(path: Path) -> State:
    """The tensors of a checkpoint, on the CPU; those of large files are mapped and not copied."""
    if not path.is_file():
        raise TedlensError("there is no such file; give the path of the downloaded .pt file.")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else unpickled(path)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error):
            raise TedlensError(
                "it is a pickle that holds more than tensors, which could run code and is not read; "
                "save the model's state_dict() alone."
            ) from error
        raise TedlensError(
            "it is no file that torch.save wrote (a plain pickle is not read), or a damaged one; download it again."
        ) from error
    except OSError as error:
        raise TedlensError(f"the file cannot be read: {error.strerror}.") from error
    except Exception as error:  # damaged files raise errors of many kinds
        raise TedlensError("the file is damaged or cut short; download it again.") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise TedlensError("it holds more than tensors by name; save the model's state_dict() alone.")
    return state


# --- what the shapes tell -------------------------------------------------------------------------


@dataclass(frozen=True)
class Architecture:
    """Settings of a guided-diffusion UNet; `widths` and `attention` have an entry a level, finest first."""

    in_channels: int
    out_channels: int
    time_channels: int  # its model_channels, which the first level may be narrower or wider than
    widths: tuple[int, ...]
    attention: tuple[bool, ...]
    res_blocks: int
    scale_shift: bool
    resblock_updown: bool


def architecture(state: State) -> Architecture:
    """Read the settings of a guided-diffusion UNet off its tensors' shapes.

    Raises
    ------
    TedlensError
        Where the tensors are no such UNet, or one that is conditional or no model of RGB frames.
    """
    if "label_emb.weight" in state:
        raise TedlensError(
            "it is a class-conditional model (it has label_emb.weight), and frames have no class; "
            "use an unconditional one."
        )
    in_channels = _size(state, "input_blocks.0.0.weight", 1)
    if in_channels != 3:
        raise TedlensError(
            f"its UNet takes {in_channels} channels, and frames have 3 (6 is an upsampler); use a model of RGB images."
        )
    level_ends, blocks = _output_blocks(state)
    levels = len(level_ends) + 1
    res_blocks = blocks // levels - 1
    if res_blocks < 1 or blocks % levels:
        raise TedlensError(f"its {blocks} output blocks do not divide into {levels} levels of residual blocks.")
    firsts = [1 + level * (res_blocks + 1) for level in range(levels)]  # each level's first input block
    widths = tuple(_size(state, f"input_blocks.{first}.0.out_layers.3.weight", 0) for first in firsts)
    return Architecture(
        in_channels=in_channels,
        out_channels=_size(state, "out.2.weight", 0),
        time_channels=_size(state, "time_embed.0.weight", 1),
        widths=widths,
        attention=tuple(_has_attention(state, level, levels, res_blocks) for level in range(levels)),
        res_blocks=res_blocks,
        scale_shift=_size(state, "input_blocks.1.0.emb_layers.1.weight", 0) == 2 * widths[0],
        resblock_updown="conv" not in level_ends,
    )


def _size(state: State, key: str, axis: int) -> int:
    if key not in state or state[key].ndim <= axis:
        raise TedlensError(f"it is no guided-diffusion UNet: it has no tensor {key} of the right shape.")
    return state[key].shape[axis]


def _output_blocks(state: State) -> tuple[list[str], int]:
    """The layer by which each level but the last hands on to the next finer one, and the number of blocks."""
    pattern = re.compile(r"output_blocks\.(\d+)\.(\d+)\.(in_layers\.2|conv)\.weight")
    found = [match.groups() for match in map(pattern.fullmatch, state) if match]
    # Each output block begins with a residual block; any other that follows it is for upsampling.
    return [layer for _, place, layer in found if place != "0"], len({block for block, _, _ in found})


def _has_attention(state: State, level: int, levels: int, res_blocks: int) -> bool:
    each = res_blocks + 1
    down = [f"input_blocks.{1 + level * each + i}.1.qkv.weight" for i in range(res_blocks)]
    up = [f"output_blocks.{(levels - 1 - level) * each + i}.1.qkv.weight" for i in range(each)]
    having = [key for key in down + up if key in state]
    if having and len(having) < len(down + up):
        absent = next(key for key in down + up if key not in state)
        raise TedlensError(
            f"level {level} has attention in some blocks and not in others ({having[0]} is there, {absent} is not), "
            "which guided-diffusion never builds."
        )
    return bool(having)


# --- conversion -----------------------------------------------------------------------------------


def to_diffusers(
    state: State, heads: Heads, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> UNet2DModel:
    """A `UNet2DModel` that computes what guided-diffusion's UNet with these tensors does.

    Its tensors are copies: the file behind `state` may go.

    Raises
    ------
    TedlensError
        Where `architecture` does; for tensors missing, unknown or of another shape; for widths that
        the heads or the 32 groups of the normalisation do not divide.
    """
    found = architecture(state)
    _check_widths(found, heads)
    unet = _empty(found, heads)
    sources = _sources(unet)
    _check_tensors(state, sources.values())
    weights = {key: source.take(state).to(device, dtype, copy=True) for key, source in sources.items()}
    unet.load_state_dict(weights, strict=True, assign=True)
    return unet


def _check_widths(found: Architecture, heads: Heads) -> None:
    for width in found.widths:
        if width % NORM_GROUPS:
            raise TedlensError(
                f"a level is {width} channels wide, which the {NORM_GROUPS} groups of its normalisation do not divide."
            )
    attending = [width for width, has in zip(found.widths, found.attention, strict=True) if has]
    for width in (*attending, found.widths[-1]):  # the middle always attends
        heads.at(width)


def _empty(found: Architecture, heads: Heads) -> UNet2DModel:
    """The UNet on the meta device, without weights."""
    plain = (
        ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if found.resblock_updown else ("DownBlock2D", "UpBlock2D")
    )
    resampling = "resnet" if found.resblock_updown else "conv"
    with torch.device("meta"):
        unet = UNet2DModel(
            in_channels=found.in_channels,
            out_channels=found.out_channels,
            block_out_channels=found.widths,
            layers_per_block=found.res_blocks,
            down_block_types=tuple("AttnDownBlock2D" if has else plain[0] for has in found.attention),
            up_block_types=tuple("AttnUpBlock2D" if has else plain[1] for has in reversed(found.attention)),
            downsample_type=resampling,
            upsample_type=resampling,
            attention_head_dim=1,
            norm_num_groups=NORM_GROUPS,
            attn_norm_num_groups=NORM_GROUPS,
            norm_eps=1e-5,
            resnet_time_scale_shift="scale_shift" if found.scale_shift else "default",
            time_embedding_dim=4 * found.time_channels,
        )
        # UNet2DModel would take as many sinusoids as the first level has channels.
        unet.time_proj = Timesteps(found.time_channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        unet.time_embedding = TimestepEmbedding(found.time_channels, 4 * found.time_channels)
    for layer in unet.modules():
        if isinstance(layer, Attention):  # UNet2DModel would give a head as many channels at every width
            layer.heads = heads.at(layer.inner_dim)
            layer.scale = (layer.inner_dim // layer.heads) ** -0.5
    return unet


def block_paths(unet: Any) -> dict[str, list[str]]:
    """Submodules of a `UNet2DModel`, in the order in which they run, for each block of guided-diffusion's."""
    inputs = [["conv_in"], *_runs(unet.down_blocks, "down_blocks", "downsamplers")]
    middle = [f"mid_block.{path}" for path in ("resnets.0", "attentions.0", "resnets.1")]
    outputs: list[list[str]] = []
    for paths in _runs(unet.up_blocks, "up_blocks", "upsamplers"):
        if paths[0].endswith("upsamplers.0"):
            outputs[-1] += paths  # upsampling belongs to the block before it; downsampling is one of its own
        else:
            outputs.append(paths)
    return (
        {f"in_{i}": paths for i, paths in enumerate(inputs)}
        | {"mid": middle}
        | {f"out_{i}": paths for i, paths in enumerate(outputs)}
    )


def _runs(levels: Iterable[Any], name: str, resamplers: str) -> Iterator[list[str]]:
    """Each residual block with its attention, and each resampling layer, of diffusers' levels."""
    for number, level in enumerate(levels):
        kinds = ("resnets", "attentions") if hasattr(level, "attentions") else ("resnets",)
        for i in range(len(level.resnets)):
            yield [f"{name}.{number}.{kind}.{i}" for kind in kinds]
        if getattr(level, resamplers) is not None:
            yield [f"{name}.{number}.{resamplers}.0"]


@dataclass(frozen=True)
class Source:
    """Where a tensor of the converted UNet comes from."""

    key: str  # in guided-diffusion
    stored: tuple[int, ...]  # shape there
    wanted: tuple[int, ...]  # shape in diffusers
    heads: int = 1
    part: int | None = None  # 0, 1, 2: query, key or value of an attention layer's common tensor

    def take(self, state: State) -> Tensor:
        value = state[self.key]
        if self.part is not None:
            value = value.unflatten(0, (self.heads, 3, -1))[:, self.part]
        return value.reshape(self.wanted)


def _sources(unet: UNet2DModel) -> dict[str, Source]:
    """The source of each tensor of the converted UNet, by its name there."""
    places = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    for name, paths in block_paths(unet).items():
        kind, _, number = name.partition("_")
        block = LISTS[kind] + (f".{number}" if number else "")
        places |= {path: f"{block}.{i}" for i, path in enumerate(paths)}
    found = {}
    for path, place in places.items():
        module = unet.get_submodule(path)
        for key, value in module.state_dict().items():
            found[f"{path}.{key}"] = _source(module, place, key, tuple(value.shape))
    return found


def _source(module: nn.Module, place: str, key: str, wanted: tuple[int, ...]) -> Source:
    layer, _, kind = key.rpartition(".")
    theirs = LAYERS.get(type(module), {}).get(layer, layer)
    named = ".".join(part for part in (place, theirs, kind) if part)
    if not isinstance(module, Attention):
        return Source(named, wanted, wanted)
    stored = (*wanted, 1) if len(wanted) == 2 else wanted  # their layers are convolutions of width 1
    if theirs != "qkv":
        return Source(named, stored, wanted)
    part = ("to_q", "to_k", "to_v").index(layer)
    return Source(named, (3 * stored[0], *stored[1:]), wanted, module.heads, part)


def _check_tensors(state: State, sources: Iterable[Source]) -> None:
    """That the checkpoint has the tensors that its architecture asks for, of the right shapes, and no others."""
    shapes = {source.key: source.stored for source in sources}
    if missing := [key for key in shapes if key not in state]:
        raise TedlensError(f"it is no whole guided-diffusion UNet: it lacks {_listed(missing)}.")
    if unknown := [key for key in state if key not in shapes]:
        raise TedlensError(f"it holds tensors that a guided-diffusion UNet does not: {_listed(unknown)}.")
    for key, shape in shapes.items():
        if tuple(state[key].shape) != shape:
            raise TedlensError(f"{key} has shape {tuple(state[key].shape)}, and {shape} would fit the other tensors.")


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
