"""A network of which is known what each layer and head does: one head of one layer alone carries what moves."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from tedlens.models.base import Condition, DiffusionModel, Frames, pictures

CHANNELS, HEADS = 4, 2


class Mix(nn.Module):
    """Attention over frames, added to what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.attn1 = Attention(CHANNELS, heads=HEADS, dim_head=CHANNELS, bias=False, out_bias=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        height, width = hidden_states.shape[-2:]
        tracks = hidden_states.flatten(2).permute(2, 0, 1)
        mixed = self.attn1(tracks).permute(1, 2, 0)
        return hidden_states + mixed.reshape(*mixed.shape[:2], height, width)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = Mix()

    def forward(self, hidden_states: Tensor) -> Tensor:
        out: Tensor = self.mix(hidden_states)
        return out


class PlantedUNet(nn.Module):
    """Three blocks of attention over frames.

    In all, queries and keys are random (so that maps are not flat) but for head 1 of ``up_0``, where they are zero, so
    that it sees the mean over frames. Values are zero but there, where they are taken away: ``up_0`` gives what it
    gets less its mean over frames, and the others give what they get.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv_in = nn.Conv2d(3, CHANNELS, 1)
        self.down_blocks = nn.ModuleList([Block()])
        self.mid_block = Block()
        self.up_blocks = nn.ModuleList([Block()])
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            nn.init.normal_(block.mix.attn1.to_q.weight)
            nn.init.zeros_(block.mix.attn1.to_v.weight)
        planted = self.up_blocks[0].mix.attn1
        head = slice(CHANNELS, 2 * CHANNELS)
        with torch.no_grad():
            planted.to_q.weight[head] = 0
            planted.to_v.weight[head] = torch.eye(CHANNELS)
            planted.to_out[0].weight[:, head] = -torch.eye(CHANNELS)

    def forward(self, sample: Tensor) -> Tensor:
        sample = self.conv_in(sample)
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            sample = block(sample)
        return sample


class Planted(DiffusionModel):
    """Its adapter: pixels are its latents, and noise is added to them as to SVD's."""

    block = "up_0"
    multiple = 4
    window = 4

    def __init__(self) -> None:
        unet = PlantedUNet()
        super().__init__(SimpleNamespace(unet=unet, components={"unet": unet}), name="planted", size=8)

    def encode(self, frames: Frames) -> Tensor:
        return pictures(frames).to(self.device, self.dtype)

    def sigma(self, tau: int) -> float:
        return tau / (1000 - tau)

    def add_noise(self, clean: Tensor, noise: Tensor, tau: int) -> Tensor:
        return clean + self.sigma(tau) * noise

    def run(self, noisy: Tensor, tau: int, condition: Condition) -> None:
        self.unet(noisy)
