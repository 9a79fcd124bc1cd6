"""Train the embedded models: ``python -m tedlens.models.mini.train vae|video|svd|image|dit-vae|dit|all``.

``all`` is the whole recipe: some 30 minutes of one H100 or H200 (counted), with ``--device cuda --workers 13``.

Each training is a pure function of its arguments: step n draws its clips, noise levels and noise from
(seed, n), so a run that was stopped goes on from its checkpoint as if it never had been. The learning
rate stays the same until the last quarter of the steps: a run may be prolonged until it gets there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXImageToVideoPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    I2VGenXLPipeline,
    StableVideoDiffusionPipeline,
)
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from tedlens.models.latent import no_image
from tedlens.models.mini import recipe
from tedlens.models.mini.clips import training_clips, turned
from tedlens.models.mini.loop import Inputs, Run, first_step, generator_of, optimise, rounded
from tedlens.models.mini.validation import motion_measures
from tedlens.models.transformers.cogvideox import CogVideoX
from tedlens.models.unets.i2vgen_xl import I2VGenXL, no_text
from tedlens.models.unets.svd import FPS, MOTION_BUCKET_ID, NOISE_AUG_STRENGTH, StableVideoDiffusion

app = typer.Typer(help="Train the embedded models.", add_completion=False)
Steps = Annotated[int, typer.Option(help="Optimiser steps in all.")]
Batch = Annotated[int, typer.Option(help="Clips (video) or frames (vae, image) a step.")]
Copies = Annotated[int, typer.Option(help="Times that each clip is in its batch: mirrored, turned or run backwards.")]
Out = Annotated[Path, typer.Option(help="Folder for checkpoints, log and the finished model.")]
Seed = Annotated[int, typer.Option(help="Seed of weights, clips, noise levels and noise.")]
Rate = Annotated[float, typer.Option(help="Peak learning rate.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Workers = Annotated[int, typer.Option(help="Processes that make clips; 0 makes them in this one.")]
Measure = Annotated[int, typer.Option(help="Steps between two measurements of motion on validation clips; 0: none.")]
Start = Annotated[Path | None, typer.Option(help="Folder of a finished pipeline whose UNet to begin with.")]
World = Annotated[str, typer.Option(help=f"What the clips show: {', '.join(recipe.WORLDS)}.")]
Hidden = Annotated[float, typer.Option(help="Share of examples in which a run of frames is hidden.")]
WITHHELD_FIRST = 0.4  # share of examples that are not told the first frame
NOISY = 400  # half of the examples of the model of I2VGen-XL's kind have a tau from here on


def pictures_of(clips: Tensor) -> Tensor:
    """Clips (.., frame, y, x, 3) uint8 as (.., frame, 3, y, x) in [-1, 1]."""
    return clips.movedim(-1, -3).float() / 127.5 - 1


def edm_target(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """What a v-prediction in EDM's terms should be: of unit variance for every sigma.

    With noisy = clean + sigma * noise, clean is noisy / (sigma^2 + 1) - prediction * sigma / sqrt(sigma^2 + 1).
    """
    return (noise - sigma * clean) / (sigma**2 + 1).sqrt()


def moving(clean: Tensor) -> Tensor:
    """How much each cell of latents (clip, frame, channel, y, x) changes over its clip: (clip, 1, 1, y, x), mean 1.

    A quarter is given to all cells alike. No label is needed, and no camera may move.
    """
    change = clean.var(1, keepdim=True).mean(2, keepdim=True)
    share = (change / change.mean((3, 4), keepdim=True).clamp_min(1e-6)).clamp_max(12)
    weight = 0.25 + share
    return weight / weight.mean((3, 4), keepdim=True)


def hidden_frames(count: int, share: float, generator: torch.Generator) -> Tensor:
    """Frames (clip, frame, 1, 1, 1) that are hidden: in a share of the clips, a run of two to eight; True if hidden."""
    start = torch.randint(0, recipe.FRAMES - 1, (count, 1), generator=generator)
    length = torch.randint(2, 9, (count, 1), generator=generator)
    chosen = torch.rand(count, 1, generator=generator) < share
    frame = torch.arange(recipe.FRAMES)
    return ((frame >= start) & (frame < start + length) & chosen)[:, :, None, None, None]


def weighted(predicted: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error over all, and of each example."""
    each = (weight * (predicted.float() - target).square()).flatten(1).mean(1)
    return each.mean(), each


