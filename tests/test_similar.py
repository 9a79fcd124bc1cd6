"""The built-in test bed: the same pixels everywhere, and truth that agrees with them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import xarray as xr

import tedlens as tl
from tedlens.clip import Clip
from tedlens.datasets.synthetic.clip import _order
from tedlens.datasets.synthetic.motion import cross
from tedlens.datasets.synthetic.scene import WALL_Z, make_bodies
from tedlens.errors import TedlensError

SMALL: dict[str, Any] = {"frames": 6, "size": 48}
PINNED: list[tuple[dict[str, Any], str]] = [
    ({"seed": 0, **SMALL}, "318196fa15b9e3dd7f9d6e95e4ac028229244e5a892956794d685b43ab9d6901"),
    (
        {"seed": 1, "objects": 5, "looks": "distinct", "shape": "block", "motion": "bounce", **SMALL},
        "762ed05417d888f6418592f39b57c478726cf9918c0df4fe9f133eb68d7bd7f8",
    ),
    (
        {"seed": 2, "shape": "disc", "motion": "fall", **SMALL},
        "b6dc6f8f46be10abf2f2d57b8ae529df7b4493742200661ad097761fbe5ebf49",
    ),
    (
        {"seed": 3, "view": "top", "pan": 1.5, "frames": 6, "size": (40, 56)},
        "1a159c9165680b08218facbcb3d1ffbc7f71d7d9200dd122c6a29e5670c9432f",
    ),
    (
        {"seed": 5, "motion": "drift", "view": "top", "pan": -1.0, "frames": 6, "size": (40, 56)},
        "6db498abc71adcd600ab5cee24666dda066ef83546cd466b720828415863ad2c",
    ),
    ({"seed": 4, "texture": 0.5, **SMALL}, "39b46e47ea447c0b86b9cd56f8c9ae1c27bf77933db9f54a8af848dd27e441dc"),
]


def masks_of(clip: Clip) -> np.ndarray:
    assert clip.masks is not None
    return np.asarray(clip.masks)


def truth_of(clip: Clip) -> xr.Dataset:
    assert clip.objects is not None
    return clip.objects


def digest(clip: Clip) -> str:
    return hashlib.sha256(np.asarray(clip.frames).tobytes() + masks_of(clip).tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("arguments", "expected"), PINNED, ids=["ball", "block", "disc", "top-pan", "drift", "painted"]
)
def test_the_same_pixels_on_every_machine(arguments: dict[str, Any], expected: str) -> None:
    assert digest(tl.datasets.similar(**arguments)) == expected


def test_a_pure_function_of_its_arguments() -> None:
    first = tl.datasets.similar(7, **SMALL)
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    second = tl.datasets.similar(7, **SMALL)
    assert digest(first) == digest(second)
    xr.testing.assert_identical(truth_of(first), truth_of(second))
    assert digest(tl.datasets.similar(8, **SMALL)) != digest(first)


def test_size_is_height_and_width() -> None:
    clip = tl.datasets.similar(0, frames=3, size=(24, 40), fps=5.0)
    assert clip.frames.shape == (3, 24, 40, 3)
    assert masks_of(clip).shape == (3, 24, 40)
    assert clip.frames.dtype == masks_of(clip).dtype == np.uint8
    assert clip.fps == 5.0
    assert truth_of(clip).attrs["size"] == [24, 40]


def test_looks_decide_the_colours() -> None:
    colours = {
        looks: truth_of(tl.datasets.similar(4, objects=3, looks=looks, frames=1, size=16))["colour"].values
        for looks in ("identical", "similar", "distinct")
    }
    assert np.ptp(colours["identical"], axis=0).max() == 0
    assert 0 < np.ptp(colours["similar"], axis=0).max() <= 0.24 + 1e-12
    assert len(np.unique(colours["distinct"], axis=0)) == 3


@pytest.mark.parametrize("motion", ["cross", "bounce", "drift", "fall"])
def test_velocity_leads_from_one_centre_to_the_next(motion: Any) -> None:
    truth = truth_of(tl.datasets.similar(5, motion=motion, objects=3, pan=0.7, **SMALL))
    centre, velocity = (truth[name].transpose("object", "frame", "axis").values for name in ("centre", "velocity"))
    np.testing.assert_allclose(centre[:, :-1] + velocity[:, :-1], centre[:, 1:], atol=1e-10)
    assert np.abs(velocity).max() > 0.5


@pytest.mark.parametrize("view", ["perspective", "top"])
@pytest.mark.parametrize("shape", ["ball", "block", "disc"])
def test_centres_are_those_of_the_masks(shape: Any, view: Any) -> None:
    checked = 0
    for seed, motion in enumerate(("cross", "bounce", "drift", "fall")):
        clip = tl.datasets.similar(seed, shape=shape, motion=motion, view=view, objects=3, pan=0.5, frames=6, size=64)
        masks, truth = masks_of(clip), truth_of(clip)
        for number, t in np.ndindex(3, 6):
            mask = masks[t] == number + 1
            cut = mask[[0, -1]].any() or mask[:, [0, -1]].any()
            if truth["visible"].values[number, t] < 1 or cut:
                continue
            centroid = np.argwhere(mask).mean(axis=0)
            np.testing.assert_allclose(truth["centre"].values[number, t], centroid, atol=2)
            checked += 1
    assert checked > 15


def test_the_nearer_ball_owns_the_pixels_that_both_cover() -> None:
    """In `cross` a ball keeps its depth, and so its radius in the picture: overlaps follow from the centres."""
    shared = 0
    for seed in range(8):
        clip = tl.datasets.similar(seed, frames=12, size=64)
        masks, truth = masks_of(clip), truth_of(clip)
        y, x = np.indices(masks.shape[1:])
        radius = [np.sqrt(max((masks == n).sum(axis=(1, 2))) / np.pi) for n in (1, 2)]
        for t in range(12):
            inside = [
                np.hypot(y - cy, x - cx) < 0.85 * r
                for (cy, cx), r in zip(truth["centre"].values[:, t], radius, strict=True)
            ]
            nearer = int(truth["depth"].values[:, t].argmin()) + 1
            assert truth["depth_order"].values[nearer - 1, t] == 0
            both = inside[0] & inside[1]
            assert (masks[t][both] == nearer).all()
            shared += int(both.sum())
    assert shared > 100


def test_what_is_hidden_lies_behind_and_visible_is_a_share() -> None:
    hidden = 0
    for seed in range(10):
        truth = truth_of(tl.datasets.similar(seed, objects=3, frames=8, size=48))
        visible, order = truth["visible"].values, truth["depth_order"].values
        assert visible.min() >= 0
        assert visible.max() <= 1
        assert (np.sort(order, axis=0) == np.arange(3)[:, None]).all()
        hidden += int(((visible > 0) & (visible < 1)).sum())
        assert (order[(visible > 0) & (visible < 1)] > 0).all()
    assert hidden > 10


def test_at_equal_depth_the_first_object_is_in_front() -> None:
    assert _order(np.ones((8, 2))).tolist() == [[n, n] for n in range(8)]


@pytest.mark.parametrize("view", ["perspective", "top"])
def test_in_cross_two_balls_pass_and_keep_their_way(view: Any) -> None:
    ways = set()
    for seed in range(12):
        truth = truth_of(tl.datasets.similar(seed, view=view, frames=8, size=16)).sel(axis="x")
        apart = truth["centre"].values[0] - truth["centre"].values[1]
        assert apart[0] * apart[-1] < 0
        signs = np.sign(truth["velocity"].values)
        assert (signs == signs[:, :1]).all()
        assert (signs != 0).all()
        ways.add(bool(signs[0, 0] == signs[1, 0]))
    assert ways == {True, False}  # both overtaking and meeting happen


@pytest.mark.parametrize("view", ["perspective", "top"])
@pytest.mark.parametrize("pan", [0.0, 2.0])
def test_in_drift_velocities_last_and_what_leaves_comes_in_on_the_other_side(view: Any, pan: float) -> None:
    size, returns = 40, 0
    for seed in range(20):
        truth = truth_of(tl.datasets.similar(seed, motion="drift", view=view, objects=3, pan=pan, frames=24, size=size))
        velocity, visible = truth["velocity"].values, truth["visible"].values
        for number in range(3):
            steps = velocity[number]
            usual = np.median(steps, axis=0)
            jumps = np.abs(steps - usual).max(axis=1) > 1e-6
            # It comes round by more than the picture, against its way, and is seen neither before nor after.
            for t in np.flatnonzero(jumps[:-1]):
                assert visible[number, t] == visible[number, t + 1] == 0
                axis = np.abs(steps[t] - usual).argmax()
                assert abs(steps[t, axis] - usual[axis]) > size
                assert np.sign(steps[t, axis]) == -np.sign(usual[axis])
                returns += 1
    assert returns > 5


@pytest.mark.parametrize("frame", [0, 8, 15])
def test_in_drift_no_place_tells_the_way(frame: int) -> None:
    places, ways = [], []
    for seed in range(250):
        truth = truth_of(tl.datasets.similar(seed, motion="drift", view="top", frames=16, size=16))
        for one in (truth.isel(object=number) for number in range(2)):
            if one["visible"][frame] > 0:
                places.append(one["centre"].values[frame])
                ways.append(one["velocity"].values[frame])
    assert len(places) > 300
    for axis in (0, 1):
        # Three standard errors. Across the picture it is -0.98 at the start of clips that cross, 0.98 at their end.
        assert abs(np.corrcoef(np.array(places)[:, axis], np.array(ways)[:, axis])[0, 1]) < 3 / np.sqrt(len(places))


@pytest.mark.parametrize("objects", [1, 2, 5, 8])
def test_bounce_stays_in_the_picture(objects: int) -> None:
    for seed in range(3):
        truth = truth_of(
            tl.datasets.similar(seed, objects=objects, motion="bounce", view="top", frames=20, size=(24, 48))
        )
        x = truth["centre"].sel(axis="x").values
        assert x.min() >= 0
        assert x.max() <= 47


@pytest.mark.parametrize("objects", [2, 7, 8])
@pytest.mark.parametrize("looks", ["identical", "similar"])
def test_lanes_end_before_the_wall(objects: int, looks: str) -> None:
    for seed in range(10):
        rng = np.random.Generator(np.random.Philox(seed))
        bodies = make_bodies(rng, objects, looks, "ball")
        far = cross(rng, bodies, "perspective", 2)[:, :, 2].max(axis=1)
        assert all(z + body.radius <= WALL_Z + 1e-9 for z, body in zip(far, bodies, strict=True))


def test_pan_moves_the_background() -> None:
    arguments: dict[str, Any] = {"seed": 3, "view": "top", "frames": 4, "size": 64}
    still, moving = tl.datasets.similar(**arguments), tl.datasets.similar(**arguments, pan=2.0)

    def change(clip: Clip, shift: int) -> float:
        """Mean change of the background between frames 0 and 1, the second pushed right by `shift`."""
        first, second = (np.asarray(clip.frames[t], np.int64) for t in (0, 1))
        free = (masks_of(clip)[0] == 0) & (np.roll(masks_of(clip)[1], shift, axis=1) == 0)
        free[:, :6] = free[:, -6:] = False
        return float(np.abs(np.roll(second, shift, axis=1) - first)[free].mean())

    assert min(range(-5, 6), key=lambda shift: change(still, shift)) == 0
    assert min(range(-5, 6), key=lambda shift: change(moving, shift)) == 2
    drift = truth_of(moving)["velocity"] - truth_of(still)["velocity"]
    assert np.abs(drift.sel(axis="x") + 2).max() < 0.5
    assert np.abs(drift.sel(axis="y")).max() < 1e-9


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"objects": 0}, "objects=0"),
        ({"objects": 9}, "objects=9"),
        ({"shape": "cone"}, "shape='cone'"),
        ({"looks": "odd"}, "looks='odd'"),
        ({"motion": "spin"}, "motion='spin'"),
        ({"view": "side"}, "view='side'"),
        ({"frames": 0}, "frames=0"),
        ({"size": 4}, "size=(4, 4)"),
        ({"seed": -1}, "seed=-1"),
        ({"texture": 1.5}, "texture=1.5"),
    ],
)
def test_errors_name_the_value_in_one_sentence(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(TedlensError) as caught:
        tl.datasets.similar(**wrong)
    message = str(caught.value)
    assert named in message
    assert message.endswith(".")
    assert ". " not in message
    assert "\n" not in message


def test_a_pattern_moves_with_its_object() -> None:
    how: dict[str, Any] = {"frames": 16, "size": 96, "objects": 1}
    plain, painted = tl.datasets.similar(5, **how), tl.datasets.similar(5, texture=0.8, **how)
    masks = masks_of(plain)
    np.testing.assert_array_equal(masks_of(painted), masks)
    np.testing.assert_array_equal(np.asarray(painted.frames)[masks == 0], np.asarray(plain.frames)[masks == 0])
    assert (np.asarray(painted.frames)[masks == 1] != np.asarray(plain.frames)[masks == 1]).any(1).mean() > 0.9
    brightness = np.asarray(painted.frames).sum(-1) / np.maximum(np.asarray(plain.frames).sum(-1), 1)
    centres = truth_of(plain)["centre"].sel(object=1).values.round().astype(int)
    patches = [b[y - 6 : y + 7, x - 6 : x + 7].ravel() for b, (y, x) in zip(brightness, centres, strict=True)]
    assert np.corrcoef(patches[6], patches[9])[0, 1] > 0.9
    assert np.std(patches[6]) > 0.1


def test_identical_objects_have_one_pattern_and_distinct_ones_their_own() -> None:
    def likeness(looks: Any) -> float:
        how: dict[str, Any] = {"frames": 1, "size": 128, "shape": "disc", "view": "top", "looks": looks}
        plain, painted = tl.datasets.similar(1, **how), tl.datasets.similar(1, texture=1, **how)
        brightness = np.asarray(painted.frames[0]).sum(-1) / np.maximum(np.asarray(plain.frames[0]).sum(-1), 1)
        centres = truth_of(plain)["centre"].isel(frame=0).values.round().astype(int)
        one, other = (brightness[y - 5 : y + 6, x - 5 : x + 6].ravel() for y, x in centres)
        return float(np.corrcoef(one, other)[0, 1])

    assert likeness("identical") > 0.7  # not 1: one is nearer, and so larger
    assert likeness("distinct") < 0.3


def test_small_objects_on_plain_ground() -> None:
    usual, small = (tl.datasets.similar(3, view="top", scale=scale, ground=0.0, **SMALL) for scale in (1.0, 0.4))
    share = (masks_of(small) > 0).mean() / (masks_of(usual) > 0).mean()
    assert 0.08 < share < 0.3  # an area of 0.16
    bare = small.frames[masks_of(small) == 0]
    assert len(np.unique(bare, axis=0)) == 2  # lit, and in shadow
    for wrong in ({"scale": 0.05}, {"scale": 2.0}, {"ground": -0.1}, {"front": 1.5}):
        with pytest.raises(TedlensError, match=next(iter(wrong))):
            tl.datasets.similar(0, **wrong)  # type: ignore[arg-type]


def test_the_front_is_brighter_than_the_back() -> None:
    plain, headed = (tl.datasets.similar(6, motion="drift", view="top", front=f, size=64) for f in (0.0, 0.8))
    np.testing.assert_array_equal(masks_of(plain), masks_of(headed))
    velocity, centre = (truth_of(headed)[name] for name in ("velocity", "centre"))
    rows, columns = np.indices(headed.frames.shape[1:3])
    gains = []
    for t in range(len(headed) - 1):
        for number in (1, 2):
            here = masks_of(headed)[t] == number
            if here.sum() < 150:
                continue
            vy, vx = velocity.sel(object=number, frame=t).values
            cy, cx = centre.sel(object=number, frame=t).values
            ahead = (rows - cy) * vy + (columns - cx) * vx > 0
            change = headed.frames[t].sum(-1).astype(float) - plain.frames[t].sum(-1)
            gains.append(change[here & ahead].mean() - change[here & ~ahead].mean())
    assert len(gains) > 5
    assert min(gains) > 0


def test_clips_of_one_look_differ_in_motion_alone() -> None:
    one, other = (truth_of(tl.datasets.similar(seed, look=5, **SMALL)) for seed in (1, 2))
    np.testing.assert_array_equal(one["colour"], other["colour"])
    assert not np.allclose(one["centre"], other["centre"])
    assert one.attrs["look"] == 5


def test_on_one_lane_objects_are_alike_in_height_and_size() -> None:
    for seed in range(5):
        clip = tl.datasets.similar(seed, view="level", size=64)
        centre = truth_of(clip)["centre"].sel(axis="y", frame=0)
        assert abs(float(centre[0] - centre[1])) < 0.5
        depth = truth_of(clip)["depth"].sel(frame=0)
        assert float(depth.max() / depth.min()) < 1.03
