"""What the embedded models are made of and made from: sizes, schedules, and who may see which clips."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tedlens.clip import Clip
from tedlens.datasets import similar

if TYPE_CHECKING:
    import diffusers

SIZE = 64  # pixels; the VAE divides by 4
FRAMES = 16  # as I2VGen-XL was trained

# Seeds of `similar` by their use. Training takes from TRAINING only; everything reported is TEST.
TEST_SEEDS = range(0, 10_000)
VALIDATION_SEEDS = range(10_000, 20_000)
TRAINING_SEEDS = range(1_000_000, 2**31)

# The scheduler of ali-vilab/i2vgen-xl.
I2VGEN_XL_SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def training_clip(seed: int, frames: int = FRAMES) -> Clip:
    """A clip of wide variety, weighted towards crossings in which appearance cannot help."""
    if seed not in TRAINING_SEEDS:
        raise ValueError(f"seed {seed} is held out from training")
    rng = np.random.default_rng(seed)

    def pick(options: list[Any], weights: list[float]) -> Any:
        return options[int(rng.choice(len(options), p=weights))]

    return similar(
        seed,
        objects=pick([1, 2, 3, 4], [0.1, 0.5, 0.25, 0.15]),
        looks=pick(["identical", "similar", "distinct"], [0.5, 0.15, 0.35]),
        shape=pick(["ball", "block", "disc"], [0.6, 0.2, 0.2]),
        motion=pick(["cross", "bounce", "fall"], [0.5, 0.35, 0.15]),
        view=pick(["perspective", "top"], [0.5, 0.5]),
        pan=float(pick([0.0, 1.0], [0.6, 0.4]) * rng.uniform(-1.5, 1.5)),
        frames=frames,
        size=SIZE,
    )


def new_vae() -> diffusers.AutoencoderKL:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )


def new_video_unet() -> diffusers.I2VGenXLUNet:
    from diffusers import I2VGenXLUNet

    return I2VGenXLUNet(
        sample_size=SIZE // 4,
        block_out_channels=(32, 48, 64, 64),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=32,
        attention_head_dim=8,
    )


def new_image_unet() -> diffusers.UNet2DModel:
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=SIZE,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
    )
