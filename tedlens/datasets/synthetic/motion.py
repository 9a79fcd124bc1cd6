"""How bodies move in `similar`: centres in the world (object, frame + 1, xyz); y is up, the floor at 0."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from tedlens.datasets.synthetic.scene import (
    CAMERA_DISTANCE,
    CAMERAS,
    HALF_WIDTH,
    WALL_Z,
    Body,
    between,
    shuffled,
    sign,
)

Motion = Literal["bounce", "cross", "drift", "fall"]

LANES = {"level": 0.3}  # distance of neighbouring lanes in radii; else 2.1, so that objects do not meet
SUBSTEPS = 8  # steps of the physics per frame
DRIFT_SPEED = (0.6, 3.0)  # along either axis, in world units over the clip


def simulate(rng: np.random.Generator, bodies: list[Body], motion: str, frames: int) -> npt.NDArray[np.float64]:
    """Free flight and collisions: ``bounce`` and ``fall``."""
    place, speed = _start(rng, bodies, motion, frames)
    gravity = 10.0 / (frames * frames) if motion == "fall" else 0.0
    path = [[list(p) for p in place]]
    for _ in range(frames):
        for _ in range(SUBSTEPS):
            _advance(bodies, place, speed, gravity, 1 / SUBSTEPS)
        path.append([list(p) for p in place])
    return np.array(path).transpose(1, 0, 2)


def cross(rng: np.random.Generator, bodies: list[Body], view: str, frames: int) -> npt.NDArray[np.float64]:
    """Constant velocities on lanes that meet in the picture mid-clip."""
    time = np.arange(frames + 1) / max(frames - 1, 1)  # 0..1 over the clip
    lanes = _lanes(rng, bodies, view)
    meet_x, meet_z = between(rng, -0.2, 0.2), between(rng, -0.4, 0.4)
    direction = sign(rng)
    path = np.empty((len(bodies), frames + 1, 3))
    for i, (y, z) in enumerate(lanes):
        # Neighbours go opposite ways, or (one time in three) the same way at half the speed.
        overtake = i % 2 == 1 and rng.random() < 1 / 3
        way = direction if i % 2 == 0 or overtake else -direction
        vx = way * between(rng, 1.3, 1.8) * (0.45 if overtake else 1.0)
        vz = between(rng, -0.8, 0.8) if view == "top" else 0.0
        when = time - between(rng, 0.4, 0.6)
        path[i, :, 0] = meet_x + vx * when
        path[i, :, 1] = y
        path[i, :, 2] = meet_z + vz * when if view == "top" else z
    return path


def drift(
    rng: np.random.Generator, bodies: list[Body], view: str, eye: npt.NDArray[np.float64], aspect: float
) -> npt.NDArray[np.float64]:
    """Constant velocities on lanes that wrap around: at any time all places in the picture are equally likely.

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
            velocity = sign(rng) * between(rng, *DRIFT_SPEED)
            way = velocity * time - (eye[:, axis] - eye[0, axis])  # as the camera sees it
            # Wide enough that what leaves is out of sight for a frame before it comes in again.
            reach = half + 1.1 * body.radius + float(np.abs(way[1:] - way[:-1]).max())
            way = way + between(rng, -reach, reach)
            path[i, :, axis] = way - 2 * reach * np.floor((way + reach) / (2 * reach)) + eye[:, axis]
    return path


def _lanes(rng: np.random.Generator, bodies: list[Body], view: str) -> list[tuple[float, float]]:
    """Height and depth of one lane per body, in random order; lanes have different distances from the camera."""
    places = shuffled(rng, len(bodies))
    gap = LANES.get(view, 2.1) * max(b.radius for b in bodies)
    if view == "top":  # lanes are heights
        return [(body.height + gap * place, 0.0) for body, place in zip(bodies, places, strict=True)]
    # Towards the camera, where many lanes would otherwise reach into the back wall.
    middle = (len(bodies) - 1) / 2
    ahead = max(0.0, gap * middle + max(b.radius for b in bodies) - WALL_Z)
    return [(body.height, gap * (place - middle) - ahead) for body, place in zip(bodies, places, strict=True)]


def _start(
    rng: np.random.Generator, bodies: list[Body], motion: str, frames: int
) -> tuple[list[list[float]], list[list[float]]]:
    """Start positions at which bodies do not touch, and velocities in world units per frame."""
    place: list[list[float]] = []
    speed: list[list[float]] = []
    for body in bodies:
        for _ in range(200):
            room = 1 - body.radius
            x, z = between(rng, -room, room), between(rng, -room, room)
            y = body.height + (between(rng, 0.3, 1.4) if motion == "fall" else 0.0)
            placed = zip(place, bodies, strict=False)  # those before this one
            if all(_distance2((x, y, z), q) > (body.radius + b.radius) ** 2 for q, b in placed):
                break
        place.append([x, y, z])
        vx, vz = between(rng, 0.8, 2.2) * sign(rng) / frames, between(rng, 0.2, 1.6) * sign(rng) / frames
        speed.append([vx, 0.0, vz])
    return place, speed


def _distance2(p: tuple[float, float, float] | list[float], q: list[float]) -> float:
    x, y, z = p[0] - q[0], p[1] - q[1], p[2] - q[2]
    return x * x + y * y + z * z


def _advance(bodies: list[Body], place: list[list[float]], speed: list[list[float]], gravity: float, dt: float) -> None:
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


def _collide(a: Body, b: Body, p: list[float], q: list[float], v: list[float], w: list[float]) -> None:
    """Two equal masses swap the components of their velocities along the line through their centres."""
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
