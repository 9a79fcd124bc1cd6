"""Noise belongs to the frame: a pure function of seed, absolute frame index and shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from tedlens.errors import TedlensError

# Independent streams of the same (seed, frame).
DIFFUSION, CONDITIONING, FILLING = 0, 1, 2


def frame_noise(
    seed: int, frames: Iterable[int], shape: tuple[int, ...], stream: int = DIFFUSION, *, sample: int = 0
) -> Tensor:
    """Standard normal noise (frame, *shape), float32, on the CPU.

    The same for a frame whatever window, batch, order or device it is used in: a counter-based
    generator (Philox) is keyed with the seed and the frame's index in the clip. Overlapping windows
    therefore agree where they overlap, and a resumed sweep equals a straight one.
    """
    if not 0 <= seed < 2**63 or int(seed) != seed:
        raise TedlensError(f"seed={seed} cannot key the noise; choose a whole number from 0 to 2**63 - 1.")
    each = []
    for frame in frames:
        bits = np.random.Philox(
            key=np.array([seed, frame], np.uint64), counter=np.array([0, 0, sample, stream], np.uint64)
        )
        each.append(torch.from_numpy(np.random.Generator(bits).standard_normal(shape, dtype=np.float32)))
    return torch.stack(each)


def latent_noise(seed: int, latents: Sequence[range], shape: tuple[int, ...], *, sample: int = 0) -> Tensor:
    """Noise (latent, *shape) of latents that hold the given frames of a clip: that of the first frame of each.

    So two windows agree about a latent that begins at the same frame in both. A latent that only fills up holds no
    frame (an empty range), and has noise of its own.
    """
    each = [
        frame_noise(seed, [held.start], shape, DIFFUSION if len(held) else FILLING, sample=sample) for held in latents
    ]
    return torch.cat(each)
