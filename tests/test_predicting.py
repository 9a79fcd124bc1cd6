"""Predictions: of a perfect denoiser the clip, of every adapter what its own scheduler makes of its output."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

import tedlens as tl
from tedlens.models.base import Condition, DiffusionModel, Frames, VariancePreserving, pictures
from tedlens.models.noise import frame_noise
from tedlens.models.registry import ADAPTERS
from tedlens.probing import Draw, Prepared

ADAPTED = ["i2vgen_xl", "svd", "modelscope", "animatediff", "unet2d", "stable_diffusion", "sdxl"]


@pytest.fixture(scope="module")
def clip() -> tl.Clip:
    made = tl.datasets.similar(1, frames=6, size=32)
    return tl.Clip(made.frames, made.masks, name="six", fps=5)


class Perfect(VariancePreserving):
    """A denoiser that knows the clip, and says so in the way that its scheduler wants."""

    multiple, window = 4, 4

    def __init__(self, prediction_type: str) -> None:
        unet = nn.Module()
        unet.down_blocks, unet.up_blocks = nn.ModuleList([nn.Identity()]), nn.ModuleList()
        unet.weight = nn.Parameter(torch.zeros(1))
        scheduler = DDIMScheduler(prediction_type=prediction_type)
        super().__init__(
            SimpleNamespace(unet=unet, components={"unet": unet}, scheduler=scheduler), name="perfect", size=32
        )

    def encode(self, frames: Frames) -> Tensor:
        return pictures(frames)

    def decode(self, clean: Tensor) -> Tensor:
        return clean

    def condition(self, frames: Frames, clean: Tensor, window: range) -> Condition:
        return {"clean": clean[window.start : window.stop]}

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> Tensor:
        clean = condition["clean"]
        signal, share = self.schedule.alphas[tau].sqrt().float(), (1 - self.schedule.alphas[tau]).sqrt().float()
        noise = (noisy - signal * clean) / share
        return {"epsilon": noise, "sample": clean, "v_prediction": signal * noise - share * clean}[
            self.pipeline.scheduler.config.prediction_type
        ]


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_a_perfect_denoiser_predicts_the_clip(clip: tl.Clip, kind: str) -> None:
    model = Perfect(kind)
    predicted = tl.predict(model, clip, tau=600, overlap=1)
    assert tl.predict(model, clip[1:], tau=600, overlap=1).frame_names == clip.frame_names[1:]
    np.testing.assert_array_equal(predicted.frames, clip.frames)
    np.testing.assert_array_equal(predicted.masks, clip.masks)
    assert (predicted.fps, predicted.name) == (5, "six, predicted at tau 600")
    scores = tl.prediction_scores(model, clip, tau=[100, 900], seed=[0, 1])
    assert (scores["psnr"] == np.inf).all()
    assert not scores["error_inside"].any()
    assert scores["log_snr"].dims == ("tau",)
    assert scores.attrs["model"] == "perfect"


def adapted(name: str, folder: Path) -> DiffusionModel:
    made: Any = getattr(tiny, name)
    pipeline = made() if name in ("svd", "unet2d") else made(folder)
    kind = "image" if name in ADAPTED[4:] else "video"
    return ADAPTERS[kind][type(pipeline.unet).__name__](pipeline, name=name, size=32)


@pytest.mark.parametrize("name", ADAPTED)
def test_what_its_own_scheduler_makes_of_the_output(name: str, tmp_path: Path, clip: tl.Clip) -> None:
    """One step of the pipeline's scheduler, whose prediction of the clean sample is taken, and its own decoding."""
    model = adapted(name, tmp_path)
    prepared = Prepared(model, clip[:4])
    tau = 601
    with torch.no_grad():
        found = prepared.prediction(Draw(tau, 3))
        clean = prepared.clean
        noise = frame_noise(3, range(4), tuple(clean.shape[1:]))
        noisy = model.add_noise(clean, noise, tau)
        output = model.run(noisy, tau, prepared.conditions[0])
        assert output is not None
        assert output.shape == noisy.shape
        scheduler = type(model.pipeline.scheduler).from_config(model.pipeline.scheduler.config)
        scheduler.set_timesteps(1000)
        if name in ("svd", "sdxl"):  # these step in sigmas, and hold the sample unscaled
            place = int((scheduler.sigmas - model.sigma(tau)).abs().argmin())
            scale = 1 if name == "svd" else (model.sigma(tau) ** 2 + 1) ** 0.5
            expected = scheduler.step(output, scheduler.timesteps[place], noisy * scale).pred_original_sample
            tolerance = 1e-3
        else:
            expected = scheduler.step(output, tau, noisy).pred_original_sample
            tolerance = 1e-4
        if getattr(scheduler.config, "clip_sample", False):
            found = found.clamp(-1, 1)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=tolerance)
        pipeline = model.pipeline
        if name == "svd":
            shown = pipeline.decode_latents(clean[None], num_frames=4, decode_chunk_size=4)[0].transpose(0, 1)
        elif name == "unet2d":
            shown = clean
        else:
            shown = pipeline.vae.decode(clean / pipeline.vae.config.scaling_factor).sample
        torch.testing.assert_close(model.decode(clean), shown)


