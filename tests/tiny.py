"""Tiny random pipelines of the real classes, built and saved with diffusers itself."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    EulerDiscreteScheduler,
    I2VGenXLPipeline,
    I2VGenXLUNet,
    MotionAdapter,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    StableVideoDiffusionPipeline,
    TextToVideoSDPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    UNet3DConditionModel,
    UNetMotionModel,
    UNetSpatioTemporalConditionModel,
)
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tedlens.models.base import Condition, DiffusionModel, Frames, pictures
from tedlens.models.mini.recipe import I2VGEN_XL_SCHEDULE, SVD_SCHEDULE

WIDTH = 32  # of the cross-attention


def tokenizer(folder: Path) -> CLIPTokenizer:
    """A byte-level CLIP tokenizer of single letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)


def text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=54,
        hidden_size=WIDTH,
        intermediate_size=37,
        projection_dim=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )


def vae() -> AutoencoderKL:
    """Latents at a quarter of the frame."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    )


def image_encoder(size: int) -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=24,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=size,
            patch_size=size // 4,
        )
    )


def i2vgen_xl(folder: Path) -> I2VGenXLPipeline:
    """I2VGen-XL with all its parts and its own scheduler settings; latents at a quarter of the frame."""
    torch.manual_seed(0)
    return I2VGenXLPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config()),
        tokenizer=tokenizer(folder / "made"),
        image_encoder=image_encoder(32),
        feature_extractor=CLIPImageProcessor(crop_size=32, size=32),
        unet=I2VGenXLUNet(
            block_out_channels=(8, 16, 16, 16),
            layers_per_block=1,
            sample_size=8,
            norm_num_groups=4,
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
        ),
        scheduler=DDIMScheduler(**I2VGEN_XL_SCHEDULE),
    )


def svd() -> StableVideoDiffusionPipeline:
    """SVD with all its parts and its own scheduler settings; latents at a quarter of the frame."""
    torch.manual_seed(0)
    return StableVideoDiffusionPipeline(
        vae=AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 3,
            latent_channels=4,
            layers_per_block=1,
            sample_size=32,
        ),
        image_encoder=image_encoder(224),  # to which the pipeline resizes
        unet=UNetSpatioTemporalConditionModel(
            sample_size=8,
            block_out_channels=(32, 32, 32, 32),
            layers_per_block=1,
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24,
            cross_attention_dim=WIDTH,
            num_attention_heads=(2, 2, 2, 2),
            num_frames=5,
        ),
        scheduler=EulerDiscreteScheduler(**SVD_SCHEDULE),
        feature_extractor=CLIPImageProcessor(crop_size=32, size=32),
    )


def unet2d() -> DDPMPipeline:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=32,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    )
    return DDPMPipeline(unet=unet, scheduler=DDPMScheduler())


SD_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "steps_offset": 1,
}


def modelscope(folder: Path) -> TextToVideoSDPipeline:
    torch.manual_seed(0)
    return TextToVideoSDPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config()),
        tokenizer=tokenizer(folder / "made"),
        unet=UNet3DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            norm_num_groups=4,
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
        ),
        scheduler=DDIMScheduler(**SD_SCHEDULE),
    )


def motion_adapter() -> MotionAdapter:
    torch.manual_seed(1)
    return MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_norm_num_groups=4,
        motion_num_attention_heads=2,
        motion_max_seq_length=24,
    )


def animatediff(folder: Path) -> AnimateDiffPipeline:
    base = stable_diffusion(folder)
    torch.manual_seed(2)
    return AnimateDiffPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=UNetMotionModel.from_unet2d(base.unet, motion_adapter()),
        motion_adapter=motion_adapter(),
        scheduler=DDIMScheduler(**(SD_SCHEDULE | {"beta_schedule": "linear"})),
    )


def stable_diffusion(folder: Path, **unet: object) -> StableDiffusionPipeline:
    torch.manual_seed(0)
    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config()),
        tokenizer=tokenizer(folder / "made"),
        unet=unet2d_condition(**unet),
        scheduler=DDIMScheduler(**SD_SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def unet2d_condition(**settings: object) -> UNet2DConditionModel:
    default = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 4,
    }
    return UNet2DConditionModel(**(default | settings))


def sdxl(folder: Path) -> StableDiffusionXLPipeline:
    torch.manual_seed(0)
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config()),
        text_encoder_2=CLIPTextModelWithProjection(text_config()),
        tokenizer=tokenizer(folder / "made"),
        tokenizer_2=tokenizer(folder / "made_2"),
        unet=unet2d_condition(
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        ),
        # XL's own: it steps in sigmas and scales the sample before the UNet.
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
    )


class ToyUNet(torch.nn.Module):
    """Two convolutions in place of blocks: a forward takes less than a millisecond."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down_blocks = torch.nn.ModuleList([torch.nn.Conv2d(3, 8, 3, padding=1)])
        self.up_blocks = torch.nn.ModuleList([torch.nn.Conv2d(8, 6, 3, padding=1)])

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        for block in [*self.down_blocks, *self.up_blocks]:
            sample = block(sample)
        return sample


class Toy(DiffusionModel):
    """A whole adapter around `ToyUNet`, where many sweeps must be quick: pixels are its latents."""

    block = "up_0"
    multiple = 4

    def __init__(self, window: int | None = 4) -> None:
        unet = ToyUNet()
        super().__init__(SimpleNamespace(unet=unet, components={"unet": unet}), name="toy", size=12)
        self.window = window

    def encode(self, frames: Frames) -> torch.Tensor:
        return pictures(frames).to(self.device)

    def sigma(self, tau: int) -> float:
        return tau / (1000 - tau)

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, tau: int) -> torch.Tensor:
        return clean + self.sigma(tau) * noise

    def run(self, noisy: torch.Tensor, tau: int, condition: Condition) -> None:
        self.unet(noisy)
