"""Made-up data in the layouts of the field, drawn by `similar`: what a benchmark's command is tried on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import scipy.io

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


def write_vip(root: Path, clips: int = 2, frames: int = 4) -> None:
    """A VIP_Fine of clips with two parts, of which one shows from the third frame on only."""
    for number in range(clips):
        clip = tl.datasets.similar(seed=710_000 + number, frames=frames, size=(64, 80))
        assert clip.masks is not None
        classes = np.array([0, 4, 13], np.uint8)[clip.masks]
        classes[:2][classes[:2] == 13] = 0
        for t, (frame, mask) in enumerate(zip(clip.frames, classes, strict=True), start=1):
            _save(PIL.Image.fromarray(frame), root / "Images" / f"videos{number}" / f"{t:012d}.jpg")
            _save(
                PIL.Image.fromarray(mask), root / "Annotations" / "Category_ids" / f"videos{number}" / f"{t:012d}.png"
            )
    (root / "lists").mkdir()
    (root / "lists" / "val_videos.txt").write_text("".join(f"videos{n}\n" for n in range(clips)))


def write_jhmdb(root: Path, clips: int = 2, frames: int = 4) -> None:
    """A JHMDB of clips whose joints ride on the balls; one joint is out of the picture."""
    lines = []
    for number in range(clips):
        clip = tl.datasets.similar(seed=720_000 + number, frames=frames, size=(64, 80))
        name = f"made_up_{number}"
        for t, frame in enumerate(clip.frames, start=1):
            _save(PIL.Image.fromarray(frame), root / "Rename_Images" / "jump" / name / f"{t:05d}.png")
        assert clip.objects is not None
        centre = clip.objects["centre"].sel(axis=["x", "y"]).transpose("axis", "object", "frame").values
        joints = centre[:, np.arange(15) % 2] + np.linspace(-4, 4, 15)[None, :, None] + 1
        joints[:, 4] = 500
        place = root / "joint_positions" / "jump" / name
        place.mkdir(parents=True)
        scipy.io.savemat(place / "joint_positions.mat", {"pos_img": joints})
        lines.append(f"{name}.avi 2 \n")
    (root / "splits").mkdir()
    (root / "splits" / "jump_test_split1.txt").write_text("".join(lines))


def write_tapvid(path: Path, clips: int = 2, frames: int = 6) -> None:
    """A TAP-Vid of clips whose points are the middles of the balls; one is hidden at first."""
    arrays: dict[str, Any] = {}
    for number in range(clips):
        clip = tl.datasets.similar(seed=730_000 + number, frames=frames, size=(64, 80))
        assert clip.objects is not None
        centre = clip.objects["centre"].sel(axis=["x", "y"]).transpose("object", "frame", "axis").values
        occluded = np.zeros((2, frames), bool)
        occluded[1, :2] = True
        each = {"video": clip.frames, "points": (centre + 0.5) / [80, 64], "occluded": occluded}
        arrays |= {f"made-up-{number}/{name}": value for name, value in each.items()}
    np.savez(path, **arrays)