@app.command()
def vae(
    out: Out, steps: Steps = 1500, batch: Batch = 16, rate: Rate = 2e-3, seed: Seed = 0, device: Device = "cpu",
    workers: Workers = 0,
) -> None:  # fmt: skip
    """The autoencoder of the UNets: absolute error of the picture plus a slight pull to the normal distribution."""
    torch.manual_seed(seed)
    _autoencoder(recipe.new_vae(), Run(out, "vae", steps, rate, seed, device), batch, workers)


@app.command()
def dit_vae(
    out: Out, steps: Steps = 1500, batch: Batch = 16, rate: Rate = 2e-3, seed: Seed = 0, device: Device = "cpu",
    workers: Workers = 0,
) -> None:  # fmt: skip
    """The autoencoder of the transformer, of CogVideoX's class, on single frames; else as `vae`."""
    torch.manual_seed(seed)
    _autoencoder(recipe.new_dit_vae(), Run(out, "dit_vae", steps, rate, seed, device), batch, workers)


def _autoencoder(model: Any, run: Run, batch: int, workers: int) -> None:
    model = model.to(run.device)

    def loss_of(inputs: Inputs) -> tuple[Tensor, Tensor]:
        images = _for_vae(model, inputs["images"])
        posterior = model.encode(images).latent_dist
        latents = posterior.mean + posterior.std * inputs["noise"].view_as(posterior.mean)
        each = (model.decode(latents).sample - images).abs().flatten(1).mean(1)
        divergence = (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean() / 2
        return each.mean() + 1e-4 * divergence, each

    def batches() -> Iterator[tuple[Inputs, dict[str, Any]]]:
        shape = (batch, 4, recipe.LATENTS, recipe.LATENTS)
        for step, images in _frames(run, batch, workers):
            noise = torch.randn(shape, generator=generator_of(run.seed, step, run.device), device=run.device)
            yield {"images": images, "noise": noise}, {}

    optimise(model, batches(), loss_of, run)
    with torch.no_grad():
        # Clips that it has not seen.
        clips = training_clips(
            recipe.WORLDS["any"], 1, first=run.steps, steps=run.steps + 1, count=64, workers=0, device=run.device
        )
        latents = latents_of(model, pictures_of(next(clips))[:, 0])
    model.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    model.cpu().save_pretrained(run.out / run.name)


def _for_vae(vae: Any, images: Tensor) -> Tensor:
    """Pictures (picture, 3, y, x) as a VAE takes them: one of videos takes clips of one frame."""
    return images[:, :, None] if isinstance(vae, AutoencoderKLCogVideoX) else images


def _frames(run: Run, batch: int, workers: int) -> Iterator[tuple[int, Tensor]]:
    """Steps of a run and single frames (batch, 3, y, x) of as many clips."""
    first = first_step(run)
    clips = training_clips(
        recipe.WORLDS["any"], 1, first=first, steps=run.steps, count=batch, workers=workers, device=run.device
    )
    for step, one in enumerate(clips, start=first):
        yield step, pictures_of(one)[:, 0]


def load_vae(out: Path) -> AutoencoderKL:
    """The autoencoder that `vae` left in the same folder, or the embedded one."""
    return _trained_vae(AutoencoderKL, out / "vae", "video")


def _trained_vae(cls: Any, trained: Path, embedded: str) -> Any:
    folder = trained if trained.exists() else Path(__file__).parent / embedded / "vae"
    return cls.from_pretrained(folder, use_safetensors=True).float().requires_grad_(False)


def _videos(run: Run, vae: Any, world: str, batch: int, copies: int, workers: int) -> Iterator[tuple[int, Tensor]]:
    """Steps of a run and clips (batch, frame, 3, y, x) in [-1, 1]: each drawn once, and turned for its copies."""
    if batch % copies:
        raise typer.BadParameter(f"a batch of {batch} does not divide by {copies} copies")
    first = first_step(run)
    drawn = training_clips(
        recipe.WORLDS[world], recipe.FRAMES, first=first, steps=run.steps, count=batch // copies, workers=workers,
        device=run.device,
    )  # fmt: skip
    for step, clips in enumerate(drawn, start=first):
        generator = generator_of(run.seed, step, "cpu")
        yield step, pictures_of(torch.cat([turned(clips, generator) for _ in range(copies)]))


def latents_of(vae: Any, frames: Tensor) -> Tensor:
    """Means of the posterior, unscaled: (.., channel, y, x) of pictures (.., 3, y, x)."""
    with torch.no_grad():
        latents: Tensor = vae.encode(_for_vae(vae, frames.flatten(0, -4))).latent_dist.mode()
    video: Tensor = latents.reshape(*frames.shape[:-3], latents.shape[1], *latents.shape[-2:])
    return video


def _start(new: Any, start: Path | None, part: str) -> Any:
    """A new network, or that of a finished pipeline."""
    return new() if start is None else type(new()).from_pretrained(start / part, use_safetensors=True).float()


def _unet(new: Any, start: Path | None, device: str) -> Any:
    """A UNet on the device, attention spelt out: fused it is slow for 16 frames."""
    model = _start(new, start, "unet")
    model.set_attn_processor(AttnProcessor())
    return model.to(device)


@app.command()
def video(
    out: Out, steps: Steps = 12_000, batch: Batch = 32, copies: Copies = 2, rate: Rate = 1e-3, seed: Seed = 0,
    device: Device = "cpu", workers: Workers = 0, measure: Measure = 0, start: Start = None, world: World = "easy",
    hidden: Hidden = 0.6,
) -> None:  # fmt: skip
    """The video UNet in the manner of I2VGen-XL, conditioned as the adapter does."""
    torch.manual_seed(seed)
    run = Run(out, "video", steps, rate, seed, device, measure_every=measure)
    vae, model = load_vae(out).to(device), _unet(recipe.new_video_unet, start, device)
    pipeline = I2VGenXLPipeline(
        vae=vae, text_encoder=None, tokenizer=None, image_encoder=None, feature_extractor=None,
        unet=model, scheduler=DDIMScheduler(**recipe.I2VGEN_XL_SCHEDULE),
    )  # fmt: skip
    text, image = (t.expand(batch, -1, -1).to(device) for t in (no_text(model), no_image(model)))
    fps = torch.full((batch,), 16, device=device)
    planes = torch.arange(recipe.FRAMES, device=device).view(-1, 1, 1, 1) / (recipe.FRAMES - 1)

    def told(first: Tensor) -> Tensor:
        given = planes.expand(batch, -1, *first.shape[1:]).clone()
        given[:, 0] = first
        return given

    def predict(noisy: Tensor, tau: Tensor, given: Tensor) -> Tensor:
        predicted = model(
            noisy.transpose(1, 2),
            tau,
            fps=fps,
            image_latents=given.transpose(1, 2),
            image_embeddings=image,
            encoder_hidden_states=text,
            return_dict=False,
        )[0]
        found: Tensor = predicted.transpose(1, 2)
        return found

    drawn = _videos(run, vae, world, batch, copies, workers)
    measures = partial(motion_measures, I2VGenXL, pipeline)
    _variance_preserving(model, run, pipeline, drawn, hidden, told, predict, measures)
    finish(pipeline, out / "video")


@app.command()
def dit(
    out: Out, steps: Steps = 3_442, batch: Batch = 16, copies: Copies = 2, rate: Rate = 1e-3, seed: Seed = 0,
    device: Device = "cpu", workers: Workers = 0, measure: Measure = 0, start: Start = None, world: World = "easy",
    hidden: Hidden = 0.6,
) -> None:  # fmt: skip
    """The transformer in the manner of CogVideoX, image to video, on what `video` is trained on."""
    torch.manual_seed(seed)
    run = Run(out, "dit", steps, rate, seed, device, measure_every=measure)
    vae = _trained_vae(AutoencoderKLCogVideoX, out / "dit_vae", "dit").to(device)
    model = _start(recipe.new_dit, start, "transformer").to(device)
    pipeline = CogVideoXImageToVideoPipeline(
        vae=vae, tokenizer=None, text_encoder=None, transformer=model,
        scheduler=CogVideoXDDIMScheduler(**recipe.COGVIDEOX_SCHEDULE),
    )  # fmt: skip
    adapter = CogVideoX(pipeline, name="in training")
    text = adapter.no_text()["encoder_hidden_states"].expand(batch, -1, -1).to(device)
    places = pipeline._prepare_rotary_positional_embeddings(
        recipe.SIZE, recipe.SIZE, recipe.FRAMES, torch.device(device)
    )
    model.requires_grad_(True)  # an adapter takes the gradients off

    def told(first: Tensor) -> Tensor:
        return torch.cat([first[:, None], first.new_zeros(batch, recipe.FRAMES - 1, *first.shape[1:])], dim=1)

    def predict(noisy: Tensor, tau: Tensor, given: Tensor) -> Tensor:
        found: Tensor = model(torch.cat([noisy, given], dim=2), text, tau, image_rotary_emb=places, return_dict=False)[
            0
        ]
        return found

    drawn = _videos(run, vae, world, batch, copies, workers)
    measures = partial(motion_measures, CogVideoX, pipeline, ("block_3", "block_5"))
    _variance_preserving(model, run, pipeline, drawn, hidden, told, predict, measures)
    finish(pipeline, out / "dit")


def _variance_preserving(
    model: Any,
    run: Run,
    pipeline: Any,
    drawn: Iterator[tuple[int, Tensor]],
    hidden: float,
    told: Callable[[Tensor], Tensor],
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
    measures: Callable[[], dict[str, Any]],
) -> None:
    """Train a model of v-prediction that is told the first frame, or, in a share of the examples, nothing.

    Parameters
    ----------
    drawn
        Steps and clips, from `_videos`.
    told
        What the model is given besides the noisy latents, of the first frame's latent (clip, channel, y, x).
    predict
        The model's prediction of noisy latents (clip, frame, channel, y, x), timesteps, and what it is given besides.
    """
    device = run.device
    signal = pipeline.scheduler.alphas_cumprod.sqrt().float().to(device)  # CogVideoX keeps them in double precision

    def batches() -> Iterator[tuple[Inputs, dict[str, Any]]]:
        for step, frames in drawn:
            clean = latents_of(pipeline.vae, frames) * pipeline.vae.config.scaling_factor
            batch = len(clean)
            cpu, here = (generator_of(run.seed + 1, step, d) for d in ("cpu", device))
            tau = noise_levels(batch, NOISY, cpu)
            known = (torch.rand(batch, generator=cpu) >= WITHHELD_FIRST).view(-1, 1, 1, 1).to(device)
            yield {
                "clean": clean,
                "noise": torch.randn(clean.shape, generator=here, device=device),
                "tau": tau.to(device),
                "given": told(clean[:, 0] * known),
                "hidden": hidden_frames(batch, hidden, cpu).to(device),
            }, {"tau": tau.tolist()}  # fmt: skip

    def loss_of(inputs: Inputs) -> tuple[Tensor, Tensor]:
        clean, noise, tau = inputs["clean"], inputs["noise"], inputs["tau"]
        a = signal[tau].view(-1, 1, 1, 1, 1)
        b = (1 - a.square()).sqrt()
        noisy = torch.where(inputs["hidden"], noise, a * clean + b * noise)
        with torch.autocast(device, torch.bfloat16, cache_enabled=False):
            predicted = predict(noisy, tau, inputs["given"])
        return weighted(predicted, a * noise - b * clean, moving(clean))

    optimise(model, batches(), loss_of, run, measures)


def noise_levels(count: int, noisy: int, generator: torch.Generator) -> Tensor:
    """Training timesteps: half of them from `noisy` on, the others any."""
    tau = torch.randint(0, 1000, (count,), generator=generator)
    upper = torch.rand(count, generator=generator) < 0.5
    return torch.where(upper, noisy + tau * (1000 - noisy) // 1000, tau)


@app.command()
def svd(
    out: Out, steps: Steps = 10_000, batch: Batch = 32, copies: Copies = 2, rate: Rate = 1e-3, seed: Seed = 0,
    device: Device = "cpu", workers: Workers = 0, measure: Measure = 0, start: Start = None, world: World = "easy",
    hidden: Hidden = 0.6,
) -> None:  # fmt: skip
    """The video UNet in the manner of Stable Video Diffusion: EDM's noise, v-prediction, its conditioning."""
    torch.manual_seed(seed)
    run = Run(out, "svd", steps, rate, seed, device, measure_every=measure)
    vae, model = load_vae(out).to(device), _unet(recipe.new_svd_unet, start, device)
    pipeline = StableVideoDiffusionPipeline(
        vae=vae, image_encoder=None, feature_extractor=None, unet=model,
        scheduler=EulerDiscreteScheduler(**recipe.SVD_SCHEDULE),
    )  # fmt: skip
    image = no_image(model).expand(batch, -1, -1).to(device)
    times = torch.tensor([[FPS - 1, MOTION_BUCKET_ID, NOISE_AUG_STRENGTH]] * batch, device=device)
    mean, deviation = recipe.SVD_LOG_SIGMA

    def batches() -> Iterator[tuple[Inputs, dict[str, Any]]]:
        for step, frames in _videos(run, vae, world, batch, copies, workers):
            clean = latents_of(vae, frames) * vae.config.scaling_factor
            cpu, here = (generator_of(seed + 1, step, d) for d in ("cpu", device))
            log_sigma = mean + deviation * torch.randn(batch, generator=cpu)
            known = (torch.rand(batch, generator=cpu) >= WITHHELD_FIRST).view(-1, 1, 1, 1).to(device)
            first = frames[:, 0] + NOISE_AUG_STRENGTH * torch.randn(frames[:, 0].shape, generator=here, device=device)
            yield {
                "clean": clean,
                "noise": torch.randn(clean.shape, generator=here, device=device),
                "log_sigma": log_sigma.to(device),
                "given": latents_of(vae, first) * known,
                "hidden": hidden_frames(batch, hidden, cpu).to(device),
            }, {"log_snr": rounded(-2 * log_sigma)}  # fmt: skip

    def loss_of(inputs: Inputs) -> tuple[Tensor, Tensor]:
        clean, noise, log_sigma = inputs["clean"], inputs["noise"], inputs["log_sigma"]
        sigma = log_sigma.exp().view(-1, 1, 1, 1, 1)
        scaled = torch.where(inputs["hidden"], noise, (clean + sigma * noise) / (sigma**2 + 1).sqrt())
        given = inputs["given"][:, None].expand(-1, recipe.FRAMES, -1, -1, -1)
        with torch.autocast(run.device, torch.bfloat16, cache_enabled=False):
            predicted = model(
                torch.cat([scaled, given], dim=2),
                0.25 * log_sigma,
                encoder_hidden_states=image,
                added_time_ids=times,
                return_dict=False,
            )[0]
        return weighted(predicted, edm_target(clean, noise, sigma), moving(clean))

    optimise(model, batches(), loss_of, run, lambda: motion_measures(StableVideoDiffusion, pipeline))
    finish(pipeline, out / "svd")


@app.command()
def image(
    out: Out, steps: Steps = 3000, batch: Batch = 8, rate: Rate = 1e-3, seed: Seed = 0, device: Device = "cpu",
    workers: Workers = 0,
) -> None:  # fmt: skip
    """The image UNet, on single frames in pixels, as ADM."""
    torch.manual_seed(seed)
    run = Run(out, "image", steps, rate, seed, device)
    model = recipe.new_image_unet().to(device)
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", clip_sample=False)
    signal = scheduler.alphas_cumprod.sqrt().to(device)

    def batches() -> Iterator[tuple[Inputs, dict[str, Any]]]:
        for step, images in _frames(run, batch, workers):
            cpu, here = (generator_of(seed + 1, step, d) for d in ("cpu", device))
            tau = noise_levels(batch, 0, cpu)
            noise = torch.randn(images.shape, generator=here, device=device)
            yield {"images": images, "noise": noise, "tau": tau.to(device)}, {"tau": tau.tolist()}

    def loss_of(inputs: Inputs) -> tuple[Tensor, Tensor]:
        a = signal[inputs["tau"]].view(-1, 1, 1, 1)
        noisy = a * inputs["images"] + (1 - a.square()).sqrt() * inputs["noise"]
        return weighted(model(noisy, inputs["tau"], return_dict=False)[0], inputs["noise"], torch.ones_like(a))

    optimise(model, batches(), loss_of, run)
    finish(DDPMPipeline(unet=model, scheduler=scheduler), out / "image")


@app.command(name="all")
def everything(out: Out, device: Device = "cuda", workers: Workers = 13, measure: Measure = 2000) -> None:
    """The whole recipe, one model after another; what is finished already is not done again."""
    trainings: dict[str, Callable[[], None]] = {
        "vae": partial(vae, out, device=device, workers=workers),
        "video": partial(video, out, device=device, workers=workers, measure=measure),
        "svd": partial(svd, out, device=device, workers=workers, measure=measure),
        "image": partial(image, out, device=device, workers=workers),
        "dit_vae": partial(dit_vae, out, device=device, workers=workers),
        "dit": partial(dit, out, device=device, workers=workers, measure=measure),
    }
    for name, training in trainings.items():
        if not (out / name).exists():
            training()


def finish(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Save in diffusers' own format, in float16: half the size, and differences far below the noise."""
    pipeline.to("cpu", torch.float16).save_pretrained(folder, safe_serialization=True)


if __name__ == "__main__":
    app()
