"""The built-in test bed: identical objects in motion, with exact masks, tracks and depth order.

In the manner of Kubric-Similar (TED, NeurIPS 2025): what tells the objects apart is how they move.
A small physics (straight lines, gravity, elastic collisions) drives a small ray caster.

Same pixels on every machine: only operations that IEEE 754 rounds exactly (+ - * / sqrt, floor,
comparisons) are used, and random numbers come from the bits of Philox. No sin, exp, pow or matrix
product, whose last bits depend on the processor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from tedlens.clip import Clip
from tedlens.errors import TedlensError

Shape = Literal["ball", "block", "disc"]
Looks = Literal["identical", "similar", "distinct"]
Motion = Literal["bounce", "cross", "drift", "fall"]
View = Literal["perspective", "top", "level"]
Array = npt.NDArray[np.float32]

MAX_OBJECTS = 8
HALF_WIDTH = 1.3  # of the world that is seen at the camera's target; objects live in [-1, 1]
CAMERA_DISTANCE = 6.0
WALL_Z = 1.7  # the back wall, seen in perspective
LANES = {"level": 0.3}  # distance of neighbouring lanes in radii; else 2.1, so that objects do not meet
SUBSTEPS = 8  # of the physics, a frame
DRIFT_SPEED = (0.6, 3.0)  # along either axis, in world units over the clip
# Camera axes (right, up, forward) as exact Pythagorean directions: 7-24-25 looks down by 16 degrees.
CAMERAS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "perspective": ((1.0, 0.0, 0.0), (0.0, 0.96, 0.28), (0.0, -0.28, 0.96)),
    "top": ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)),
    "level": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
}


@dataclass(frozen=True)
class _Body:
    """One object: what it looks like; where it is comes from the physics."""

    shape: str
    radius: float
    height: float  # half of it; a ball's radius
    turn: tuple[float, float]  # cosine and sine of a block's turn about the vertical
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class _Pattern:
    """What is painted on an object: how strongly, and the key of its random numbers, apart from all others."""

    contrast: float
    key: tuple[int, int]


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
        Chooses positions, velocities, colours, textures and light. A pure function of all arguments.
    objects
        How many, 1 to 8.
    looks
        ``identical`` (one colour and size), ``similar`` (slightly different) or ``distinct``.
    shape
        ``ball``, ``block`` (a box, turned about the vertical) or ``disc`` (a flat cylinder).
    motion
        ``cross``: lasting velocities along separate lanes that meet in the picture mid-clip, passing
        in front of one another or overtaking. ``drift``: lasting velocities on such lanes, from and to
        anywhere; what leaves the picture comes in again at the other side. So neither where an object
        starts nor where it is tells how it moves, and some are out of sight in the first frame.
        ``bounce``: on the floor, off the walls of the box and elastically off each other. ``fall``:
        dropped, bouncing on the floor and off each other.
    view
        ``perspective`` (camera 16 degrees above the floor), ``top`` (straight down) or ``level`` (from the side, at
        the height of the objects: all lanes are one in the picture).
    frames, size
        Number of frames; height and width in pixels (one number: square).
    pan
        Sideways motion of the camera, in pixels a frame at the middle of the scene.
    texture
        Contrast of a pattern on the objects that moves with them, 0 (plain) to 1. Identical and similar
        objects have the same pattern.
    scale
        Size of the objects: at 1, one of two balls is a quarter to a third of the picture wide. Velocities do not
        change with it, so that small objects move by their own diameter in fewer frames.
    ground
        Contrast of the pattern on the ground, 0 (plain) to 1.
    front
        Contrast between an object's front, where it heads to, and its back, 0 (alike) to 1. With it one frame tells
        which way an object moves.
    look
        Chooses sizes, colours, ground and light in place of `seed`: clips of one look differ in how things move.
    fps
        Written on the clip.

    Returns
    -------
    Clip
        frames (T, H, W, 3) uint8 and masks (T, H, W) uint8, 0 = background, 1..N = objects.
        `Clip.objects` is a Dataset: ``centre`` and ``velocity`` (object, frame, axis = y, x) in pixels
        and pixels per frame (``centre[t] + velocity[t] == centre[t + 1]``; the centre of the top left
        pixel is 0, 0), ``depth`` (object, frame: distance from the camera in units of half the box),
        ``depth_order`` (0 = nearest), ``visible`` (share of the outline's pixels in the picture that
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
    bodies = _bodies(looking, objects, looks, shape, scale)
    step = pan * 2 * HALF_WIDTH / width
    eye = _eye(view, [step * (t - (frames - 1) / 2) for t in range(frames + 1)])
    if motion == "cross":
        path = _cross(rng, bodies, view, frames)
    elif motion == "drift":
        path = _drift(rng, bodies, view, eye, height / width)
    else:
        path = _simulate(rng, bodies, motion, frames)
    painted = seed if look is None else look
    patterns = [_Pattern(texture, (painted, 0x7E57 + (i if looks == "distinct" else 0))) for i in range(objects)]
    picture, masks, visible = _render(
        looking, bodies, patterns, path[:, :frames], eye[:frames], view, height, width, ground, _headings(path, front)
    )
    centre, depth = _project(path, eye, view, height, width)
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
    # Stable: at equal depth the first object is in front in the picture, and so it is here.
    return np.argsort(np.argsort(depth, axis=0, kind="stable"), axis=0, kind="stable")


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    # Not rng.uniform: its multiply-add may be fused in C on some processors.
    return low + (high - low) * float(rng.random())


def _sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _shuffled(rng: np.random.Generator, count: int) -> list[int]:
    return [int(i) for i in np.argsort(rng.random(count), kind="stable")]


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    """A saturated colour: one channel high, one low, one anywhere."""
    high, low, free = _between(rng, 0.75, 0.95), _between(rng, 0.05, 0.2), _between(rng, 0.05, 0.9)
    channels = [high, low, free]
    r, g, b = _shuffled(rng, 3)
    return channels[r], channels[g], channels[b]


def _bodies(rng: np.random.Generator, count: int, looks: str, shape: str, scale: float = 1.0) -> list[_Body]:
    crowd = math.sqrt(2 / max(count, 2)) * scale
    radius, colour = _between(rng, 0.32, 0.42) * crowd, _colour(rng)
    slope = _between(rng, 0.0, 1.0)
    turn = ((1 - slope * slope) / (1 + slope * slope), 2 * slope / (1 + slope * slope))
    bodies = []
    for _ in range(count):
        if looks == "distinct":
            radius, colour = _between(rng, 0.28, 0.42) * crowd, _colour(rng)
        own = radius
        tint = colour
        if looks == "similar":
            own = radius * _between(rng, 0.92, 1.08)
            r, g, b = (min(1.0, max(0.0, c + _between(rng, -0.12, 0.12))) for c in colour)
            tint = (r, g, b)
        tall = {"ball": own, "block": 0.75 * own, "disc": 0.4 * own}[shape]
        bodies.append(_Body(shape, own, tall, turn, tint))
    return bodies


# --- motion ---------------------------------------------------------------------------------------


# Each gives centres of the bodies in the world (object, frame + 1, xyz); y is up, the floor at 0.


def _simulate(rng: np.random.Generator, bodies: list[_Body], motion: str, frames: int) -> npt.NDArray[np.float64]:
    """Free flight and collisions: ``bounce`` and ``fall``."""
    place, speed = _start(rng, bodies, motion, frames)
    gravity = 10.0 / (frames * frames) if motion == "fall" else 0.0
    path = [[list(p) for p in place]]
    for _ in range(frames):
        for _ in range(SUBSTEPS):
            _advance(bodies, place, speed, gravity, 1 / SUBSTEPS)
        path.append([list(p) for p in place])
    return np.array(path).transpose(1, 0, 2)


def _cross(rng: np.random.Generator, bodies: list[_Body], view: str, frames: int) -> npt.NDArray[np.float64]:
    """Constant velocities on lanes that meet in the picture mid-clip."""
    time = np.arange(frames + 1) / max(frames - 1, 1)  # 0..1 over the clip
    lanes = _lanes(rng, bodies, view)
    meet_x, meet_z = _between(rng, -0.2, 0.2), _between(rng, -0.4, 0.4)
    direction = _sign(rng)
    path = np.empty((len(bodies), frames + 1, 3))
    for i, (y, z) in enumerate(lanes):
        # Neighbours go opposite ways, or (one time in three) the same way at half the speed.
        overtake = i % 2 == 1 and rng.random() < 1 / 3
        way = direction if i % 2 == 0 or overtake else -direction
        vx = way * _between(rng, 1.3, 1.8) * (0.45 if overtake else 1.0)
        vz = _between(rng, -0.8, 0.8) if view == "top" else 0.0
        when = time - _between(rng, 0.4, 0.6)
        path[i, :, 0] = meet_x + vx * when
        path[i, :, 1] = y
        path[i, :, 2] = meet_z + vz * when if view == "top" else z
    return path


def _lanes(rng: np.random.Generator, bodies: list[_Body], view: str) -> list[tuple[float, float]]:
    """Height and depth of a lane for each body, in any order, apart as seen from the camera."""
    places = _shuffled(rng, len(bodies))
    gap = LANES.get(view, 2.1) * max(b.radius for b in bodies)
    if view == "top":  # lanes are heights
        return [(body.height + gap * place, 0.0) for body, place in zip(bodies, places, strict=True)]
    # Towards the camera, where many lanes would otherwise reach into the back wall.
    middle = (len(bodies) - 1) / 2
    ahead = max(0.0, gap * middle + max(b.radius for b in bodies) - WALL_Z)
    return [(body.height, gap * (place - middle) - ahead) for body, place in zip(bodies, places, strict=True)]


def _drift(
    rng: np.random.Generator, bodies: list[_Body], view: str, eye: npt.NDArray[np.float64], aspect: float
) -> npt.NDArray[np.float64]:
    """Constant velocities on lanes that come round again: in the picture all places are equally likely at any time.

    `aspect` is the picture's height over its width.
    """
    time = np.arange(len(eye)) / max(len(eye) - 2, 1)  # 0..1 over the clip
    path = np.empty((len(bodies), len(eye), 3))
    for i, (body, (y, z)) in enumerate(zip(bodies, _lanes(rng, bodies, view), strict=True)):
        path[i, :, 1], path[i, :, 2] = y, z
        offset, forward = (0.0, y - eye[0, 1], z - eye[0, 2]), CAMERAS[view][2]
        depth = forward[0] * offset[0] + forward[1] * offset[1] + forward[2] * offset[2]
        seen = HALF_WIDTH * depth / CAMERA_DISTANCE
        for axis, half in ((0, seen), (2, seen * aspect))[: 2 if view == "top" else 1]:
            velocity = _sign(rng) * _between(rng, *DRIFT_SPEED)
            way = velocity * time - (eye[:, axis] - eye[0, axis])  # as the camera sees it
            # Wide enough that what leaves is out of sight for a frame before it comes in again.
            reach = half + 1.1 * body.radius + float(np.abs(way[1:] - way[:-1]).max())
            way = way + _between(rng, -reach, reach)
            path[i, :, axis] = way - 2 * reach * np.floor((way + reach) / (2 * reach)) + eye[:, axis]
    return path


def _start(
    rng: np.random.Generator, bodies: list[_Body], motion: str, frames: int
) -> tuple[list[list[float]], list[list[float]]]:
    """Places that do not touch, and velocities in world units a frame."""
    place: list[list[float]] = []
    speed: list[list[float]] = []
    for body in bodies:
        for _ in range(200):
            room = 1 - body.radius
            x, z = _between(rng, -room, room), _between(rng, -room, room)
            y = body.height + (_between(rng, 0.3, 1.4) if motion == "fall" else 0.0)
            placed = zip(place, bodies, strict=False)  # those before this one
            if all(_distance2((x, y, z), q) > (body.radius + b.radius) ** 2 for q, b in placed):
                break
        place.append([x, y, z])
        vx, vz = _between(rng, 0.8, 2.2) * _sign(rng) / frames, _between(rng, 0.2, 1.6) * _sign(rng) / frames
        speed.append([vx, 0.0, vz])
    return place, speed


def _distance2(p: tuple[float, float, float] | list[float], q: list[float]) -> float:
    x, y, z = p[0] - q[0], p[1] - q[1], p[2] - q[2]
    return x * x + y * y + z * z


def _advance(
    bodies: list[_Body], place: list[list[float]], speed: list[list[float]], gravity: float, dt: float
) -> None:
    for body, p, v in zip(bodies, place, speed, strict=True):
        v[1] -= gravity * dt
        for axis in range(3):
            p[axis] += v[axis] * dt
        for axis in (0, 2):
            room = 1 - body.radius
            if abs(p[axis]) > room and p[axis] * v[axis] > 0:
                v[axis] = -v[axis]
        if p[1] < body.height and v[1] < 0:
            p[1], v[1] = body.height, -0.8 * v[1]
    for i in range(len(bodies)):
        for j in range(i):
            _collide(bodies[i], bodies[j], place[i], place[j], speed[i], speed[j])


def _collide(a: _Body, b: _Body, p: list[float], q: list[float], v: list[float], w: list[float]) -> None:
    """Equal masses swap the parts of their velocities along the line of their centres."""
    touch = a.radius + b.radius
    gap2 = _distance2(p, q)
    if gap2 >= touch * touch or gap2 == 0:
        return
    gap = math.sqrt(gap2)
    normal = [(p[k] - q[k]) / gap for k in range(3)]
    closing = (v[0] - w[0]) * normal[0] + (v[1] - w[1]) * normal[1] + (v[2] - w[2]) * normal[2]
    if closing < 0:
        for k in range(3):
            v[k] -= closing * normal[k]
            w[k] += closing * normal[k]


# --- picture --------------------------------------------------------------------------------------


def _eye(view: str, shift: list[float]) -> npt.NDArray[np.float64]:
    """Place of the camera (frame, xyz)."""
    forward = CAMERAS[view][2]
    target = (0.0, 0.3, 0.0)
    return np.array(
        [[target[k] - CAMERA_DISTANCE * forward[k] + (s if k == 0 else 0.0) for k in range(3)] for s in shift]
    )


def _project(
    path: npt.NDArray[np.float64], eye: npt.NDArray[np.float64], view: str, height: int, width: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Pixels (object, frame, yx) and depths (object, frame) of world points (object, frame, xyz)."""
    offset = [path[:, :, k] - eye[None, :, k] for k in range(3)]
    right, up, forward = ([axis[k] * offset[k] for k in range(3)] for axis in CAMERAS[view])
    depth = forward[0] + forward[1] + forward[2]
    scale = width / 2 / HALF_WIDTH * CAMERA_DISTANCE / depth
    x = (right[0] + right[1] + right[2]) * scale + (width - 1) / 2
    y = (height - 1) / 2 - (up[0] + up[1] + up[2]) * scale
    return np.stack([y, x], -1), depth


