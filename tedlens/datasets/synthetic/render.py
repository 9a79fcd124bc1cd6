"""Pictures and masks of `similar`, by casting a ray through each pixel's centre."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tedlens.datasets.synthetic.scene import (
    CAMERA_DISTANCE,
    CAMERAS,
    HALF_WIDTH,
    WALL_Z,
    Body,
    Pattern,
    any_colour,
    between,
)

Array = npt.NDArray[np.float32]


def render(
    rng: np.random.Generator,
    bodies: list[Body],
    patterns: list[Pattern],
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
    light = _unit(np.array([between(rng, -0.6, 0.6), 1.0, between(rng, -0.8, -0.1)], np.float32))[:, None, None, None]
    # Background first: the floor, or the wall where the ray would meet the floor behind it.
    floor = camera[1] / np.maximum(-ray[1], np.float32(1e-6))
    wall = (np.float32(WALL_Z) - camera[2]) / np.maximum(ray[2], np.float32(1e-6))
    on_floor = floor < wall
    nearest = np.minimum(floor, wall)
    ground = camera + nearest * ray
    colours = [np.array(any_colour(rng), np.float32) * np.float32(0.35) + np.float32(shade) for shade in (0.15, 0.4)]
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


def headings_of(path: npt.NDArray[np.float64], front: float) -> npt.NDArray[np.float64]:
    """Direction of each object's motion along the floor (object, frame, xyz), with length `front` (0 if at rest)."""
    step = path[:, 1:] - path[:, :-1]
    step[..., 1] = 0
    length = np.sqrt(step[..., 0] * step[..., 0] + step[..., 2] * step[..., 2])[..., None]
    return np.where(length > 0, front * step / np.maximum(length, 1e-9), 0.0)


def _hit(body: Body, origin: Array, ray: Array) -> tuple[Array, Array]:
    """Distance along each ray to the body at the world's origin (inf: missed) and the normal there."""
    if body.shape == "ball":
        return _hit_ball(body, origin, ray)
    if body.shape == "block":
        return _hit_block(body, origin, ray)
    return _hit_disc(body, origin, ray)


def _hit_ball(body: Body, origin: Array, ray: Array) -> tuple[Array, Array]:
    along = -_dot(origin, ray)
    square = along * along - _dot(origin, origin) + np.float32(body.radius * body.radius)
    near: Array = (along - np.sqrt(np.maximum(square, 0))).astype(np.float32, copy=False)
    distance = np.where(square > 0, near, np.float32(np.inf))
    normal: Array = ((origin + near * ray) / np.float32(body.radius)).astype(np.float32, copy=False)
    return distance, normal


def _hit_block(body: Body, origin: Array, ray: Array) -> tuple[Array, Array]:
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


def _hit_disc(body: Body, origin: Array, ray: Array) -> tuple[Array, Array]:
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


def _painted(pattern: Pattern, surface: Array) -> Array:
    """Factor of brightness at points (xyz, ..) of a surface, seen from the body's centre."""
    rng = np.random.Generator(np.random.Philox(key=np.array(pattern.key, np.uint64)))
    # Slanted, so that it varies both as seen from the side and from above; four or five spots across an object.
    u, v = (np.float32(2) * (surface[k] + np.float32(slant) * surface[1]) for k, slant in ((0, 0.25), (2, 0.75)))
    spots = np.float32(3) * (_texture(rng, u, v) - np.float32(0.5))
    factor: Array = np.float32(1) + np.float32(pattern.contrast) * np.minimum(np.maximum(spots, -1), 1)
    return factor


def _shade(body: Body, normal: Array, light: Array, ray: Array) -> Array:
    """Ambient, diffuse and specular (Phong, exponent 16) light on a body's surface."""
    facing = _dot(normal, light)
    diffuse = np.float32(0.35) + np.float32(0.65) * np.maximum(facing, 0)
    mirrored = -_dot(2 * facing * normal - light, ray)
    gloss = np.minimum(np.maximum(mirrored, 0), 1)  # over 1 only where the ray missed
    for _ in range(4):
        gloss = gloss * gloss
    shine = np.float32(0.5) * gloss * (facing > 0)
    return np.stack([np.float32(c) * diffuse + shine for c in body.colour])


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


def _dot(a: Array, b: Array) -> Array:
    product: Array = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return product


def _unit(a: Array) -> Array:
    return (a / np.sqrt(_dot(a, a))).astype(np.float32, copy=False)
