"""ModelScope and its kin, ZeroScope (`UNet3DConditionModel`): text to video."""

from __future__ import annotations

import torch
from torch import Tensor

from tedlens.models.base import Condition
from tedlens.models.latent import LatentModel
from tedlens.models.points import first_tensor


class ModelScope(LatentModel):
    """Adapter for `TextToVideoSDPipeline`: conditioned on the prompt alone.

    ZeroScope is published as pickles, which tedlens does not read: save it as safetensors with diffusers
    (``pipeline.save_pretrained(folder)``) and give the folder.
    """

    window = 16

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> Tensor:
        output = self.unet(noisy.transpose(0, 1)[None], torch.tensor(tau, device=self.device), **condition)
        return first_tensor(output)[0].transpose(0, 1)
