"""Adapters: the UNet is handed what its own pipeline hands it; loading is safe and its errors are clear."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tiny
import torch
from diffusers import (
    AnimateDiffPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    I2VGenXLPipeline,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    LDMPipeline,
    StableVideoDiffusionPipeline,
    TextToVideoSDPipeline,
    UNet2DModel,
    VQModel,
)

import tedlens as tl
from tedlens.models import latent, registry
from tedlens.models.base import DiffusionModel
from tedlens.models.noise import CONDITIONING, frame_noise
from tedlens.probing import Prepared, probe

FRAMES = 5
KNOWN_NOISE = [-0.2006753534078598, -1.124338984489441]  # of seed 0, frame 3


class Stop(Exception):
    """Ends a pipeline after its first step."""


@contextmanager
def handed_to(unet: torch.nn.Module) -> Iterator[dict[str, Any]]:
    """What the UNet is given at its first forward; nothing runs after that."""
    seen: dict[str, Any] = {}

    def look(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.update(kwargs)
        seen.update(zip(("sample", "timestep", "encoder_hidden_states"), args, strict=False))
        raise Stop

    handle = unet.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield seen
    except Stop:
        pass
    finally:
        handle.remove()


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    theirs = {k: v for k, v in theirs.items() if v is not None and k != "return_dict"}
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-5, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}")


@pytest.fixture(scope="module")
def i2vgen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("i2vgen")
    tiny.i2vgen_xl(folder).save_pretrained(folder / "saved")
    return folder / "saved"


@pytest.fixture(scope="module")
def svd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("svd")
    tiny.svd().save_pretrained(folder)
    return folder


@pytest.fixture
def posterior_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give pipelines the posterior's mean where they draw a sample, as tedlens takes it."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


@pytest.mark.usefixtures("posterior_mean")
@pytest.mark.parametrize("size", [(32, 32), (40, 64)])
@pytest.mark.parametrize("prompt", ["", "two balls"])
def test_i2vgen_xl_is_handed_what_its_pipeline_hands(i2vgen_folder: Path, size: tuple[int, int], prompt: str) -> None:
    clip = tl.datasets.similar(3, frames=FRAMES, size=size)
    model = tl.load_video_model(i2vgen_folder, prompt=prompt, fps=11)
    pipeline = I2VGenXLPipeline.from_pretrained(i2vgen_folder)
    tau = 901  # the first of ten steps
    with handed_to(model.unet) as ours:
        probe(model, clip, tau=tau, blocks="up_1", size=size)
    with handed_to(pipeline.unet) as theirs:
        pipeline(
            prompt,
            PIL.Image.fromarray(clip.frames[0]),
            height=size[0],
            width=size[1],
            target_fps=11,
            num_frames=FRAMES,
            num_inference_steps=10,
            guidance_scale=1.0,
            latents=noisy_latents(model, clip, tau, size).transpose(0, 1)[None],
        )
    assert_same(ours, theirs)


@pytest.mark.parametrize("size", [(32, 32), (32, 64)])
@pytest.mark.parametrize("tau", [999, 400])
def test_svd_is_handed_what_its_pipeline_hands(
    svd_folder: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], tau: int
) -> None:
    clip = tl.datasets.similar(3, frames=FRAMES, size=size)
    model = tl.load_video_model(svd_folder, fps=9, motion_bucket_id=80, noise_aug_strength=0.1)
    pipeline = StableVideoDiffusionPipeline.from_pretrained(svd_folder)
    noise = frame_noise(0, [0], (3, *size), CONDITIONING)  # what tedlens adds to the picture
    module = "diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion"
    monkeypatch.setattr(f"{module}.randn_tensor", lambda shape, **_: noise)
    # Of the pipeline's 1000 steps, start at the one whose sigma is that of tau.
    start = 999 - tau
    set_timesteps = pipeline.scheduler.set_timesteps

    def late(*args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **kwargs)
        pipeline.scheduler.timesteps = pipeline.scheduler.timesteps[start:]
        pipeline.scheduler.sigmas = pipeline.scheduler.sigmas[start:]

    monkeypatch.setattr(pipeline.scheduler, "set_timesteps", late)
    monkeypatch.setattr(type(pipeline.scheduler), "init_noise_sigma", 1.0)  # our latents are noisy already
    with handed_to(model.unet) as ours:
        probe(model, clip, tau=tau, blocks="up_1", size=size)
    with handed_to(pipeline.unet) as theirs:
        pipeline(
            PIL.Image.fromarray(clip.frames[0]),
            height=size[0],
            width=size[1],
            num_frames=FRAMES,
            num_inference_steps=1000,
            max_guidance_scale=1.0,
            fps=9,
            motion_bucket_id=80,
            noise_aug_strength=0.1,
            latents=noisy_latents(model, clip, tau, size)[None],
        )
    assert_same(ours, theirs)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Saved tiny pipelines by the name of the function that makes them, each made once."""

    @cache
    def made(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        make = getattr(tiny, name)
        (make() if name == "svd" else make(folder)).save_pretrained(folder / "saved")
        return folder / "saved"

    return made


@pytest.mark.parametrize("size", [(32, 32), (40, 64)])
@pytest.mark.parametrize("prompt", ["", "two balls"])
@pytest.mark.parametrize(
    ("name", "pipeline_class"), [("modelscope", TextToVideoSDPipeline), ("animatediff", AnimateDiffPipeline)]
)
def test_text_to_video_is_handed_what_its_pipeline_hands(
    folders: Callable[[str], Path], name: str, pipeline_class: Any, size: tuple[int, int], prompt: str
) -> None:
    clip = tl.datasets.similar(3, frames=FRAMES, size=size)
    model = tl.load_video_model(folders(name), prompt=prompt)
    pipeline = pipeline_class.from_pretrained(folders(name))
    tau = 901  # the first of ten steps
    with handed_to(model.unet) as ours:
        probe(model, clip, tau=tau, blocks="up_0", size=size)
    with handed_to(pipeline.unet) as theirs:
        pipeline(
            prompt,
            height=size[0],
            width=size[1],
            num_frames=FRAMES,
            num_inference_steps=10,
            guidance_scale=1.0,
            latents=noisy_latents(model, clip, tau, size).transpose(0, 1)[None],
        )
    assert_same(ours, theirs)


@pytest.mark.parametrize("size", [(32, 32), (40, 64)])
@pytest.mark.parametrize("prompt", ["", "two balls"])
@pytest.mark.parametrize("name", ["stable_diffusion", "sdxl"])
def test_image_models_are_handed_what_their_pipeline_hands(
    folders: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    size: tuple[int, int],
    prompt: str,
) -> None:
    clip = tl.datasets.similar(3, frames=FRAMES, size=size)
    tau = 901  # the first of ten steps
    model = tl.load_image_model(folders(name), prompt=prompt)
    pipeline = DiffusionPipeline.from_pretrained(folders(name))
    latents = noisy_latents(model, clip, tau, size)
    if name == "sdxl":
        # Its scheduler holds x0 + sigma noise, and scales before the UNet.
        monkeypatch.setattr(type(pipeline.scheduler), "init_noise_sigma", 1.0)
        latents = latents * (model.sigma(tau) ** 2 + 1) ** 0.5
    with handed_to(model.unet) as ours:
        probe(model, clip, tau=tau, blocks="up_0", size=size)
    with handed_to(pipeline.unet) as theirs:
        pipeline(
            prompt,
            height=size[0],
            width=size[1],
            num_images_per_prompt=FRAMES,
            num_inference_steps=10,
            guidance_scale=1.0,
            latents=latents,
        )
    for handed in (ours, theirs):
        handed |= handed.pop("added_cond_kwargs", None) or {}
    theirs["timestep"] = theirs["timestep"].long()  # Euler's are floats of the same value
    assert_same(ours, theirs)


def test_animatediff_from_its_two_halves(folders: Callable[[str], Path], tmp_path: Path) -> None:
    tiny.motion_adapter().save_pretrained(tmp_path)
    halves = tl.load_video_model(folders("stable_diffusion"), motion_adapter=tmp_path)
    whole = tl.load_video_model(folders("animatediff"))
    clip = tl.datasets.similar(3, frames=FRAMES, size=32)
    a, b = (probe(m, clip, tau=300, blocks="up_1", size=32)["up_1"]["features"] for m in (halves, whole))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert a.attrs["model_motion_adapter"] == str(tmp_path)
    with pytest.raises(tl.TedlensError, match="window=25 is longer"):
        probe(whole, clip, tau=300, blocks="up_1", size=32, window=25)
    with pytest.raises(tl.TedlensError, match="Cannot load"):
        tl.load_video_model(folders("stable_diffusion"), motion_adapter=tmp_path / "nothing")


def test_a_clip_may_be_conditioned_on_one_of_its_frames(i2vgen_folder: Path, svd_folder: Path) -> None:
    clip = tl.datasets.similar(3, frames=8, size=32)
    for folder in (i2vgen_folder, svd_folder):
        model = tl.load_video_model(folder, conditioning_frame=3)
        first, second = Prepared(model, clip, window=4, overlap=0, size=32).conditions
        by_default = Prepared(tl.load_video_model(folder), clip, window=4, overlap=0, size=32).conditions
        assert not torch.equal(by_default[0]["image_latents"], by_default[1]["image_latents"])
        for key in first:
            torch.testing.assert_close(first[key], second[key], rtol=0, atol=0)
        with pytest.raises(tl.TedlensError, match=r"conditioning_frame=9 .* choose 0 to 7"):
            Prepared(tl.load_video_model(folder, conditioning_frame=9), clip, size=32)


def noisy_latents(model: DiffusionModel, clip: tl.Clip, tau: int, size: tuple[int, int]) -> torch.Tensor:
    clean = Prepared(model, clip, size=size).clean
    return model.add_noise(clean, frame_noise(0, range(FRAMES), tuple(clean.shape[1:])), tau)


def test_latents_are_the_scaled_mean_of_the_posterior(i2vgen_folder: Path, svd_folder: Path) -> None:
    clip = tl.datasets.similar(3, frames=2, size=32)
    for folder in (i2vgen_folder, svd_folder):
        model = tl.load_video_model(folder)
        vae = model.pipeline.vae
        picture = torch.from_numpy(clip.frames).permute(0, 3, 1, 2) / 127.5 - 1
        with torch.no_grad():
            expected = vae.encode(picture).latent_dist.mean * vae.config.scaling_factor
            torch.testing.assert_close(model.encode(clip.frames), expected, rtol=1e-4, atol=1e-5)


def test_svd_sigma_is_its_schedulers(svd_folder: Path) -> None:
    model = tl.load_video_model(svd_folder)
    for tau in (0, 1, 500, 999):
        low, high = 0.002 ** (1 / 7), 700 ** (1 / 7)
        assert model.sigma(tau) == pytest.approx((low + tau / 999 * (high - low)) ** 7, rel=1e-4)
        assert model.log_snr(tau) == pytest.approx(-2 * math.log(model.sigma(tau)))


def test_i2vgen_xl_sigma_is_its_schedulers() -> None:
    model = tl.load_video_model("mini")
    alphas = model.pipeline.scheduler.alphas_cumprod
    assert model.sigma(600) == pytest.approx(float(((1 - alphas[600]) / alphas[600]) ** 0.5))
    # Zero terminal signal-to-noise ratio: at 999 nothing of the clip is left.
    assert model.sigma(999) == math.inf
    assert model.log_snr(999) == -math.inf
    assert [model.log_snr(t) for t in (0, 300, 900)] == sorted((model.log_snr(t) for t in (0, 300, 900)), reverse=True)


def test_noise_belongs_to_the_frame() -> None:
    whole = frame_noise(7, range(12), (4, 3, 5))
    torch.testing.assert_close(frame_noise(7, [9, 2], (4, 3, 5)), whole[[9, 2]], rtol=0, atol=0)
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole, frame_noise(8, range(12), (4, 3, 5)))
    assert not torch.equal(whole, frame_noise(7, range(12), (4, 3, 5), CONDITIONING))
    assert abs(float(whole.mean())) < 0.1
    assert abs(float(whole.std()) - 1) < 0.1
    # Known values: the same on every machine.
    assert frame_noise(0, [3], (2,))[0].tolist() == pytest.approx(KNOWN_NOISE, abs=1e-7)


