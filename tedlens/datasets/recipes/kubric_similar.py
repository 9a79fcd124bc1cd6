"""A recipe for Kubric-Similar: two balls of the same colour and size that pass one another, rendered by Kubric.

Run it where Kubric is installed (its own Docker image, ``kubricdockerhub/kubruntu``); tedlens is not needed there:

    python kubric_similar.py --out kubric-similar --scenes 30 --seed 0

Then ``tl.datasets.kubric("kubric-similar")`` reads the scenes. The paper says: 30 videos of 16 frames, two balls of
random colour, size and motion. Everything else is chosen here: 512 x 512 pixels, 12 frames per second, a grey floor,
CLEVR's lights, a static camera, and paths that come within 2.1 to 4 radii of one another near the middle of the clip.
The script follows Kubric's own workers (challenges/movi/movi_ab_worker.py, 2023). Its authors have not run it with
Kubric.
"""

from __future__ import annotations

import argparse
import colorsys
import math
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FRAMES, RATE, SIDE = 16, 12, 512
REACH = 3.2  # how far from the middle of the floor a ball may be, so that it stays in the picture
CAMERA, FOCAL_LENGTH, SENSOR = (0.0, -11.0, 5.5), 35.0, 32.0

Place = tuple[float, float]


@dataclass(frozen=True)
class Draw:
    """The random values of a scene.

    Attributes
    ----------
    colour
        Red, green and blue from 0 to 1, of both balls.
    radius
        Radius of both balls, in metres.
    starts, velocities
        Start of each ball on the floor, (x, y) in metres, and its velocity, in metres per second.
    """

    colour: tuple[float, float, float]
    radius: float
    starts: tuple[Place, Place]
    velocities: tuple[Place, Place]

    def at(self, ball: int, seconds: float) -> Place:
        """Where a ball is if nothing slows it down."""
        (x, y), (vx, vy) = self.starts[ball], self.velocities[ball]
        return x + vx * seconds, y + vy * seconds


def draw_scene(seed: int) -> Draw:
    """The scene of a seed. It is drawn again until both balls stay within reach."""
    dice = random.Random(f"kubric-similar {seed}")
    seconds = (FRAMES - 1) / RATE
    while True:
        radius = dice.uniform(0.35, 0.7)
        colour = colorsys.hsv_to_rgb(dice.random(), dice.uniform(0.5, 1), dice.uniform(0.5, 1))
        gap = dice.uniform(2.1, 4) * radius
        middle = (dice.uniform(-1, 1), dice.uniform(-1, 1))
        ways = [dice.uniform(0, 2 * math.pi)]
        ways.append(ways[0] + dice.uniform(0.5, 1.5) * math.pi)  # across or against the first
        aside = dice.uniform(0, 2 * math.pi)
        starts, velocities = [], []
        for way, side in zip(ways, (-0.5, 0.5), strict=True):
            speed = dice.uniform(1.5, 4)
            velocity = (speed * math.cos(way), speed * math.sin(way))
            meeting = (middle[0] + side * gap * math.cos(aside), middle[1] + side * gap * math.sin(aside))
            velocities.append(velocity)
            starts.append(tuple(m - v * seconds / 2 for m, v in zip(meeting, velocity, strict=True)))
        drawn = Draw(colour, radius, tuple(starts), tuple(velocities))  # type: ignore[arg-type]
        ends = [drawn.at(ball, at) for ball in (0, 1) for at in (0, seconds)]
        apart = [math.dist(drawn.at(0, seconds * step / 60), drawn.at(1, seconds * step / 60)) for step in range(61)]
        nearest = min(apart)
        in_reach = all(math.hypot(*end) < REACH for end in ends)
        come_and_go = min(apart[0], apart[-1]) > 2 * nearest and 15 <= apart.index(nearest) <= 45
        if in_reach and come_and_go and 2.1 * radius <= nearest <= 4 * radius:
            return drawn


