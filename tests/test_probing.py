"""Probing: labelled features, windows, and the invariants of noise and of one forward for all blocks."""

from __future__ import annotations

import datetime
import itertools
import os
import shutil
import subprocess
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import xarray as xr
from numpy.testing import assert_allclose

import tedlens as tl
from tedlens.models.base import DiffusionModel
from tedlens.models.points import first_tensor
from tedlens.models.unets.unet2d import UNet2D
from tedlens.probing import Prepared, Tap, input_size, windows


@pytest.fixture(scope="module")
def image() -> DiffusionModel:
    return UNet2D(tiny.unet2d(), name="tiny-image", size=32, block="up_0")


@pytest.fixture(scope="module")
def clip() -> tl.Clip:
    return tl.datasets.similar(1, frames=7, size=(32, 48))


def test_features_are_labelled(video: DiffusionModel, clip: tl.Clip) -> None:
    tree = tl.probe(video, clip, tau=[100, 900], blocks=["up_1", "up_2"], seed=[0, 5])
    assert set(tree.children) == {"up_1", "up_2"}
    features = tree["up_2"]["features"]
    assert features.dims == ("tau", "seed", "frame", "channel", "y", "x")
    assert features.shape == (2, 2, 7, 16, 8, 12)
    assert features.dtype == np.float32
    assert features.sel(tau=900)["sigma"] == pytest.approx(video.sigma(900))
    assert features.sel(tau=900)["log_snr"] == pytest.approx(-2 * np.log(video.sigma(900)))
    # A cell of 4 pixels is centred between its second and third.
    assert_allclose(features["y"], np.arange(8) * 4 + 1.5)
    assert_allclose(features["x"], np.arange(12) * 4 + 1.5)
    assert not np.allclose(features.sel(seed=0), features.sel(seed=5))
    assert not np.allclose(features.sel(tau=100), features.sel(tau=900))


def test_attributes_make_the_result_again(video: DiffusionModel, clip: tl.Clip) -> None:
    tree = tl.probe(video, clip, tau=[300], blocks="up_1", seed=4, overlap=1, window=4)
    about = tree.attrs
    assert about["weights_sha256"] == video.weights_sha256
    assert about["model"] == "tiny"
    again = tl.probe(
        video,
        clip,
        tau=about["taus"],
        blocks=about["blocks"],
        seed=about["seeds"],
        overlap=about["overlap"],
        window=about["window"],
        size=tuple(about["input_size"]),
    )
    xr.testing.assert_identical(again["up_1"].to_dataset(), tree["up_1"].to_dataset())
    assert tree["up_1"]["features"].attrs["block"] == "up_1"


def test_features_are_the_blocks_own_output(video: DiffusionModel, clip: tl.Clip) -> None:
    """One window, no early stop: what a plain hook on a plain forward sees."""
    prepared = Prepared(video, clip)
    noise = tl.models.noise.frame_noise(2, range(7), tuple(prepared.clean.shape[1:]))
    seen = []
    handle = video.pipeline.unet.up_blocks[1].register_forward_hook(lambda *a: seen.append(a[2]))
    with torch.no_grad():
        video.run(video.add_noise(prepared.clean, noise, 700), 700, prepared.conditions[0])
    handle.remove()
    features = tl.probe(video, clip, tau=700, blocks=["down_0", "up_1"], seed=2)["up_1"]["features"]
    assert_allclose(features[0, 0].values, seen[0].numpy(), rtol=1e-5, atol=1e-6)


# --- invariant 1: noise belongs to the frame ------------------------------------------------------


