"""ADM: a guided-diffusion checkpoint runs exactly as its own definition; what is no such checkpoint is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler
from guided_diffusion import UNet, random_unet
from safetensors.torch import save_file

import tedlens as tl
from tedlens.models.adm import ADM, load_adm, to_diffusers
from tedlens.models.structure import block_paths, hook_points

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
    model = ADM(DDPMPipeline(unet=unet, scheduler=DDPMScheduler()), checkpoint="x.pt", head_channels=64, name="adm")
    points, paths = hook_points(model, (256, 256)), block_paths(model)
    strides = [256 // points[paths[f"out_{i}"]].grid[0] for i in range(18)]
    assert strides == [32] * 2 + [16] * 3 + [8] * 3 + [4] * 3 + [2] * 3 + [1] * 4
    assert model.block == "out_7"
    assert model.multiple == 32


def test_probe_with_adm(tmp_path: Path) -> None:
    _, path = saved(tmp_path, **SMALL)
    model = tl.load_image_model("adm", checkpoint=path, head_channels=32)
    clip = tl.datasets.similar(1, frames=3, size=(32, 48))
    features = tl.probe(model, clip, tau=51, size=32)
    assert list(features.children) == ["out_0", "out_1", "out_2", "out_3"]
    assert features["out_3"]["features"].sizes["y"] == 32
    about = features.attrs
    assert (about["model_checkpoint"], about["model_head_channels"]) == ("model.pt", 32)
    # The linear schedule of guided-diffusion.
    kept = np.prod(1 - np.linspace(1e-4, 2e-2, 1000)[:52])
    assert model.sigma(51) == pytest.approx(np.sqrt((1 - kept) / kept), rel=1e-5)
    # A path is enough, and safetensors hold the same.
    save_file(random_unet(**SMALL).state_dict(), tmp_path / "model.safetensors")
    same = tl.load_image_model(tmp_path / "model.safetensors", head_channels=32)
    again = tl.probe(same, clip, tau=51, size=32, blocks="out_1")["out_1"]["features"]
    np.testing.assert_array_equal(again, features["out_1"]["features"])


def refused(path: Path, **settings: Any) -> str:
    with pytest.raises(tl.TedlensError) as error:
        load_adm(path, **settings)
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    _, path = saved(tmp_path, **SMALL)
    assert "no such file" in refused(tmp_path / "absent.pt")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused(path)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    assert "damaged" in refused(path)
    path.write_text("not a checkpoint")
    assert "damaged" in refused(path)
    path.write_bytes(pickle.dumps(Path("x")))  # an object, in a pickle of its own
    assert "no file that torch.save wrote" in refused(path)
    torch.save({"model": Path("x")}, path)
    assert "more than tensors" in refused(path)
    torch.save({"model": {"a": torch.zeros(1)}}, path)
    assert "state_dict" in refused(path)


def test_tensors_that_are_no_such_unet(tmp_path: Path) -> None:
    reference, path = saved(tmp_path, **SMALL)

    def refused_with(change: dict[str, torch.Tensor], without: tuple[str, ...] = ()) -> str:
        state = {k: v for k, v in reference.state_dict().items() if k not in without}
        torch.save(state | change, path)
        return refused(path, head_channels=32)

    torch.save({"a": torch.zeros(1)}, path)
    assert "no guided-diffusion UNet" in refused(path)
    assert "label_emb" in refused_with({"label_emb.weight": torch.zeros(10, 128)})
    assert "it lacks out.2.bias" in refused_with({}, ("out.2.bias",))
    assert "middle_block.7.weight" in refused_with({"middle_block.7.weight": torch.zeros(1)})
    assert "has shape (5,)" in refused_with({"out.2.bias": torch.zeros(5)})
    assert "level 1 has attention in some blocks" in refused_with({}, ("input_blocks.3.1.qkv.weight",))
    assert "takes 6 channels" in refused_with({"input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)})


def test_head_channels_must_divide(tmp_path: Path) -> None:
    _, path = saved(tmp_path, **SMALL)
    assert "head_channels=48 does not divide an attention layer of 64 channels" in refused(path, head_channels=48)
    assert "head_channels=0" in refused(path, head_channels=0)


def test_adm_and_checkpoint_go_together(tmp_path: Path) -> None:
    for wrong in ({"name": "adm"}, {"name": "mini", "checkpoint": tmp_path}):
        with pytest.raises(tl.TedlensError, match="go together"):
            tl.load_image_model(**wrong)  # type: ignore[arg-type]