def _dot(a: Array, b: Array) -> Array:
    product: Array = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return product


def _unit(a: Array) -> Array:
    return (a / np.sqrt(_dot(a, a))).astype(np.float32, copy=False)


def _rays(view: str, height: int, width: int) -> Array:
    """Unit directions (xyz, 1, height, width) through the pixels' centres."""
    pixel = HALF_WIDTH * 2 / width / CAMERA_DISTANCE
    u = ((np.arange(width) - (width - 1) / 2) * pixel).astype(np.float32)[None, :]
    v = (((height - 1) / 2 - np.arange(height)) * pixel).astype(np.float32)[:, None]
    axes = zip(*CAMERAS[view], strict=True)
    rays = np.stack([u * np.float32(right) + v * np.float32(up) + np.float32(forward) for right, up, forward in axes])
    return _unit(rays)[:, None]


def _vector(points: npt.NDArray[np.float64]) -> Array:
    """(frame, xyz) as (xyz, frame, 1, 1), to meet the rays."""
    return points.T.astype(np.float32)[:, :, None, None]


def _hit(body: _Body, origin: Array, ray: Array) -> tuple[Array, Array]:
    """Distance along each ray to the body at the world's zero (inf: missed) and the normal there."""
    if body.shape == "ball":
        return _hit_ball(body, origin, ray)
    if body.shape == "block":
        return _hit_block(body, origin, ray)
    return _hit_disc(body, origin, ray)