def test_a_frame_gets_the_same_noise_in_every_window(
    video: DiffusionModel, clip: tl.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[torch.Tensor] = []
    run = video.run

    def look(noisy: torch.Tensor, tau: int, condition: Any) -> None:
        given.append(noisy.clone())
        run(noisy, tau, condition)

    monkeypatch.setitem(vars(video), "run", look)
    tl.probe(video, clip, tau=800, blocks="up_0", window=4, overlap=2)
    tl.probe(video, clip, tau=800, blocks="up_0")
    *parts, whole = given
    ranges = windows(7, 4, 2)
    assert len(parts) == len(ranges) == 3
    for part, window in zip(parts, ranges, strict=True):
        assert torch.equal(part, whole[window.start : window.stop])


def test_taus_and_seeds_alone_equal_taus_and_seeds_together(video: DiffusionModel, clip: tl.Clip) -> None:
    together = tl.probe(video, clip, tau=[900, 100], blocks="up_1", seed=[3, 1], window=4)["up_1"]["features"]
    alone = tl.probe(video, clip, tau=100, blocks="up_1", seed=1, window=4)["up_1"]["features"]
    assert np.array_equal(together.sel(tau=[100], seed=[1]), alone)


# --- invariant 2: one forward, all blocks ---------------------------------------------------------


def test_one_forward_a_window_and_tau_that_stops_after_the_deepest_block(
    video: DiffusionModel, clip: tl.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = dict.fromkeys(("forward", "up_1", "up_2", "conv_out", "vae", "text", "image"), 0)
    pipeline = video.pipeline
    watched = {
        "up_1": pipeline.unet.up_blocks[1],
        "up_2": pipeline.unet.up_blocks[2],
        "conv_out": pipeline.unet.conv_out,
        "text": pipeline.text_encoder,
        "image": pipeline.image_encoder,
    }
    handles = [pipeline.unet.register_forward_pre_hook(lambda *_: counts.update(forward=counts["forward"] + 1))]
    for name, module in watched.items():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: counts.update({name: counts[name] + 1})))
    encode = pipeline.vae.encode

    def counted(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        counts["vae"] += len(x)
        return encode(x, *args, **kwargs)

    monkeypatch.setattr(pipeline.vae, "encode", counted)
    vars(video).pop("text", None)
    tl.probe(video, clip, tau=[100, 500, 900], blocks=["down_1", "mid", "up_0", "up_1"], window=4, overlap=2)
    for handle in handles:
        handle.remove()
    assert counts["forward"] == 3 * 3  # windows x taus, whatever the blocks
    assert counts["up_1"] == 9
    assert counts["up_2"] == counts["conv_out"] == 0  # stopped
    assert counts["vae"] == len(clip)  # each frame once
    assert counts["text"] == 1
    assert counts["image"] == 3  # the first frame of each window, for all taus


def test_hooks_are_gone_after_a_probe_and_after_an_error(
    video: DiffusionModel, clip: tl.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    tl.probe(video, clip, tau=100, blocks="up_1")

    def broken(*_: Any) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setitem(vars(video), "run", broken)
        with pytest.raises(RuntimeError, match="broken"):
            tl.probe(video, clip, tau=100, blocks="up_1")
    assert not any(module._forward_hooks for module in video.unet.modules())


# --- noise levels and samples ---------------------------------------------------------------------


def test_noise_levels_by_sigma_and_by_log_snr(video: DiffusionModel, clip: tl.Clip) -> None:
    taus = [100, 600]
    expected = tl.probe(video, clip, tau=taus, blocks="up_0")
    # Not quite that of a training timestep: the nearest one is meant.
    sigmas = [video.sigma(t) * 1.0001 for t in taus]
    by_sigma = tl.probe(video, clip, sigma=sigmas, blocks="up_0")
    by_log_snr = tl.probe(video, clip, log_snr=[-2 * np.log(s) for s in sigmas], blocks="up_0")
    for found in (by_sigma, by_log_snr):
        xr.testing.assert_identical(found["up_0"].to_dataset(), expected["up_0"].to_dataset())
    assert tl.probe(video, clip, sigma=np.inf, blocks="up_0").attrs["taus"] == [999]  # no signal left


def test_samples_are_averaged(image: DiffusionModel, clip: tl.Clip) -> None:
    mean = tl.probe(image, clip, tau=51, blocks="up_0", samples=3)
    clean = Prepared(image, clip).clean
    each = []
    for sample in range(3):
        noise = tl.models.noise.frame_noise(0, range(7), tuple(clean.shape[1:]), sample=sample)
        with tl.probing.record({"up_0": Tap(image.module("up_0"), first_tensor)}, "up_0") as seen, torch.no_grad():
            image.run(image.add_noise(clean, noise, 51), 51, {})
        each.append(seen["up_0"].numpy())
    assert not np.allclose(each[0], each[1])
    assert_allclose(mean["up_0"]["features"][0, 0], np.mean(each, 0), rtol=1e-4, atol=1e-5)
    assert mean.attrs["samples"] == 3


def test_probing_goes_on_with_fewer_frames_when_memory_runs_out(
    image: DiffusionModel, video: DiffusionModel, clip: tl.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU would refuse it; images in smaller batches, and for a video's one window a clear sentence."""
    expected = tl.probe(image, clip, tau=[51, 100], blocks="up_0")
    given: list[int] = []
    run = image.run

    def small(noisy: torch.Tensor, tau: int, condition: Any) -> None:
        given.append(len(noisy))
        if len(noisy) > 2:
            raise torch.OutOfMemoryError
        run(noisy, tau, condition)

    monkeypatch.setitem(vars(image), "run", small)
    with pytest.warns(UserWarning, match="goes on with 3 frames") as warned:
        features = tl.probe(image, clip, tau=[51, 100], blocks="up_0")
    assert "goes on with 1 frames" in str(warned[-1].message)
    assert given == [7, 3] + [1] * 14  # and from then on at once
    assert_allclose(features["up_0"]["features"], expected["up_0"]["features"], rtol=1e-4, atol=1e-5)

    def never(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setitem(vars(video), "run", never)
    with pytest.raises(tl.TedlensError, match=r"no room for 4 frame\(s\) of 32x48 pixels.*offload"):
        tl.probe(video, clip, tau=51, blocks="up_0", window=4)


# --- windows and sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "window", "overlap"), [(7, 4, 2), (40, 16, 2), (40, 16, 0), (17, 16, 2), (5, 8, 3)])
def test_windows_cover_every_frame_with_the_overlap(frames: int, window: int, overlap: int) -> None:
    found = windows(frames, window, overlap)
    assert sorted({f for w in found for f in w}) == list(range(frames))
    assert all(len(w) == min(window, frames) for w in found)
    for left, right in pairwise(found):
        assert left.stop - right.start >= overlap


def test_image_models_see_each_frame_once() -> None:
    assert [f for w in windows(19, None, 2) for f in w] == list(range(19))


@pytest.mark.parametrize("stitch", ["first", "mean"])
def test_where_windows_overlap(video: DiffusionModel, clip: tl.Clip, stitch: Any) -> None:
    probed = tl.probe(video, clip, tau=400, blocks="up_1", window=4, overlap=1, stitch=stitch)
    features = probed["up_1"]["features"][0, 0]
    # Alone, each window's frames keep their place in the clip, so their noise is the same.
    prepared = Prepared(video, clip, window=4, overlap=1)
    parts = []
    for window, condition in zip(prepared.windows, prepared.conditions, strict=True):
        noise = tl.models.noise.frame_noise(0, window, tuple(prepared.clean.shape[1:]))
        noisy = video.add_noise(prepared.clean[window.start : window.stop], noise, 400)
        with tl.probing.record({"up_1": Tap(video.module("up_1"), first_tensor)}, "up_1") as seen, torch.no_grad():
            video.run(noisy, 400, condition)
        parts.append(seen["up_1"].numpy())
    assert [list(w) for w in prepared.windows] == [[0, 1, 2, 3], [3, 4, 5, 6]]
    shared = parts[0][3] if stitch == "first" else (parts[0][3] + parts[1][0]) / 2
    assert_allclose(features[3], shared, rtol=1e-5, atol=1e-6)
    assert_allclose(features[0], parts[0][0], rtol=1e-5, atol=1e-6)
    assert_allclose(features[4], parts[1][1], rtol=1e-5, atol=1e-6)
    assert probed.attrs["stitch"] == stitch


def test_an_unknown_stitch_is_refused(video: DiffusionModel, clip: tl.Clip) -> None:
    with pytest.raises(tl.TedlensError, match=r"stitch='last' is not known; choose 'first' or 'mean'"):
        tl.probe(video, clip, tau=400, stitch="last")  # type: ignore[arg-type]


def test_image_features_do_not_depend_on_other_frames(image: DiffusionModel, clip: tl.Clip) -> None:
    whole = tl.probe(image, clip, tau=51, blocks="up_0")["up_0"]["features"]
    start = tl.probe(image, clip[:3], tau=51, blocks="up_0")["up_0"]["features"]
    assert_allclose(whole[:, :, :3], start, rtol=1e-4, atol=1e-5)


def test_input_size() -> None:
    assert input_size((480, 854), 480, 8) == (480, 856)
    assert input_size((1080, 1920), 480, 64) == (512, 832)
    assert input_size((100, 100), (30, 50), 8) == (32, 48)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"tau": 1000}, "tau=1000"),
        ({"tau": [100.5]}, "tau=100.5"),
        ({"tau": []}, "empty list"),
        ({"tau": 5, "blocks": "up_9"}, "'up_9'.*choose from down_0"),
        ({"tau": 5, "blocks": []}, "No block"),
        ({"tau": 5, "window": 4, "overlap": 4}, "overlap=4"),
        ({"tau": 5, "seed": -1}, "seed=-1"),
        ({"tau": 5, "size": 0}, "size=0"),
        ({"tau": 5, "samples": 0}, "samples=0"),
        ({}, "one of tau, sigma and log_snr"),
        ({"tau": 5, "sigma": 1.0}, "one of tau, sigma and log_snr"),
        ({"sigma": -1.0}, "sigma=-1 is negative"),
        ({"log_snr": 99.0}, "log_snr=99 .*outside of what 'tiny' was trained on"),
    ],
)
def test_wrong_arguments(video: DiffusionModel, clip: tl.Clip, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(tl.TedlensError, match=words):
        tl.probe(video, clip, **wrong)


# --- on disk --------------------------------------------------------------------------------------


def test_features_to_zarr_and_back(video: DiffusionModel, clip: tl.Clip, tmp_path: Path) -> None:
    tree = tl.probe(video, clip, tau=[100, 999], blocks=["up_0", "up_1"])
    path = tl.save(tree, tmp_path / "features.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = tl.load(path)
    xr.testing.assert_identical(back.load(), tree)
    assert [p.name for p in tmp_path.iterdir()] == ["features.zarr"]


def test_save_replaces_a_store_but_nothing_else(tmp_path: Path) -> None:
    result = xr.DataArray([1.0], dims="tau", name="J")
    path = tl.save(result, tmp_path / "a.zarr")
    tl.save(result + 1, path)
    assert xr.open_dataset(path, engine="zarr", consolidated=False)["J"].item() == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").touch()
    with pytest.raises(tl.TedlensError, match="left alone"):
        tl.save(result, tmp_path / "mine")


def test_a_result_that_xarray_has_worked_on_is_saved(video: DiffusionModel, clip: tl.Clip, tmp_path: Path) -> None:
    features = tl.probe(video, clip, tau=[100, 999], blocks="up_0")["up_0"]["features"]
    stored = xr.open_dataset(tl.save(features, tmp_path / "a.zarr"), engine="zarr", consolidated=False)[
        "features"
    ].chunk(frame=1)
    worked = {
        "selected": stored.sel(tau=100).isel(frame=slice(0, 1)),
        "rechunked": stored.chunk(channel=2),
        "joined": xr.concat([stored, stored.assign_coords(tau=[5, 6])], "tau"),
    }
    for name, one in worked.items():
        back = tl.load(tl.save(one, tmp_path / f"{name}.zarr"))
        xr.testing.assert_equal(back.load(), one.load())
    attrs = {
        "path": tmp_path,
        "set": {2, 1},
        "date": datetime.date(2026, 1, 2),
        "array": np.ones((2, 2)),
        "n": np.int64(3),
    }
    back = tl.load(tl.save(features.assign_attrs(attrs), tmp_path / "attrs.zarr"))
    assert back.attrs["set"] == [1, 2]
    assert back.attrs["date"] == "2026-01-02"
    assert back.attrs["array"] == [[1, 1], [1, 1]]
    assert back.attrs["path"] == str(tmp_path)
    for unstorable, words in [
        (features.stack(cell=("y", "x")), "MultiIndex"),
        (features.rename("tau"), "axis 'tau'"),
        (features.assign_attrs(data=b"1"), "attribute 'data'"),
    ]:
        with pytest.raises(tl.TedlensError, match=words):
            tl.save(unstorable, tmp_path / "no.zarr")
        assert not (tmp_path / "no.zarr").exists()


def test_a_result_never_replaces_a_sweep_or_somebody_s_store(tmp_path: Path) -> None:
    result = xr.DataArray([1.0], dims="tau", name="J")
    xr.Dataset({"a": ("x", [1])}).to_zarr(tmp_path / "theirs.zarr", zarr_format=3)
    (tmp_path / "sweep.zarr").mkdir()
    (tmp_path / "sweep.zarr/zarr.json").write_text(
        '{"zarr_format": 3, "node_type": "group", "attributes": {"tedlens_sweep": 2}}'
    )
    for name in ("theirs.zarr", "sweep.zarr"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(tl.TedlensError, match="left alone"):
            tl.save(result, tmp_path / name)
        assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(tl.TedlensError, match="did not write"):
        tl.load(tmp_path / "theirs.zarr")
    with pytest.raises(tl.TedlensError, match="no Zarr v3 store"):
        tl.load(tmp_path / "nowhere.zarr")


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    result = xr.DataArray([1.0], dims="tau", name="J")
    tl.save(result, tmp_path / "disk/a.zarr")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "disk/a.zarr")
    tl.save(result + 1, tmp_path / "link.zarr")
    assert (tmp_path / "link.zarr").is_symlink()
    assert tl.load(tmp_path / "disk/a.zarr").item() == 2


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_killed_while_it_replaces_the_old_store_or_the_new_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """At the first and second renaming, and at the removal of what was replaced."""
    result, path, calls = xr.DataArray([1.0], dims="tau", name="J"), tmp_path / "a.zarr", itertools.count(1)
    tl.save(result, path)

    class Killed(BaseException):
        pass

    def kill(plain: Any) -> Any:
        def dying(*given: Any, **how: Any) -> Any:
            if Path(given[0]).parent == tmp_path and next(calls) == killed_at:
                raise Killed
            return plain(*given, **how)

        return dying

    # A kill runs no clean-up of ours.
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", kill(os.replace))
        patched.setattr(shutil, "rmtree", kill(shutil.rmtree))
        with pytest.raises(Killed):
            tl.save(result + 1, path)
    left = subprocess.Popen(["true"])  # a process that is no more
    left.wait()
    (tmp_path / f".a.zarr-new-{left.pid}-x").mkdir()
    tl.save(result + 2, tmp_path / "other.zarr")
    tl.save(result + 3, path)
    assert tl.load(path).item() == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "other.zarr"]


def test_a_failed_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tl.save(xr.DataArray([1.0], dims="tau", name="J"), tmp_path / "a.zarr")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_zarr", full)
    with pytest.raises(tl.TedlensError, match="No space left"):
        tl.save(xr.DataArray([2.0], dims="tau", name="J"), path)
    monkeypatch.undo()
    assert xr.open_dataset(path, engine="zarr", consolidated=False)["J"].item() == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_probing_leaves_the_callers_gradients_alone(video: DiffusionModel, clip: tl.Clip) -> None:
    """Also while a generator waits, and when two that take turns are dropped unfinished."""
    prepared = Prepared(video, clip)
    one, other = (prepared.features([300, 600], [0], ["up_1"]) for _ in range(2))
    for cells in (one, other, one):
        _, _, features = next(cells)
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert not features["up_1"].requires_grad
        assert not features["up_1"].is_inference()
    del one, other
    assert torch.is_grad_enabled()
    weight = torch.ones(3, requires_grad=True)
    (weight * features["up_1"][0, :3, 0, 0]).sum().backward()
    assert weight.grad is not None


def test_what_made_a_clip_does_not_hide_its_size() -> None:
    """A clip of `similar` has a shape (ball) and a size of its own."""
    made = tl.datasets.similar(0, size=32, frames=4)
    features = tl.probe(tl.load_image_model("mini"), made, tau=51, blocks="up_0")["up_0"]["features"]
    assert features.attrs["clip_shape"] == [4, 32, 32]
    assert features.attrs["clip_made_shape"] == "ball"
    labels = tl.propagate(features.isel(tau=0, seed=0), made.masks)
    assert float(tl.evaluate(labels, made.masks)["J"].mean()) > 0.1


def test_features_are_written_to_a_store_as_they_come(
    video: DiffusionModel, clip: tl.Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {"tau": [100, 900], "seed": [0, 5], "blocks": ["up_1", "up_2.resnets.0"]}
    whole = tl.probe(video, clip, **how)
    stored = tl.probe(video, clip, **how, store=tmp_path / "f.zarr")
    tl.save(whole, tmp_path / "saved.zarr")
    saved = tl.load(tmp_path / "saved.zarr")
    assert stored.attrs == saved.attrs
    for name in whole.children:
        xr.testing.assert_identical(stored[name].to_dataset().load(), saved[name].to_dataset().load())
        assert stored[name]["features"].encoding["chunks"][:3] == (1, 1, 1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").touch()
    with pytest.raises(tl.TedlensError, match="is left alone"):
        tl.probe(video, clip, **how, store=tmp_path / "mine")
    monkeypatch.setitem(vars(video), "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tl.probe(video, clip, **how, store=tmp_path / "g.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.zarr", "mine", "saved.zarr"]


def test_what_no_memory_holds_is_refused_before_the_work(
    video: DiffusionModel, clip: tl.Clip, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tedlens.probing.features.LOOKED_AT", 1)
    monkeypatch.setattr("tedlens.probing.features.SAID", 1000)
    monkeypatch.setattr("tedlens.probing.features._free_memory", lambda: 10**6)
    tl.probe(video, clip, tau=100, blocks="up_2")  # 7 frames of 16 channels on 8x12 cells
    assert capsys.readouterr().out == "Features of 0.0 GB.\n"
    monkeypatch.setattr("tedlens.probing.features._free_memory", lambda: 4 * 7 * 16 * 8 * 12 - 1)
    monkeypatch.setitem(vars(video), "encode", lambda *_: pytest.fail("it encoded"))
    with pytest.raises(tl.TedlensError, match="of memory are free; give store="):
        tl.probe(video, clip, tau=100, blocks="up_2")


def test_an_embedded_model_is_not_for_photographs() -> None:
    model = tl.load_video_model("mini", size=32)
    photograph = tl.Clip(np.zeros((2, 240, 320, 3), np.uint8), name="street")
    with pytest.warns(
        UserWarning, match=r"has only ever seen drawn balls.*features of 'street' \(240x320\) say little"
    ):
        tl.probe(model, photograph, tau=600, blocks="up_1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tl.probe(model, tl.datasets.similar(0, frames=2, size=64), tau=600, blocks="up_1")


def kinds_of(attrs: dict[str, Any]) -> list[str]:
    """Of attributes, in their order, whether each tells a setting, the clip, a model, a hash or a version."""
    kinds = {"version_": "version", "_sha256": "hash", "_revision": "hash", "clip": "clip", "model": "model"}
    bare = [name.removeprefix("motion_").removeprefix("appearance_") for name in attrs]
    told = [
        next(
            (kind for part, kind in kinds.items() if part.strip("_") in name), "model" if name == "dtype" else "setting"
        )
        for name in bare
    ]
    return [kind for kind, _ in itertools.groupby(told)]


def test_attributes_are_in_groups(clip: tl.Clip, tmp_path: Path) -> None:
    video, image = tiny.Toy(), tiny.Toy(window=None)
    probed = tl.probe(video, clip, tau=500, blocks="up_0")
    groups = ["setting", "clip", "model", "hash", "version"]
    assert kinds_of(probed.attrs) == kinds_of(probed["up_0"]["features"].attrs) == groups
    tracked = tl.track(clip, motion=video, appearance=image, block="up_0", radius=2)
    assert kinds_of(tracked.attrs) == kinds_of(tracked["labels"].attrs) == groups
    assert kinds_of(tl.load(tl.save(tracked, tmp_path / "tracked.zarr")).attrs) == groups
    how: dict[str, Any] = {"motion": video, "tau": 500, "radius": 2, "progress": False}
    swept = ["setting", "model", "hash", "version"]  # clips are an axis
    assert kinds_of(tl.sweep([clip], **how).attrs) == swept
    assert kinds_of(tl.sweep([clip], **how, store=tmp_path / "sweep.zarr").attrs) == swept
    assert kinds_of(tl.open_sweep(tmp_path / "sweep.zarr").attrs) == swept


@pytest.mark.parametrize("tau", [0.5, "600", None])
def test_a_tau_that_is_no_whole_number_is_one_sentence(video: DiffusionModel, clip: tl.Clip, tau: Any) -> None:
    with pytest.raises(tl.TedlensError, match=r"whole number|one of tau, sigma and log_snr"):
        tl.probe(video, clip, tau=tau, blocks="up_1")