def render(seed: int, out: Path) -> None:
    """Simulate and render the scene of a seed into a folder, which gets its final name only when complete."""
    import kubric as kb  # type: ignore[import-not-found]
    import numpy as np
    from kubric.renderer import Blender  # type: ignore[import-not-found]
    from kubric.simulator import PyBullet  # type: ignore[import-not-found]

    unfinished = out.with_name(f".{out.name}-unfinished")
    flags = kb.ArgumentParser().parse_args(
        [
            *("--frame_start", "1", "--frame_end", str(FRAMES), "--frame_rate", str(RATE)),
            *("--resolution", f"{SIDE}x{SIDE}", "--seed", str(seed), "--job-dir", str(unfinished)),
        ]
    )
    scene, rng, folder, scratch = kb.setup(flags)
    simulator, renderer = PyBullet(scene, scratch), Blender(scene, scratch, samples_per_pixel=64)
    grey = kb.PrincipledBSDFMaterial(color=kb.Color.from_name("gray"), roughness=1.0, specular=0.0)
    scene += kb.Cube(
        name="floor",
        scale=(30, 30, 0.1),
        position=(0, 0, -0.1),
        material=grey,
        friction=0.1,
        restitution=0.5,
        static=True,
        background=True,
    )
    scene.add(kb.assets.utils.get_clevr_lights(rng=rng))
    scene.ambient_illumination = kb.Color(0.05, 0.05, 0.05)
    scene.camera = kb.PerspectiveCamera(focal_length=FOCAL_LENGTH, sensor_width=SENSOR, position=CAMERA)
    scene.camera.look_at((0, 0, 0))
    drawn = draw_scene(seed)
    for number, (start, velocity) in enumerate(zip(drawn.starts, drawn.velocities, strict=True)):
        colour = kb.Color(*drawn.colour)
        ball = kb.Sphere(
            name=f"ball_{number}",
            scale=drawn.radius,
            position=(*start, drawn.radius),
            velocity=(*velocity, 0.0),
            material=kb.PrincipledBSDFMaterial(color=colour, roughness=0.7, specular=0.33),
            friction=0.1,
            restitution=0.7,
        )
        ball.metadata = {"shape": "sphere", "size": drawn.radius, "color": colour.rgb}
        scene.add(ball)
    simulator.run(frame_start=0, frame_end=scene.frame_end + 1)
    layers = renderer.render()
    kb.compute_visibility(layers["segmentation"], scene.assets)
    balls = [asset for asset in scene.foreground_assets if np.max(asset.metadata["visibility"]) > 0]
    layers["segmentation"] = kb.adjust_segmentation_idxs(layers["segmentation"], scene.assets, balls)
    scene.metadata["num_instances"] = len(balls)
    kb.write_image_dict(layers, folder)
    kb.post_processing.compute_bboxes(layers["segmentation"], balls)
    said = {
        "flags": vars(flags),
        "metadata": kb.get_scene_metadata(scene),
        "camera": kb.get_camera_info(scene.camera),
        "instances": kb.get_instance_info(scene, balls),
    }
    kb.write_json(filename=folder / "metadata.json", data=said)
    os.replace(unfinished, out)
    kb.done()


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Render scenes of two identical balls that pass one another.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the scenes")
    parser.add_argument("--scenes", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the first scene; the next ones follow")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # the one scene that this process renders
    asked = parser.parse_args(words)
    if asked.one is not None:
        render(asked.one, asked.out / f"scene_{asked.one:04d}")
        return
    for seed in range(asked.seed, asked.seed + asked.scenes):
        if (asked.out / f"scene_{seed:04d}").exists():
            continue  # whole, from an earlier run
        asked.out.mkdir(parents=True, exist_ok=True)
        # Each in a process of its own: Blender holds one scene at a time.
        command = [sys.executable, __file__, "--out", str(asked.out), "--one", str(seed)]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"Scene {seed} was not rendered; what Kubric says stands above. Run the same again to go on.")


if __name__ == "__main__":
    main()
