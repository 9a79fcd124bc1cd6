"""ADM: a converted checkpoint computes what guided-diffusion's UNet does; its errors are clear."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import guided_diffusion
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import tedlens as tl
from tedlens.models.points import first_tensor
from tedlens.models.unets.adm import ADM, Heads, architecture, block_paths, load_adm, to_diffusers
from tedlens.probing import Tap, record

# Largest error of a block relative to its norm; seen: 2e-6.
TOLERANCE = 1e-5
HEAD = 32

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "scale-shift, resblock resampling": {},
    "time added, convolutions resample": {"use_scale_shift_norm": False, "resblock_updown": False},
    "time added, resblock resampling": {"use_scale_shift_norm": False},
    "scale-shift, convolutions resample": {"resblock_updown": False, "attention": (0, 1)},
    "no attention but in the middle": {"attention": (), "learn_sigma": False},
    "attention everywhere, several heads": {"attention": (0, 1), "model_channels": 64, "num_head_channels": 16},
    "four heads at every width": {"attention": (0, 1), "model_channels": 64, "num_heads": 4},
    "attention at the finest alone": {"channel_mult": (1, 1, 2), "attention": (0,), "num_head_channels": 8},
    "deep, widths that come back": {"channel_mult": (2, 1, 1, 2), "num_res_blocks": 2, "attention": (1, 3)},
    "first level narrower than the time": {"model_channels": 64, "channel_mult": (0.5, 1, 2), "num_res_blocks": 3},
    "one level": {"channel_mult": (1,), "num_res_blocks": 2, "attention": ()},
}
# 256x256_diffusion_uncond.pt
OPENAI_256: dict[str, Any] = {
    "model_channels": 256,
    "channel_mult": (1, 1, 2, 2, 4, 4),
    "num_res_blocks": 2,
    "attention": (3, 4, 5),  # at 32, 16 and 8 of 256
    "num_head_channels": 64,
}


def saved(folder: Path, state: Any, **options: Any) -> Path:
    path = folder / "model.pt"
    torch.save(state, path, **options)
    return path


def state_of(**settings: Any) -> dict[str, Tensor]:
    return guided_diffusion.random_unet(**settings).state_dict()


def blocks_of(model: ADM, noisy: Tensor, tau: int) -> dict[str, Tensor]:
    taps = {name: Tap(model.module(name), first_tensor) for name in model.blocks}
    with torch.inference_mode(), record(taps, model.blocks[-1]) as seen:
        model.run(noisy, tau, {})
    return seen


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert ours[name].shape == value.shape
        error = float((ours[name] - value).norm() / value.norm())
        assert error < TOLERANCE, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("settings", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_blocks_are_those_of_guided_diffusion(tmp_path: Path, settings: dict[str, Any]) -> None:
    unet = guided_diffusion.random_unet(**settings)
    path = saved(tmp_path, unet.state_dict())
    heads = {"num_heads": 4} if "num_heads" in settings else {"head_channels": settings.get("num_head_channels", HEAD)}
    model = load_adm(path, **heads)
    for tau, size in ((0, (32, 32)), (51, (16, 40)), (999, (24, 8))):
        noisy = torch.randn(2, 3, *size)
        with torch.inference_mode():
            predicted, theirs = unet(noisy, torch.tensor([tau, tau]))
            torch.testing.assert_close(model.unet(noisy, tau).sample, predicted, rtol=1e-4, atol=1e-4)
        assert_close(blocks_of(model, noisy, tau), theirs)


@pytest.mark.parametrize("settings", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_shapes_tell_the_architecture(settings: dict[str, Any]) -> None:
    unet = guided_diffusion.random_unet(**settings)
    found = architecture(unet.state_dict())
    mult = settings.get("channel_mult", (1, 2))
    assert found.time_channels == unet.model_channels
    assert found.widths == tuple(int(m * unet.model_channels) for m in mult)
    assert [level for level, has in enumerate(found.attention) if has] == list(settings.get("attention", (1,)))
    assert found.res_blocks == settings.get("num_res_blocks", 1)
    assert found.scale_shift == settings.get("use_scale_shift_norm", True)
    assert found.resblock_updown == settings.get("resblock_updown", True)
    assert found.out_channels == (6 if settings.get("learn_sigma", True) else 3)


def test_heads_matter(tmp_path: Path) -> None:
    unet = guided_diffusion.random_unet(num_head_channels=16)
    path = saved(tmp_path, unet.state_dict())
    noisy = torch.randn(1, 3, 16, 16)
    with torch.inference_mode():
        _, theirs = unet(noisy, torch.tensor([51]))
    ours = blocks_of(load_adm(path, head_channels=32), noisy, 51)["mid"]
    assert float((ours - theirs["mid"]).norm() / theirs["mid"].norm()) > 1000 * TOLERANCE


def test_openai_256_structure() -> None:
    with torch.device("meta"):
        theirs = guided_diffusion.UNet(**OPENAI_256).state_dict()
    unet = to_diffusers(theirs, Heads(64), device="meta")  # refuses tensors left over, missing or of other shapes
    # The paper's 554M of the class-conditional model, less its 1000 classes' embeddings of 1024.
    parameters = sum(p.numel() for p in unet.parameters())
    assert parameters == sum(value.numel() for value in theirs.values())
    assert round((parameters + 1000 * 1024) / 1e6) == 554
    assert unet.config.block_out_channels == (256, 256, 512, 512, 1024, 1024)
    paths = block_paths(unet)
    assert list(paths) == [*(f"in_{i}" for i in range(18)), "mid", *(f"out_{i}" for i in range(18))]
    # Names in the released file.
    for key, shape in {
        "time_embed.0.weight": (1024, 256),
        "input_blocks.0.0.weight": (256, 3, 3, 3),
        "input_blocks.10.1.qkv.weight": (1536, 512, 1),
        "middle_block.1.proj_out.weight": (1024, 1024, 1),
        "output_blocks.2.2.in_layers.2.weight": (1024, 1024, 3, 3),
        "output_blocks.17.0.skip_connection.weight": (256, 512, 1, 1),
        "out.2.weight": (6, 256, 3, 3),
    }.items():
        assert tuple(theirs[key].shape) == shape


def test_openai_256_strides(tmp_path: Path) -> None:
    small = OPENAI_256 | {"model_channels": 32, "num_head_channels": 32}
    model = load_adm(saved(tmp_path, state_of(**small)), head_channels=32)
    assert model.block == "out_7"
    assert model.multiple == 32
    assert (model.size, model.window) == (480, None)
    seen = blocks_of(model, torch.randn(1, 3, 64, 96), 51)
    strides = [64 // seen[f"out_{i}"].shape[2] for i in range(18)]
    # By index of `output_blocks`, upsampling included: 0-1: 32, 2-4: 16, 5-7: 8, 8-10: 4, 11-13: 2, 14-17: 1.
    # The last residual block of a level is upsampled: it has the stride of the next.
    assert strides == [32] * 2 + [16] * 3 + [8] * 3 + [4] * 3 + [2] * 3 + [1] * 4


def test_adapter(tmp_path: Path) -> None:
    path = saved(tmp_path, state_of())
    model = load_adm(path, head_channels=HEAD)
    assert model.blocks == ("in_0", "in_1", "in_2", "in_3", "mid", "out_0", "out_1", "out_2", "out_3")
    assert model.block == "out_2"  # the middle: there is no out_7
    assert load_adm(path, head_channels=HEAD, block="out_1", size=64).block == "out_1"
    about = model.provenance()
    assert about["model"] == "adm"
    assert about["model_checkpoint"] == "model.pt"  # not where it lies on this machine
    assert about["model_head_channels"] == HEAD
    assert about["weights_sha256"] == load_adm(path, head_channels=HEAD).weights_sha256
    assert about["weights_sha256"] != load_adm(saved(tmp_path, state_of(seed=1)), head_channels=HEAD).weights_sha256
    with pytest.raises(tl.TedlensError, match="no block 'out_4'"):
        model.module("out_4")


def test_weights_outlive_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path, state_of())
    model = load_adm(path, head_channels=HEAD)
    before = model.unet.conv_in.weight.clone()
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(model.unet.conv_in.weight, before)


def test_noise_is_that_of_linear_betas(tmp_path: Path) -> None:
    model = load_adm(saved(tmp_path, state_of()), head_channels=HEAD)
    alphas = np.cumprod(1 - np.linspace(0.0001, 0.02, 1000))
    for tau in (0, 51, 500, 999):
        assert model.sigma(tau) == pytest.approx(np.sqrt(1 / alphas[tau] - 1), rel=1e-4)
    clean, noise = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    expected = alphas[51] ** 0.5 * clean + (1 - alphas[51]) ** 0.5 * noise
    torch.testing.assert_close(model.add_noise(clean, noise, 51), expected, rtol=1e-5, atol=1e-5)


def test_probe_gives_what_guided_diffusion_computes(tmp_path: Path) -> None:
    unet = guided_diffusion.random_unet()
    model = load_adm(saved(tmp_path, unet.state_dict()), head_channels=HEAD)
    clip = tl.datasets.similar(3, frames=2, size=32)
    found = tl.probe(model, clip, tau=51, blocks=["mid", "out_1"], size=32)
    clean = torch.from_numpy(clip.frames).permute(0, 3, 1, 2) / 127.5 - 1
    noise = tl.models.noise.frame_noise(0, range(2), (3, 32, 32))
    with torch.inference_mode():
        _, theirs = unet(model.add_noise(clean, noise, 51), torch.tensor([51, 51]))
    ours = {name: torch.from_numpy(found[name]["features"].values[0, 0]) for name in ("mid", "out_1")}
    assert_close(ours, {name: theirs[name] for name in ours})


# --- files ----------------------------------------------------------------------------------------


def test_formats_give_the_same_weights(tmp_path: Path) -> None:
    state = state_of()
    expected = load_adm(saved(tmp_path, state), head_channels=HEAD).weights_sha256
    old = saved(tmp_path, state, _use_new_zipfile_serialization=False)
    assert load_adm(old, head_channels=HEAD).weights_sha256 == expected
    save_file(state, tmp_path / "model.safetensors")
    assert load_adm(tmp_path / "model.safetensors", head_channels=HEAD).weights_sha256 == expected


def test_half_checkpoint_in_any_type(tmp_path: Path) -> None:
    state = {key: value.half() for key, value in state_of().items()}
    path = saved(tmp_path, state)
    model = load_adm(path, head_channels=HEAD)
    assert model.dtype == torch.float32
    assert torch.equal(model.unet.conv_in.weight, state["input_blocks.0.0.weight"].float())
    half = load_adm(path, head_channels=HEAD, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    noisy = torch.randn(1, 3, 16, 16)
    exact, rough = blocks_of(model, noisy, 51)["out_2"], blocks_of(half, noisy.bfloat16(), 51)["out_2"]
    assert float((exact - rough).norm() / exact.norm()) < 0.1


def refusal(path: Path, head_channels: Any = HEAD) -> str:
    """The error of loading: one sentence that names the file."""
    with pytest.raises(tl.TedlensError) as error:
        load_adm(path, head_channels=head_channels)
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_no_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "absent.pt")
    assert "no such file" in refusal(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated(tmp_path: Path, share: float, zipped: bool) -> None:
    path = saved(tmp_path, state_of(), _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("place", [0.01, 0.5, 0.9])
def test_a_byte_changed_in_a_tensor(tmp_path: Path, place: float) -> None:
    path = saved(tmp_path, state_of())
    changed = bytearray(path.read_bytes())
    changed[int(place * len(changed))] ^= 255
    path.write_bytes(changed)
    assert "damaged" in refusal(path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    path = saved(tmp_path, state_of())
    monkeypatch.setattr(torch, "load", denied)
    assert "cannot be read: Permission denied." in refusal(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_text("<html>404 Not Found</html>")
    assert "no file that torch.save wrote" in refusal(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    assert "no file that torch.save wrote" in refusal(path)
    damaged = tmp_path / "model.safetensors"
    save_file(state_of(), damaged)
    damaged.write_bytes(damaged.read_bytes()[:5000])
    assert "damaged" in refusal(damaged)


def test_more_than_tensors(tmp_path: Path) -> None:
    assert "could run code" in refusal(saved(tmp_path, {"args": argparse.Namespace(lr=1), **state_of()}))
    assert "could run code" in refusal(saved(tmp_path, guided_diffusion.random_unet()))
    for other in ({"state_dict": state_of(), "step": 3}, [torch.zeros(2)]):
        assert "more than tensors by name" in refusal(saved(tmp_path, other))


def test_another_model(tmp_path: Path) -> None:
    assert "no tensor input_blocks.0.0.weight" in refusal(saved(tmp_path, {"conv.weight": torch.zeros(2)}))
    encoder = {key: value for key, value in state_of().items() if not key.startswith("output_blocks")}
    assert "0 output blocks" in refusal(saved(tmp_path, encoder))


def test_missing_and_unknown_tensors(tmp_path: Path) -> None:
    state = state_of()
    state["middle_block.1.other"] = state.pop("middle_block.1.proj_out.bias")
    assert "lacks middle_block.1.proj_out.bias." in refusal(saved(tmp_path, state))
    state["middle_block.1.proj_out.bias"] = torch.zeros(64)
    assert "does not: middle_block.1.other." in refusal(saved(tmp_path, state))
    fewer = {key: value for key, value in state_of().items() if not key.startswith("middle_block")}
    assert "middle_block.0.in_layers.0.weight" in refusal(saved(tmp_path, fewer))
    assert "more." in refusal(saved(tmp_path, fewer))


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    state = state_of()
    state["out.0.weight"] = torch.zeros(64)
    assert "out.0.weight has shape (64,), and (32,) would fit" in refusal(saved(tmp_path, state))
    scalar = state_of() | {"out.2.weight": torch.tensor(1.0)}
    assert "no tensor out.2.weight of the right shape" in refusal(saved(tmp_path, scalar))


def test_mixed_resampling(tmp_path: Path) -> None:
    settings = {"channel_mult": (1, 1, 1), "attention": ()}
    state = state_of(**settings)
    other = state_of(**settings, resblock_updown=False)
    mixed = {key: value for key, value in state.items() if not key.startswith("output_blocks.1.1.")}
    mixed |= {key: value for key, value in other.items() if key.startswith("output_blocks.1.1.")}
    assert "lacks" in refusal(saved(tmp_path, mixed))


def test_attention_in_some_blocks_of_a_level(tmp_path: Path) -> None:
    state = state_of(num_res_blocks=2)
    some = {key: value for key, value in state.items() if not key.startswith("input_blocks.5.1.")}
    text = refusal(saved(tmp_path, some))
    assert "level 1 has attention in some blocks" in text
    assert "input_blocks.5.1.qkv.weight is not" in text


def test_class_conditional(tmp_path: Path) -> None:
    state = state_of() | {"label_emb.weight": torch.zeros(10, 128)}
    assert "class-conditional" in refusal(saved(tmp_path, state))


def test_upsampler(tmp_path: Path) -> None:
    assert "takes 6 channels" in refusal(saved(tmp_path, state_of(in_channels=6)))


@pytest.mark.parametrize("head_channels", [48, 128, 0, -32, 32.0])
def test_head_channels_that_do_not_fit(tmp_path: Path, head_channels: Any) -> None:
    text = refusal(saved(tmp_path, state_of()), head_channels)
    assert f"head_channels={head_channels} does not divide an attention layer of 64 channels" in text


def test_head_channels_of_the_middle_count(tmp_path: Path) -> None:
    path = saved(tmp_path, state_of(channel_mult=(3, 2), attention=(0,)))
    assert load_adm(path, head_channels=32).blocks
    assert "attention layer of 64 channels" in refusal(path, 48)


def test_width_that_groups_do_not_divide(tmp_path: Path) -> None:
    state = state_of(attention=())
    narrow = {key: value[:16] if value.shape[0] == 32 else value for key, value in state.items()}
    assert "16 channels wide" in refusal(saved(tmp_path, narrow))


def test_adm_and_checkpoint_go_together(tmp_path: Path) -> None:
    for wrong in ({"name": "adm"}, {"name": "mini", "checkpoint": tmp_path}):
        with pytest.raises(tl.TedlensError, match="go together"):
            tl.load_image_model(**wrong)  # type: ignore[arg-type]


def test_a_path_is_enough(tmp_path: Path) -> None:
    path = saved(tmp_path, state_of())
    clip = tl.datasets.similar(1, frames=2, size=(32, 48))
    given = [
        tl.load_image_model("adm", checkpoint=path, head_channels=HEAD),
        tl.load_image_model(path, head_channels=HEAD),
    ]
    by_name, by_path = (tl.probe(model, clip, tau=51, size=32) for model in given)
    assert list(by_name.children) == [block for block in given[0].blocks if block.startswith("out_")]
    for block in by_name.children:
        np.testing.assert_array_equal(by_name[block]["features"], by_path[block]["features"])
    assert (by_name.attrs["model_checkpoint"], by_name.attrs["model_head_channels"]) == ("model.pt", HEAD)
