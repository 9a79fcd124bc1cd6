"""Published settings by name: what they mean, and that they are the paper's algorithm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from definitions import dense_labels, window_mask
from torch import Tensor
from typer.testing import CliRunner

import tedlens as tl
from tedlens.cli import app
from tedlens.models import DiffusionModel
from tedlens.models.noise import frame_noise
from tedlens.models.points import first_tensor
from tedlens.presets import PRESETS, sweep_words, track_words
from tedlens.probing import Prepared, Tap, record
from tedlens.ted.masks import full_size_labels, one_hot

WINDOW, OVERLAP, FRAMES, SAMPLES = 6, 2, 14, 2


def one_forward(model: DiffusionModel, clean: Tensor, window: range, condition: Any, tau: int, sample: int) -> Tensor:
    noise = frame_noise(0, window, tuple(clean.shape[1:]), sample=sample)
    noisy = model.add_noise(clean[window.start : window.stop], noise, tau)
    taps = {model.block: Tap(model.module(model.block), first_tensor)}
    with record(taps, model.block) as seen, torch.no_grad():
        model.run(noisy, tau, condition)
    return seen[model.block].float()


def algorithm_1(motion: DiffusionModel, appearance: DiffusionModel, clip: tl.Clip, words: Any) -> Any:
    """The paper's algorithm 1, written out: windows, a queue in which a frame's first features stay, draws averaged."""
    clean = Prepared(motion, clip, progress=False).clean
    still = Prepared(appearance, clip, progress=False)
    queue: dict[int, Tensor] = {}
    for k in range((FRAMES - WINDOW) // (WINDOW - OVERLAP) + 1):
        window = range(k * (WINDOW - OVERLAP), k * (WINDOW - OVERLAP) + WINDOW)
        condition = Prepared(motion, clip, window=WINDOW, overlap=OVERLAP, progress=False).conditions[k]
        draws = [one_forward(motion, clean, window, condition, words["tau"], n) for n in range(SAMPLES)]
        for frame, features in zip(window, torch.stack(draws).mean(0), strict=True):
            queue.setdefault(frame, features)
    assert len(queue) == FRAMES  # the last window ends with the clip
    r_m = torch.stack([queue[frame] for frame in range(FRAMES)])
    looks = [
        torch.stack(
            [
                one_forward(appearance, still.clean, range(t, t + 1), {}, words["appearance_tau"], n)[0]
                for n in range(SAMPLES)
            ]
        ).mean(0)
        for t in range(FRAMES)
    ]
    r_a = F.interpolate(torch.stack(looks), r_m.shape[-2:], mode="bilinear", antialias=True)
    lam, (height, width) = words["lam"], r_m.shape[-2:]
    fused = torch.cat([lam * F.normalize(r_m, dim=1), (1 - lam) * F.normalize(r_a, dim=1)], 1).flatten(2)
    first, ids = one_hot(clip.masks[0], (height, width))  # type: ignore[index]
    soft = [first.flatten(1)]
    near = window_mask(height, width, words["radius"])
    for t in range(1, FRAMES):
        references = [0, *range(max(1, t - words["n_last"]), t)]
        sources = torch.stack([fused[r] for r in references])
        labels = torch.stack([soft[r] for r in references])
        mask = near.repeat(len(references), 1, 1)
        soft.append(dense_labels(fused[t].T, sources, labels, mask, words["top_k"], words["temperature"]))
    winner = full_size_labels(torch.stack(soft).unflatten(2, (height, width)), still.input_size, clip.frames.shape[1:3])  # type: ignore[arg-type]
    found = np.array([0, *ids], np.uint8)[winner.numpy()]
    found[0] = clip.masks[0]  # type: ignore[index]
    return found


@pytest.mark.parametrize("preset", [name for name in PRESETS if name.startswith("ted-")])
def test_a_preset_of_ted_is_the_papers_algorithm(preset: str) -> None:
    clip = tl.datasets.similar(1, size=32, frames=FRAMES)
    motion, appearance = tl.load_video_model("mini", size=32), tl.load_image_model("mini", size=32)
    motion.window, motion.block, appearance.block = WINDOW, "up_2", "up_1"
    # Only what tiny models do not have is said beside it.
    said = {"appearance_block": "up_1", "samples": SAMPLES, "appearance_samples": SAMPLES}
    found = tl.track(clip, motion=motion, appearance=appearance, preset=preset, **said)  # type: ignore[arg-type]
    assert found.attrs["preset"] == preset
    wanted = algorithm_1(motion, appearance, clip, track_words(preset, said))
    assert (found["labels"].values != wanted).mean() < 1e-3  # rounding may tip a pixel between two labels


def test_what_is_said_beside_a_preset_wins() -> None:
    assert track_words("ted-davis", {})["tau"] == 300
    words = track_words("ted-davis", {"lam": 1.0, "log_snr": -2.0})
    assert words["lam"] == 1.0
    assert "tau" not in words  # the noise level is said in another way
    assert words["temperature"] == 0.2


def test_a_sweep_takes_of_a_preset_what_its_models_need() -> None:
    both = sweep_words("ted-davis", {"motion": "mini", "appearance": "mini"})
    assert (both["tau"], both["blocks"], both["lam"], both["appearance_tau"]) == (300, "up_2", 0.4, 51)
    alone = sweep_words("ted-davis", {"motion": "mini"})
    assert "lam" not in alone
    assert "appearance_tau" not in alone
    looks = sweep_words("dift-adm", {"appearance": "mini"})
    assert (looks["tau"], looks["blocks"], looks["samples"], looks["n_last"]) == (51, "out_7", 4, 28)


def test_a_sweep_by_preset_equals_its_words(tmp_path: Path) -> None:
    clip = tl.datasets.similar(1, size=32, frames=6)
    models: Any = {"motion": tl.load_video_model("mini", size=32), "appearance": tl.load_image_model("mini", size=32)}
    said: Any = {"appearance_block": "up_1", "samples": 1, "appearance_samples": 1, "progress": False}
    store = tmp_path / "s.zarr"
    found = tl.sweep(clip, **models, preset="ted-davis", **said, store=store)
    words = sweep_words("ted-davis", models | said)
    plain = tl.sweep(clip, **words)
    assert np.array_equal(found["J"], plain["J"], equal_nan=True)
    assert found.attrs["preset"] == tl.open_sweep(store).attrs["preset"] == "ted-davis"
    # The name of a preset is no setting: the same values are the same results.
    again = tl.sweep(clip, **words, store=store)
    assert np.array_equal(found["J"], again["J"], equal_nan=True)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(tl.TedlensError, match=r"preset='ted' is not known; choose from ted-davis, "):
        tl.track(tl.datasets.similar(0), preset="ted", lam=1)


def test_presets_are_listed() -> None:
    listed = CliRunner().invoke(app, ["info", "--presets"])
    assert listed.exit_code == 0
    assert all(f"{name}: " in listed.output for name in PRESETS)


def test_two_words_for_the_same_samples_must_agree() -> None:
    clip, looks = tl.datasets.similar(1, size=32, frames=4), tl.load_image_model("mini", size=32)
    with pytest.raises(tl.TedlensError, match="samples=2 and appearance_samples=4 both mean"):
        tl.sweep(clip, appearance=looks, tau=51, samples=2, appearance_samples=4, progress=False)
