"""Clips to train on, made by worker processes and kept ahead of the device: a pure function of the step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tedlens.models.mini import recipe

AHEAD = 8  # batches that each worker keeps ready


class TrainingClips(Dataset[Tensor]):
    """Clip number n of a training: frames (frame, y, x, 3) uint8 of seed TRAINING_SEEDS.start + n."""

    def __init__(self, world: recipe.World, frames: int) -> None:
        self.world, self.frames = world, frames

    def __getitem__(self, number: int) -> Tensor:
        seed = recipe.TRAINING_SEEDS.start + number
        # One frame alone is drawn from a clip of two: motion is no motion in less.
        clip = recipe.training_clip(seed, self.world, frames=max(self.frames, 2))
        return torch.from_numpy(clip.frames[: self.frames])


def training_clips(
    world: recipe.World, frames: int, *, first: int, steps: int, count: int, workers: int, device: str
) -> Iterator[Tensor]:
    """`count` clips (clip, frame, y, x, 3) uint8 for each of the steps from `first` on, on the device.

    `workers` processes make them; with none they are made here, one step at a time.
    """
    loader = DataLoader(
        TrainingClips(world, frames),
        batch_size=count,
        sampler=range(first * count, steps * count),
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        pin_memory=device == "cuda",
    )
    for clips in loader:
        yield clips.to(device, non_blocking=True)


def turned(clips: Tensor, generator: torch.Generator) -> Tensor:
    """The same clips mirrored, turned or run backwards, all alike: a new motion for what was drawn once.

    (clip, frame, y, x, 3), square. One of the sixteen ways is drawn from `generator`.
    """
    flips = torch.rand(4, generator=generator) < 0.5
    for axis, flip in zip((1, 2, 3), flips.tolist(), strict=False):
        clips = clips.flip(axis) if flip else clips
    return clips.transpose(2, 3) if flips[3] else clips
