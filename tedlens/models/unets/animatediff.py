"""AnimateDiff (`UNetMotionModel`): an image model with motion modules between its layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tedlens.models.base import Condition, Frames
from tedlens.models.latent import LatentModel
from tedlens.models.points import first_tensor


class AnimateDiff(LatentModel):
    """Adapter for `AnimateDiffPipeline`: the same prompt for every frame.

    The motion modules count frames by an embedding of limited length (`motion_max_seq_length`, 32 in the
    published ones, trained on 16), so a window can be no longer.
    """

    window = 16

    def __init__(self, pipeline: Any, *, motion_adapter: str | None = None, **common: Any) -> None:
        super().__init__(pipeline, **common)
        self.motion_adapter = motion_adapter  # where it was loaded from by itself

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"motion_adapter": self.motion_adapter}

    @property
    def longest_window(self) -> int:
        return int(self.pipeline.unet.config.motion_max_seq_length)

    def condition(self, frames: Frames, clean: Tensor, window: range) -> Condition:
        return {"encoder_hidden_states": self.text.repeat_interleave(len(window), dim=0)}

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> Tensor:
        output = self.unet(noisy.transpose(0, 1)[None], torch.tensor(tau, device=self.device), **condition)
        return first_tensor(output)[0].transpose(0, 1)
