"""Video models of the published sizes with random weights on CUDA: time and memory of a window, and of looking inside.

python tests/benchmarks/on_gpu.py probe cogvideox-2b     # a window of at most 81 frames of 480x832, in bfloat16
python tests/benchmarks/on_gpu.py probe mochi video tiles    # one latent for several frames, encoded in tiles
python tests/benchmarks/on_gpu.py offload cogvideox-5b 16    # with its text encoder, and 16 GB of the card's memory
python tests/benchmarks/on_gpu.py attention              # maps of SVD's layers, in forwards
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

import full_size
import video_transformers as published

import tedlens as tl
from tedlens.attending.maps import _all
from tedlens.attending.watching import layers_of, watch
from tedlens.interventions.sites import inside
from tedlens.models.registry import ADAPTERS
from tedlens.models.unets.svd import StableVideoDiffusion
from tedlens.probing import Draw, Prepared

TAU = 500
LARGEST = 4e9  # bytes of a map, twice of what `tl.attention` gives


def timed(do: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives, its seconds, and the most memory of the card in GB."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    found = do()
    torch.cuda.synchronize()
    return found, time.perf_counter() - start, torch.cuda.max_memory_allocated() / 1e9


def pipeline_of(name: str) -> Any:
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        pipeline = published.pipeline_of(name)
    torch.set_default_dtype(torch.float32)
    return pipeline


def measure(model: Any, latents: str, kind: str) -> None:
    """A line of the table: seconds and memory of a window's encoding, of a probe, and of the whole network."""
    size = (512, 512) if kind == "latte" else published.SIZE
    model.latents = latents
    frames = published.window_of(model, latents)
    clip = tl.datasets.similar(0, frames=frames, size=size)
    prepare = partial(Prepared, model, clip, size=size, progress=False)
    prepare()  # what the first run alone costs
    prepared, encoding, of_encoding = timed(prepare)
    list(prepared.features([TAU], [0], [model.block]))
    _, part, of_part = timed(lambda: list(prepared.features([TAU], [0], [model.block])))
    _, whole, of_whole = timed(lambda: list(prepared.features([TAU], [0], [model.blocks[-1]])))
    weights = sum(p.numel() for p in model.denoiser.parameters()) / 1e9
    cells = [kind, f"{weights:.1f}", latents, frames, f"{encoding:.2f} ({of_encoding:.0f})"]
    cells += [f"{model.block} of {len(model.blocks)}", f"{part:.2f} ({of_part:.0f})", f"{whole:.2f} ({of_whole:.0f})"]
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def probe(name: str, latents: str = "frame", tiles: str | None = None) -> None:
    model = ADAPTERS["video"][published.MODELS[name][0]](pipeline_of(name), name=name)
    if tiles is not None:
        model.pipeline.vae.enable_tiling()
    measure(model, latents, name)


def t5_xxl() -> dict[str, Any]:
    """A text encoder as the 5B models have it, with a tokenizer of single letters."""
    import transformers
    from tiny_transformers import t5

    sizes = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    config = transformers.T5Config(**sizes, feed_forward_proj="gated-gelu")
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        encoder = transformers.T5EncoderModel(config)
    torch.set_default_dtype(torch.float32)
    return {"tokenizer": t5()["tokenizer"], "text_encoder": encoder}


def offload(name: str, gigabytes: float) -> None:
    """From a folder on a card of this much memory: layers on the CPU until they are needed, encoders alone, nothing."""
    with tempfile.TemporaryDirectory() as place:
        pipeline = pipeline_of(name)
        pipeline.register_modules(**t5_xxl())
        pipeline.save_pretrained(place, max_shard_size="2GB")
        del pipeline
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(gigabytes * 1e9 / torch.cuda.mem_get_info()[1])
        for how, tiled, latents in (
            ("layers", False, "frame"),
            ("layers", False, "video"),
            ("layers", True, "video"),
            (True, True, "frame"),
            (False, True, "frame"),
        ):
            model = None
            title = f"{name}, offload={how!r}, {'tiles' if tiled else 'no tiles'}, {latents}"
            try:
                model, seconds, _ = timed(
                    partial(tl.load_video_model, place, device="cuda", dtype="bfloat16", offload=how)
                )
                print(f"{title}: loaded in {seconds:.1f} s", flush=True)
                if tiled:
                    model.pipeline.vae.enable_tiling()
                measure(model, latents, title)
            except (torch.OutOfMemoryError, tl.TedlensError) as error:
                print(f"| {title} | {error} |", flush=True)
            del model
            gc.collect()
            torch.cuda.empty_cache()


def attention(frames: int = 14, size: tuple[int, int] = (320, 512)) -> None:
    """Whole maps of every tenth of SVD's attentions, each in forwards to its layer's end."""
    import diffusers
    import tiny

    pipeline = tiny.svd()
    with torch.device("cuda"):
        pipeline.register_modules(
            vae=diffusers.AutoencoderKLTemporalDecoder(**full_size.SD_VAE),
            image_encoder=full_size.image_encoder(),
            unet=diffusers.UNetSpatioTemporalConditionModel(num_frames=14),
        )
    model = StableVideoDiffusion(pipeline.to("cuda", torch.bfloat16), name="svd of random weights")
    prepared = Prepared(model, tl.datasets.similar(0, frames=frames, size=size), size=size, progress=False)
    names = [point.path for point in inside(model).points.values() if point.module_class == "Attention"]
    layers = layers_of(model, names)[::10]

    @torch.no_grad()
    def ended_after(layer: Any, take: Callable[..., Any]) -> None:
        list(watch(prepared, Draw(TAU, 0), [layer], take))

    run = partial(ended_after, take=lambda layer, call, moment: call.key.sum())
    mapped = partial(ended_after, take=lambda layer, call, moment: _all(layer, call))
    _, forward, _ = timed(lambda: list(prepared.features([TAU], [0], [model.blocks[-1]])))
    _, forward, memory = timed(lambda: list(prepared.features([TAU], [0], [model.blocks[-1]])))
    print(f"svd, {frames} frames of {size[0]}x{size[1]}: a forward {forward:.2f} s, {memory:.1f} GB")
    for layer in layers:
        y, x = layer.grid
        keys = {"spatial": y * x, "temporal": frames, "cross": 1, "joint": frames * y * x}[layer.kind]
        if 4 * layer.heads * frames * y * x * keys > LARGEST:
            print(f"| {layer.name} | {layer.kind} | {y}x{x} | refused whole |")
            continue
        run(layer)
        _, plain, _ = timed(partial(run, layer))
        _, seconds, most = timed(partial(mapped, layer))
        print(
            f"| {layer.name} | {layer.kind} | {y}x{x} | {plain / forward:.2f} | {seconds / forward:.2f} | {most:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "probe":
        probe(*rest)
    elif what == "offload":
        offload(rest[0], float(rest[1]))
    else:
        attention()
