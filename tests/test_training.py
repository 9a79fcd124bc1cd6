"""Training of the embedded models: every stage runs, goes on where it was stopped, and leaves a model that loads."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

import tedlens as tl
from tedlens.models.mini import recipe, train


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds an autoencoder after one step."""
    out = tmp_path_factory.mktemp("vae")
    train.vae(out, steps=1, batch=2)
    return out


def log(out: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stage", ["video", "svd"])
def test_video_stages_leave_models_that_load(vae: Path, stage: str) -> None:
    getattr(train, stage)(vae, steps=1)
    model = tl.load_video_model(vae / stage, size=recipe.SIZE)
    clip = tl.datasets.similar(0, size=recipe.SIZE, frames=recipe.FRAMES)
    features = tl.probe(model, clip, tau=500, blocks="up_2")["up_2"]["features"]
    assert features.sizes["y"] == features.sizes["x"] == recipe.LATENTS
    assert model.window == recipe.FRAMES
    assert model.block == "up_2"
    (step,) = log(vae, stage)
    assert step["step"] == 0
    assert len(step["losses"]) == 4  # one a clip


@pytest.mark.parametrize(("name", "tau"), [("mini", 500), ("mini-svd", 280)])
def test_embedded_video_models_have_learnt_to_denoise(name: str, tau: int) -> None:
    """The error of the v-prediction on a clip it never saw, at a log-SNR of 0, against that of always saying 0."""
    model, clip = tl.load_video_model(name), tl.datasets.similar(0, size=recipe.SIZE, frames=recipe.FRAMES)
    clean = model.encode(clip.frames)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    predicted: list[torch.Tensor] = []
    with torch.no_grad(), model.unet.register_forward_hook(lambda *seen: predicted.append(seen[-1][0])):
        model.run(model.add_noise(clean, noise, tau), tau, model.condition(clip.frames, clean, range(recipe.FRAMES)))
    (got,) = predicted[0]
    got = got if got.shape == clean.shape else got.transpose(0, 1)
    assert abs(model.log_snr(tau)) < 0.2
    wanted = train.edm_target(clean, noise, torch.tensor(model.sigma(tau)))
    nothing = float(wanted.square().mean())
    assert 0.8 < nothing < 1.3  # 1 for latents of unit variance, which those of one clip need not have
    assert float((got - wanted).square().mean()) < 0.25 * nothing


@pytest.mark.parametrize(("noisy", "share"), [(0, 0.5), (500, 0.75), (750, 0.75)])
def test_half_of_the_noise_levels_are_high(noisy: int, share: float) -> None:
    clean, scheduler = torch.zeros(4000, 1, 1, 1), DDIMScheduler(**recipe.I2VGEN_XL_SCHEDULE)
    generator = torch.Generator().manual_seed(0)
    _, record = train.denoising_loss(scheduler, lambda noisy, tau: noisy, clean, generator, noisy)
    taus = torch.tensor(record["tau"])
    assert int(taus.min()) < 10
    assert 990 < int(taus.max()) < 1000
    assert float((taus >= 500).float().mean()) == pytest.approx(share, abs=0.03)
    assert float((taus >= noisy).float().mean()) == pytest.approx(0.5 + (1000 - noisy) / 2000, abs=0.03)


def test_stages_follow_one_another_and_differ() -> None:
    for model, starts in recipe.STAGES.items():
        assert list(starts.values()) == [recipe.CALM, recipe.RESTLESS, recipe.OPEN]
        for (_, before), (start, after) in pairwise(starts.items()):
            assert recipe.stage_at(start - 1, model) == before
            assert recipe.stage_at(start, model) == after
    seeds = range(recipe.TRAINING_SEEDS.start, recipe.TRAINING_SEEDS.start + 40)
    still, drifting = {}, {}
    for stage in (recipe.CALM, recipe.RESTLESS, recipe.OPEN):
        clips = [recipe.training_clip(seed, frames=1, stage=stage).objects for seed in seeds]
        about = [objects.attrs for objects in clips if objects is not None]
        still[stage] = sum(one["pan"] == 0 for one in about)
        drifting[stage] = sum(one["motion"] == "drift" for one in about)
    assert still[recipe.CALM] > still[recipe.RESTLESS] == still[recipe.OPEN] > 0
    assert drifting[recipe.CALM] == drifting[recipe.RESTLESS] == 0
    assert drifting[recipe.OPEN] > 20


def test_image_stage(tmp_path: Path) -> None:
    train.image(tmp_path, steps=1, batch=2)
    assert tl.load_image_model(tmp_path / "image").unet.config.sample_size == recipe.SIZE


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after two of three steps, it ends with the weights of a straight run."""
    monkeypatch.setattr(train, "SAVE_EVERY", 2)
    plain = train.training_frames
    train.image(tmp_path / "straight", steps=3, batch=1)

    def killed(step: int, count: int) -> torch.Tensor:
        if step == 2:
            raise KeyboardInterrupt
        return plain(step, count)

    monkeypatch.setattr(train, "training_frames", killed)
    with pytest.raises(KeyboardInterrupt):
        train.image(tmp_path / "stopped", steps=3, batch=1)
    assert not (tmp_path / "stopped" / "image").exists()
    monkeypatch.setattr(train, "training_frames", plain)
    train.image(tmp_path / "stopped", steps=3, batch=1)
    straight, stopped = (tl.load_image_model(tmp_path / name / "image") for name in ("straight", "stopped"))
    assert straight.weights_sha256 == stopped.weights_sha256
    assert [step["step"] for step in log(tmp_path / "stopped", "image")] == [0, 1, 2]


def test_svd_is_trained_to_predict_what_its_scheduler_reads() -> None:
    """The scheduler's own step from noisy to clean undoes what the loss asks of the model."""
    clean, noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    scheduler = EulerDiscreteScheduler(**recipe.SVD_SCHEDULE)
    scheduler.set_timesteps(10)
    sigma = scheduler.sigmas[4]
    target = train.edm_target(clean, noise, sigma)
    step = scheduler.step(target, scheduler.timesteps[4], clean + sigma * noise)
    torch.testing.assert_close(step.pred_original_sample, clean, rtol=1e-4, atol=1e-4)
    # Of unit variance whatever the noise.
    wide = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(1))
    for sigma in (0.01, 1.0, 100.0):
        assert float(train.edm_target(wide[0], wide[1], torch.tensor(sigma)).var()) == pytest.approx(1, abs=0.03)


def test_held_out_seeds_are_refused() -> None:
    for seed in (recipe.TEST_SEEDS[0], recipe.VALIDATION_SEEDS[-1]):
        with pytest.raises(ValueError, match="held out"):
            recipe.training_clip(seed)
    assert not set(recipe.TEST_SEEDS) & set(recipe.VALIDATION_SEEDS)


def test_training_clips_vary() -> None:
    clips = [recipe.training_clip(recipe.TRAINING_SEEDS.start + n, frames=2) for n in range(60)]
    about = [clip.objects.attrs for clip in clips if clip.objects is not None]
    for name, values in {
        "objects": {1, 2, 3, 4},
        "looks": {"identical", "similar", "distinct"},
        "shape": {"ball", "block", "disc"},
        "motion": {"cross", "bounce", "fall"},
        "view": {"perspective", "top"},
    }.items():
        assert values <= {one[name] for one in about}, name
    assert len({one["pan"] for one in about}) > 5
    assert len({one["texture"] for one in about}) > 20
