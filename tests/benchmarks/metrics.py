"""J and F of a clip against the definition, object by object and frame by frame on the whole picture.

    python tests/benchmarks/metrics.py

70 frames of 854x480 with 4 objects, all frames scored. Dilation by scipy, and by OpenCV where that is
installed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import numpy.typing as npt
import timing
from definitions import Mask, davis_scores, disc, scipy_dilation

import tedlens as tl

FRAMES, HEIGHT, WIDTH, OBJECTS = 70, 480, 854, 4


def clip(shift: float) -> npt.NDArray[np.uint8]:
    """Wavy discs that swing about and overlap; `shift` moves and deforms them."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    for t, mask in enumerate(masks):
        for i in range(OBJECTS):
            dy = y - (120 + 60 * i + 20 * np.sin(t / 9 + i) + shift)
            dx = x - (150 + 160 * i + 60 * np.cos(t / 13 + i) + shift)
            radius = 70 + 8 * np.sin(5 * np.arctan2(dy, dx) + t / 5 + shift)
            mask[dy**2 + dx**2 < radius**2] = i + 1
    return masks


def defined(labels: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], dilated: Callable[[Mask, int], Any]) -> Any:
    """J and F (object, frame, 2)."""
    return np.array(
        [
            [davis_scores(found == i, true == i, dilated) for found, true in zip(labels, truth, strict=True)]
            for i in range(1, OBJECTS + 1)
        ]
    )


def dilations() -> dict[str, Callable[[Mask, int], Any]]:
    ways: dict[str, Callable[[Mask, int], Any]] = {"the definition, scipy": scipy_dilation}
    try:
        import cv2
    except ImportError:
        return ways
    ways["the definition, OpenCV"] = lambda mask, radius: cv2.dilate(mask.astype(np.uint8), disc(radius).astype("u1"))
    return ways


def main() -> None:
    labels, truth = clip(5), clip(0)
    each: dict[str, Callable[[], object]] = {"tl.evaluate": partial(tl.evaluate, labels, truth, protocol="all")}
    each |= {name: partial(defined, labels, truth, dilated) for name, dilated in dilations().items()}
    scores = tl.evaluate(labels, truth, protocol="all")
    ours = np.stack([scores.J, scores.F], -1)
    difference = max(float(np.abs(ours - defined(labels, truth, way)).max()) for way in dilations().values())
    seconds = timing.medians(each)
    print("| | s a clip | times tl.evaluate |\n|---|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {value:.3f} | {value / seconds['tl.evaluate']:.1f} |")
    print(f"\nJ {ours[..., 0].mean():.4f}, F {ours[..., 1].mean():.4f}; largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
