"""Vision transformers of transformers (ViT, DINOv2, DINOv3, V-JEPA 2), and DINO's own checkpoints as one of them."""

from __future__ import annotations

import re
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

from tedlens.models.encoders.checkpoint import State, fill
from tedlens.models.encoders.encoder import Network
from tedlens.models.points import first_tensor

DINO_DEPTH, DINO_HEAD = 12, 64  # layers, and channels a head, of all of DINO's transformers
WIDEST = 4096  # patches in a row that positions of V-JEPA 2 are counted with
# Names of `ViTModel` to DINO's; query, key and value are one tensor there.
DINO_NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "encoder.layer": "blocks",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "layernorm": "norm",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


class Layer(nn.Module):
    """A transformer's layer whose patches come and go as a map, so that it can be read and changed like any block."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, patches: Tensor, others: Tensor, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Patches (frame, channel, y, x), and the class and register tokens (frame, token, channel)."""
        tokens = torch.cat([others, patches.flatten(2).transpose(1, 2)], 1)
        tokens = first_tensor(self.layer(tokens, **given))
        others, flat = tokens.tensor_split([others.shape[1]], 1)
        return flat.transpose(1, 2).unflatten(2, patches.shape[2:]), others


class Normed(nn.Module):
    """A normalisation of tokens on a map (frame, channel, y, x)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, patches: Tensor) -> Tensor:
        normed: Tensor = self.norm(patches.movedim(1, -1)).movedim(-1, 1)
        return normed


class VisionTransformer(Network):
    """Patches of a `ViTModel`, `Dinov2Model`, `DINOv3ViTModel` or `VJEPA2Model` on their grid.

    Blocks are ``block_0`` .., the layers' outputs, and ``out``, the last through the model's final normalisation: what
    transformers calls the last hidden state, without class and register tokens. V-JEPA 2 sees a frame as a clip of
    `tubelet_size` equal frames, as it sees pictures. A size is any number of patches: learned positions are
    interpolated by transformers (bicubic, whole grids), rotary ones are counted on.

    Parameters
    ----------
    model
        What of it pictures do not need (a pooler, V-JEPA's predictor) is left out.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.kind: str = model.config.model_type
        self.patch = int(model.config.patch_size)
        encoder = model.encoder if hasattr(model, "encoder") else model.model
        body = encoder if self.kind == "vjepa2" else model
        self.embeddings: nn.Module = body.embeddings
        self.layers = nn.ModuleList(Layer(layer) for layer in encoder.layer)
        self.out = Normed(body.norm if self.kind == "dinov3_vit" else body.layernorm)
        if self.kind == "dinov3_vit":
            self.rope: nn.Module = model.rope_embeddings
        if self.kind == "vjepa2":
            for layer in encoder.layer:  # which would count positions on a square of the size of its training
                layer.attention.grid_size = WIDEST

    def blocks(self) -> dict[str, nn.Module]:
        return {f"block_{i}": layer for i, layer in enumerate(self.layers)} | {"out": self.out}

    def forward(self, x: Tensor) -> Tensor:
        grid = (x.shape[2] // self.patch, x.shape[3] // self.patch)
        tokens, given = self._tokens(x, grid)
        others, flat = tokens.tensor_split([tokens.shape[1] - grid[0] * grid[1]], 1)
        patches = flat.transpose(1, 2).unflatten(2, grid)
        for layer in self.layers:
            patches, others = layer(patches, others, given)
        normed: Tensor = self.out(patches)
        return normed

    def _tokens(self, x: Tensor, grid: tuple[int, int]) -> tuple[Tensor, dict[str, Any]]:
        """Tokens (frame, token, channel), the patches' last, row by row, and what each layer is given beside them."""
        if self.kind == "vit":
            return self.embeddings(x, interpolate_pos_encoding=True), {}
        if self.kind == "dinov3_vit":
            return self.embeddings(x), {"position_embeddings": self.rope(x)}
        if self.kind == "vjepa2":
            rows, columns = (torch.arange(side, device=x.device) for side in grid)
            places = (rows[:, None] * WIDEST + columns).flatten().expand(len(x), -1)
            return self.embeddings(x[:, None]), {"position_mask": places}
        return self.embeddings(x), {}


def dino_of(state: State, prefix: str) -> VisionTransformer:
    """The transformer in a checkpoint of DINO's names, each after `prefix`: 12 layers, heads of 64 channels.

    Widths and the size of a patch are read off the tensors. Where positions are interpolated, this is transformers'
    `ViTModel`: to the whole grid, where DINO's own code scales by a tenth of a cell more.

    Raises
    ------
    TedlensError
        As `fill`.
    """

    def axis(name: str, number: int, default: int) -> int:
        value = state.get(prefix + name)
        return default if value is None else value.shape[number]  # `fill` says what is missing

    def source(name: str) -> tuple[str, int | None]:
        found = re.search(r"attention\.attention\.(query|key|value)", name)
        for ours, theirs in DINO_NAMES.items():
            name = name.replace(ours, theirs)
        if found is None:
            return prefix + name, None
        return prefix + name.replace(found[0], "attn.qkv"), ("query", "key", "value").index(found[1])

    width, patch = axis("cls_token", 2, 384), axis("patch_embed.proj.weight", 2, 16)
    config = ViTConfig(
        hidden_size=width,
        num_hidden_layers=DINO_DEPTH,
        num_attention_heads=max(width // DINO_HEAD, 1),
        intermediate_size=axis("blocks.0.mlp.fc1.weight", 0, 4 * width),
        image_size=patch * isqrt(axis("pos_embed", 1, 197) - 1),
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    model = ViTModel(config, add_pooling_layer=False)
    fill(model, state, source, "a vision transformer of 12 layers")
    return VisionTransformer(model)
