"""What can be read out where: planted information is found, none is made up, and clips never leak."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import tedlens as tl
from tedlens.analysis import decode, object_features
from tedlens.clip import Clip
from tedlens.errors import TedlensError

CHANNELS = 6


def made_features(clip: Clip, seed: int = 0, grid: tuple[int, int] = (8, 12)) -> xr.DataArray:
    values = np.random.default_rng(seed).normal(size=(2, 2, len(clip), CHANNELS, *grid)).astype(np.float32)
    coords = {"tau": [600, 100], "seed": [3, 4], "log_snr": ("tau", [-2.0, 3.0]), "frame": range(len(clip))}
    return xr.DataArray(
        values, dims=("tau", "seed", "frame", "channel", "y", "x"), coords=coords, attrs={"block": "up_1"}
    )


# --- object_features --------------------------------------------------------------------------------


def test_object_features_are_means_over_pixels() -> None:
    clip = tl.datasets.similar(1, frames=4, size=(16, 24))
    assert clip.masks is not None
    features = made_features(clip)
    found = object_features(features, clip)
    assert found.dims == ("tau", "seed", "object", "frame", "channel")
    assert found.attrs == features.attrs
    np.testing.assert_array_equal(found["log_snr"], features["log_snr"])
    np.testing.assert_array_equal(found["object"], [0, 1, 2])
    large = features.values.repeat(2, axis=-2).repeat(2, axis=-1)  # as large as the clip
    for t in range(4):
        mask = np.asarray(clip.masks[t])
        mirror = (mask[:, ::-1] > 0) & (mask == 0)
        for number, region in enumerate((mirror, mask == 1, mask == 2)):
            expected = large[:, :, t][..., region].mean(-1)
            np.testing.assert_allclose(found[:, :, number, t], expected, rtol=1e-4, atol=1e-5)


def test_sides_are_differences_of_the_halves_of_what_shows() -> None:
    clip = tl.datasets.similar(1, frames=4, size=(16, 24))
    assert clip.masks is not None
    features = made_features(clip)
    found = object_features(features, clip, sides=True)
    assert found["pooling"].values.tolist() == ["mean"] * 6 + ["lower - upper"] * 6 + ["right - left"] * 6
    mean = found.sel(channel=found["pooling"] == "mean")
    np.testing.assert_array_equal(mean, object_features(features, clip))
    large = features.values.repeat(2, axis=-2).repeat(2, axis=-1)
    ys, xs = np.mgrid[:16, :24]
    for t in range(4):
        for number in (1, 2):
            mask = np.asarray(clip.masks[t]) == number
            for part, place in (("lower - upper", ys), ("right - left", xs)):
                one, other = (mask & side for side in (place > place[mask].mean(), place < place[mask].mean()))
                expected = large[:, :, t][..., one].mean(-1) - large[:, :, t][..., other].mean(-1)
                side = found.sel(channel=found["pooling"] == part)[:, :, number, t]
                np.testing.assert_allclose(side, expected, rtol=1e-4, atol=1e-5)


def test_what_is_one_pixel_wide_has_no_sides() -> None:
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    masks = np.zeros((1, 8, 8), np.uint8)
    masks[0, 2:5, 3] = 1
    found = object_features(made_features(Clip(frames, masks)), Clip(frames, masks), sides=True).sel(object=1)
    assert np.isnan(found.sel(channel=found["pooling"] == "right - left")).all()
    assert not np.isnan(found.sel(channel=found["pooling"] != "right - left")).any()


def test_velocity_that_cancels_in_the_mean_is_read_from_the_sides() -> None:
    """An edge in front and an edge behind, of opposite signs: what a difference of frames gives."""
    features, truths = {False: [], True: []}, []
    for seed in range(24):
        clip = tl.datasets.similar(seed, objects=1, motion="drift", frames=8, size=32)
        assert clip.masks is not None
        assert clip.objects is not None
        shape = np.pad(clip.masks == 1, ((1, 1), (0, 0), (0, 0)), mode="edge").astype(np.float32)
        change = (shape[2:] - shape[:-2])[None, None, :, None]
        made = xr.DataArray(
            change,
            dims=("tau", "seed", "frame", "channel", "y", "x"),
            coords={"tau": [0], "seed": [0], "frame": range(8)},
        )
        for sides, each in features.items():
            each.append(object_features(made, clip, sides=sides))
        truths.append(clip.objects)
    of_mean, of_sides = (decode(features[sides], truths, targets=["velocity"])["score"] for sides in (False, True))
    assert of_mean.item() < 0.1
    assert of_sides.item() > 0.4


@pytest.mark.parametrize("grid", [(5, 7), (32, 48)])  # cells that are no whole number of pixels, and smaller ones
def test_object_features_fit_any_grid(grid: tuple[int, int]) -> None:
    clip = tl.datasets.similar(1, frames=3, size=(16, 24))
    assert clip.masks is not None
    features = made_features(clip, grid=grid)
    found = object_features(features, clip)
    ys, xs = np.nonzero(np.asarray(clip.masks[1]) == 2)
    cells = [(int((y + 0.5) * grid[0] / 16), int((x + 0.5) * grid[1] / 24)) for y, x in zip(ys, xs, strict=True)]
    expected = np.mean([features.values[1, 0, 1, :, y, x] for y, x in cells], axis=0)
    np.testing.assert_allclose(found.sel(object=2)[1, 0, 1], expected, rtol=1e-4, atol=1e-5)


def test_an_object_that_does_not_show_has_no_features() -> None:
    clip = tl.datasets.similar(1, frames=3, size=16)
    assert clip.masks is not None
    masks = np.array(clip.masks)
    masks[1][masks[1] == 2] = 255  # nobody knows: no region of anything
    found = object_features(made_features(clip), Clip(clip.frames, masks))
    assert np.isnan(found.sel(object=2).isel(frame=1)).all()
    assert not np.isnan(found.sel(object=1)).any()


def test_object_features_of_a_tree_are_a_tree() -> None:
    clip = tl.datasets.similar(1, frames=3, size=16)
    one, two = made_features(clip), made_features(clip, 1, grid=(4, 4))
    tree = xr.DataTree.from_dict({"up_1": one.to_dataset(name="features"), "up_2": two.to_dataset(name="features")})
    found = object_features(tree, clip)
    xr.testing.assert_equal(found["up_2"]["features"], object_features(two, clip))
    chosen = object_features(two.sel(tau=600), clip)  # one tau is a tau, too
    np.testing.assert_array_equal(chosen, found["up_2"]["features"].sel(tau=[600]))


def test_features_are_the_same_from_disk(tmp_path: Path) -> None:
    clip = tl.datasets.similar(1, frames=3, size=16)
    one = made_features(clip)
    tree = xr.DataTree.from_dict({"up_1": one.to_dataset(name="features")})
    # One block alone as well as a tree; and nothing that Zarr has no specification for.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = [tl.save(one.rename("features"), tmp_path / "one.zarr"), tl.save(tree, tmp_path / "tree.zarr")]
        tl.save(object_features(tree, clip, sides=True), tmp_path / "objects.zarr")
    for path in paths:
        found = object_features(xr.open_datatree(path, engine="zarr", consolidated=False), clip)
        np.testing.assert_array_equal(found["up_1"]["features"], object_features(one, clip))


def test_object_features_say_what_does_not_fit() -> None:
    clip = tl.datasets.similar(1, frames=3, size=16)
    with pytest.raises(TedlensError, match="no masks"):
        object_features(made_features(clip), Clip(clip.frames))
    with pytest.raises(TedlensError, match=r"3 frames .* of 2"):
        object_features(made_features(clip), clip[:2])
    with pytest.raises(TedlensError, match="axes frame, y, x"):
        object_features(made_features(clip)[0, 0, :, 0].drop_vars(["tau", "seed"]), clip)


# --- decode -----------------------------------------------------------------------------------------


def truth_of(rng: np.random.Generator, frames: int = 8) -> xr.Dataset:
    """Two objects of one look in lasting motion."""
    velocity = np.repeat(rng.normal(size=(2, 1, 2)), frames, axis=1)
    centre = rng.normal(size=(2, 1, 2)) + velocity * np.arange(frames)[:, None]
    colour = np.repeat(rng.random((1, 3)), 2, axis=0)
    return xr.Dataset(
        {
            "centre": (("object", "frame", "axis"), centre),
            "velocity": (("object", "frame", "axis"), velocity),
            "colour": (("object", "rgb"), colour),
        },
        coords={"object": [1, 2]},
    )


def pooled(rng: np.random.Generator, signal: np.ndarray[Any, Any], taus: tuple[int, ...] = (600,)) -> xr.DataArray:
    """Object features (.., background and two objects, frame, channel): `signal` (2, frame, k) mixed, and noise."""
    mix = np.random.default_rng(99).normal(size=(signal.shape[-1], CHANNELS))
    values = 0.05 * rng.normal(size=(len(taus), 1, 3, signal.shape[1], CHANNELS))
    values[:, :, 1:] += signal @ mix
    dims = ("tau", "seed", "object", "frame", "channel")
    return xr.DataArray(values, dims=dims, coords={"tau": list(taus), "seed": [0], "object": [0, 1, 2]})


def test_what_is_planted_is_read_and_nothing_else_is() -> None:
    rng = np.random.default_rng(0)
    truths = [truth_of(rng) for _ in range(24)]
    features = [pooled(rng, truth["velocity"].values) for truth in truths]
    score = decode(features, truths)["score"].squeeze()
    assert score.sel(target="velocity") > 0.98
    assert score.sel(target="identity") > 0.8  # lasting velocity is an identity
    assert score.sel(target="object") > 0.55
    assert score.sel(target="colour") < 0.1


def test_score_is_r2_against_the_mean_of_the_training_clips() -> None:
    """With no regularisation to choose, by hand: noise-free features of one component less than the target."""
    rng = np.random.default_rng(1)
    truths = [truth_of(rng) for _ in range(8)]
    features = [pooled(rng, truth["velocity"].values[..., :1]) for truth in truths]
    found = decode(features, truths, targets=["velocity"], folds=4)
    ys = np.stack([truth["velocity"].values[:, 0] for truth in truths])  # clip, object, axis
    # The first component is read, the second is not: what is left is the second's share of the variance.
    share = ys[..., 1].var() / (ys[..., 0].var() + ys[..., 1].var())
    assert float(found["score"].squeeze()) == pytest.approx(1 - share, abs=0.15)
    assert found["measure"].values.tolist() == ["R2"]
    assert 0 < float(found["error"].squeeze()) < 0.3


def test_frames_of_one_clip_are_never_on_both_sides() -> None:
    """A code of each clip tells its colour to whoever has seen the clip, and nothing of other clips."""
    rng = np.random.default_rng(2)
    truths = [truth_of(rng) for _ in range(10)]
    codes = [np.tile(code, (1, 1, 3, 8, 1)) for code in np.eye(10)]
    dims, coords = ("tau", "seed", "object", "frame", "channel"), {"tau": [600], "object": [0, 1, 2]}
    features = [xr.DataArray(code, dims=dims, coords=coords) for code in codes]
    assert float(decode(features, truths, targets=["colour"])["score"].squeeze()) < 0.2


def test_identity_needs_what_lasts_and_differs() -> None:
    rng = np.random.default_rng(3)
    truths = [truth_of(rng) for _ in range(16)]
    looks = [pooled(rng, np.broadcast_to(truth["colour"].values[:, None], (2, 8, 3))) for truth in truths]
    found = decode(looks, truths, targets=["identity", "object"])
    assert found["measure"].values.tolist() == ["accuracy", "accuracy"]
    assert float(found["score"].sel(target="identity").squeeze()) == pytest.approx(0.5, abs=0.1)  # they look alike
    assert float(found["score"].sel(target="object").squeeze()) > 0.7


def test_result_is_labelled_by_block_tau_and_target() -> None:
    rng = np.random.default_rng(4)
    truths = [truth_of(rng) for _ in range(4)]
    names = ("up_2", "up_1")  # not in order, and taus neither
    trees = []
    for truth in truths:
        arrays = [pooled(rng, truth[n].values, taus=(900, 0)) for n in ("velocity", "centre")]
        arrays = [a.assign_coords(log_snr=("tau", [-3.0, 5.0])).to_dataset(name="features") for a in arrays]
        trees.append(xr.DataTree.from_dict(dict(zip(names, arrays, strict=True))))
    found = decode(iter(trees), iter(truths), targets=["position", "velocity"], folds=4)
    assert dict(found.sizes) == {"block": 2, "tau": 2, "target": 2}
    assert found["block"].values.tolist() == list(names)
    assert found["tau"].values.tolist() == [900, 0]
    assert found["log_snr"].values.tolist() == [-3, 5]
    score = found["score"]
    assert (score.sel(block="up_2", target="velocity") > 0.9).all()
    assert (score.sel(block="up_1", target="position") > 0.9).all()
    assert (score.sel(block="up_1", target="velocity") < 0.9).all()
    assert found.attrs == {"clips": 4, "folds": 4}


def test_decode_says_what_does_not_fit() -> None:
    rng = np.random.default_rng(5)
    truths = [truth_of(rng) for _ in range(4)]
    features = [pooled(rng, truth["velocity"].values) for truth in truths]
    for wrong, message in (
        ({"targets": ["speed"]}, r"\['speed'\].*velocity, position, colour, identity, object"),
        ({"folds": 5}, "folds=5 does not fit 4 clips"),
        ({"folds": 2}, "folds=2 does not fit 4 clips"),  # two clips are too few to choose regularisation by
    ):
        with pytest.raises(TedlensError, match=message):
            decode(features, truths, **wrong)
    with pytest.raises(TedlensError, match="features of 4 clips and truths of 3"):
        decode(features, truths[:3])
    with pytest.raises(TedlensError, match="8 frames and a truth of 3"):
        decode(features, [truth.isel(frame=slice(3)) for truth in truths])
    numbered = [each.assign_coords(frame=np.arange(8)) for each in features]
    known = [truth.assign_coords(frame=np.arange(8)) for truth in truths]
    of_a_part = [truth.assign_coords(frame=np.arange(5, 13)) for truth in truths]
    for given in (known, of_a_part):
        how: dict[str, Any] = {"targets": ["velocity"], "folds": 4}
        xr.testing.assert_equal(decode(numbered, given, **how), decode(features, truths, **how))
    with pytest.raises(TedlensError, match=r"features of frames 7, 6, .* and a truth of 0 to 7"):
        decode([each.isel(frame=slice(None, None, -1)) for each in numbered], known)
    with pytest.raises(TedlensError, match="clip 0 does not tell velocity, position, colour; give"):
        decode(features, [None] * 4)  # type: ignore[list-item]  # what Clip.objects of a dataset without truth is
    with pytest.raises(TedlensError, match="clip 0 does not tell colour; give"):
        decode(features, [truth.drop_vars("colour") for truth in truths])
    with pytest.raises(TedlensError, match="other taus"):
        decode([*features[:3], features[3].assign_coords(tau=[1])], truths)
    with pytest.raises(TedlensError, match=r"object_features\(\)"):
        decode([each.rename(object="y") for each in features], truths)
    single = [each.isel(object=[0, 1]) for each in features]
    with pytest.raises(TedlensError, match="0 clips that show 'identity'"):
        decode(single, truths, targets=["identity"], folds=4)
