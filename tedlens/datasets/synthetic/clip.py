"""The built-in test bed: identical objects in motion, with exact masks, tracks and depth order.

As in Kubric-Similar (TED, NeurIPS 2025), only their motion tells the objects apart. A small physics simulation
(straight lines, gravity, elastic collisions) drives a small ray caster.

Pixels are the same on every machine. Only operations that IEEE 754 rounds exactly (+ - * / sqrt, floor, comparisons)
are used, and random numbers come from the bits of Philox. There is no sin, exp, pow or matrix product, because their
last bits depend on the processor.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from tedlens.clip import Clip
from tedlens.datasets.synthetic.motion import Motion, cross, drift, simulate
from tedlens.datasets.synthetic.render import headings_of, render
from tedlens.datasets.synthetic.scene import (
    HALF_WIDTH,
    Looks,
    Pattern,
    Shape,
    View,
    camera_places,
    make_bodies,
    project,
)
from tedlens.errors import TedlensError

MAX_OBJECTS = 8


def similar(
    seed: int = 0,
    *,
    objects: int = 2,
    looks: Looks = "identical",
    shape: Shape = "ball",
    motion: Motion = "cross",
    view: View = "perspective",
    frames: int = 16,
    size: int | tuple[int, int] = 128,
    pan: float = 0.0,
    texture: float = 0.0,
    scale: float = 1.0,
    ground: float = 1.0,
    front: float = 0.0,
    look: int | None = None,
    fps: float = 8.0,
) -> Clip:
    """A clip of `objects` moving objects that look alike, with the exact truth about them.

    Parameters
    ----------
    seed
        Chooses positions, velocities, colours, textures and light. The same arguments always give the same clip.
    objects
        Number of objects, 1 to 8.
    looks
        ``identical`` (one colour and size), ``similar`` (slightly different) or ``distinct``.
    shape
        ``ball``, ``block`` (a box, turned about the vertical) or ``disc`` (a flat cylinder).
    motion
        ``cross``: constant velocities along separate lanes that meet in the picture mid-clip; objects pass in front of
        one another or overtake. ``drift``: constant velocities on such lanes, from any place to any place; an object
        that leaves the picture comes in again on the other side. So an object's start or place does not tell how it
        moves, and some objects are out of sight in the first frame. ``bounce``: objects move on the floor and bounce
        off the walls of the box and, elastically, off each other. ``fall``: objects are dropped and bounce on the floor
        and off each other.
    view
        ``perspective`` (camera looks down by 16 degrees), ``top`` (straight down) or ``level`` (from the side, at
        the height of the objects: all lanes coincide in the picture).
    frames, size
        Number of frames; height and width in pixels (one number: square).
    pan
        Sideways motion of the camera, in pixels per frame at the middle of the scene.
    texture
        Contrast of a pattern on the objects that moves with them, 0 (plain) to 1. Identical and similar
        objects have the same pattern.
    scale
        Size of the objects: at 1, one of two balls is a quarter to a third of the picture wide. Velocities do not
        change with it, so small objects move by their own diameter in fewer frames.
    ground
        Contrast of the pattern on the ground, 0 (plain) to 1.
    front
        Contrast between an object's front, in the direction of its motion, and its back, 0 (alike) to 1. Above 0, one
        frame shows in which direction an object moves.
    look
        Chooses sizes, colours, ground and light in place of `seed`: clips of the same look differ only in motion.
    fps
        Frame rate recorded in the clip.

    Returns
    -------
    Clip
        frames (T, H, W, 3) uint8 and masks (T, H, W) uint8, 0 = background, 1..N = objects.
        `Clip.objects` is a Dataset: ``centre`` and ``velocity`` (object, frame, axis = y, x) in pixels
        and pixels per frame (``centre[t] + velocity[t] == centre[t + 1]``; the centre of the top left
        pixel is 0, 0), ``depth`` (object, frame: distance from the camera in units of half the box),
        ``depth_order`` (0 = nearest), ``visible`` (share of the object's pixels in the picture that
        no other object hides) and ``colour`` (object, rgb).

    Raises
    ------
    TedlensError
        For an argument out of its range.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2:
        raise TedlensError(f"size={size} is no size; give one number for a square, or (height, width).")
    height, width = sides
    for number in (seed, 0 if look is None else look):
        if not 0 <= number < 2**64:
            raise TedlensError(f"seed={number} is no seed; choose a whole number from 0 to 2**64 - 1.")
    _check(objects, looks, shape, motion, view, frames, height, width, texture, scale, ground, front)
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, 0x51D1], np.uint64)))
    looking = rng if look is None else np.random.Generator(np.random.Philox(key=np.array([look, 0x100C], np.uint64)))
    bodies = make_bodies(looking, objects, looks, shape, scale)
    step = pan * 2 * HALF_WIDTH / width
    eye = camera_places(view, [step * (t - (frames - 1) / 2) for t in range(frames + 1)])
    if motion == "cross":
        path = cross(rng, bodies, view, frames)
    elif motion == "drift":
        path = drift(rng, bodies, view, eye, height / width)
    else:
        path = simulate(rng, bodies, motion, frames)
    painted = seed if look is None else look
    patterns = [Pattern(texture, (painted, 0x7E57 + (i if looks == "distinct" else 0))) for i in range(objects)]
    picture, masks, visible = render(
        looking, bodies, patterns, path[:, :frames], eye[:frames], view, height, width, ground, headings_of(path, front)
    )
    centre, depth = project(path, eye, view, height, width)
    truth = xr.Dataset(
        {
            "centre": (("object", "frame", "axis"), centre[:, :-1], {"units": "pixel"}),
            "velocity": (("object", "frame", "axis"), centre[:, 1:] - centre[:, :-1], {"units": "pixel / frame"}),
            "depth": (("object", "frame"), depth[:, :-1]),
            "depth_order": (("object", "frame"), _order(depth[:, :-1])),
            "visible": (("object", "frame"), visible),
            "colour": (("object", "rgb"), np.array([b.colour for b in bodies])),
        },
        coords={"object": np.arange(1, objects + 1), "frame": np.arange(frames), "axis": ["y", "x"]},
        attrs={
            "dataset": "similar",
            "seed": seed,
            "objects": objects,
            "looks": looks,
            "shape": shape,
            "motion": motion,
            "view": view,
            "frames": frames,
            "size": [height, width],
            "pan": pan,
            "texture": texture,
            "scale": scale,
            "ground": ground,
            "front": front,
            **({} if look is None else {"look": look}),
        },
    )
    return Clip(picture, masks=masks, fps=fps, name=f"similar-{motion}-{seed}", objects=truth)


