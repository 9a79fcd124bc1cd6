"""Tiny random pipelines of video transformers, of the real classes."""

from __future__ import annotations

import string
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    LattePipeline,
    LatteTransformer3DModel,
)
from transformers import T5Config, T5EncoderModel, T5Tokenizer

WIDTH = 16  # of the text


def t5() -> dict[str, Any]:
    """A T5 encoder and a tokenizer of single letters."""
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((c, -3.0) for c in string.ascii_lowercase)]
    torch.manual_seed(5)
    config = T5Config(vocab_size=40, d_model=WIDTH, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    return {"tokenizer": T5Tokenizer(vocab=vocab, extra_ids=0), "text_encoder": T5EncoderModel(config).eval()}


def vae2d() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )


def latte() -> LattePipeline:
    torch.manual_seed(0)
    transformer = LatteTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=16,
        attention_bias=True,
        sample_size=8,
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        caption_channels=WIDTH,
        video_length=6,
    )
    schedule = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
    return LattePipeline(
        transformer=transformer, vae=vae2d(), scheduler=DDIMScheduler(**schedule, clip_sample=False), **t5()
    )


def cogvideox_vae(**settings: Any) -> AutoencoderKLCogVideoX:
    return AutoencoderKLCogVideoX(
        in_channels=3,
        out_channels=3,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
        scaling_factor=0.7,
        **settings,
    )


COGVIDEOX_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 3.0,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}


def cogvideox(kind: str = "2b") -> Any:
    """Of the 2B kind (sums of places), 5B (rotary), 1.5 (two latents a token), and 5B and 1.5 from an image."""
    torch.manual_seed(0)
    image, later = kind.endswith("i2v"), kind.startswith("1.5")
    settings: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,  # rotary embedding needs a multiple of 16
        "in_channels": 8 if image else 4,
        "out_channels": 4,
        "time_embed_dim": 8,
        "text_embed_dim": WIDTH,
        "num_layers": 3,
        "sample_width": 8,
        "sample_height": 6,
        "sample_frames": 9,
        "patch_size": 2,
        "use_rotary_positional_embeddings": kind != "2b",
        "use_learned_positional_embeddings": kind == "5b-i2v",
    }
    if later:
        settings |= {"patch_size_t": 2, "patch_bias": False, "ofs_embed_dim": 8 if image else None}
    transformer = CogVideoXTransformer3DModel(**settings)
    cls = CogVideoXImageToVideoPipeline if image else CogVideoXPipeline
    return cls(
        transformer=transformer,
        vae=cogvideox_vae(invert_scale_latents=kind == "1.5-i2v"),
        scheduler=CogVideoXDDIMScheduler(**COGVIDEOX_SCHEDULE),
        **t5(),
    )
