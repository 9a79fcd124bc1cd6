"""Video transformers: each is handed what its own pipeline hands it, tensor by tensor."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import cache, wraps
from importlib.resources import files
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
from tedlens.models import registry
from tedlens.models.base import DiffusionModel
from tedlens.models.noise import frame_noise, latent_noise
from tedlens.models.registry import outline_model
from tedlens.models.schedules import FlowNoise, VariancePreservingNoise
from tedlens.models.structure import hook_points, outline
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
    "wan-5b": lambda folder: tiny.wan("2.2-ti2v"),
    "wan-5b-i2v": lambda folder: tiny.wan("2.2-ti2v-i2v"),
    "ltx": lambda folder: tiny.ltx(),
    "ltx-i2v": lambda folder: tiny.ltx(image=True),
    "hunyuan": tiny.hunyuan_video,
    "hunyuan-i2v": lambda folder: tiny.hunyuan_video(folder, "token_replace"),
    "hunyuan-concat-i2v": lambda folder: tiny.hunyuan_video(folder, "latent_concat"),
    "mochi": lambda folder: tiny.mochi(),
}
SIZES = {name: [(32, 32), (48, 64)] for name in MADE} | {
    "latte": [(16, 16), (24, 32)],
    "ltx": [(32, 32), (32, 64)],
    "ltx-i2v": [(32, 32), (32, 64)],
    "wan-5b": [(32, 64), (64, 64)],
    "wan-5b-i2v": [(32, 64), (64, 64)],
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


TEXTS = {"": "encoder_hidden_states", "pooled_": "pooled_projections"}  # HunyuanVideo's, by the pipeline's names
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
    without_text = name.startswith("hunyuan-")  # pipelines that diffusers does not load so; made anew, they are equal
    pipeline = MADE[name](folders(name)) if without_text else DiffusionPipeline.from_pretrained(folders(name))
    family = name.split("-")[0]
    stepping_at(pipeline, 1000 - tau if family == "mochi" else tau, monkeypatch)
    asked = {"guidance_scale": 1.0} | ASKED.get(family, video_first)(noisy, clip)
    if "i2v" in name:
        asked["image"] = PIL.Image.fromarray(clip.frames[0])
    if name == "ltx-i2v":
        # The pipeline would take noisy latents as they are: its first latent is that of the image.
        noisy[0] = model.encode(clip.frames[:1])[0]
        asked |= ASKED["ltx"](noisy, clip)
    said: dict[str, Any] = {"prompt": prompt}
    if without_text:
        asked["guidance_scale"] = 1.0
        # The pipeline mixes a thousandth of the image into the noise that it is given.
        whole, first = torch.tensor(0.999), model.encode(clip.frames[:1])
        asked["latents"] = ((noisy - first * (1 - whole)) / whole).transpose(0, 1)[None]
        # What its text encoders would say.
        said = {f"{key}prompt_embeds": model.text[name] for key, name in TEXTS.items()}
        said["prompt_attention_mask"] = model.text["encoder_attention_mask"]
    with handed_to(getattr(pipeline, model.part)) as theirs:
        pipeline(**said, height=size[0], width=size[1], num_inference_steps=10, **asked)
    assert_same(as_handed(ours), as_handed(theirs))


def test_one_network_from_text_and_from_an_image(folders: Callable[[str], Path]) -> None:
    """Wan 2.2 TI2V is published as a pipeline from text; asked to, it starts from an image as the other does."""
    clip = tl.datasets.similar(3, frames=5, size=(32, 64))
    how: dict[str, Any] = {"size": 32, "latents": "video"}
    found = {
        (name, from_image): tl.probe(
            tl.load_video_model(folders(name), from_image=from_image, **how), clip, tau=300, blocks="block_1"
        )["block_1"]["features"].values
        for name in ("wan-5b", "wan-5b-i2v")
        for from_image in (None, True, False)
    }
    of_text, of_image = found["wan-5b", None], found["wan-5b-i2v", None]
    assert np.abs(of_text - of_image).max() > 1e-3
    for (_, from_image), features in found.items():
        if from_image is not None:
            np.testing.assert_array_equal(features, of_image if from_image else of_text)
    with pytest.raises(tl.TedlensError, match=r"from_image=True: .* runs from text only"):
        tl.load_video_model(folders("wan-2.1"), from_image=True)


@pytest.mark.parametrize(("name", "interleave"), [("hunyuan-i2v", 4), ("hunyuan-concat-i2v", 2)])
def test_a_text_encoder_that_sees_the_image_is_shown_each_windows_own(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str, interleave: int
) -> None:
    model = tl.load_video_model(folders(name), prompt="two balls", size=32)
    clip = tl.datasets.similar(3, frames=7, size=32)
    shown: list[Any] = []

    def encode(image: Any, prompt: str, *, image_embed_interleave: int) -> tuple[torch.Tensor, ...]:
        shown.append((np.asarray(image), prompt, image_embed_interleave))
        return torch.full((1, 3, tiny.WIDTH), len(shown)), torch.zeros(1, 2 * tiny.WIDTH), torch.ones(1, 3)

    model.pipeline.register_modules(text_encoder=torch.nn.Identity())
    monkeypatch.setattr(model.pipeline, "encode_prompt", encode)
    prepared = Prepared(model, clip, size=32, window=5, overlap=3)
    told = [condition["encoder_hidden_states"].unique().item() for condition in prepared.conditions]
    assert len(set(told)) == len(prepared.windows) == 2
    for window, (image, prompt, every) in zip(prepared.windows, shown[-2:], strict=True):
        np.testing.assert_array_equal(image, clip.frames[window.start])
        assert (prompt, every) == ("two balls", interleave)
    one = Prepared(type(model)(model.pipeline, name="other", size=32, conditioning_frame=6), clip, size=32)
    np.testing.assert_array_equal(shown[-1][0], clip.frames[6])
    torch.testing.assert_close(one.conditions[0]["first"], model.encode(clip.frames[6:]))


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


# From an image only what differs by it: latents of a video.
LATENTS = [(name, "frame") for name in MADE if "i2v" not in name] + [
    (name, "video") for name in MADE if name != "latte"
]


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
    layer = f"{block}.attn" if "hunyuan" in name else f"{block}.attn1"
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


@pytest.mark.parametrize("name", ["latte", "cogvideox-5b", "wan-2.1", "ltx", "hunyuan", "mochi"])
def test_sweeps_explorers_and_figures_take_each_family(models: Callable[..., DiffusionModel], name: str) -> None:
    """On latents of a video, where it has them: frames that share features, tokens on a grid, layers with text."""
    model = models(name, "frame" if name == "latte" else "video")
    clip, (first, second) = clip_for(name, 6), model.blocks[:2]
    how: dict[str, Any] = {"tau": [100, 700], "blocks": [first, second]}
    cuts = {"intact": None, "cut": {"ablate": f"{second}.attn" if name == "hunyuan" else f"{second}.attn1"}}
    scores = tl.sweep([clip], motion=model, interventions=cuts, progress=False, **how)
    assert scores["JF"].notnull().all()
    cut = (scores["JF"].sel(intervention="cut") - scores["JF"].sel(intervention="intact")).sel(block=first)
    np.testing.assert_allclose(cut, 0, atol=1e-6)  # what runs before it does not notice
    against = tl.reference_scores([clip], scores)
    assert (against["J"].sel(features="ceiling") > 0.1).all()
    whole = scores.sel(intervention="intact", drop=True)
    for figure in (tl.plots.tau_curve(whole, references=against), tl.plots.tau_block_map(whole, references=against)):
        assert figure.data
    features = tl.probe(model, clip, **how)
    assert tl.plots.pca_map(features, clip).data
    explorer = tl.widgets.pca_explorer(features, clip)
    explorer.close()
    layer = f"{first}.attn" if name == "hunyuan" else f"{first}.attn1"
    for explorer in (
        tl.widgets.tau_explorer(whole, references=against),
        tl.widgets.attention_explorer(model, clip, tau=300, layers=layer),
        tl.widgets.prediction_explorer(model, clip, tau=[300]),
    ):
        explorer.close()


def changed_at(clip: tl.Clip, frame: int) -> tl.Clip:
    frames = clip.frames.copy()
    frames[frame] = 255 - frames[frame]
    return tl.Clip(frames, clip.masks, clip.fps, clip.name)


@pytest.mark.parametrize("name", ["cogvideox-5b", "wan-2.1", "ltx", "hunyuan", "mochi"])
def test_frames_kept_to_themselves_see_no_other(models: Callable[..., DiffusionModel], name: str) -> None:
    """The features of a frame change with frames within reach alone; of the whole model, with any."""
    model, clip = models(name), clip_for(name, 5)
    other = changed_at(clip, 4)
    last = model.blocks[-1]

    def changed(cut: DiffusionModel) -> list[bool]:
        both = [tl.probe(cut, each, tau=300, blocks=last, window=5)[last]["features"][0, 0] for each in (clip, other)]
        return [not np.allclose(both[0][i], both[1][i], rtol=1e-4, atol=1e-5) for i in range(5)]

    everywhere = "**.attn" if name == "hunyuan" else "**.attn1"
    assert changed(model) == [True] * 5
    alone = tl.ablate(model, everywhere, reach=0)
    assert changed(alone) == [False, False, False, False, True]
    assert json.loads(alone.provenance()["model_interventions"]) == [{"ablate": {"layers": [everywhere], "reach": 0}}]
    one = model.blocks[0] + everywhere.removeprefix("**")
    first = tl.ablate(model, one, reach=1)
    found = [
        tl.probe(first, each, tau=300, blocks="block_0", window=5)["block_0"]["features"] for each in (clip, other)
    ]
    assert [not np.allclose(found[0][0, 0, i], found[1][0, 0, i], rtol=1e-4, atol=1e-5) for i in range(5)] == [
        *[False] * 3,
        *[True] * 2,
    ]
    with pytest.raises(tl.TedlensError, match="kept apart"):
        tl.attention(alone, clip, 300, one)
    with pytest.raises(tl.TedlensError, match="goes with neither how"):
        tl.ablate(model, everywhere, "zero", reach=0)


def test_reach_as_far_as_the_clip_changes_nothing(models: Callable[..., DiffusionModel]) -> None:
    """Without text, which then looks at text alone, the whole is the sum of its frames."""
    model, clip = models("wan-2.1"), clip_for("wan-2.1", 4)
    whole, cut = (
        tl.probe(each, clip, tau=300, blocks="block_2", window=4)["block_2"]["features"]
        for each in (model, tl.ablate(model, "**.attn1", reach=3))
    )
    np.testing.assert_allclose(cut, whole, rtol=1e-4, atol=1e-5)
    with pytest.raises(tl.TedlensError, match="no attention over all of a video"):
        tl.ablate(model, "**.attn2", reach=0)
    with pytest.raises(tl.TedlensError, match="reach=-1"):
        tl.ablate(model, "**.attn1", reach=-1)
    with pytest.raises(tl.TedlensError, match="reach=0"):
        tl.ablate(model, "temporal layers")


# --- latents of several frames ---------------------------------------------------------------------


def test_which_frames_a_latent_holds(models: Callable[..., DiffusionModel]) -> None:
    by_frame, by_video = models("wan-2.1"), models("wan-2.1", "video")
    assert by_frame.latent_frames(range(3, 6)) == [range(3, 4), range(4, 5), range(5, 6)]
    assert by_video.latent_frames(range(9)) == [range(1), range(1, 5), range(5, 9)]
    assert by_video.latent_frames(range(4, 11)) == [range(4, 5), range(5, 9), range(9, 11)]  # the last is filled up
    assert (by_frame.window, by_video.window) == (21, 81)
    # Two latents to a token: an odd number begins with one that holds no frame.
    later = models("cogvideox-1.5", "video")
    assert later.latent_frames(range(2, 11)) == [range(2, 2), range(2, 3), range(3, 7), range(7, 11)]
    assert later.covered(range(2, 11)) == [range(2, 3), range(3, 11)]


def test_noise_of_a_latent_is_that_of_its_first_frame(models: Callable[..., DiffusionModel]) -> None:
    """Windows that begin as many frames apart as a latent holds agree about all but the first of the second."""
    model = models("wan-2.1", "video")
    shape = (2, 3)
    first, second = (latent_noise(7, model.latent_frames(w), shape) for w in (range(0, 13), range(4, 17)))
    torch.testing.assert_close(first[2:], second[1:-1], rtol=0, atol=0)
    torch.testing.assert_close(first[:1], frame_noise(7, [0], shape), rtol=0, atol=0)
    torch.testing.assert_close(second[-1:], frame_noise(7, [13], shape), rtol=0, atol=0)
    # What fills up has noise of its own.
    filled = latent_noise(7, models("cogvideox-1.5", "video").latent_frames(range(9)), shape)
    assert not torch.equal(filled[0], filled[1])


def test_each_window_is_encoded_as_a_whole(models: Callable[..., DiffusionModel]) -> None:
    model, clip = models("wan-2.1", "video"), clip_for("wan-2.1")
    prepared = Prepared(model, clip, window=6, overlap=2)
    assert prepared.windows == [range(6), range(4, 10), range(5, 11)]
    by_hand = model.encode(np.concatenate([clip.frames[4:10], clip.frames[9:10].repeat(3, 0)]))
    noise = latent_noise(0, [range(4, 5), range(5, 9), range(9, 10)], tuple(by_hand.shape[1:]))
    torch.testing.assert_close(prepared.noisy(Draw(400, 0), 1), 0.6 * by_hand + 0.4 * noise)


def test_frames_between_latents(folders: Callable[[str], Path], models: Callable[..., DiffusionModel]) -> None:
    """Repeated, or interpolated between the middles of the frames that latents hold; the attributes say which."""
    clip = clip_for("wan-2.1", 9)
    smooth = tl.load_video_model(folders("wan-2.1"), size=48, latents="video", between="interpolate")
    repeated, between = (
        tl.probe(m, clip, tau=300, blocks="block_1")["block_1"]["features"][0, 0]
        for m in (models("wan-2.1", "video"), smooth)
    )
    assert repeated["latent_frame"].values.tolist() == [0, 1, 1, 1, 1, 5, 5, 5, 5]
    assert [(a.attrs["model_latents"], a.attrs["model_between"]) for a in (repeated, between)] == [
        ("video", "repeat"),
        ("video", "interpolate"),
    ]
    first, second, third = (repeated.values[i] for i in (0, 1, 5))
    assert np.array_equal(repeated.values[1], repeated.values[4])
    np.testing.assert_allclose(between.values[0], first)
    np.testing.assert_allclose(between.values[1], 0.6 * first + 0.4 * second, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(between.values[4], 0.625 * second + 0.375 * third, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(between.values[8], third)
    # Of one frame a latent neither is said: there is nothing between.
    alone = tl.probe(models("wan-2.1"), clip, tau=300, blocks="block_1")["block_1"]["features"]
    assert "latent_frame" not in alone.coords
    assert "model_between" not in alone.attrs


def test_a_latent_of_several_frames_is_not_put_in_another_order(models: Callable[..., DiffusionModel]) -> None:
    clip = clip_for("wan-2.1", 9)
    with pytest.raises(tl.TedlensError, match='latents="frame"'):
        tl.probe(tl.patch(models("wan-2.1", "video"), "block_0", "reversed"), clip, tau=300, blocks="block_1")
    for latents in ("frame", "video"):
        model = models("wan-2.1", latents)
        other = tl.probe(tl.patch(model, "block_0", changed_at(clip, 2)), clip, tau=300, blocks="block_0")["block_0"]
        there = tl.probe(model, changed_at(clip, 2), tau=300, blocks="block_0")["block_0"]
        np.testing.assert_allclose(other["features"], there["features"], rtol=1e-4, atol=1e-5)
        part = tl.probe(tl.patch(model, "block_0", changed_at(clip, 2), frames=[2]), clip, tau=300, blocks="block_0")
        whole = tl.probe(model, clip, tau=300, blocks="block_0")["block_0"]["features"]
        found = part["block_0"]["features"]
        held = {"frame": [2], "video": [1, 2, 3, 4]}[latents]
        rest = [i for i in range(9) if i not in held]
        np.testing.assert_allclose(found.isel(frame=held), there["features"].isel(frame=held), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.isel(frame=rest), whole.isel(frame=rest), rtol=1e-4, atol=1e-5)


# --- inside ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MADE if "i2v" not in name])
def test_every_hook_point_is_read_as_listed(models: Callable[..., DiffusionModel], name: str) -> None:
    model, clip = models(name), clip_for(name, 5)
    prepared = Prepared(model, clip)
    points = hook_points(model, prepared.input_size)
    assert set(outline(model, prepared.input_size).blocks.values()) <= set(points)
    assert any(path.endswith("to_q") for path in points)
    assert not any(part in path for path in points for part in ("text", "caption", "add_q_proj", "context"))
    _, _, features = next(prepared.features([300], [0], list(points)))
    for path, point in points.items():
        assert features[path].shape == (5, point.channels, *point.grid), path


def test_text_and_video_in_one_sequence(models: Callable[..., DiffusionModel]) -> None:
    """Of the queries of CogVideoX and of HunyuanVideo's single blocks, those of the video are read, by hand."""
    for name, path, video in (
        ("cogvideox-5b", "transformer_blocks.1.attn1.to_q", slice(226, None)),
        ("hunyuan", "single_transformer_blocks.1.attn.to_q", slice(None, -256)),
    ):
        model, clip = models(name), clip_for(name, 3)
        prepared = Prepared(model, clip)
        seen: list[torch.Tensor] = []
        handle = model.denoiser.get_submodule(path).register_forward_hook(lambda *a, s=seen: s.append(a[2]))
        with torch.no_grad():
            model.run(prepared.noisy(Draw(300, 0), 0), 300, prepared.conditions[0])
        handle.remove()
        rows, columns = model.token_grid(prepared.input_size)
        expected = torch.einsum("fyxc->fcyx", seen[0][0, video].reshape(3, rows, columns, -1))
        [found] = tl.probe(model, clip, tau=300, blocks=path).children.values()
        np.testing.assert_allclose(found["features"][0, 0], expected, rtol=1e-5, atol=1e-6)


