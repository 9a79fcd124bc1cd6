"""Train the embedded models: ``python -m tedlens.models.mini.train vae|video|image``.

Each stage is a pure function of its arguments: step n draws its clips, noise levels and noise from
(seed, n), so a run that was stopped goes on from its checkpoint as if it never had been.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import DDIMScheduler, DDPMScheduler, DiffusionPipeline, I2VGenXLPipeline
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm.auto import tqdm

from tedlens.clip import Clip
from tedlens.models.mini import recipe

app = typer.Typer(help="Train the embedded models.", add_completion=False)
Steps = Annotated[int, typer.Option(help="Optimiser steps in all.")]
Batch = Annotated[int, typer.Option(help="Clips (video) or frames (vae, image) a step.")]
Out = Annotated[Path, typer.Option(help="Folder for checkpoints, log and the finished model.")]
Seed = Annotated[int, typer.Option(help="Seed of weights, clips, noise levels and noise.")]
Rate = Annotated[float, typer.Option(help="Peak learning rate.")]
WARM_UP = 100
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
    """Optimise `model` with AdamW, warm-up and cosine decay; leave its moving average in `model`."""
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
            decay = 0.5 * (1 + math.cos(math.pi * step / steps))
            group["lr"] = rate * min(1.0, (step + 1) / WARM_UP) * decay
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        loss, record = loss_at(step, generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        average.step(model.parameters())
        with log.open("a") as lines:
            lines.write(json.dumps({"step": step, "loss": round(float(loss), 5), **record}) + "\n")
        progress.set_postfix(loss=f"{float(loss):.3f}")
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
    scheduler: Any, predict: Callable[[Tensor, Tensor], Tensor], clean: Tensor, generator: torch.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Mean squared error of the model's prediction at one random noise level an example."""
    tau = torch.randint(0, scheduler.config.num_train_timesteps, (len(clean),), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    predicted = predict(scheduler.add_noise(clean, noise, tau), tau)
    if scheduler.config.prediction_type == "v_prediction":
        target = scheduler.get_velocity(clean, noise, tau)
    else:
        target = noise
    each = (predicted - target).square().flatten(1).mean(1)
    return each.mean(), {"tau": [int(t) for t in tau], "losses": [round(float(e), 5) for e in each]}  # type: ignore[dict-item]


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
        return picture + 1e-4 * posterior.kl().mean() / 1024, {"picture": round(float(picture), 5)}

    run(model, loss_at, steps=steps, rate=rate, seed=seed, out=out, name="vae")
    with torch.no_grad():
        latents = model.encode(training_frames(steps, 64)).latent_dist.mode()
    model.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    model.save_pretrained(out / "vae")


@app.command()
def video(out: Out, steps: Steps = 4000, batch: Batch = 2, rate: Rate = 8e-4, seed: Seed = 0) -> None:
    """The video UNet, on the latents of the autoencoder that stage `vae` left in the same folder."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    encoder = AutoencoderKL.from_pretrained(out / "vae", use_safetensors=True).requires_grad_(False)
    model = recipe.new_video_unet()
    scheduler = DDIMScheduler(**recipe.I2VGEN_XL_SCHEDULE)
    pipeline = I2VGenXLPipeline(
        vae=encoder, text_encoder=None, tokenizer=None, image_encoder=None, feature_extractor=None,
        unet=model, scheduler=scheduler,
    )  # fmt: skip

    def latents_of(seed: int) -> Tensor:
        posterior = encoder.encode(frames_tensor(recipe.training_clip(seed))).latent_dist
        latents: Tensor = posterior.mode() * encoder.config.scaling_factor
        return latents.transpose(0, 1)

    # The same conditioning as the adapter gives at probe time.
    from tedlens.models.i2vgen_xl import image_latents, no_image, no_text

    def loss_at(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        start = recipe.TRAINING_SEEDS.start + step * batch
        clean = torch.stack([latents_of(start + i) for i in range(batch)])
        first = torch.cat([image_latents(c[:, 0], c.shape[1]) for c in clean])
        text, image = no_text(model), no_image(model)

        def predict(noisy: Tensor, tau: Tensor) -> Tensor:
            prediction: Tensor = model(
                noisy,
                tau,
                fps=torch.full((batch,), 16),
                image_latents=first,
                image_embeddings=image.expand(batch, -1, -1),
                encoder_hidden_states=text.expand(batch, -1, -1),
                return_dict=False,
            )[0]
            return prediction

        return denoising_loss(scheduler, predict, clean, generator)

    run(model, loss_at, steps=steps, rate=rate, seed=seed, out=out, name="video")
    finish(pipeline, out / "video")


@app.command()
def image(out: Out, steps: Steps = 3000, batch: Batch = 8, rate: Rate = 1e-3, seed: Seed = 0) -> None:
    """The image UNet, on single frames in pixels, as ADM."""
    from diffusers import DDPMPipeline

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