def _check(
    objects: int,
    looks: str,
    shape: str,
    motion: str,
    view: str,
    frames: int,
    height: int,
    width: int,
    texture: float,
    scale: float,
    ground: float,
    front: float,
) -> None:
    for name, value, allowed in (
        ("looks", looks, get_args(Looks)),
        ("shape", shape, get_args(Shape)),
        ("motion", motion, get_args(Motion)),
        ("view", view, get_args(View)),
    ):
        if value not in allowed:
            raise TedlensError(f"{name}={value!r} is not known to similar(); choose one of {', '.join(allowed)}.")
    if not 1 <= objects <= MAX_OBJECTS:
        raise TedlensError(f"objects={objects} does not fit into the box; choose 1 to {MAX_OBJECTS}.")
    for name, contrast in (("texture", texture), ("ground", ground), ("front", front)):
        if not 0 <= contrast <= 1:
            raise TedlensError(f"{name}={contrast} is no contrast; choose 0 (plain) to 1.")
    if not 0.1 <= scale <= 1:
        raise TedlensError(f"scale={scale} is no size for the objects; choose 0.1 to 1 (the usual size).")
    if frames < 1 or min(height, width) < 8:
        raise TedlensError(
            f"frames={frames}, size=({height}, {width}) is too small; give at least 1 frame of 8 x 8 pixels."
        )


def _order(depth: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    # A stable sort: at equal depth the first object is in front, as in the picture.
    return np.argsort(np.argsort(depth, axis=0, kind="stable"), axis=0, kind="stable")
