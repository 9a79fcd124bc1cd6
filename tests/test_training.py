"""Training of the embedded models: every stage runs, goes on where it was stopped, and leaves a model that loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler

import tedlens as tl
from tedlens.models.mini import clips, loop, recipe, train, validation


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds an autoencoder after one step."""
    out = tmp_path_factory.mktemp("vae")
    train.vae(out, steps=1, batch=2)
    return out


@pytest.fixture(scope="module")
def dit_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the transformer's autoencoder after one step."""
    out = tmp_path_factory.mktemp("dit")
    train.dit_vae(out, steps=1, batch=2)
    return out


def log(out: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stage", ["video", "svd"])
def test_video_stages_leave_models_that_load(vae: Path, stage: str) -> None:
    getattr(train, stage)(vae, steps=1, batch=4)
    model = tl.load_video_model(vae / stage, size=recipe.SIZE)
    clip = tl.datasets.similar(0, size=recipe.SIZE, frames=recipe.FRAMES)
    features = tl.probe(model, clip, tau=500, blocks="up_2")["up_2"]["features"]
    assert features.sizes["y"] == features.sizes["x"] == recipe.LATENTS
    assert model.window == recipe.FRAMES
    assert model.block == "up_2"
    (step,) = log(vae, stage)
    assert step["step"] == 0
    assert len(step["losses"]) == 4  # one a clip


def test_the_transformers_stage_leaves_a_model_that_loads(dit_vae: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "FRAMES", 5)  # its attention goes over all of them
    train.dit(dit_vae, steps=1, batch=2)
    model = tl.load_video_model(dit_vae / "dit", size=recipe.SIZE)
    clip = tl.datasets.similar(0, size=recipe.SIZE, frames=5)
    features = tl.probe(model, clip, tau=500, blocks="block_3")["block_3"]["features"]
    assert features.sizes["y"] == features.sizes["x"] == recipe.LATENTS
    assert model.window == features.sizes["frame"] == 5
    (step,) = log(dit_vae, "dit")
    assert len(step["losses"]) == 2


@pytest.mark.parametrize(("name", "tau"), [("mini", 500), ("mini-svd", 280), ("mini-dit", 337)])
def test_embedded_video_models_have_learnt_to_denoise(name: str, tau: int) -> None:
    """The error of the v-prediction on a clip it never saw, at a log-SNR of 0, against that of always saying 0."""
    model, clip = tl.load_video_model(name), tl.datasets.similar(0, size=recipe.SIZE, frames=recipe.FRAMES)
    clean = model.encode(clip.frames)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    predicted: list[torch.Tensor] = []
    with torch.no_grad(), model.denoiser.register_forward_hook(lambda *seen: predicted.append(seen[-1][0])):
        model.run(model.add_noise(clean, noise, tau), tau, model.condition(clip.frames, clean, range(recipe.FRAMES)))
    (got,) = predicted[0]
    got = got if got.shape == clean.shape else got.transpose(0, 1)
    assert abs(model.log_snr(tau)) < 0.2
    wanted = train.edm_target(clean, noise, torch.tensor(model.sigma(tau)))
    nothing = float(wanted.square().mean())
    assert 0.8 < nothing < 2  # 1 for latents of unit variance, which those of one clip need not have
    assert float((got - wanted).square().mean()) < 0.25 * nothing


def test_half_of_the_noise_levels_are_high() -> None:
    taus = train.noise_levels(4000, 400, torch.Generator().manual_seed(0))
    assert int(taus.min()) < 10
    assert 990 < int(taus.max()) < 1000
    assert float((taus >= 400).float().mean()) == pytest.approx(0.5 + 0.5 * 0.6, abs=0.03)


def test_the_loss_looks_where_things_move() -> None:
    clean = torch.zeros(2, 16, 4, 8, 8)
    clean[0, 3, :, 2, 5] = 1
    weight = train.moving(clean)
    assert weight.shape == (2, 1, 1, 8, 8)
    torch.testing.assert_close(weight.mean((1, 2, 3, 4)), torch.ones(2))
    assert int(weight[0].argmax()) == 2 * 8 + 5
    torch.testing.assert_close(weight[1], torch.ones(1, 1, 8, 8))


def test_hidden_frames_are_runs_in_a_share_of_the_clips() -> None:
    hidden = train.hidden_frames(2000, 0.6, torch.Generator().manual_seed(0))[..., 0, 0, 0]
    lengths = hidden.sum(1)
    assert float((lengths > 0).float().mean()) == pytest.approx(0.6, abs=0.04)
    assert int(lengths[lengths > 0].min()) >= 1
    assert int(lengths.max()) == 8
    begins = (hidden[:, 1:] & ~hidden[:, :-1]).sum(1) + hidden[:, 0].int()
    assert set(begins.tolist()) == {0, 1}


def test_copies_of_a_clip_are_its_mirror_images_turns_and_reversals() -> None:
    clip = torch.arange(2 * 3 * 4 * 4 * 3, dtype=torch.uint8).reshape(2, 3, 4, 4, 3)
    ways = {train.turned(clip, torch.Generator().manual_seed(n)).numpy().tobytes() for n in range(200)}
    assert len(ways) == 16
    assert clip.numpy().tobytes() in ways


def test_image_stage(tmp_path: Path) -> None:
    train.image(tmp_path, steps=1, batch=2)
    assert tl.load_image_model(tmp_path / "image").unet.config.sample_size == recipe.SIZE


def small_run(out: Path, stop_before: int | None = None) -> dict[str, torch.Tensor]:
    """A run of six steps of a linear model, killed before a step if one is given."""
    torch.manual_seed(0)
    model, how = torch.nn.Linear(3, 2), loop.Run(out, "small", steps=6, rate=1e-2, save_every=2, measure_every=3)

    def batches() -> Iterator[tuple[loop.Inputs, dict[str, Any]]]:
        for step in range(loop.first_step(how), how.steps):
            if step == stop_before:
                raise KeyboardInterrupt
            yield {"x": torch.randn(4, 3, generator=loop.generator_of(0, step, "cpu"))}, {"note": step}

    def loss_of(inputs: loop.Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        each = model(inputs["x"]).square().mean(1)
        return each.mean(), each

    loop.optimise(model, batches(), loss_of, how, lambda: {"weight": float(model.weight.detach().sum())})
    return model.state_dict()


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """Stopped after four of six steps and a half, it ends with the weights and the measurements of a straight run."""
    straight = small_run(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        small_run(tmp_path / "stopped", stop_before=5)
    assert loop.first_step(loop.Run(tmp_path / "stopped", "small", steps=6, rate=1e-2)) == 4
    stopped = small_run(tmp_path / "stopped")
    for name, value in straight.items():
        assert torch.equal(value, stopped[name])
    measured = [
        [line["weight"] for line in log(tmp_path / run, "small") if "weight" in line][-1]
        for run in ("straight", "stopped")
    ]
    assert measured[0] == measured[1]


def test_clips_are_the_same_from_any_number_of_workers() -> None:
    def drawn(workers: int, first: int) -> list[torch.Tensor]:
        world = recipe.WORLDS["headed"]
        return list(clips.training_clips(world, 2, first=first, steps=3, count=2, workers=workers, device="cpu"))

    here, elsewhere = drawn(0, 0), drawn(2, 0)
    assert here[0].shape == (2, 2, recipe.SIZE, recipe.SIZE, 3)
    for one, other in zip(here, elsewhere, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(drawn(0, 2)[0], here[2])


def test_a_training_is_measured_by_what_it_is_for(vae: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CROSSING": 1, "DRIFTING": 5, "TAUS": (600,)}.items():
        monkeypatch.setattr(validation, name, value)
    train.video(vae / "measured", steps=1, batch=2, copies=2, measure=1)
    (measured,) = [line for line in log(vae / "measured", "video") if "identity" in line]
    assert 0 <= measured["identity"]["up_2"][0] <= 1
    assert measured["velocity"]["up_2"][0] <= 1


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
            recipe.training_clip(seed, recipe.WORLDS["any"])
    assert not set(recipe.TEST_SEEDS) & set(recipe.VALIDATION_SEEDS)


@pytest.mark.parametrize("world", list(recipe.WORLDS))
def test_training_clips_vary(world: str) -> None:
    shown = recipe.WORLDS[world]
    made = [recipe.training_clip(recipe.TRAINING_SEEDS.start + n, shown, frames=1).objects for n in range(40)]
    about = [objects.attrs for objects in made if objects is not None]
    assert {one["motion"] for one in about} == set(shown.motions)
    assert {one["objects"] for one in about} == set(range(shown.objects[0], shown.objects[1] + 1))
    assert {one["looks"] for one in about} == {"identical", "similar", "distinct"}
    assert {one["view"] for one in about} == ({"top"} if shown.top == 1 else {"top", "perspective"})
    for name, share in {"texture": shown.patterns, "front": shown.headed}.items():
        assert abs(sum(one[name] > 0 for one in about) / 40 - share) < 0.25
    assert abs(sum(one["ground"] == 0 for one in about) / 40 - shown.plain) < 0.25
    assert all(shown.scales[0] <= one["scale"] <= shown.scales[1] for one in about)
