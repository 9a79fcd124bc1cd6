"""Video transformers: each is handed what its own pipeline hands it, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tiny_transformers as tiny
import torch
from diffusers import DiffusionPipeline, LTXPipeline
from test_models import assert_same, handed_to

import tedlens as tl
from tedlens.models.base import DiffusionModel
from tedlens.probing import Draw, Prepared

# Each tiny pipeline: how it is made, in a folder.
MADE: dict[str, Callable[[Path], Any]] = {
    "latte": lambda folder: tiny.latte(),
    "cogvideox-2b": lambda folder: tiny.cogvideox("2b"),
    "cogvideox-5b": lambda folder: tiny.cogvideox("5b"),
    "cogvideox-1.5": lambda folder: tiny.cogvideox("1.5"),
    "cogvideox-5b-i2v": lambda folder: tiny.cogvideox("5b-i2v"),
    "cogvideox-1.5-i2v": lambda folder: tiny.cogvideox("1.5-i2v"),
    "wan-2.1": lambda folder: tiny.wan("2.1"),
    "wan-2.1-i2v": lambda folder: tiny.wan("2.1-i2v"),
    "wan-2.2": lambda folder: tiny.wan("2.2"),
    "wan-2.2-i2v": lambda folder: tiny.wan("2.2-i2v"),
    "ltx": lambda folder: tiny.ltx(),
    "ltx-i2v": lambda folder: tiny.ltx(image=True),
    "hunyuan": tiny.hunyuan_video,
    "mochi": lambda folder: tiny.mochi(),
}
SIZES = {name: [(32, 32), (48, 64)] for name in MADE} | {
    "latte": [(16, 16), (24, 32)],
    "ltx": [(32, 32), (32, 64)],
    "ltx-i2v": [(32, 32), (32, 64)],
    "cogvideox-5b-i2v": [(48, 64)],  # its learnt places fit one size
}
# Frames of a clip; as latents of a video, a whole number of them.
FRAMES = dict.fromkeys(MADE, 9) | {"latte": 6, "mochi": 13}
TAU = 601


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def made(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        MADE[name](folder).save_pretrained(folder / "saved")
        return folder / "saved"

    return made


@pytest.fixture
def posterior_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give pipelines the posterior's mean where they draw a sample, as tedlens takes it."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


def stepping_at(pipeline: Any, tau: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a pipeline's first step be at `tau`, from a sample that is noisy already."""
    scheduler = pipeline.scheduler
    set_timesteps = scheduler.set_timesteps

    @wraps(set_timesteps)
    def at_tau(*args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **kwargs)
        scheduler.timesteps = torch.full_like(scheduler.timesteps[:1], tau)

    monkeypatch.setattr(scheduler, "set_timesteps", at_tau)


# What pipelines call by other names, or want laid out otherwise.
ASKED: dict[str, Callable[[torch.Tensor, tl.Clip], dict[str, Any]]] = {
    "latte": lambda noisy, clip: {"video_length": len(clip), "latents": noisy.transpose(0, 1)[None]},
    "cogvideox": lambda noisy, clip: {"num_frames": len(clip), "latents": noisy[None]},
    "ltx": lambda noisy, clip: {
        "num_frames": len(clip),
        "latents": LTXPipeline._pack_latents(noisy.transpose(0, 1)[None]),
    },
    "hunyuan": lambda noisy, clip: video_first(noisy, clip) | {"guidance_scale": 6.0},
}


def video_first(noisy: torch.Tensor, clip: tl.Clip) -> dict[str, Any]:
    return {"num_frames": len(clip), "latents": noisy.transpose(0, 1)[None]}


# The first size without a prompt, the last with one.
CASES = [
    (name, size, prompt, {}) for name in MADE for size, prompt in ((SIZES[name][0], ""), (SIZES[name][-1], "two balls"))
]
CASES += [(name, (32, 32), "", {"expert": "low"}) for name in ("wan-2.2", "wan-2.2-i2v")]


