"""Sweeps: counts of work, equality with doing it by hand, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import xarray as xr

import tedlens as tl
from tedlens.models.base import DiffusionModel
from tedlens.models.unets.unet2d import UNet2D
from tedlens.sweeping import Grid, Models, make_grid, make_plan
from tedlens.sweeping.cells import kept_cells
from tedlens.sweeping.clips import clip_sources, survey

SMALL: dict[str, Any] = {"radius": 3, "top_k": 4}


@pytest.fixture(scope="module")
def image() -> DiffusionModel:
    return UNet2D(tiny.unet2d(), name="tiny-image", size=32, block="up_0")


def make_clip(number: int, frames: int = 4) -> tl.Clip:
    made = tl.datasets.similar(number, frames=frames, size=32)
    return tl.Clip(made.frames, made.masks, name=f"clip-{number}")


@pytest.fixture
def forwards(video: DiffusionModel, image: DiffusionModel) -> Iterator[dict[str, int]]:
    """Forwards of each UNet, counted."""
    counts = {"video": 0, "image": 0}
    handles = [
        model.unet.register_forward_pre_hook(lambda *_, name=name: counts.update({name: counts[name] + 1}))
        for name, model in (("video", video), ("image", image))
    ]
    yield counts
    for handle in handles:
        handle.remove()


def test_one_forward_serves_every_block_lambda_and_setting(
    video: DiffusionModel, image: DiffusionModel, forwards: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """3 clips x 4 taus x 4 blocks x 5 lambdas x 2 seeds: 24 UNet windows for 480 tracks."""
    scores = tl.sweep(
        [make_clip(number, frames=3) for number in range(3)],
        motion=video,
        appearance=image,
        tau=range(0, 1000, 250),
        blocks=["up_0", "up_1", "up_2", "up_3"],
        lam=[0, 0.25, 0.5, 0.75, 1],
        seeds=[0, 1],
        **SMALL,
    )
    assert forwards == {"video": 24, "image": 6}
    sizes = {"clip": 3, "block": 4, "tau": 4, "lam": 5, "seed": 2}
    assert {name: scores["J"].sizes[name] for name in sizes} == sizes
    said = capsys.readouterr().out
    assert "24 UNet windows and 6 batches of the image model, 480 tracks" in said
    assert "3 clips x 4 tau x 2 seed x 4 block x 5 lam: 24 cells" in said


def test_equals_doing_it_by_hand(video: DiffusionModel, image: DiffusionModel) -> None:
    """Every score of a fused sweep over lambdas, seeds and settings, by probe, fuse, propagate and evaluate."""
    clips = [make_clip(0), make_clip(1, frames=6)]
    scores = tl.sweep(
        clips,
        motion=video,
        appearance=image,
        tau=[900, 100],
        blocks=["up_2", "up_1"],
        lam=[0.3, 1],
        seeds=[2, 0],
        overlap=1,
        appearance_tau=60,
        appearance_samples=2,
        radius=[2, 4],
        convention=["dift", "crw"],
        top_k=3,
        progress=False,
    )
    axes = {
        "block": ["up_1", "up_2"],
        "tau": [100, 900],
        "seed": [0, 2],
        "radius": [2, 4],
        "convention": ["dift", "crw"],
    }
    compared = 0
    for clip in clips:
        moving = tl.probe(video, clip, tau=[900, 100], blocks=["up_1", "up_2"], seed=[0, 2], overlap=1)
        still = tl.probe(image, clip, tau=60, blocks="up_0", seed=[0, 2], samples=2)["up_0"]["features"]
        for block, tau, seed, radius, convention in product(*axes.values()):
            by_hand = tl.propagate_fused(
                moving[block]["features"].sel(tau=tau, seed=seed),
                still.isel(tau=0).sel(seed=seed),
                clip.masks[0],
                lam=[0.3, 1],
                **{"radius": radius, "convention": convention, "top_k": 3},
            )
            for lam in (0.3, 1):
                scored = tl.evaluate(by_hand.sel(lam=lam), clip.masks)
                swept = scores.sel(clip=clip.name, block=block, tau=tau, lam=lam, seed=seed)
                swept = swept.sel(radius=radius, convention=convention, object=scored["object"], frame=scored["frame"])
                for metric in ("J", "F", "JF"):
                    np.testing.assert_array_equal(swept[metric], scored[metric])
                compared += 1
    assert compared == 2 * 2**6
    assert scores["J"].dims == (*("clip", "block", "tau", "lam", "seed", "radius", "convention", "object", "frame"),)
    assert int(scores["top_k"]) == 3
    # The shorter clip has no frames 3 and 4.
    assert scores["J"].sel(clip="clip-0", frame=[3, 4]).isnull().all()
    assert scores["JF"].sel(clip="clip-1").notnull().any(["object", "frame"]).all()
    assert scores["sigma"].sel(tau=900) == video.sigma(900)


@pytest.mark.parametrize("role", ["motion", "appearance"])
def test_one_model_alone(video: DiffusionModel, image: DiffusionModel, forwards: dict[str, int], role: str) -> None:
    model, block = (video, "up_2") if role == "motion" else (image, "up_0")
    clip = make_clip(3)
    scores = tl.sweep(clip, **{role: model}, tau=[600, 51], blocks=block, seeds=1, progress=False, **SMALL)
    assert sum(forwards.values()) == 2
    assert scores["JF"].dims == ("clip", "block", "tau", "seed", "object", "frame")
    for tau in (600, 51):
        feats = tl.probe(model, clip, tau=tau, blocks=block, seed=1)[block]["features"]
        by_hand = tl.evaluate(tl.propagate(feats, clip.masks[0], **SMALL), clip.masks)
        np.testing.assert_array_equal(scores["JF"].sel(tau=tau).squeeze(["clip", "block", "seed"]), by_hand["JF"])


def test_attributes_say_how_it_came_to_be(video: DiffusionModel, image: DiffusionModel) -> None:
    scores = tl.sweep(make_clip(0), motion=video, appearance=image, tau=300, progress=False, **SMALL)
    about = scores.attrs
    assert about["motion_weights_sha256"] == video.weights_sha256
    assert about["appearance_block"] == "up_0"
    assert about["protocol"] == "davis"
    assert list(scores["block"].values) == ["up_0", "up_1", "up_2", "up_3"]  # all up blocks
    assert list(scores["lam"].values) == [0.5]
    tl.summarize(scores)


def test_models_by_name_and_clips_by_function() -> None:
    """The embedded models, loaded by the sweep; a clip that is made when its turn comes."""
    clip = tl.datasets.similar(5, frames=4, size=32)
    how: dict[str, Any] = {"tau": 500, "progress": False, **SMALL}
    loaded = tl.sweep(clip, motion=tl.load_video_model("mini", size=32), appearance=tl.load_image_model("mini"), **how)
    named = tl.sweep([lambda: clip], motion={"name": "mini", "size": 32}, appearance="mini", **how)
    xr.testing.assert_identical(named, loaded)


def test_a_lazy_sequence_is_read_one_clip_at_a_time(video: DiffusionModel) -> None:
    alive: list[int] = []

    class Dataset:
        """As a dataset on disk: a clip is read each time that it is asked for."""

        def __len__(self) -> int:
            return 3

        def __getitem__(self, number: int) -> tl.Clip:
            if not 0 <= number < 3:
                raise IndexError
            alive.append(number)
            return make_clip(number)

    scores = tl.sweep(Dataset(), motion=video, tau=500, blocks="up_0", progress=False, **SMALL)
    assert alive == [0, 1, 2, 0, 1, 2]  # once to look at it, once to sweep it
    assert scores.sizes["clip"] == 3


def test_dry_run_computes_nothing(
    video: DiffusionModel, forwards: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    scores = tl.sweep(make_clip(0), motion=video, tau=[1, 2], dry_run=True, temperature=[0.1, 0.2])
    assert forwards["video"] == 0
    assert scores["J"].isnull().all()
    assert scores["J"].sizes == {
        **{"clip": 1, "block": 4, "tau": 2, "seed": 1, "temperature": 2},
        **{"object": 2, "frame": 2},
    }
    assert "To do: 2 UNet windows, 16 tracks" in capsys.readouterr().out


def test_plan_counts_windows_samples_and_what_is_missing(video: DiffusionModel, image: DiffusionModel) -> None:
    """Two clips, one of three windows; the appearance model sees eight frames at once."""
    clips = [make_clip(0), make_clip(1, frames=20)]
    window = video.window
    assert window is not None
    grid = make_grid(
        Models(video, image), tau=[1, 2, 3], blocks="up_1", lam=[0, 1], seeds=[0, 1], appearance_samples=3, overlap=2
    )
    facts = [clip.facts for clip in survey(clip_sources(clips), "davis")]
    missing = {"clip-0": [(1, 0)], "clip-1": [(2, 0), (3, 0)]}
    plan = make_plan(grid, facts, missing)
    long_windows = 1 if window >= 20 else -(-(20 - window) // (window - 2)) + 1
    assert (plan.cells, plan.done) == (12, 9)
    assert plan.forwards == 1 + 2 * long_windows
    assert plan.appearance_forwards == 3 * (1 + 3)
    assert plan.propagations == 3 * 2
    assert plan.score_bytes == 7 * 8 * 2 * (2 + 18) * 6 * 2


def test_features_of_a_cell_do_not_outlive_it(video: DiffusionModel) -> None:
    """Memory flat in the number of taus: never more than the features of two cells are alive."""
    import gc
    import weakref

    from tedlens.sweeping import cells as module

    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0
    tracked = module._tracked

    def watch(features: dict[str, torch.Tensor], *rest: Any) -> Any:
        nonlocal most
        alive.extend(weakref.ref(value) for value in features.values())
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
        return tracked(features, *rest)

    grid: Grid = make_grid(Models(video), tau=range(0, 60, 10), blocks=["up_0", "up_1"], **SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_tracked", watch)
        assert len(list(kept_cells(make_clip(0), Models(video), grid))) == 6
    assert len(alive) == 12
    assert 2 <= most <= 4


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tau": 1000}, "tau=1000"),
    ({"tau": []}, "tau is an empty list"),
    ({"tau": ["high"]}, "tau='high' is not a number"),
    ({"top_k": "many"}, "top_k='many' is not a number"),
    ({"lam": True}, "lam=True is not a number"),
    ({"seeds": [0, 1.5]}, r"seed=1\.5 cannot key"),
    ({"blocks": ["up_9"]}, "no block 'up_9'"),
    ({"seeds": -1}, "seed=-1"),
    ({"lam": [0.5, 2]}, r"lam=2\.0"),
    ({"overlap": 16}, "overlap=16"),
    ({"overlap": "two"}, "overlap='two' is out of range; give one whole number of at least 0"),
    ({"overlap": [0, 2]}, r"overlap=\[0, 2\] is out of range"),
    ({"size": "big"}, "size='big' is no size"),
    ({"size": [16, 16, 16]}, r"size=\[16, 16, 16\] is no size"),
    ({"size": 16.5}, r"size=16\.5 is no size"),
    ({"blocks": 3}, "blocks=3 is not a name"),
    ({"appearance_tau": 5000}, "tau=5000"),
    ({"appearance_tau": "low"}, "appearance_tau='low' is not a number"),
    ({"appearance_samples": 0}, "appearance_samples=0 is out of range"),
    ({"appearance_block": "up_0.*.*"}, "name one of them"),
    ({"keep": "features", "components": "many", "store": "not-made"}, "components='many' is out of range"),
    ({"keep": "features", "components": 10**6, "store": "not-made"}, "are more than the"),
    ({"radius": [3, 0]}, "radius=0"),
    ({"top_k": []}, "top_k is an empty list"),
    ({"convention": "dino"}, "'dino'"),
    ({"protocol": "ytvos"}, "'ytvos'"),
    ({"appearance": None, "lam": 0.5}, r"only motion= is given"),
    ({"appearance": None, "appearance_block": "up_0"}, "only one model"),
    ({"appearance_block": "up_7"}, "no block 'up_7'"),
    ({"motion": None, "appearance": None}, "no model to sweep"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG)
def test_refused_before_any_work(
    video: DiffusionModel, image: DiffusionModel, forwards: dict[str, int], wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(tl.TedlensError, match=words):
        tl.sweep(make_clip(0), **({"motion": video, "appearance": image, "tau": 500, "progress": False} | wrong))
    assert sum(forwards.values()) == 0


def test_clips_that_are_refused(video: DiffusionModel, forwards: dict[str, int]) -> None:
    clip = make_clip(0)
    for clips, words in (
        ([clip, clip], "Two clips are named 'clip-0'"),
        ([], "no clip to sweep"),
        ([clip, tl.Clip(clip.frames, name="bare")], "'bare' has no object"),
        ([clip, make_clip(1)[:2]], r"'clip-1': protocol='davis'"),
    ):
        with pytest.raises(tl.TedlensError, match=words):
            tl.sweep(clips, motion=video, tau=500, progress=False)
    assert forwards["video"] == 0
