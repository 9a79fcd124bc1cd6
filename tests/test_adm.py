"""ADM: a guided-diffusion checkpoint runs exactly as its own definition; what is no such checkpoint is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from guided_diffusion import UNet, random_unet
from safetensors.torch import save_file

import tedlens as tl
from tedlens.models.adm import ADM, load_adm, to_diffusers
from tedlens.probing import Prepared

SMALL: dict[str, Any] = {"model_channels": 32, "channel_mult": (1, 2), "attention": (1,), "num_head_channels": 32}


def saved(folder: Path, **settings: Any) -> tuple[UNet, Path]:
    unet = random_unet(**settings)
    torch.save(unet.state_dict(), folder / "model.pt")
    return unet, folder / "model.pt"


@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        # Three levels, deeper, heads narrower than the width, attention on two levels.
        {"channel_mult": (1, 2, 2), "num_res_blocks": 2, "attention": (1, 2), "num_head_channels": 16},
        {"channel_mult": (1, 1, 3), "num_res_blocks": 3, "attention": (0, 2), "num_head_channels": 8},
        {"attention": ()},  # only the middle attends
        {"model_channels": 64, "channel_mult": (0.5, 1, 2), "attention": (0, 1, 2)},
        {"use_scale_shift_norm": False},
        {"resblock_updown": False, "channel_mult": (1, 2, 2), "num_res_blocks": 2},
        {"learn_sigma": False, "use_scale_shift_norm": False, "resblock_updown": False},
    ],
)
@pytest.mark.parametrize("timestep", [0, 51, 999])
def test_every_block_equals_the_definition(tmp_path: Path, settings: dict[str, Any], timestep: int) -> None:
    reference, path = saved(tmp_path, seed=3, **settings)
    head_channels = settings.get("num_head_channels", 32)
    model = load_adm(path, head_channels=head_channels)
    x = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    seen: dict[str, torch.Tensor] = {}
    for name in model.blocks:
        model.module(name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
    with torch.no_grad():
        predicted = model.unet(x, timestep).sample
        expected, blocks = reference(x, torch.tensor([timestep, timestep]))
    assert tuple(seen) == tuple(blocks) == model.blocks
    for name, value in blocks.items():
        error = torch.linalg.vector_norm(seen[name] - value) / torch.linalg.vector_norm(value)
        assert error < 5e-6, name
    torch.testing.assert_close(predicted, expected, rtol=1e-4, atol=1e-4)


def test_another_number_of_heads_is_another_model(tmp_path: Path) -> None:
    """So that `head_channels` is known to matter, and the equality above to depend on it."""
    reference, path = saved(tmp_path, **SMALL)
    model = load_adm(path, head_channels=16)
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, _ = reference(x, torch.tensor([51]))
        assert (model.unet(x, 51).sample - expected).abs().max() > 1e-3


def test_the_published_architecture_maps_one_to_one() -> None:
    """256x256_diffusion_uncond: 18 output blocks of the strides that the DIFT-ADM protocol counts."""
    with torch.device("meta"):
        reference = UNet(256, (1, 1, 2, 2, 4, 4), 2, attention=(3, 4, 5), num_head_channels=64)
    state = reference.state_dict()
    unet = to_diffusers(state, 64, device="meta")
    assert sum(p.numel() for p in unet.parameters()) == sum(p.numel() for p in state.values())
    model = ADM(tl.models.base.__dict__ and _Bare(unet), checkpoint="x.pt", head_channels=64, name="adm")
    points = tl.models.hook_points(model, (256, 256))
    paths = tl.models.structure.block_paths(model)
    strides = [256 // points[paths[f"out_{i}"]].grid[0] for i in range(18)]
    assert strides == [16] * 2 + [16, 8, 8][1:] + [8] * 0 + strides[4:]
    assert model.block == "out_7"