def _hit_ball(body: _Body, origin: Array, ray: Array) -> tuple[Array, Array]:
    along = -_dot(origin, ray)
    square = along * along - _dot(origin, origin) + np.float32(body.radius * body.radius)
    near: Array = (along - np.sqrt(np.maximum(square, 0))).astype(np.float32, copy=False)
    distance = np.where(square > 0, near, np.float32(np.inf))
    normal: Array = ((origin + near * ray) / np.float32(body.radius)).astype(np.float32, copy=False)
    return distance, normal


def _hit_block(body: _Body, origin: Array, ray: Array) -> tuple[Array, Array]:
    cos, sin = (np.float32(t) for t in body.turn)

    def turned(v: Array) -> list[Array]:
        return [cos * v[0] + sin * v[2], v[1], cos * v[2] - sin * v[0]]

    # Corners reach 0.99 radii: the physics collides circles.
    side = np.float32(body.radius * 0.7)
    half = (side, np.float32(body.height), side)
    enter, leave = [], []
    for o, d, h in zip(turned(origin), turned(ray), half, strict=True):
        d = np.where(np.abs(d) < 1e-6, np.float32(1e-6), d)
        first, second = (-h - o) / d, (h - o) / d
        enter.append(np.minimum(first, second))
        leave.append(np.maximum(first, second))
    near = np.maximum(np.maximum(enter[0], enter[1]), enter[2])
    far = np.minimum(np.minimum(leave[0], leave[1]), leave[2])
    distance = np.where((near <= far) & (near > 0), near, np.float32(np.inf))
    way = turned(ray)
    face = [
        np.where(near == enter[k], np.where(way[k] > 0, np.float32(-1), np.float32(1)), np.float32(0)) for k in range(3)
    ]
    normal = np.stack([cos * face[0] - sin * face[2], face[1], cos * face[2] + sin * face[0]])
    return distance, normal


