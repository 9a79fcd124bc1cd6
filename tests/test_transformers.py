"""Video transformers: each is handed what its own pipeline hands it, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tiny_transformers as tiny
import torch
from diffusers import DiffusionPipeline
from test_models import assert_same, handed_to

import tedlens as tl
from tedlens.models.base import DiffusionModel
from tedlens.probing import Draw, Prepared

# Each tiny pipeline: how it is made, two sizes, whether it begins from an image, frames a latent.
MADE: dict[str, Callable[[], Any]] = {
    "latte": tiny.latte,
    "cogvideox-2b": lambda: tiny.cogvideox("2b"),
    "cogvideox-5b": lambda: tiny.cogvideox("5b"),
    "cogvideox-1.5": lambda: tiny.cogvideox("1.5"),
    "cogvideox-5b-i2v": lambda: tiny.cogvideox("5b-i2v"),
    "cogvideox-1.5-i2v": lambda: tiny.cogvideox("1.5-i2v"),
}
SIZES = {name: [(32, 32), (48, 64)] for name in MADE} | {
    "latte": [(16, 16), (24, 32)],
    "cogvideox-5b-i2v": [(48, 64)],  # its learnt places fit one size
}
FRAMES = dict.fromkeys(MADE, 9) | {"latte": 6}  # of a clip; as "video" latents, a whole number of them
TAU = 601


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def made(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        MADE[name]().save_pretrained(folder)
        return folder

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

    def at_tau(*args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **kwargs)
        scheduler.timesteps = torch.full_like(scheduler.timesteps[:1], tau)

    monkeypatch.setattr(scheduler, "set_timesteps", at_tau)


CASES = [(name, size, prompt) for name in MADE for size in SIZES[name] for prompt in ("", "two balls")]


@pytest.mark.usefixtures("posterior_mean")
@pytest.mark.parametrize(("name", "size", "prompt"), CASES)
def test_a_transformer_is_handed_what_its_pipeline_hands(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str, size: tuple[int, int], prompt: str
) -> None:
    clip = tl.datasets.similar(3, frames=FRAMES[name], size=size)
    how = {} if name == "latte" else {"latents": "video"}
    model = tl.load_video_model(folders(name), prompt=prompt, size=min(size), **how)
    prepared = Prepared(model, clip, size=size)
    noisy = prepared.noisy(Draw(TAU, 0), 0)
    with handed_to(model.denoiser) as ours, torch.no_grad():
        prepared.window(noisy, prepared.moment(0, Draw(TAU, 0)), prepared.reading(["block_0"]))
    pipeline = DiffusionPipeline.from_pretrained(folders(name))
    stepping_at(pipeline, TAU, monkeypatch)
    asked = ASKED[name.split("-")[0]](noisy, clip, size)
    if "i2v" in name:
        asked["image"] = PIL.Image.fromarray(clip.frames[0])
    with handed_to(getattr(pipeline, model.part)) as theirs:
        pipeline(prompt=prompt, height=size[0], width=size[1], num_inference_steps=10, guidance_scale=1.0, **asked)
    names = {"sample": "hidden_states"}
    assert_same({names.get(key, key): value for key, value in ours.items()}, theirs)


ASKED: dict[str, Callable[[torch.Tensor, tl.Clip, tuple[int, int]], dict[str, Any]]] = {
    "latte": lambda noisy, clip, size: {"video_length": len(clip), "latents": noisy.transpose(0, 1)[None]},
    "cogvideox": lambda noisy, clip, size: {"num_frames": len(clip), "latents": noisy[None]},
}


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
    layer = f"{block}.attn1"
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
