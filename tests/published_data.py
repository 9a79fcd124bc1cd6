"""Made-up data in the layouts of the field, drawn by `similar`: what a benchmark's command is tried on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image

import tedlens as tl

PALETTE = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)


def write_davis(root: Path, clips: int = 8, frames: int = 6) -> list[str]:
    """A DAVIS of a few clips: of odd sizes, with void, an object that enters late, ids with a gap."""
    names = []
    for number in range(clips):
        size = [(96, 128), (101, 131), (128, 97)][number % 3]
        clip = tl.datasets.similar(seed=700_000 + number, frames=frames, size=size)
        assert clip.masks is not None
        masks = clip.masks.copy()
        if number % 4 == 1:  # enters late
            masks[:2][masks[:2] == 2] = 0
        if number % 4 == 2:  # void in all frames but the first
            masks[1:, :3] = 255
        if number % 4 == 3:
            masks[masks == 2] = 7
        name = f"made-up-{number}"
        for t, (frame, mask) in enumerate(zip(clip.frames, masks, strict=True)):
            _save(PIL.Image.fromarray(frame), root / "JPEGImages" / "480p" / name / f"{t:05d}.jpg")
            picture = PIL.Image.fromarray(mask)
            picture.putpalette(PALETTE.tobytes())
            _save(picture, root / "Annotations" / "480p" / name / f"{t:05d}.png")
        names.append(name)
    lists = root / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("\n".join(names) + "\n")
    return names


def _save(picture: PIL.Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
