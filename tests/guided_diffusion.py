"""Reference for the tests: the UNet of OpenAI's guided-diffusion, after its description.

Written for these tests and independently of the conversion; parameters have guided-diffusion's names.
All layers are random, those that guided-diffusion begins at zero too: else they would be tested by nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels)


class Down(nn.Module):
    """Halve height and width: by a convolution where `convolve`, else by the mean of 2x2."""

    def __init__(self, channels: int, convolve: bool) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if convolve else nn.AvgPool2d(2)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        halved: Tensor = self.op(x)
        return halved


class Up(nn.Module):
    """Double height and width by repetition, then a convolution where `convolve`."""

    def __init__(self, channels: int, convolve: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if convolve else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        doubled: Tensor = self.conv(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
        return doubled


class ResBlock(nn.Module):
    """Residual block told the time; `resample` sits between the first activation and its convolution."""

    def __init__(
        self, channels: int, time: int, out_channels: int, scale_shift: bool, resample: type[Down | Up] | None = None
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(norm(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))
        self.resample = resample(channels, convolve=False) if resample else nn.Identity()
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, out_channels * (2 if scale_shift else 1)))
        self.out_layers = nn.Sequential(
            norm(out_channels), nn.SiLU(), nn.Dropout(0.1), nn.Conv2d(out_channels, out_channels, 3, padding=1)
        )
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers[2](self.resample(self.in_layers[1](self.in_layers[0](x))))
        told = self.emb_layers(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + told)
        result: Tensor = self.skip_connection(self.resample(x)) + h
        return result


class Attention(nn.Module):
    """Self-attention over all cells; heads are split before query, key and value (the legacy order)."""

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.norm = norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        batch, channels = x.shape[:2]
        flat = x.flatten(2)
        each = self.qkv(self.norm(flat)).reshape(batch * self.heads, -1, flat.shape[-1])
        q, k, v = each.split(channels // self.heads, dim=1)
        weight = (torch.einsum("bct,bcs->bts", q, k) / math.sqrt(channels // self.heads)).softmax(dim=-1)
        seen = torch.einsum("bts,bcs->bct", weight, v).reshape(batch, channels, -1)
        result: Tensor = (flat + self.proj_out(seen)).reshape(x.shape)
        return result


class Block(nn.Sequential):
    """Layers in a row, those that want it told the time."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            x = layer(x) if isinstance(layer, nn.Conv2d) else layer(x, emb)
        return x


class UNet(nn.Module):
    """guided-diffusion's UNetModel, unconditional.

    `attention` names the levels (0 is the finest) that attend; guided-diffusion names their strides.
    """

    def __init__(
        self,
        model_channels: int = 32,
        channel_mult: Sequence[float] = (1, 2),
        num_res_blocks: int = 1,
        attention: Sequence[int] = (1,),
        num_head_channels: int = 32,
        num_heads: int | None = None,
        use_scale_shift_norm: bool = True,
        resblock_updown: bool = True,
        learn_sigma: bool = True,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.model_channels = model_channels
        time = 4 * model_channels
        self.time_embed = nn.Sequential(nn.Linear(model_channels, time), nn.SiLU(), nn.Linear(time, time))
        widths = [int(mult * model_channels) for mult in channel_mult]
        last = len(widths) - 1

        def res(channels: int, out_channels: int, resample: type[Down | Up] | None = None) -> ResBlock:
            return ResBlock(channels, time, out_channels, use_scale_shift_norm, resample)

        def attention_of(channels: int) -> Attention:
            return Attention(channels, num_head_channels if num_heads is None else channels // num_heads)

        def attend(level: int, channels: int) -> list[nn.Module]:
            return [attention_of(channels)] if level in attention else []

        now = widths[0]
        self.input_blocks = nn.ModuleList([Block(nn.Conv2d(in_channels, now, 3, padding=1))])
        skips = [now]
        for level, width in enumerate(widths):
            for _ in range(num_res_blocks):
                self.input_blocks.append(Block(res(now, width), *attend(level, width)))
                now = width
                skips.append(now)
            if level != last:
                self.input_blocks.append(Block(res(now, now, Down) if resblock_updown else Down(now, convolve=True)))
                skips.append(now)
        self.middle_block = Block(res(now, now), attention_of(now), res(now, now))
        self.output_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for i in range(num_res_blocks + 1):
                layers = [res(now + skips.pop(), width), *attend(level, width)]
                now = width
                if level and i == num_res_blocks:
                    layers.append(res(now, now, Up) if resblock_updown else Up(now, convolve=True))
                self.output_blocks.append(Block(*layers))
        self.out = nn.Sequential(norm(now), nn.SiLU(), nn.Conv2d(now, 6 if learn_sigma else 3, 3, padding=1))

    def time_embedding(self, timesteps: Tensor) -> Tensor:
        half = self.model_channels // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half) / half)
        angles = timesteps[:, None].float() * frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1)

    def forward(self, x: Tensor, timesteps: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The prediction, and the output of each block by tedlens' name for it."""
        emb = self.time_embed(self.time_embedding(timesteps))
        seen: dict[str, Tensor] = {}
        skips = []
        for i, block in enumerate(self.input_blocks):
            seen[f"in_{i}"] = x = block(x, emb)
            skips.append(x)
        seen["mid"] = x = self.middle_block(x, emb)
        for i, block in enumerate(self.output_blocks):
            seen[f"out_{i}"] = x = block(torch.cat([x, skips.pop()], dim=1), emb)
        return self.out(x), seen


def random_unet(seed: int = 0, **settings: object) -> UNet:
    """A UNet whose every parameter is random, norms and biases too."""
    torch.manual_seed(seed)
    unet = UNet(**settings).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for module in unet.modules():
            for kind, parameter in module.named_parameters(recurse=False):
                if isinstance(module, nn.GroupNorm):
                    parameter.normal_(1.0 if kind == "weight" else 0.0, 0.2)
                else:
                    parameter.normal_(0.0, 0.1 if kind == "bias" else parameter[0].numel() ** -0.5)
    return unet