def test_noise_refuses_a_seed_it_cannot_use() -> None:
    with pytest.raises(tl.TedlensError, match="seed=-1"):
        frame_noise(-1, [0], (1,))


# --- loading --------------------------------------------------------------------------------------


def test_embedded_models_load_with_their_blocks() -> None:
    video, image = tl.load_video_model("mini"), tl.load_image_model("mini")
    assert type(video.unet).__name__ == "I2VGenXLUNet"
    assert video.blocks == ("down_0", "down_1", "down_2", "down_3", "mid", "up_0", "up_1", "up_2", "up_3")
    assert type(image.unet).__name__ == "UNet2DModel"
    assert video.window == 16
    assert image.window is None
    other = tl.load_video_model("mini-svd")
    assert type(other.unet).__name__ == "UNetSpatioTemporalConditionModel"
    assert (other.blocks, other.window, other.block) == (video.blocks, 16, "up_2")
    assert {len(model.weights_sha256) for model in (video, other, image)} == {64}
    assert len({model.weights_sha256 for model in (video, other, image)}) == 3


def test_a_model_says_what_it_is(i2vgen_folder: Path) -> None:
    model = tl.load_video_model(str(i2vgen_folder))
    said = repr(model)
    weights = {
        id(each): each
        for part in model.pipeline.components.values()
        if isinstance(part, torch.nn.Module)
        for each in (*part.parameters(), *part.buffers())
    }
    size = sum(each.numel() * each.element_size() for each in weights.values())
    for fact in (
        repr(model.name),
        "video model",
        f"{len(model.blocks)} ({', '.join(model.blocks)}); by default {model.block}",
        f"{model.window} frames",
        f"tau 0 to 999, log-SNR {model.log_snr(0):.1f} to {model.log_snr(999):.1f}",
        f"{size / 1024**2:.4g} MiB, float32, on cpu",
    ):
        assert fact in said
    assert "interventions" not in said
    assert re.search(r"interventions +.*up_1.*zero", repr(tl.ablate(model, "up_1", "zero")))


