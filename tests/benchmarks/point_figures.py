"""How well points are followed on `similar`: both ways to read a heat map, beside a point that stays where it was.

python tests/benchmarks/point_figures.py [clips]
"""

from __future__ import annotations

import sys

import numpy as np
import xarray as xr

import tedlens as tl


def centres(clip: tl.Clip) -> xr.Dataset:
    """The middle of each ball as a point; it shows where it is in the picture and nobody is in front of it."""
    assert clip.objects is not None
    assert clip.masks is not None
    position = clip.objects["centre"].transpose("object", "frame", "axis").sel(axis=["x", "y"]).values
    x, y = np.moveaxis(position.round().astype(int), -1, 0)
    inside = (x >= 0) & (x < clip.width) & (y >= 0) & (y < clip.height)
    there = clip.masks[np.arange(len(clip)), y.clip(0, clip.height - 1), x.clip(0, clip.width - 1)]
    visible = inside & (there == clip.objects["object"].values[:, None])
    return xr.Dataset(
        {"position": (("point", "frame", "axis"), position), "visible": (("point", "frame"), visible)},
        {"frame": clip.objects["frame"]},
    )


def main(clips: int) -> None:
    video, image = tl.load_video_model("mini"), tl.load_image_model("mini")
    rows: dict[str, list[list[float]]] = {}
    for seed in range(900_000, 900_000 + clips):
        clip = tl.datasets.similar(seed=seed)
        truth = centres(clip)
        queries = tl.point_queries(truth)
        motion = tl.probe(video, clip, tau=200, blocks="up_2")["up_2"]["features"]
        appearance = tl.probe(image, clip, tau=51, blocks="up_1")["up_1"]["features"]
        fused = tl.fuse(motion, appearance, 0.5)
        features = {"motion, tau 200": motion, "appearance, tau 51": appearance, "fused, lambda 0.5": fused}
        found = {
            f"{name}: {locate}": tl.propagate_points(one, queries, locate=locate)
            for name, one in features.items()
            for locate in ("peak", "top")
        }
        place = np.stack([queries["x"], queries["y"]], -1)[:, None].repeat(len(clip), 1)
        shape = ("query", "frame")
        found["stays where it was, always visible"] = xr.Dataset(
            {"position": ((*shape, "axis"), place), "visible": (shape, np.ones(place.shape[:2], bool))}
        )
        for name, points in found.items():
            scores = tl.evaluate_points(points, truth, size=(clip.height, clip.width))
            rows.setdefault(name, []).append([float(scores[key]) for key in ("AJ", "delta", "OA")])
    print("| | AJ | delta | OA |\n|---|---|---|---|")
    for name, scores in rows.items():
        print(f"| {name} | " + " | ".join(f"{100 * value:.1f}" for value in np.mean(scores, 0)) + " |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 32)
