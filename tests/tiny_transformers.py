"""Tiny random pipelines of video transformers, of the real classes."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AllegroPipeline,
    AllegroTransformer3DModel,
    AutoencoderKL,
    AutoencoderKLAllegro,
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LattePipeline,
    LatteTransformer3DModel,
    LTXImageToVideoPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from tiny import text_config, tokenizer
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaModel,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

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


def wan_vae(ti2v: bool = False) -> AutoencoderKLWan:
    """Of 2.1 and A14B, or of TI2V, where a latent holds four times as many pixels."""
    torch.manual_seed(4)
    coarser = {"is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16}
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        **(coarser if ti2v else {}),
    )


def wan_transformer(seed: int, image: bool, image_encoder: bool) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=36 if image else 16,
        out_channels=16,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=24,
        num_layers=3,
        cross_attn_norm=True,
        image_dim=8 if image_encoder else None,
        added_kv_proj_dim=24 if image_encoder else None,
        rope_max_seq_len=32,
    )


def wan(kind: str = "2.1") -> Any:
    """Of 2.1, of 2.2 A14B (two experts) and of 2.2 TI2V, each also from an image."""
    image, ti2v = kind.endswith("-i2v"), "ti2v" in kind
    later = kind.startswith("2.2") and not ti2v
    encoder = image and not later and not ti2v
    torch.manual_seed(0)
    config = UMT5Config(vocab_size=40, d_model=WIDTH, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    parts: dict[str, Any] = {
        "tokenizer": t5()["tokenizer"],
        "text_encoder": UMT5EncoderModel(config).eval(),
        "vae": wan_vae(ti2v),
        "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
        ),
        "transformer": wan_transformer(1, image and not ti2v, encoder),
        "transformer_2": wan_transformer(2, image, encoder) if later else None,
        "boundary_ratio": (0.9 if image else 0.875) if later else None,
        "expand_timesteps": ti2v,
    }
    if not image:
        return WanPipeline(**parts)
    vision = CLIPVisionConfig(
        hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=2
    )
    look: dict[str, Any] = {"image_encoder": None, "image_processor": None}
    if encoder:
        look = {
            "image_encoder": CLIPVisionModel(vision).eval(),
            "image_processor": CLIPImageProcessor(crop_size=32, size=32),
        }
    return WanImageToVideoPipeline(**parts, **look)


def ltx(image: bool = False) -> Any:
    torch.manual_seed(0)
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        num_layers=3,
        caption_channels=WIDTH,
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    cls = LTXImageToVideoPipeline if image else LTXPipeline
    return cls(transformer=transformer, vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(), **t5())


def hunyuan_video(folder: Path, image: str | None = None) -> Any:
    """From text; or, without text encoders, from an image by one of its two ways."""
    torch.manual_seed(0)
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=9 if image == "latent_concat" else 4,
        image_condition_type=image,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        patch_size=2,
        patch_size_t=1,
        guidance_embeds=image != "token_replace",
        text_embed_dim=WIDTH,
        pooled_projection_dim=WIDTH * 2,
        rope_axes_dim=(2, 4, 4),
    )
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=0.476986,
        mid_block_add_attention=True,
    )
    if image is not None:
        return HunyuanVideoImageToVideoPipeline(
            transformer=transformer,
            vae=vae,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
            **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "image_processor")),
        )
    clip = text_config()
    clip.max_position_embeddings = 77
    llama = LlamaConfig(
        vocab_size=54,
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        max_position_embeddings=1024,
        pad_token_id=53,
    )
    return HunyuanVideoPipeline(
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder=LlamaModel(llama).eval(),
        tokenizer=tokenizer(folder / "made"),
        text_encoder_2=CLIPTextModel(clip).eval(),
        tokenizer_2=tokenizer(folder / "made_2"),
    )


def mochi() -> MochiPipeline:
    torch.manual_seed(0)
    transformer = MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=3,
        pooled_projection_dim=16,
        in_channels=12,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
        activation_fn="swiglu",
        max_sequence_length=256,
    )
    torch.nn.init.normal_(transformer.pos_frequencies, std=0.02)
    vae = AutoencoderKLMochi(
        latent_channels=12,
        out_channels=3,
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )
    return MochiPipeline(
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        force_zeros_for_empty_prompt=False,
        **t5(),
    )


def allegro() -> AllegroPipeline:
    torch.manual_seed(0)
    transformer = AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        cross_attention_dim=24,
        sample_width=8,
        sample_height=8,
        sample_frames=8,
        caption_channels=WIDTH,
    )
    vae = AutoencoderKLAllegro(
        in_channels=3,
        out_channels=3,
        down_block_types=("AllegroDownBlock3D",) * 4,
        up_block_types=("AllegroUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing"
    )
    return AllegroPipeline(transformer=transformer, vae=vae, scheduler=scheduler, **t5())