def test_a_models_name_is_no_markup() -> None:
    model = tiny.Toy()
    model.name = "<img src=x>\x1b[31m\nsecond"
    for shown in (repr(model), model._repr_html_()):
        assert "\x1b" not in shown
        assert "\nsecond" not in shown
    assert "<img" not in model._repr_html_()
    assert "tau 0 to" in repr(model)


def message(error: pytest.ExceptionInfo[tl.TedlensError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_unknown_name() -> None:
    with pytest.raises(tl.TedlensError) as error:
        tl.load_video_model("i2vgen")
    assert "'i2vgen'" in message(error)
    assert "mini, mini-svd, mini-dit, i2vgen-xl, svd, svd-xt" in message(error)


def test_hub_without_network() -> None:
    with pytest.raises(tl.TedlensError) as error:
        tl.load_video_model("nobody/nothing")
    assert "nobody/nothing" in message(error)


def test_folder_without_index(tmp_path: Path) -> None:
    with pytest.raises(tl.TedlensError) as error:
        tl.load_video_model(tmp_path)
    assert "model_index.json" in message(error)


def test_architecture_without_adapter(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "Kandinsky3UNet"]}))
    with pytest.raises(tl.TedlensError) as error:
        tl.load_video_model(tmp_path)
    assert "Kandinsky3UNet" in message(error)
    assert "I2VGenXLUNet" in message(error)
    assert '@register_adapter("Kandinsky3UNet", kind="video")' in message(error)