@pytest.mark.usefixtures("posterior_mean")
@pytest.mark.parametrize(("name", "size", "prompt", "options"), CASES)
def test_a_transformer_is_handed_what_its_pipeline_hands(
    folders: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    size: tuple[int, int],
    prompt: str,
    options: dict[str, Any],
) -> None:
    clip = tl.datasets.similar(3, frames=FRAMES[name], size=size)
    tau = 901 if name.startswith("wan-2.2") and not options else TAU  # above the boundary of the experts, or below
    how = options if name == "latte" else options | {"latents": "video"}
    model = tl.load_video_model(folders(name), prompt=prompt, size=min(size), **how)
    prepared = Prepared(model, clip, size=size)
    noisy = prepared.noisy(Draw(tau, 0), 0)
    with handed_to(model.denoiser) as ours, torch.no_grad():
        prepared.window(noisy, prepared.moment(0, Draw(tau, 0)), prepared.reading(["block_0"]))
    pipeline = DiffusionPipeline.from_pretrained(folders(name))
    family = name.split("-")[0]
    stepping_at(pipeline, 1000 - tau if family == "mochi" else tau, monkeypatch)
    asked = {"guidance_scale": 1.0} | ASKED.get(family, video_first)(noisy, clip)
    if "i2v" in name:
        asked["image"] = PIL.Image.fromarray(clip.frames[0])
    if name == "ltx-i2v":
        # The pipeline would take noisy latents as they are: its first latent is that of the image.
        noisy[0] = model.encode(clip.frames[:1])[0]
        asked |= ASKED["ltx"](noisy, clip)
    with handed_to(getattr(pipeline, model.part)) as theirs:
        pipeline(prompt=prompt, height=size[0], width=size[1], num_inference_steps=10, **asked)
    assert_same(as_handed(ours), as_handed(theirs))


def as_handed(told: dict[str, Any]) -> dict[str, Any]:
    """By name, without what is nothing; a time is a number, whatever its type."""
    named = {{"sample": "hidden_states"}.get(key, key): value for key, value in told.items() if value is not None}
    return named | {"timestep": named["timestep"].double()}


# --- what all transformers do, once each is handed the right tensors -------------------------------


@pytest.fixture(scope="module")
def models(folders: Callable[[str], Path]) -> Callable[..., DiffusionModel]:
    @cache
    def loaded(name: str, latents: str = "frame") -> DiffusionModel:
        how = {} if latents == "frame" else {"latents": latents}
        return tl.load_video_model(folders(name), size=min(SIZES[name][-1]), **how)

    return loaded


CLIP_FRAMES = 11


def clip_for(name: str, frames: int = CLIP_FRAMES) -> tl.Clip:
    return tl.datasets.similar(3, frames=frames, size=SIZES[name][-1])


LATENTS = [(name, latents) for name in MADE for latents in ("frame", "video") if (name, latents) != ("latte", "video")]


@pytest.mark.parametrize(("name", "latents"), LATENTS)
def test_every_call_works(models: Callable[..., DiffusionModel], name: str, latents: str) -> None:
    """Windows that overlap and do not fill a latent; a result for each frame of the clip, from every call."""
    model, clip = models(name, latents), clip_for(name)
    how: dict[str, Any] = {"window": 6, "overlap": 2}
    block = model.blocks[1]
    features = tl.probe(model, clip, tau=[100, 700], blocks=block, **how)[block]["features"]
    assert features.sizes["frame"] == CLIP_FRAMES
    assert np.isfinite(features).all()
    alone = [features.isel(frame=i) for i in (2, 3)]  # of a window's second latent, or frames of their own
    assert alone[0].equals(alone[1].assign_coords(frame=2)) == ("latent_frame" in features.coords)
    result = tl.track(clip, motion=model, tau=300, block=block, lam=1, **{"overlap": 2})
    assert result["labels"].shape == clip.frames.shape[:3]
    seen = tl.predict(model, clip, tau=300, **how)
    assert seen.frames.shape == clip.frames.shape
    layer = f"{block}.attn" if name == "hunyuan" else f"{block}.attn1"
    point = (3, 10.0, 12.0)
    for rotary in (True, False):
        looks = tl.attention(model, clip, 300, layer, query=[point], rotary=rotary, **how)
        over = {"joint": ["frame", "y", "x"], "temporal": ["frame"]}[looks.attrs["kind"]]
        np.testing.assert_allclose(looks.sum(over, skipna=True), 1, rtol=1e-3)
    statistics = tl.head_statistics(model, clip, 300, layer, **how)
    assert float(statistics["frames_away"].min()) > 0
    for cut in (tl.ablate(model, layer), tl.ablate(model, block, "mean"), tl.ablate(model, layer, heads=0)):
        other = tl.probe(cut, clip, tau=700, blocks=model.blocks[-1], **how)[model.blocks[-1]]["features"]
        whole = tl.probe(model, clip, tau=700, blocks=model.blocks[-1], **how)[model.blocks[-1]]["features"]
        assert not np.allclose(other, whole)
