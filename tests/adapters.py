"""All video adapters around tiny random pipelines, and where attention lies in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
import xarray as xr

import tedlens as tl
from tedlens.models.base import DiffusionModel
from tedlens.models.registry import ADAPTERS

VIDEO = ["i2vgen_xl", "svd", "modelscope", "animatediff"]
# A layer over frames of each architecture, and an attention in it; and one within frames.
LAYER = {
    "i2vgen_xl": ("up_1.temp_attentions.0", "up_1.temp_attentions.0.transformer_blocks.0.attn1"),
    "svd": ("up_1.attentions.0", "up_1.attentions.0.temporal_transformer_blocks.0.attn1"),
    "modelscope": ("up_1.temp_attentions.0", "up_1.temp_attentions.0.transformer_blocks.0.attn1"),
    "animatediff": ("up_1.motion_modules.0", "up_1.motion_modules.0.transformer_blocks.0.attn1"),
}
SPATIAL = {
    "i2vgen_xl": "up_1.attentions.0.transformer_blocks.0.attn1",
    "svd": "up_1.attentions.0.transformer_blocks.0.attn1",
    "modelscope": "up_1.attentions.0.transformer_blocks.0.attn1",
    "animatediff": "up_0.attentions.0.transformer_blocks.0.attn1",
}


def video_models(folder: Path) -> dict[str, DiffusionModel]:
    pipelines = {
        "i2vgen_xl": tiny.i2vgen_xl(folder),
        "svd": tiny.svd(),
        "modelscope": tiny.modelscope(folder),
        "animatediff": tiny.animatediff(folder),
    }
    return {
        name: ADAPTERS["video"][type(pipeline.unet).__name__](pipeline, name=name, size=32)
        for name, pipeline in pipelines.items()
    }


def features(model: DiffusionModel, clip: tl.Clip, block: str | None = None, **how: Any) -> xr.DataArray:
    """Of the last block at one noise level, in windows of four frames, where nothing else is said."""
    block = model.blocks[-1] if block is None else block
    how = {"tau": 200, "window": 4} | how
    return tl.probe(model, clip, blocks=block, **how)[block]["features"].isel(tau=0, seed=0)


def no_hooks(model: DiffusionModel) -> bool:
    return not any(module._forward_hooks or module._forward_pre_hooks for module in model.unet.modules())