def test_image_model_is_no_video_model(tmp_path: Path) -> None:
    tiny.unet2d().save_pretrained(tmp_path)
    assert tl.load_image_model(tmp_path).blocks == ("down_0", "down_1", "mid", "up_0", "up_1")
    with pytest.raises(tl.TedlensError, match="no video adapter"):
        tl.load_video_model(tmp_path)


def test_only_safetensors_are_read(tmp_path: Path) -> None:
    tiny.unet2d().save_pretrained(tmp_path, safe_serialization=False)
    assert list(tmp_path.rglob("*.bin"))
    with pytest.raises(tl.TedlensError, match="safetensors"):
        tl.load_image_model(tmp_path)


def test_truncated_weights(tmp_path: Path) -> None:
    tiny.unet2d().save_pretrained(tmp_path)
    (weights,) = tmp_path.rglob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(tl.TedlensError) as error:
        tl.load_image_model(tmp_path)
    assert str(tmp_path) in message(error)


def test_unknown_option_device_and_dtype(tmp_path: Path) -> None:
    with pytest.raises(tl.TedlensError, match="promt"):
        tl.load_video_model("mini", promt="a")
    with pytest.raises(tl.TedlensError, match="device 'gpu'"):
        tl.load_video_model("mini", device="gpu")
    with pytest.raises(tl.TedlensError, match="float8"):
        tl.load_video_model("mini", dtype="float8")