def test_predictions_show_what_a_layer_does(tmp_path: Path, clip: tl.Clip) -> None:
    model = adapted("i2vgen_xl", tmp_path)
    whole = tl.predict(model, clip, tau=300, window=4)
    for cut in (tl.ablate(model, "up_2", "zero"), tl.patch(model, "up_3", "still")):
        assert not np.array_equal(tl.predict(cut, clip, tau=300, window=4).frames, whole.frames)
    np.testing.assert_array_equal(tl.predict(model, clip, tau=300, window=4).frames, whole.frames)
    scores = tl.prediction_scores(tl.ablate(model, "up_2", "zero"), clip, tau=300, window=4)
    assert "up_2" in scores.attrs["model_interventions"]


@pytest.mark.parametrize("name", ["i2vgen_xl", "svd"])
def test_in_half_precision_with_the_vae_on_loan(name: str, tmp_path: Path, clip: tl.Clip) -> None:
    whole = adapted(name, tmp_path)
    expected = tl.predict(whole, clip, tau=800)
    pipeline = whole.pipeline.to(torch.bfloat16)
    half = type(whole)(pipeline, name=name, size=32, offload=True)
    found = tl.predict(half, clip, tau=800)
    assert np.abs(found.frames.astype(int) - expected.frames).mean() < 4


def test_scores_by_hand(clip: tl.Clip) -> None:
    frames = clip.frames.astype(int)
    frames[clip.masks == 1] = np.clip(frames[clip.masks == 1] + 10, 0, 255)
    other = tl.Clip(frames.astype(np.uint8))
    scores = tl.evaluate_prediction(other, clip)
    difference = np.abs(frames - clip.frames)
    assert scores["error_outside"].max() == 0
    for frame in range(6):
        here = clip.masks[frame] == 1
        assert scores["error_inside"].sel(object=1, frame=frame) == pytest.approx(difference[frame][here].mean())
        psnr = 10 * np.log10(255**2 / (difference[frame] ** 2).mean())
        assert scores["psnr"].sel(frame=frame) == pytest.approx(psnr)
        assert scores["error"].sel(frame=frame) == pytest.approx(difference[frame].mean())
    with pytest.raises(tl.TedlensError, match="does not fit clip 'six'"):
        tl.evaluate_prediction(other[:3], clip)


def test_what_predicts_nothing_is_said(clip: tl.Clip) -> None:
    with pytest.raises(tl.TedlensError, match="'toy' predicts no clip"):
        tl.predict(Silent(), clip, tau=3)
    with pytest.raises(tl.TedlensError, match="does not return the output"):
        tl.predict(tiny.Toy(), clip, tau=3)
    model = Perfect("epsilon")
    model.schedule.alphas[999] = 0
    with pytest.raises(tl.TedlensError, match="At tau=999 nothing of the signal is left"):
        tl.predict(model, clip, tau=999)


class Silent(tiny.Toy):
    def run(self, noisy: Tensor, tau: int, condition: Condition) -> Tensor:
        return noisy


def test_the_curve_shows_the_means(clip: tl.Clip, tmp_path: Path) -> None:
    model = adapted("modelscope", tmp_path)
    scores = tl.prediction_scores(model, clip[:4], tau=[700, 100], seed=[0, 1])
    figure = tl.plots.prediction_curves(scores)
    drawn = {trace.name: trace for trace in figure.data}
    assert list(drawn["prediction"].x) == [100, 700]
    np.testing.assert_allclose(drawn["prediction"].y, scores["psnr"].mean(["seed", "frame"]).sel(tau=[100, 700]))
    inside = scores["error_inside"].mean(["seed", "frame", "object"]).sel(tau=[100, 700])
    np.testing.assert_allclose(drawn["inside objects"].y, inside)
    # The VAE's own loss bounds what is owed.
    assert figure.layout.shapes[0].y0 == pytest.approx(float(scores["ceiling"].mean()))
    with pytest.raises(tl.TedlensError, match="are no scores over noise levels"):
        tl.plots.prediction_curves(scores.isel(tau=0))


def test_curves_of_several_models_are_told_apart(clip: tl.Clip) -> None:
    model = tl.load_video_model("mini")
    scores = tl.prediction_scores(model, clip, tau=[100, 900])
    figure = tl.plots.prediction_curves({"one": scores, "half": scores / 2}, tau=900)
    lines = {line.name: line for line in figure.data}
    assert set(lines) == {f"{name}{of}" for name in ("one", "half") for of in ("", ", inside objects", ", outside")}
    np.testing.assert_allclose(lines["one"].y, 2 * np.asarray(lines["half"].y))
    assert {lines["one"].line.color} & {lines["half"].line.color} == set()
    assert [shape.x0 for shape in figure.layout.shapes if shape.x0 == shape.x1] == [900, 900]
    assert [note.text for note in figure.layout.annotations] == ["no noise, no model"]


def test_predictions_stand_below_the_clip() -> None:
    clip = tl.datasets.similar(seed=0, frames=4, size=32)
    figure = tl.plots.prediction_strip(clip, {"tau 200": clip, "tau 800": clip}, frames=[0, 3])
    assert len(figure.data) == 6
    names = [annotation.text for annotation in figure.layout.annotations]
    assert {"clip", "tau 200", "tau 800"} <= set(names)
    with pytest.raises(tl.TedlensError, match="Prediction 'other' has the shape"):
        tl.plots.prediction_strip(clip, {"other": clip[:3]})


def test_masks_without_an_object_have_no_inside() -> None:
    clip = tl.datasets.similar(seed=0, frames=3, size=32)
    assert clip.masks is not None
    bare = tl.Clip(clip.frames, clip.masks * 0)
    assert "error_inside" not in tl.evaluate_prediction(bare, bare)