def _hit_disc(body: _Body, origin: Array, ray: Array) -> tuple[Array, Array]:
    radius2 = np.float32(body.radius * body.radius)
    high = np.float32(body.height)
    down = np.where(np.abs(ray[1]) < 1e-6, np.float32(1e-6), ray[1])
    top = (np.where(down < 0, high, -high) - origin[1]) / down
    x, z = origin[0] + top * ray[0], origin[2] + top * ray[2]
    on_top = (x * x + z * z <= radius2) & (top > 0)
    a = np.maximum(ray[0] * ray[0] + ray[2] * ray[2], np.float32(1e-6))
    b = origin[0] * ray[0] + origin[2] * ray[2]
    square = b * b - a * (origin[0] * origin[0] + origin[2] * origin[2] - radius2)
    side = (-b - np.sqrt(np.maximum(square, 0))) / a
    level = origin[1] + side * ray[1]
    on_side = (square > 0) & (np.abs(level) <= high) & (side > 0)
    inf = np.float32(np.inf)
    distance = np.minimum(np.where(on_top, top, inf), np.where(on_side, side, inf))
    round_ = on_side & (side <= np.where(on_top, top, inf))
    zero = np.float32(0)
    normal = np.stack(
        [
            np.where(round_, (origin[0] + side * ray[0]) / np.float32(body.radius), zero),
            np.where(round_, zero, np.where(down < 0, np.float32(1), np.float32(-1))),
            np.where(round_, (origin[2] + side * ray[2]) / np.float32(body.radius), zero),
        ]
    )
    return distance, normal