# --- adapters of others ---------------------------------------------------------------------------


@pytest.fixture
def own_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    for kind, adapters in registry.ADAPTERS.items():
        monkeypatch.setitem(registry.ADAPTERS, kind, dict(adapters))


def kandinsky3() -> Kandinsky3Pipeline:
    torch.manual_seed(0)
    return Kandinsky3Pipeline(
        tokenizer=None,
        text_encoder=None,
        unet=Kandinsky3UNet(
            in_channels=4,
            time_embedding_dim=16,
            groups=2,
            attention_head_dim=4,
            layers_per_block=2,
            block_out_channels=(8, 16, 32, 64),
            cross_attention_dim=16,
            encoder_hid_dim=16,
        ),
        scheduler=DDPMScheduler(),
        movq=VQModel(latent_channels=4, block_out_channels=(8, 8), norm_num_groups=4, num_vq_embeddings=8, **VQ_BLOCKS),
    )


VQ_BLOCKS: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "sample_size": 32,
}


@pytest.mark.usefixtures("own_adapters")
def test_the_documented_adapter_works(tmp_path: Path) -> None:
    """The example of tedlens/models/README.md as it stands there, on a pipeline of that class."""
    kandinsky3().save_pretrained(tmp_path)
    with pytest.raises(tl.TedlensError, match=r"no image adapter.*register_adapter"):
        tl.load_image_model(tmp_path)
    text = (files("tedlens.models") / "README.md").read_text()
    exec(next(code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Kandinsky3" in code), {})
    model = tl.load_image_model(tmp_path, prompt="a ball")
    clip = tl.datasets.similar(1, frames=3, size=(32, 48))
    features = tl.probe(model, clip, tau=51, blocks=["up_1", "up_1.attentions.*"], size=(32, 48))
    assert features["up_1"]["features"].sizes["frame"] == 3
    assert features.attrs["model_prompt"] == "a ball"
    assert len(features.children) > 1


@pytest.mark.usefixtures("own_adapters")
def test_adapters_of_other_packages_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an entry point: a package that is installed and that nobody has imported."""
    (tmp_path / "elsewhere.py").write_text(
        "import tedlens as tl\nfrom tedlens.models.unets.unet2d import UNet2D\n"
        '@tl.register_adapter("UNet2DModel", kind="image")\nclass Mine(UNet2D):\n    pass\n'
    )
    about = tmp_path / "elsewhere-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[tedlens.adapters]\nmine = elsewhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert type(tl.load_image_model("mini")).__name__ == "Mine"


@pytest.mark.usefixtures("own_adapters")
def test_an_entry_point_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "broken-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[tedlens.adapters]\nmine = broken_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(tl.TedlensError, match=r"entry point 'mine'.*broken_module.*does not load"):
        tl.load_image_model("mini")


def test_a_kind_that_is_none() -> None:
    with pytest.raises(tl.TedlensError, match=r"kind=.sound.*'video' or 'image'"):
        tl.register_adapter("UNet2DModel", kind="sound")  # type: ignore[arg-type]


# --- image models ---------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [False, True])
def test_unconditional_models_are_handed_what_their_pipeline_hands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, latent: bool
) -> None:
    unet, scheduler = tiny.unet2d().unet, DDIMScheduler()
    vqvae = VQModel(latent_channels=3, block_out_channels=(8, 8), norm_num_groups=4, **VQ_BLOCKS)
    whole = LDMPipeline(vqvae=vqvae, unet=unet, scheduler=scheduler) if latent else DDPMPipeline(unet, DDPMScheduler())
    whole.save_pretrained(tmp_path)
    model, pipeline = tl.load_image_model(tmp_path), DiffusionPipeline.from_pretrained(tmp_path)
    clip = tl.datasets.similar(3, frames=FRAMES, size=(32, 48))
    noisy = noisy_latents(model, clip, 900, (32, 48))  # the first of ten steps
    # Both draw their start themselves.
    monkeypatch.setattr(f"{type(pipeline).__module__}.randn_tensor", lambda *_, **__: noisy)
    with handed_to(model.unet) as ours:
        probe(model, clip, tau=900, blocks="up_0", size=(32, 48))
    with handed_to(pipeline.unet) as theirs:
        pipeline(batch_size=FRAMES, num_inference_steps=10)
    assert_same(ours, theirs)


def test_latents_of_a_vq_vae(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vqvae = VQModel(latent_channels=3, block_out_channels=(8, 8), norm_num_groups=4, scaling_factor=0.5, **VQ_BLOCKS)
    LDMPipeline(vqvae=vqvae, unet=tiny.unet2d().unet, scheduler=DDIMScheduler()).save_pretrained(tmp_path)
    model = tl.load_image_model(tmp_path)
    clip = tl.datasets.similar(1, frames=2, size=32)
    with torch.no_grad():
        expected = vqvae.encode(torch.from_numpy(clip.frames).permute(0, 3, 1, 2) / 127.5 - 1).latents * 0.5
        torch.testing.assert_close(model.encode(clip.frames), expected, rtol=1e-4, atol=1e-5)
    assert model.multiple == 4
    assert tl.probe(model, clip, tau=51, blocks="up_1", size=32)["up_1"]["features"].sizes["y"] == 16


def test_image_models_that_want_more_than_a_picture(tmp_path: Path) -> None:
    tiny.stable_diffusion(tmp_path, in_channels=9).save_pretrained(tmp_path / "inpainting")
    with pytest.raises(tl.TedlensError, match="9 input channels on latents of 4"):
        tl.load_image_model(tmp_path / "inpainting")
    unet = UNet2DModel(
        block_out_channels=(8,), norm_num_groups=4, num_class_embeds=3, **{k: (v,) for k, v in ONE_LEVEL.items()}
    )
    DDPMPipeline(unet=unet, scheduler=DDPMScheduler()).save_pretrained(tmp_path / "classes")
    with pytest.raises(tl.TedlensError, match="class label"):
        tl.load_image_model(tmp_path / "classes")


ONE_LEVEL: dict[str, Any] = {"down_block_types": "DownBlock2D", "up_block_types": "UpBlock2D"}


def test_a_scheduler_of_another_family(tmp_path: Path) -> None:
    pipeline = tiny.stable_diffusion(tmp_path)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    model = registry.ADAPTERS["image"]["UNet2DConditionModel"](pipeline, name="flow")
    with pytest.raises(tl.TedlensError, match="FlowMatchEulerDiscreteScheduler, which steps along a flow"):
        model.sigma(3)


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "off"), [("float16", 0.05), ("bfloat16", 0.15)])
@pytest.mark.parametrize("name", ["i2vgen_xl", "svd", "modelscope", "animatediff", "stable_diffusion", "sdxl"])
def test_every_adapter_runs_in_half_precision(
    folders: Callable[[str], Path], name: str, dtype: str, off: float
) -> None:
    """As near as its mantissa allows: bfloat16 has three bits less, and one thread rounds otherwise than two."""
    load = tl.load_image_model if name in ("stable_diffusion", "sdxl") else tl.load_video_model
    clip = tl.datasets.similar(3, frames=FRAMES, size=32)
    exact, half = (
        probe(load(folders(name), dtype=each), clip, tau=300, blocks="up_1", size=32)["up_1"]["features"].values
        for each in ("float32", dtype)
    )
    assert half.dtype == (np.float16 if dtype == "float16" else np.float32)  # numpy has no bfloat16
    assert np.linalg.norm(exact - half) / np.linalg.norm(exact) < off


def test_vae_stays_in_float32_where_float16_overflows(i2vgen_folder: Path) -> None:
    half = tl.load_video_model(i2vgen_folder, dtype="float16")
    assert half.pipeline.vae.config.force_upcast
    assert (half.dtype, half.pipeline.vae.dtype) == (torch.float16, torch.float32)
    assert tl.load_video_model(i2vgen_folder, dtype="bfloat16").pipeline.vae.dtype == torch.bfloat16


def test_offload_moves_encoders_to_the_unets_device_and_back(
    i2vgen_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[tuple[str, str]] = []
    to = torch.nn.Module.to

    def watched(self: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
        if args and isinstance(args[0], torch.device | str):
            moves.append((type(self).__name__, str(args[0])))
        return to(self, *args, **kwargs)

    clip = tl.datasets.similar(3, frames=3, size=32)
    plain = tl.load_video_model(i2vgen_folder)
    spared = tl.load_video_model(i2vgen_folder, offload=True)
    monkeypatch.setattr(torch.nn.Module, "to", watched)
    features = [probe(m, clip, tau=300, blocks="up_1", size=32)["up_1"]["features"] for m in (plain, spared)]
    np.testing.assert_array_equal(*features)
    # There and back, each encoder once, and never the UNet. (Here, both places are the CPU.)
    assert sorted(moves) == sorted(
        2 * [(name, "cpu") for name in ("AutoencoderKL", "CLIPTextModel", "CLIPVisionModelWithProjection")]
    )


def test_no_room_for_weights_is_one_sentence(i2vgen_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spared = tl.load_video_model(i2vgen_folder, offload=True)

    to = torch.nn.Module.to

    def full(self: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
        if isinstance(args[0], torch.device):  # there; back it is called "cpu"
            raise torch.OutOfMemoryError
        return to(self, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "to", full)
    said = r"no room for all of '.*saved'; load it with offload='layers'"
    with pytest.raises(tl.TedlensError, match=said):
        probe(spared, tl.datasets.similar(3, frames=3, size=32), tau=300, blocks="up_1", size=32)
    with pytest.raises(tl.TedlensError, match=said):
        tl.load_video_model(i2vgen_folder, offload=True)


def test_encoding_goes_on_with_fewer_frames_when_memory_runs_out(
    i2vgen_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tl.load_video_model(i2vgen_folder)
    frames = tl.datasets.similar(3, frames=8, size=32).frames
    expected = model.encode(frames)
    encode, room = model.pipeline.vae.encode, 2

    def small(images: torch.Tensor) -> Any:
        if len(images) > room:
            raise torch.OutOfMemoryError
        return encode(images)

    monkeypatch.setattr(model.pipeline.vae, "encode", small)
    with pytest.warns(UserWarning, match="goes on with 2 frames at once"):
        torch.testing.assert_close(model.encode(frames), expected)
    room = 0
    with (
        pytest.warns(UserWarning, match="goes on with"),
        pytest.raises(tl.TedlensError, match="no room to encode one frame of 32x32 pixels"),
    ):
        model.encode(frames)
    video = torch.zeros(1, 3, 5, 32, 32)  # of a VAE that takes a video whole
    with pytest.raises(tl.TedlensError, match=r"encode 5 frames of 32x32 pixels.*a shorter window, or call"):
        latent.some_at_once(model.pipeline.vae, video, "encode", small, batch=1)
