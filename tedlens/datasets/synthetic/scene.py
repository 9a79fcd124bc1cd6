"""The world of `similar`: its bodies, how they look, and the camera that sees them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Shape = Literal["ball", "block", "disc"]
Looks = Literal["identical", "similar", "distinct"]
View = Literal["perspective", "top", "level"]

HALF_WIDTH = 1.3  # of the world that is seen at the camera's target; objects live in [-1, 1]
CAMERA_DISTANCE = 6.0
WALL_Z = 1.7  # the back wall, seen in perspective
# Camera axes (right, up, forward) as exact Pythagorean directions: 7-24-25 looks down by 16 degrees.
CAMERAS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "perspective": ((1.0, 0.0, 0.0), (0.0, 0.96, 0.28), (0.0, -0.28, 0.96)),
    "top": ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)),
    "level": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
}


@dataclass(frozen=True)
class Body:
    """How one object looks. Its place comes from the physics."""

    shape: str
    radius: float
    height: float  # half of it; a ball's radius
    turn: tuple[float, float]  # cosine and sine of a block's turn about the vertical
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Pattern:
    """The pattern painted on an object: its contrast, and the key of its own stream of random numbers."""

    contrast: float
    key: tuple[int, int]


def make_bodies(rng: np.random.Generator, count: int, looks: str, shape: str, scale: float = 1.0) -> list[Body]:
    crowd = math.sqrt(2 / max(count, 2)) * scale
    radius, colour = between(rng, 0.32, 0.42) * crowd, any_colour(rng)
    slope = between(rng, 0.0, 1.0)
    turn = ((1 - slope * slope) / (1 + slope * slope), 2 * slope / (1 + slope * slope))
    bodies = []
    for _ in range(count):
        if looks == "distinct":
            radius, colour = between(rng, 0.28, 0.42) * crowd, any_colour(rng)
        own = radius
        tint = colour
        if looks == "similar":
            own = radius * between(rng, 0.92, 1.08)
            r, g, b = (min(1.0, max(0.0, c + between(rng, -0.12, 0.12))) for c in colour)
            tint = (r, g, b)
        tall = {"ball": own, "block": 0.75 * own, "disc": 0.4 * own}[shape]
        bodies.append(Body(shape, own, tall, turn, tint))
    return bodies


def any_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    """A saturated colour: one channel high, one low, one anywhere."""
    high, low, free = between(rng, 0.75, 0.95), between(rng, 0.05, 0.2), between(rng, 0.05, 0.9)
    channels = [high, low, free]
    r, g, b = shuffled(rng, 3)
    return channels[r], channels[g], channels[b]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    # Not rng.uniform: its multiply-add may be fused in C on some processors.
    return low + (high - low) * float(rng.random())


def sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def shuffled(rng: np.random.Generator, count: int) -> list[int]:
    return [int(i) for i in np.argsort(rng.random(count), kind="stable")]


def camera_places(view: str, shift: list[float]) -> npt.NDArray[np.float64]:
    """Place of the camera (frame, xyz)."""
    forward = CAMERAS[view][2]
    target = (0.0, 0.3, 0.0)
    return np.array(
        [[target[k] - CAMERA_DISTANCE * forward[k] + (s if k == 0 else 0.0) for k in range(3)] for s in shift]
    )


def project(
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
