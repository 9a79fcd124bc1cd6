"""Models of the published sizes with random weights: saved as people have them, loaded and probed in a fresh process.

    python tests/benchmarks/full_size.py i2vgen-xl svd sd-2.1 adm    # about 10 minutes and 10 GB of disk at a time
    python tests/benchmarks/full_size.py cogvideox-2b wan-2.1-1.3b

Configurations are those of the published models; tokenizers are tiny, as no word is read. Memory is the greatest that
the process held.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

FRAMES, SIZE = 16, (192, 256)
TRANSFORMERS = ("cogvideox-2b", "wan-2.1-1.3b")  # in bfloat16, without text encoder, of 8 frames
VIT_H_IMAGE = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
    "projection_dim": 1024,
    "hidden_act": "gelu",
}
VIT_H_TEXT = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "projection_dim": 512,
    "hidden_act": "gelu",
}
SD_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "latent_channels": 4,
}


def i2vgen_xl_pipeline(folder: Path) -> Any:
    """I2VGen-XL in memory."""
    import diffusers
    import tiny
    from transformers import CLIPImageProcessor, CLIPTextConfig, CLIPTextModel

    pipeline = tiny.i2vgen_xl(folder)
    pipeline.register_modules(
        vae=diffusers.AutoencoderKL(**SD_VAE, up_block_types=("UpDecoderBlock2D",) * 4),
        text_encoder=CLIPTextModel(CLIPTextConfig(**{**tiny.text_config().to_dict(), **VIT_H_TEXT})),
        image_encoder=image_encoder(),
        unet=diffusers.I2VGenXLUNet(),
        feature_extractor=CLIPImageProcessor(crop_size=224, size=224),
    )
    pipeline.tokenizer = tiny.tokenizer(folder / "made")
    return pipeline


def image_encoder() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(CLIPVisionConfig(**VIT_H_IMAGE))


def made(name: str, folder: Path) -> Path:
    """A model of the published size with random weights, on disk."""
    import diffusers
    import guided_diffusion
    import tiny
    from test_adm import OPENAI_256
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    if name == "adm":
        path = folder / "256x256_diffusion_uncond.pt"
        torch.save(guided_diffusion.random_unet(**OPENAI_256).state_dict(), path)
        return path
    if name in TRANSFORMERS:
        import video_transformers

        torch.set_default_dtype(torch.bfloat16)  # of which the weights are made
        video_transformers.pipeline_of(name).save_pretrained(folder / name, max_shard_size="1GB")
        return folder / name
    if name == "svd":
        pipeline: Any = tiny.svd()
        pipeline.register_modules(
            vae=diffusers.AutoencoderKLTemporalDecoder(**SD_VAE),
            image_encoder=image_encoder(),
            unet=diffusers.UNetSpatioTemporalConditionModel(num_frames=14),
        )
    elif name == "i2vgen-xl":
        pipeline = i2vgen_xl_pipeline(folder)
    else:
        pipeline = tiny.stable_diffusion(folder)
        pipeline.register_modules(
            vae=diffusers.AutoencoderKL(**SD_VAE, up_block_types=("UpDecoderBlock2D",) * 4),
            text_encoder=CLIPTextModel(CLIPTextConfig(**{**tiny.text_config().to_dict(), **VIT_H_TEXT})),
            unet=diffusers.UNet2DConditionModel(
                sample_size=96,
                cross_attention_dim=1024,
                attention_head_dim=(5, 10, 20, 20),
                use_linear_projection=True,
            ),
        )
    pipeline.save_pretrained(folder / name, max_shard_size="2GB")
    return folder / name


def held() -> float:
    """The most memory that this process held, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure(name: str, path: Path) -> None:
    """Load and probe, in this process alone; one line of the table."""
    import tedlens as tl

    kind = "video" if name in ("svd", "i2vgen-xl", *TRANSFORMERS) else "image"
    how = {"dtype": "bfloat16"} if name in TRANSFORMERS else {}
    load = tl.load_video_model if kind == "video" else tl.load_image_model
    before = held()
    start = time.perf_counter()
    model = load(path, **how)
    loaded, after_loading = time.perf_counter() - start, held()
    weights = sum(p.numel() * p.element_size() for part in model._modules() for p in part.parameters()) / 1e9
    start = time.perf_counter()
    assert model.weights_sha256
    hashed = time.perf_counter() - start
    clip = tl.datasets.similar(0, frames=8 if name in TRANSFORMERS else FRAMES, size=SIZE)
    start = time.perf_counter()
    tl.probe(model, clip, tau=600, blocks=model.block, size=SIZE)
    probed = time.perf_counter() - start
    print(
        f"| {name} | {sum(p.numel() for p in model.unet.parameters()) / 1e9:.2f} | {weights:.1f} | {loaded:.0f} | "
        f"{after_loading - before:.1f} | {hashed:.1f} | {model.block} | {probed:.0f} | {held():.1f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=["svd", "i2vgen-xl", "sd-2.1", "adm", *TRANSFORMERS])
    parser.add_argument("--path", type=Path, help="measure this one here")
    asked = parser.parse_args()
    if asked.path is not None:
        measure(asked.names[0], asked.path)
        return
    print("| model | UNet, 10^9 | weights, GB | load, s | memory to load, GB | hash, s | block | probe, s | most, GB |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in asked.names:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place)
            # Each step in a process of its own: what made the model must not count as memory of loading.
            make = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import full_size, pathlib; "
            make += f"full_size.made({name!r}, pathlib.Path({place!r}))"
            subprocess.run([sys.executable, "-c", make], check=True, stderr=subprocess.DEVNULL)
            found = path / ("256x256_diffusion_uncond.pt" if name == "adm" else name)
            command = [sys.executable, __file__, name, "--path", str(found)]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
