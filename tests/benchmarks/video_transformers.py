"""Video transformers of the published sizes on torch's meta device: what a probe of each takes, counted.

    python tests/benchmarks/video_transformers.py            # about two minutes
    python tests/benchmarks/video_transformers.py wan-2.1-1.3b --points   # with all hook points

No weight is read. Operations are those of matrix products and convolutions (torch's counter of floating point
operations), of the denoiser in one forward; memory is that of its weights in bfloat16 and of one block's output.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from tedlens.models.acting import acting
from tedlens.models.registry import ADAPTERS
from tedlens.models.structure import on_meta_device, outline

SIZE, FRAMES = (480, 832), 81
COGVIDEOX_SCHEDULE = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "snr_shift_scale": 3.0}
# As the models' own files have them, where diffusers' defaults are of another.
COG_5B = {
    "num_attention_heads": 48,
    "num_layers": 42,
    "use_rotary_positional_embeddings": True,
}
COG_15 = COG_5B | {
    "patch_size_t": 2,
    "patch_bias": False,
    "sample_height": 300,
    "sample_width": 300,
    "sample_frames": 81,
}
WAN_13 = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
WAN_5B = {"num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30, "in_channels": 48, "out_channels": 48}
# Its VAE folds four pixels into one, and makes one latent of 16x16.
WAN_5B_VAE = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
WAN_I2V = {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}
LATTE = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "cross_attention_dim": 1152,
    "attention_bias": True,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "caption_channels": 4096,
}
# Name to the families' parts: transformer and its settings, VAE, pipeline.
MODELS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "latte": ("LatteTransformer3DModel", LATTE, "latte", "LattePipeline"),
    "cogvideox-2b": ("CogVideoXTransformer3DModel", {}, "cogvideox", "CogVideoXPipeline"),
    "cogvideox-5b": ("CogVideoXTransformer3DModel", COG_5B, "cogvideox", "CogVideoXPipeline"),
    "cogvideox-1.5-5b": ("CogVideoXTransformer3DModel", COG_15, "cogvideox", "CogVideoXPipeline"),
    "wan-2.1-1.3b": ("WanTransformer3DModel", WAN_13 | {"text_dim": 4096}, "wan", "WanPipeline"),
    "wan-2.2-5b": ("WanTransformer3DModel", WAN_5B, "wan-5b", "WanPipeline"),
    "wan-2.1-14b, wan-2.2-14b (an expert)": ("WanTransformer3DModel", {}, "wan", "WanPipeline"),
    "wan-2.1-14b-i2v": ("WanTransformer3DModel", WAN_I2V, "wan", "WanImageToVideoPipeline"),
    "ltx-video": ("LTXVideoTransformer3DModel", {}, "ltx", "LTXPipeline"),
    "hunyuan-video": ("HunyuanVideoTransformer3DModel", {"guidance_embeds": True}, "hunyuan", "HunyuanVideoPipeline"),
    "mochi": ("MochiTransformer3DModel", {}, "mochi", "MochiPipeline"),
}


def vae_of(family: str) -> Any:
    if family == "latte":
        return diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
    if family == "cogvideox":
        return diffusers.AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(128, 256, 256, 512),
        )
    if family == "wan-5b":
        return diffusers.AutoencoderKLWan(**WAN_5B_VAE)
    names = {"wan": "Wan", "ltx": "LTXVideo", "hunyuan": "HunyuanVideo", "mochi": "Mochi"}
    return getattr(diffusers, f"AutoencoderKL{names[family]}")()


def scheduler_of(family: str) -> Any:
    if family == "latte":
        return diffusers.DDIMScheduler()
    if family == "cogvideox":
        return diffusers.CogVideoXDDIMScheduler(**COGVIDEOX_SCHEDULE)
    if family.startswith("wan"):
        return diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    return diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=family == "mochi")


def pipeline_of(name: str) -> Any:
    """A pipeline of the published size, with random weights, without encoders of text and image."""
    class_name, settings, family, pipeline_class = MODELS[name]
    cls = getattr(diffusers, pipeline_class)
    parts = dict.fromkeys(set(cls._get_signature_types()) - {"boundary_ratio", "expand_timesteps"})
    parts.pop("force_zeros_for_empty_prompt", None)
    transformer = getattr(diffusers, class_name)(**settings)
    with torch.device("cpu"):  # its numbers are needed wherever the weights are
        scheduler = scheduler_of(family)
    if family == "wan-5b":
        parts["expand_timesteps"] = True
    return cls(**parts | {"transformer": transformer, "vae": vae_of(family), "scheduler": scheduler})


def model_of(name: str) -> Any:
    """A model of the published size, without weights."""
    class_name, _, _, _ = MODELS[name]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            pipeline = pipeline_of(name)
    finally:
        torch.set_default_dtype(before)
    return ADAPTERS["video"][class_name](pipeline, name=name)


def window_of(model: Any, latents: str) -> int:
    """Frames of a window: as trained, and no more than are asked for."""
    return min(FRAMES, model.trained_frames if latents == "video" else (model.trained_frames - 1) // model.ratio + 1)


def counted(model: Any, latents: str, size: tuple[int, int]) -> tuple[int, int, int]:
    """Tokens of a window, and operations of its forward: whole, and to the block that the protocol takes."""
    twin = on_meta_device(model)
    twin.latents = latents
    frames = window_of(model, latents)
    window = range(frames)
    latent = len(twin.latent_frames(window))
    channels = twin.pipeline.vae.config.get("latent_channels") or twin.pipeline.vae.config.z_dim
    clean = torch.empty(
        latent, channels, size[0] // twin.scale, size[1] // twin.scale, device="meta", dtype=torch.bfloat16
    )
    blank = np.zeros((frames, *size, 3), np.uint8)
    rows, columns = twin.token_grid(size)
    counts = []
    for stop in (None, twin.module(twin.block)):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            run(twin, clean, twin.condition(blank, clean, window), stop)
        counts.append(counter.get_total_flops())
    return len(twin.covered(window)) * rows * columns, counts[0], counts[1]


class Reached(Exception):
    pass


def run(twin: Any, clean: Any, condition: Any, stop: Any) -> None:
    def end(given: Any, output: Any) -> None:
        raise Reached

    try:
        with acting([] if stop is None else [(stop, end)]):
            twin.run(clean, 500, condition)
    except Reached:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--points", action="store_true", help="list all hook points of each")
    asked = parser.parse_args()
    print(f"{SIZE[0]}x{SIZE[1]}, at most {FRAMES} frames of a clip.\n")
    columns = ("model", "weights, GB", "hook points (s)", "a block's output", "latents", "frames", "tokens", "TFLOP")
    print(f"| {' | '.join(columns)} | to block | TFLOP |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in asked.names or MODELS:
        model = model_of(name)
        size = (512, 512) if name == "latte" else SIZE
        start = time.perf_counter()
        found = outline(model, size)
        seconds = time.perf_counter() - start
        block = found.points[found.blocks[model.block]]
        weights = sum(p.numel() * 2 for p in model.denoiser.parameters()) / 1e9
        for latents in ("frame",) if model.ratio == 1 else ("frame", "video"):
            tokens, whole, part = counted(model, latents, size)
            cells = (
                name,
                f"{weights:.1f}",
                f"{len(found.points)} ({seconds:.1f})",
                f"{block.channels} x {block.grid[0]}x{block.grid[1]}",
                latents,
                window_of(model, latents),
                tokens,
                f"{whole / 1e12:.0f}",
                f"{model.block} of {len(model.blocks)}",
                f"{part / 1e12:.0f}",
            )
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
        if asked.points:
            for path, point in found.points.items():
                print(f"  {path}: {point.layout} {point.channels} x {point.grid[0]}x{point.grid[1]}, text {point.text}")


if __name__ == "__main__":
    main()
