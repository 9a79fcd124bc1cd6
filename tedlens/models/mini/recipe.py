"""What the embedded models are made of and made from: sizes, schedules, and who may see which clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tedlens.clip import Clip
from tedlens.datasets import similar

if TYPE_CHECKING:
    import diffusers

SIZE = 64  # pixels
LATENTS = SIZE // 4
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

# The scheduler of stabilityai/stable-video-diffusion-img2vid, and the noise levels it was trained on:
# ln(sigma) is normal with this mean and deviation (Stable Video Diffusion, 2023, appendix D).
SVD_SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}
SVD_LOG_SIGMA = (0.7, 1.6)

# The scheduler of THUDM/CogVideoX-5b-I2V.
COGVIDEOX_SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "snr_shift_scale": 1.0,
    "timestep_spacing": "trailing",
}


@dataclass(frozen=True)
class World:
    """What the clips of a training show; shares are of clips."""

    objects: tuple[int, int]  # fewest and most
    scales: tuple[float, float]  # smallest and largest size of objects
    identical: float  # objects look the same; half of the others are similar, half distinct
    balls: float  # half of the others are blocks, half discs
    top: float  # seen from above
    patterns: float  # objects are painted
    plain: float  # the ground is plain
    motions: dict[str, float]  # share of each
    headed: float = 0.0  # objects have a front and a back


# Motion is learnt where no frame alone tells what lies where, and where neither the place of an object nor the first
# frame tells how it moves. So in most worlds objects are small, fast and several, and drift in from anywhere.
DRIFT, ALL = {"drift": 1.0}, {"cross": 0.4, "bounce": 0.2, "fall": 0.1, "drift": 0.3}
WORLDS = {
    "easy": World((2, 4), (0.4, 1.0), identical=0.7, balls=1, top=1, patterns=0, plain=0.5, motions=DRIFT),
    "headed": World(
        (2, 4), (0.4, 1.0), identical=0.7, balls=1, top=1, patterns=0, plain=0.3, motions=DRIFT, headed=0.9
    ),
    "any": World((1, 5), (0.6, 1.0), identical=0.6, balls=0.7, top=0.5, patterns=0.6, plain=0.1, motions=ALL),
}


def training_clip(seed: int, world: World, frames: int = FRAMES) -> Clip:
    """A clip of a world, made from a seed of training."""
    if seed not in TRAINING_SEEDS:
        raise ValueError(f"seed {seed} is held out from training")
    rng = np.random.default_rng(seed)

    def pick(shares: dict[str, float]) -> Any:
        return list(shares)[int(rng.choice(len(shares), p=list(shares.values())))]

    def often(share: float) -> bool:
        return bool(rng.random() < share)

    others = (1 - world.identical) / 2, (1 - world.balls) / 2
    return similar(
        seed,
        objects=int(rng.integers(world.objects[0], world.objects[1] + 1)),
        looks=pick({"identical": world.identical, "similar": others[0], "distinct": others[0]}),
        shape=pick({"ball": world.balls, "block": others[1], "disc": others[1]}),
        motion=pick(world.motions),
        view="top" if often(world.top) else "perspective",
        texture=rng.uniform(0.4, 1) if often(world.patterns) else 0.0,
        scale=rng.uniform(*world.scales),
        ground=0.0 if often(world.plain) else rng.uniform(0.2, 1),
        front=rng.uniform(0.5, 1) if often(world.headed) else 0.0,
        frames=frames,
        size=SIZE,
    )


def new_vae() -> diffusers.AutoencoderKL:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )


# Both video models leave out the attention of the outermost level, which would cost half of the training. The third
# block (`up_2`) has all that it has in the published models.


def new_video_unet() -> diffusers.I2VGenXLUNet:
    from diffusers import I2VGenXLUNet

    return I2VGenXLUNet(
        sample_size=LATENTS,
        down_block_types=("DownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "UpBlock3D"),
        block_out_channels=(32, 64, 96, 96),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=32,
        attention_head_dim=8,
    )


def new_svd_unet() -> diffusers.UNetSpatioTemporalConditionModel:
    from diffusers import UNetSpatioTemporalConditionModel

    outer, inner = "BlockSpatioTemporal", "CrossAttn{}BlockSpatioTemporal"
    return UNetSpatioTemporalConditionModel(
        sample_size=LATENTS,
        num_frames=FRAMES,
        down_block_types=(f"Down{outer}", inner.format("Down"), inner.format("Down"), f"Down{outer}"),
        up_block_types=(f"Up{outer}", inner.format("Up"), inner.format("Up"), f"Up{outer}"),
        block_out_channels=(32, 64, 64, 64),  # its group norms have 32 groups
        layers_per_block=1,
        num_attention_heads=(2, 4, 4, 4),
        cross_attention_dim=32,
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=48,
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


def new_dit_vae() -> diffusers.AutoencoderKLCogVideoX:
    """Its class alone is that of videos: each frame is a latent of its own, as in the UNets' autoencoder."""
    from diffusers import AutoencoderKLCogVideoX

    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_height=SIZE,
        sample_width=SIZE,
        temporal_compression_ratio=1,
    )


def new_dit() -> diffusers.CogVideoXTransformer3DModel:
    """Full attention over all cells of all frames; one token a latent, the grid of the UNets' `up_2`."""
    from diffusers import CogVideoXTransformer3DModel

    return CogVideoXTransformer3DModel(
        num_attention_heads=3,
        attention_head_dim=64,
        in_channels=8,  # noisy, and the first frame's
        out_channels=4,
        time_embed_dim=96,
        text_embed_dim=32,
        num_layers=8,
        sample_width=LATENTS,
        sample_height=LATENTS,
        sample_frames=FRAMES,
        patch_size=1,
        temporal_compression_ratio=1,
        max_text_seq_length=1,  # no word is read
        spatial_interpolation_scale=1.0,
        use_rotary_positional_embeddings=True,
    )