def test_a_probe_ends_after_its_deepest_block(models: Callable[..., DiffusionModel]) -> None:
    model = models("cogvideox-2b")
    ran: list[int] = []
    blocks: Any = model.denoiser.transformer_blocks
    handles = [b.register_forward_pre_hook(lambda *_, i=i: ran.append(i)) for i, b in enumerate(blocks)]
    tl.probe(model, clip_for("cogvideox-2b", 3), tau=300, blocks=["block_0", "block_1"])
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]


@pytest.mark.parametrize("name", ["cogvideox-5b", "wan-2.1", "ltx", "hunyuan", "mochi", "latte"])
def test_queries_and_keys_by_definition(models: Callable[..., DiffusionModel], name: str) -> None:
    """Weights before the rotary embedding are the softmax of the layer's own normed queries and keys."""
    model, clip = models(name), clip_for(name, 3)
    block = "block_1"
    layer = f"{block}.attn" if name == "hunyuan" else f"{block}.attn1"
    attention: Any = model.module(block).get_submodule(layer.split(".")[-1])
    seen: dict[str, torch.Tensor] = {}
    prepared = Prepared(model, clip)
    handles = [
        (getattr(attention, f"norm_{n}", None) or getattr(attention, f"to_{n}")).register_forward_hook(
            lambda *a, n=n: seen.update({n: a[2].clone()})
        )
        for n in "qk"
    ]
    with torch.no_grad():
        model.run(prepared.noisy(Draw(300, 0), 0), 300, prepared.conditions[0])
    for handle in handles:
        handle.remove()
    rows, columns = model.token_grid(prepared.input_size)
    cells, heads = rows * columns, attention.heads
    found = tl.attention(model, clip, 300, layer, query=[(1, 0, 0)], rotary=False)[0]
    turned = tl.attention(model, clip, 300, layer, query=[(1, 0, 0)])[0]
    if name == "latte":
        np.testing.assert_array_equal(found, turned)  # it has no rotary embedding
        return
    assert not np.allclose(found, turned, atol=1e-5)
    query, key = (
        each[0].transpose(0, 1)
        if each.ndim == 4 and each.shape[1] == heads
        else each[0].reshape(-1, heads, each.shape[-1] // (heads if each.ndim == 3 else 1))
        for each in (seen["q"], seen["k"])
    )
    text = 226 if name == "cogvideox-5b" else 0
    query, key = query[text : text + 3 * cells], key[text : text + 3 * cells]
    scores = torch.einsum("hc,thc->ht", query[cells], key) / query.shape[-1] ** 0.5
    expected = scores.softmax(-1).reshape(heads, 3, rows, columns)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


# --- what is refused, and what may be absent -------------------------------------------------------


def test_the_trap_of_flow_sigmas(folders: Callable[[str], Path]) -> None:
    """UniPC has alphas_cumprod whatever it steps along: neither kind of model takes the other's noise."""
    unipc = DiffusionPipeline.from_pretrained(folders("wan-2.1")).scheduler
    assert hasattr(unipc, "alphas_cumprod")
    with pytest.raises(tl.TedlensError, match="UniPCMultistepScheduler, which steps along a flow"):
        VariancePreservingNoise.of(unipc, "some")
    with pytest.raises(tl.TedlensError, match="does not step along a flow"):
        FlowNoise.of(type(unipc)(), "some")
    noise = FlowNoise.of(unipc, "some")
    assert [noise.sigma(t) for t in (0, 500, 750)] == [0, 1, 3]
    model = tl.load_video_model(folders("wan-2.1"))
    assert model.log_snr(500) == 0
    assert model.nearest_tau(log_snr=-2 * np.log(3)) == 750


def test_prediction_undoes_the_noise(models: Callable[..., DiffusionModel]) -> None:
    """From the output that a perfect denoiser would give, the clean sample follows."""
    clean, noise = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    for name, told in (("wan-2.1", noise - clean), ("mochi", clean - noise)):
        model = models(name)
        torch.testing.assert_close(model.clean_from(model.add_noise(clean, noise, 700), told, 700), clean)


def test_two_experts(folders: Callable[[str], Path]) -> None:
    high, low = (tl.load_video_model(folders("wan-2.2"), expert=expert, size=32) for expert in ("high", "low"))
    assert low.pipeline.transformer is None
    assert high.pipeline.transformer_2 is None
    clip = clip_for("wan-2.2", 3)
    found = [tl.probe(model, clip, tau=300, blocks="block_1")["block_1"]["features"] for model in (high, low)]
    assert not np.allclose(*found)
    assert [each.attrs["model_expert"] for each in found] == ["high", "low"]
    assert found[0].attrs["weights_sha256"] != found[1].attrs["weights_sha256"]
    with pytest.raises(tl.TedlensError, match=r"expert='low'.*others have one"):
        tl.load_video_model(folders("wan-2.1"), expert="low")


def test_without_text_encoders(folders: Callable[[str], Path], tmp_path: Path) -> None:
    """Embeddings that were saved once give the same features; without them there is no text."""
    whole = tl.load_video_model(folders("cogvideox-5b"), prompt="two balls", size=32)
    whole.save_text(tmp_path / "balls.safetensors")
    pipeline = DiffusionPipeline.from_pretrained(folders("cogvideox-5b"), text_encoder=None, tokenizer=None)
    pipeline.save_pretrained(tmp_path / "lean")
    clip = clip_for("cogvideox-5b", 3)
    read = tl.load_video_model(tmp_path / "lean", embeddings=tmp_path / "balls.safetensors", size=32)
    blank = tl.load_video_model(tmp_path / "lean", size=32)
    found = [tl.probe(model, clip, tau=300, blocks="block_1")["block_1"]["features"] for model in (whole, read, blank)]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])
    assert found[1].attrs["model_embeddings"].endswith("balls.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    broken = tl.load_video_model(tmp_path / "lean", embeddings=tmp_path / "broken.safetensors")
    with pytest.raises(tl.TedlensError, match="cannot be read as embeddings"):
        tl.probe(broken, clip, tau=300, blocks="block_1")


@pytest.mark.parametrize("name", ["latte", "cogvideox-1.5-i2v", "wan-2.1-i2v", "ltx-i2v", "hunyuan", "mochi"])
def test_in_bfloat16(folders: Callable[[str], Path], models: Callable[..., DiffusionModel], name: str) -> None:
    half = tl.load_video_model(folders(name), size=min(SIZES[name][-1]), dtype="bfloat16")
    half.pipeline.vae.to(torch.float32)  # a random one gives latents that hang on its last digits
    clip = clip_for(name, 3)
    last = half.blocks[-1]
    found, expected = (tl.probe(m, clip, tau=300, blocks=last)[last]["features"] for m in (half, models(name)))
    assert half.dtype == torch.bfloat16
    assert float(abs(found - expected).mean() / abs(expected).mean()) < 0.15  # as of the UNets
    assert tl.predict(half, clip, tau=300).frames.shape == clip.frames.shape


@pytest.mark.parametrize("name", ["cogvideox-5b", "wan-2.1-i2v", "wan-2.2", "hunyuan"])
def test_layers_that_wait_until_they_run(folders: Callable[[str], Path], name: str) -> None:
    """Nothing changes in what is found, also where a forward ends early, and a second time."""
    whole, waiting = (tl.load_video_model(folders(name), size=32, offload=offload) for offload in (False, "layers"))
    assert waiting.device == whole.device
    assert all(hasattr(waiting.module(block), "_diffusers_hook") for block in waiting.blocks)
    assert not any(hasattr(whole.module(block), "_diffusers_hook") for block in whole.blocks)
    embedding = waiting.pipeline.text_encoder.get_input_embeddings()
    assert hasattr(embedding, "_diffusers_hook")
    clip = clip_for(name, 3)
    for block in ("block_1", "block_0", "block_1"):
        found, expected = (tl.probe(m, clip, tau=300, blocks=block)[block]["features"] for m in (waiting, whole))
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(tl.predict(waiting, clip, tau=300).frames, tl.predict(whole, clip, tau=300).frames)
    assert waiting.weights_sha256 == whole.weights_sha256
    with pytest.raises(tl.TedlensError, match="offload='disk'"):
        tl.load_video_model(folders(name), offload="disk")


@pytest.mark.parametrize("name", [name for name in MADE if "i2v" not in name])
def test_outline_needs_configurations_only(folders: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    whole = hook_points(tl.load_video_model(folders(name)), (32, 32))
    copy = shutil.copytree(folders(name), tmp_path / "bare")
    for weights in copy.rglob("*.safetensors"):
        weights.unlink()
    assert hook_points(outline_model(copy, "video"), (32, 32)) == whole


def test_what_is_refused(folders: Callable[[str], Path], models: Callable[..., DiffusionModel]) -> None:
    with pytest.raises(tl.TedlensError, match="latents='frame' is all it has"):
        tl.load_video_model(folders("latte"), latents="video")
    with pytest.raises(tl.TedlensError, match="latents='movie'"):
        tl.load_video_model(folders("wan-2.1"), latents="movie")
    with pytest.raises(tl.TedlensError, match=r"learnt places for frames of \(48, 64\)"):
        tl.probe(models("cogvideox-5b-i2v"), clip_for("wan-2.1", 3), tau=300, size=(32, 32))
    with pytest.raises(tl.TedlensError, match="window=7 is longer"):
        tl.probe(models("latte"), clip_for("latte", 8), tau=300, window=7)


# --- of others -------------------------------------------------------------------------------------


def test_the_documented_adapter_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of tedlens/models/README.md as it stands there, handed what the pipeline of that class hands."""
    tiny.allegro().save_pretrained(tmp_path)
    monkeypatch.setitem(registry.ADAPTERS, "video", dict(registry.ADAPTERS["video"]))
    with pytest.raises(tl.TedlensError, match=r"no video adapter.*register_adapter"):
        tl.load_video_model(tmp_path)
    text = (files("tedlens.models") / "README.md").read_text(encoding="utf-8")
    exec(next(code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Allegro" in code), {})
    clip = tl.datasets.similar(3, frames=10, size=(32, 48))
    for latents, first in (("frame", None), ("video", [0, 0, 0, 0, 4, 4, 4, 4, 8, 8])):
        model = tl.load_video_model(tmp_path, prompt="a ball", latents=latents, size=32)
        features = tl.probe(model, clip, tau=300, blocks=["block_0", "block_1.attn1.to_q"])
        held = features["block_0"].coords.get("latent_frame")
        assert (None if held is None else held.values.tolist()) == first
        assert tl.attention(model, clip, 300, "block_0.attn1", query=[(2, 4, 4)]).attrs["kind"] == "joint"
    prepared = Prepared(model, clip)
    noisy = prepared.noisy(Draw(TAU, 0), 0)
    with handed_to(model.denoiser) as ours, torch.no_grad():
        prepared.window(noisy, prepared.moment(0, Draw(TAU, 0)), prepared.reading(["block_0"]))
    pipeline = DiffusionPipeline.from_pretrained(tmp_path)
    stepping_at(pipeline, TAU, monkeypatch)
    monkeypatch.setattr(type(pipeline.scheduler), "init_noise_sigma", 1.0)
    # Its scheduler scales the sample before the transformer; this one is scaled already.
    monkeypatch.setattr(pipeline.scheduler, "scale_model_input", lambda sample, t: sample)
    with handed_to(pipeline.transformer) as theirs:
        latents = noisy.transpose(0, 1)[None]
        pipeline("a ball", height=32, width=48, num_frames=12, num_inference_steps=5, guidance_scale=1, latents=latents)
    theirs["image_rotary_emb"], ours["image_rotary_emb"] = (
        [*told["image_rotary_emb"][0], *told["image_rotary_emb"][1]] for told in (theirs, ours)
    )
    assert_same(as_handed(ours), as_handed(theirs))