def _texture(rng: np.random.Generator, u: Array, v: Array) -> Array:
    """Smooth random pattern in [0, 1] at world coordinates, from two octaves of lattice noise."""
    total = np.zeros(np.broadcast_shapes(u.shape, v.shape), np.float32)
    for cells, weight in ((2.5, 0.65), (7.0, 0.35)):
        table = rng.random((32, 32)).astype(np.float32)
        x, y = u * np.float32(cells), v * np.float32(cells)
        x0, y0 = np.floor(x), np.floor(y)
        fx, fy = x - x0, y - y0
        fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
        i, j = x0.astype(np.int32) & 31, y0.astype(np.int32) & 31
        i1, j1 = (i + 1) & 31, (j + 1) & 31
        low = table[j, i] * (1 - fx) + table[j, i1] * fx
        high = table[j1, i] * (1 - fx) + table[j1, i1] * fx
        total += np.float32(weight) * (low * (1 - fy) + high * fy)
    return total


def _render(
    rng: np.random.Generator,
    bodies: list[_Body],
    patterns: list[_Pattern],
    path: npt.NDArray[np.float64],
    eye: npt.NDArray[np.float64],
    view: str,
    height: int,
    width: int,
    contrast: float,
    headings: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Pictures (T, H, W, 3), masks (T, H, W) and each object's visible share (object, T)."""
    ray = _rays(view, height, width)
    camera = _vector(eye)
    light = _unit(np.array([_between(rng, -0.6, 0.6), 1.0, _between(rng, -0.8, -0.1)], np.float32))[:, None, None, None]
    # Background first: the floor, or the wall where the ray would meet the floor behind it.
    floor = camera[1] / np.maximum(-ray[1], np.float32(1e-6))
    wall = (np.float32(WALL_Z) - camera[2]) / np.maximum(ray[2], np.float32(1e-6))
    on_floor = floor < wall
    nearest = np.minimum(floor, wall)
    ground = camera + nearest * ray
    colours = [np.array(_colour(rng), np.float32) * np.float32(0.35) + np.float32(shade) for shade in (0.15, 0.4)]
    pattern = _texture(rng, ground[0], np.where(on_floor, ground[2], ground[1] + np.float32(WALL_Z)))
    if contrast != 1:
        pattern = np.float32(0.5) + np.float32(contrast) * (pattern - np.float32(0.5))
    shade = np.where(on_floor, np.float32(1), np.float32(0.75))
    picture = np.stack([(colours[0][k] + (colours[1][k] - colours[0][k]) * pattern) * shade for k in range(3)])

    masks = np.zeros(nearest.shape, np.uint8)
    lit = np.ones(nearest.shape, np.float32)
    outline = []
    all_of = zip(bodies, patterns, path, headings, strict=True)
    for number, (body, pattern_on, track, heading) in enumerate(all_of, start=1):
        centre = _vector(track)
        blocked, _ = _hit(body, ground - centre, light)
        lit = np.where(np.isfinite(blocked) & (blocked > 0), np.float32(0.55), lit)
        distance, normal = _hit(body, camera - centre, ray)
        outline.append(np.isfinite(distance).sum(axis=(1, 2)))
        front = distance < nearest
        nearest = np.where(front, distance, nearest)
        masks[front] = number
        shaded = _shade(body, normal, light, ray)
        surface = camera - centre + np.where(front, distance, np.float32(0)).astype(np.float32, copy=False) * ray
        if pattern_on.contrast:
            shaded = shaded * _painted(pattern_on, surface)
        if heading.any():
            shaded = shaded * (1 + _dot(_vector(heading), surface) / np.float32(body.radius))
        lit = np.where(front, np.float32(1), lit)
        picture = np.where(front, shaded, picture)
    # Objects keep their own light; only what is still background can lie in shadow.
    picture = np.where(masks == 0, picture * lit, picture)
    pixels = np.floor(np.minimum(np.maximum(picture, 0), 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    seen = np.stack([(masks == n).sum(axis=(1, 2)) for n in range(1, len(bodies) + 1)])
    whole = np.stack(outline)
    visible = np.where(whole > 0, seen / np.maximum(whole, 1), 0.0)
    return np.ascontiguousarray(pixels.transpose(1, 2, 3, 0)), masks, visible


def _headings(path: npt.NDArray[np.float64], front: float) -> npt.NDArray[np.float64]:
    """Where each object heads to along the floor (object, frame, xyz), of length `front` (0 where it stands)."""
    step = path[:, 1:] - path[:, :-1]
    step[..., 1] = 0
    length = np.sqrt(step[..., 0] * step[..., 0] + step[..., 2] * step[..., 2])[..., None]
    return np.where(length > 0, front * step / np.maximum(length, 1e-9), 0.0)


def _painted(pattern: _Pattern, surface: Array) -> Array:
    """Factor of brightness at points (xyz, ..) of a surface, seen from the body's centre."""
    rng = np.random.Generator(np.random.Philox(key=np.array(pattern.key, np.uint64)))
    # Slanted, so that it varies over what is seen from the side and from above; four or five spots across an object.
    u, v = (np.float32(2) * (surface[k] + np.float32(slant) * surface[1]) for k, slant in ((0, 0.25), (2, 0.75)))
    spots = np.float32(3) * (_texture(rng, u, v) - np.float32(0.5))
    factor: Array = np.float32(1) + np.float32(pattern.contrast) * np.minimum(np.maximum(spots, -1), 1)
    return factor


def _shade(body: _Body, normal: Array, light: Array, ray: Array) -> Array:
    """Ambient, diffuse and specular (Phong, exponent 16) light on a body's surface."""
    facing = _dot(normal, light)
    diffuse = np.float32(0.35) + np.float32(0.65) * np.maximum(facing, 0)
    mirrored = -_dot(2 * facing * normal - light, ray)
    gloss = np.minimum(np.maximum(mirrored, 0), 1)  # over 1 only where the ray missed
    for _ in range(4):
        gloss = gloss * gloss
    shine = np.float32(0.5) * gloss * (facing > 0)
    return np.stack([np.float32(c) * diffuse + shine for c in body.colour])
