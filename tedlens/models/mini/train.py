"""Train the embedded models: ``python -m tedlens.models.mini.train vae|video|svd|image``.

Each stage is a pure function of its arguments: step n draws its clips, noise levels and noise from
(seed, n), so a run that was stopped goes on from its checkpoint as if it never had been. The learning
rate stays the same until the last fifth of the steps: a run may be prolonged until it gets there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    I2VGenXLPipeline,
    StableVideoDiffusionPipeline,
)
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm.auto import tqdm

from tedlens.clip import Clip
from tedlens.models.i2vgen_xl import image_latents, no_text
from tedlens.models.latent import encode_with_vae, no_image
from tedlens.models.mini import recipe
from tedlens.models.svd import FPS, MOTION_BUCKET_ID, NOISE_AUG_STRENGTH

app = typer.Typer(help="Train the embedded models.", add_completion=False)
Steps = Annotated[int, typer.Option(help="Optimiser steps in all.")]
Batch = Annotated[int, typer.Option(help="Clips (video) or frames (vae, image) a step.")]
Out = Annotated[Path, typer.Option(help="Folder for checkpoints, log and the finished model.")]
Seed = Annotated[int, typer.Option(help="Seed of weights, clips, noise levels and noise.")]
Rate = Annotated[float, typer.Option(help="Peak learning rate.")]
WARM_UP = 100  # steps
DECAY = 0.2  # share of the steps over which the learning rate falls to nothing
SAVE_EVERY = 100


def frames_tensor(clip: Clip) -> Tensor:
    """Frames of a clip as (frame, 3, y, x) in [-1, 1]."""
    return torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float() / 127.5 - 1


def run(
    model: torch.nn.Module,
    loss_at: Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]],
    *,
    steps: int,
    rate: float,
    seed: int,
    out: Path,
    name: str,
) -> None:
    """Optimise `model` with AdamW, warm-up and a linear decay at the end; leave its moving average in `model`."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, log = out / f"{name}.pt", out / f"{name}.jsonl"
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2)
    average = EMAModel(model.parameters(), decay=0.998, use_ema_warmup=True, power=0.75)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average.load_state_dict(state["average"])
        first = state["step"]
    # Not .train(): diffusers' temporal layers drop out a tenth, too much for models this small.
    model.eval()
    progress = tqdm(range(first, steps), initial=first, total=steps, desc=name)
    for step in progress:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / WARM_UP, (steps - step) / (DECAY * steps))
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        loss, record = loss_at(step, generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        average.step(model.parameters())
        with log.open("a") as lines:
            lines.write(json.dumps({"step": step, "loss": round(loss.item(), 5), **record}) + "\n")
        progress.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            state = {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "average": average.state_dict(),
                "step": step + 1,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
    average.copy_to(model.parameters())


def denoising_loss(
    scheduler: Any,
    predict: Callable[[Tensor, Tensor], Tensor],
    clean: Tensor,
    generator: torch.Generator,
    noisy: int = 0,
) -> tuple[Tensor, dict[str, float]]:
    """Mean squared error of the model's prediction at one random noise level an example.

    Half of the examples have a tau from `noisy` on, the others any.
    """
    levels = scheduler.config.num_train_timesteps
    tau = torch.randint(0, levels, (len(clean),), generator=generator)
    upper = torch.rand(len(clean), generator=generator) < 0.5
    tau = torch.where(upper, noisy + tau * (levels - noisy) // levels, tau)
    noise = torch.randn(clean.shape, generator=generator)
    predicted = predict(scheduler.add_noise(clean, noise, tau), tau)
    if scheduler.config.prediction_type == "v_prediction":
        target = scheduler.get_velocity(clean, noise, tau)
    else:
        target = noise
    each = (predicted - target).square().flatten(1).mean(1)
    return each.mean(), {"tau": tau.tolist(), "losses": rounded(each)}  # type: ignore[dict-item]


def edm_target(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """What a v-prediction in EDM's terms should be: of unit variance for every sigma.

    With noisy = clean + sigma * noise, clean is noisy / (sigma^2 + 1) - prediction * sigma / sqrt(sigma^2 + 1).
    """
    return (noise - sigma * clean) / (sigma**2 + 1).sqrt()


def rounded(values: Tensor) -> list[float]:
    """For the log."""
    return [round(v, 5) for v in values.tolist()]


def training_frames(step: int, count: int) -> Tensor:
    """`count` single frames of as many training clips, (count, 3, y, x) in [-1, 1]."""
    start = recipe.TRAINING_SEEDS.start + step * count
    return torch.cat([frames_tensor(recipe.training_clip(start + i, frames=2))[:1] for i in range(count)])


@app.command()
def vae(out: Out, steps: Steps = 1500, batch: Batch = 16, rate: Rate = 2e-3, seed: Seed = 0) -> None:
    """The autoencoder: absolute error of the picture plus a slight pull to the normal distribution."""
    torch.manual_seed(seed)
    model = recipe.new_vae()

    def loss_at(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        images = training_frames(step, batch)
        posterior = model.encode(images).latent_dist
        picture = (model.decode(posterior.sample(generator)).sample - images).abs().mean()
        return picture + 1e-4 * posterior.kl().mean() / 1024, {"picture": round(picture.item(), 5)}

    run(model, loss_at, steps=steps, rate=rate, seed=seed, out=out, name="vae")
    with torch.no_grad():
        latents = model.encode(training_frames(steps, 64)).latent_dist.mode()
    model.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    model.save_pretrained(out / "vae")


def load_vae(out: Path) -> AutoencoderKL:
    """The autoencoder that stage `vae` left in the same folder."""
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(out / "vae", use_safetensors=True).requires_grad_(False)
    return vae


@contextmanager
def half_precision(model: Any) -> Iterator[None]:
    """Products in bfloat16, attention spelt out (fused it is slow for 16 frames): 1.7 times as fast on one core."""
    model.set_attn_processor(AttnProcessor())
    with torch.autocast("cpu", torch.bfloat16):
        yield


def training_videos(vae: AutoencoderKL, step: int, count: int, stage: recipe.Stage) -> tuple[Tensor, Tensor]:
    """First frames (count, 3, y, x) and latents (count, frame, channel, y, x) of `count` training clips."""
    start = recipe.TRAINING_SEEDS.start + step * count
    clips = [frames_tensor(recipe.training_clip(start + i, stage=stage)) for i in range(count)]
    latents = torch.stack([encode_with_vae(vae, clip) for clip in clips]) * vae.config.scaling_factor
    return torch.stack([clip[0] for clip in clips]), latents


@app.command()
def video(out: Out, steps: Steps = 5600, batch: Batch = 4, rate: Rate = 1e-3, seed: Seed = 0) -> None:
    """The video UNet in the manner of I2VGen-XL, conditioned as the adapter does."""
    torch.manual_seed(seed)
    vae, model = load_vae(out), recipe.new_video_unet()
    scheduler = DDIMScheduler(**recipe.I2VGEN_XL_SCHEDULE)
    text, image = no_text(model).expand(batch, -1, -1), no_image(model).expand(batch, -1, -1)

    def loss_at(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        stage = recipe.stage_at(step, "video")
        _, clean = training_videos(vae, step, batch, stage)
        first = torch.cat([image_latents(latents[0], len(latents)) for latents in clean])

        def predict(noisy: Tensor, tau: Tensor) -> Tensor:
            with half_precision(model):
                prediction: Tensor = model(
                    noisy,
                    tau,
                    fps=torch.full((batch,), 16),
                    image_latents=first,
                    image_embeddings=image,
                    encoder_hidden_states=text,
                    return_dict=False,
                )[0]
            return prediction.float()

        return denoising_loss(scheduler, predict, clean.transpose(1, 2), generator, stage.noisy)

    run(model, loss_at, steps=steps, rate=rate, seed=seed, out=out, name="video")
    pipeline = I2VGenXLPipeline(
        vae=vae, text_encoder=None, tokenizer=None, image_encoder=None, feature_extractor=None,
        unet=model, scheduler=scheduler,
    )  # fmt: skip
    finish(pipeline, out / "video")


@app.command()
def svd(out: Out, steps: Steps = 8600, batch: Batch = 4, rate: Rate = 1e-3, seed: Seed = 0) -> None:
    """The video UNet in the manner of Stable Video Diffusion: EDM's noise, v-prediction, its conditioning."""
    torch.manual_seed(seed)
    vae, model = load_vae(out), recipe.new_svd_unet()
    pipeline = StableVideoDiffusionPipeline(
        vae=vae, image_encoder=None, feature_extractor=None, unet=model,
        scheduler=EulerDiscreteScheduler(**recipe.SVD_SCHEDULE),
    )  # fmt: skip
    image = no_image(model).expand(batch, -1, -1)
    mean, deviation = recipe.SVD_LOG_SIGMA

    def loss_at(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        first, clean = training_videos(vae, step, batch, recipe.stage_at(step, "svd"))
        log_sigma = mean + deviation * torch.randn(batch, generator=generator)
        sigma = log_sigma.exp().view(-1, 1, 1, 1, 1)
        noise = torch.randn(clean.shape, generator=generator)
        augmented = first + NOISE_AUG_STRENGTH * torch.randn(first.shape, generator=generator)
        given = encode_with_vae(vae, augmented)[:, None].expand(-1, recipe.FRAMES, -1, -1, -1)
        scaled = (clean + sigma * noise) / (sigma**2 + 1).sqrt()
        with half_precision(model):
            prediction = model(
                torch.cat([scaled, given], dim=2),
                0.25 * log_sigma,
                encoder_hidden_states=image,
                added_time_ids=torch.tensor([[FPS - 1, MOTION_BUCKET_ID, NOISE_AUG_STRENGTH]] * batch),
                return_dict=False,
            )[0]
        each = (prediction.float() - edm_target(clean, noise, sigma)).square().flatten(1).mean(1)
        return each.mean(), {"log_snr": rounded(-2 * log_sigma), "losses": rounded(each)}  # type: ignore[dict-item]

    run(model, loss_at, steps=steps, rate=rate, seed=seed, out=out, name="svd")
    finish(pipeline, out / "svd")


@app.command()
def image(out: Out, steps: Steps = 3000, batch: Batch = 8, rate: Rate = 1e-3, seed: Seed = 0) -> None:
    """The image UNet, on single frames in pixels, as ADM."""
    torch.manual_seed(seed)
    model = recipe.new_image_unet()
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", clip_sample=False)

    def loss_at(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        def predict(noisy: Tensor, tau: Tensor) -> Tensor:
            prediction: Tensor = model(noisy, tau, return_dict=False)[0]
            return prediction

        return denoising_loss(scheduler, predict, training_frames(step, batch), generator)

    run(model, loss_at, steps=steps, rate=rate, seed=seed, out=out, name="image")
    finish(DDPMPipeline(unet=model, scheduler=scheduler), out / "image")


def finish(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Save in diffusers' own format, in float16: half the size, and differences far below the noise."""
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)


if __name__ == "__main__":
    app()
