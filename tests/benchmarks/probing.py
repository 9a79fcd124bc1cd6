"""What probing costs beside the UNet's forwards, and what the early stop saves.

    python tests/benchmarks/probing.py

An I2VGen-XL of a quarter of the published widths with random weights, 16 frames, on the CPU: its shape, not
its features, matters here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from diffusers import I2VGenXLUNet
from torch.utils.flop_counter import FlopCounterMode

import tedlens as tl
from tedlens.models.unets.i2vgen_xl import I2VGenXL
from tedlens.probing import Prepared

sys.path.insert(0, str(Path(__file__).parents[1]))
import timing
import tiny

FULL = (320, 640, 1280, 1280)
LATENT = 32  # cells a side; tiny's VAE has four pixels a cell
TAUS = [100, 500, 900]


def model() -> I2VGenXL:
    """tiny's pipeline around a UNet of a quarter of the published widths."""
    pipeline = tiny.i2vgen_xl(Path("runs"))
    torch.manual_seed(0)
    pipeline.unet = unet(tuple(width // 4 for width in FULL))
    return I2VGenXL(pipeline, name="quarter-width", size=4 * LATENT)


def unet(widths: tuple[int, ...]) -> I2VGenXLUNet:
    return I2VGenXLUNet(
        block_out_channels=widths, attention_head_dim=widths[0] // 5, cross_attention_dim=tiny.WIDTH, norm_num_groups=16
    )


class Stop(Exception):
    """Ends a forward."""


def stop(*_: object) -> None:
    raise Stop


def bare_forwards(prepared: Prepared, block: str | None) -> Callable[[], None]:
    """T forwards of the UNet alone, truncated by a plain hook at `block`, that keep nothing."""

    def run() -> None:
        handle = prepared.model.module(block).register_forward_hook(stop) if block else None
        with torch.inference_mode():
            for tau in TAUS:
                with suppress(Stop):
                    prepared.model.run(prepared.clean, tau, prepared.conditions[0])
        if handle:
            handle.remove()

    return run


def probed(prepared: Prepared, blocks: list[str]) -> Callable[[], None]:
    def run() -> None:
        for _ in prepared.features(TAUS, [0], blocks):
            pass

    return run


def teraflops(block: str | None) -> float:
    """Of a full-size I2VGen-XL's window of 16 frames of 64x64 latents, truncated at `block`: counted, not run."""
    with torch.device("meta"):
        pipeline = tiny.i2vgen_xl(Path("runs"))
        pipeline.unet = I2VGenXLUNet(block_out_channels=FULL, cross_attention_dim=1024, attention_head_dim=64)
        pipeline.text_encoder = pipeline.image_encoder = None
        full = I2VGenXL(pipeline, name="full")
        noisy = torch.empty(16, 4, 64, 64)
        condition = {
            "encoder_hidden_states": torch.empty(1, 77, 1024),
            "image_embeddings": torch.empty(1, 1, 1024),
            "image_latents": torch.empty(1, 4, 16, 64, 64),
            "fps": torch.empty(1),
        }
        if block:
            full.module(block).register_forward_hook(stop)
        with FlopCounterMode(display=False) as counter, torch.inference_mode(), suppress(Stop):
            full.run(noisy, 500, condition)
    return counter.get_total_flops() / 1e12


def main() -> None:
    torch.set_num_threads(2)
    clip = tl.datasets.similar(0, frames=16, size=4 * LATENT)
    prepared = Prepared(model(), clip, progress=False)
    up = [name for name in prepared.model.blocks if name.startswith("up")]
    ways = {
        "bare, whole": bare_forwards(prepared, None),
        "bare, to up_3": bare_forwards(prepared, "up_3"),
        "probe, all up blocks": probed(prepared, up),
        "probe, to up_2": probed(prepared, ["up_2"]),
        "probe, to up_1": probed(prepared, ["up_1"]),
    }
    seconds = timing.medians(ways)
    counted = {None: teraflops(None), "up_2": teraflops("up_2"), "up_1": teraflops("up_1")}
    print("| | s for 3 taus | of the whole |\n|---|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {value:.2f} | {value / seconds['bare, whole']:.3f} |")
    overhead = seconds["probe, all up blocks"] / seconds["bare, to up_3"]
    print(f"\nProbe of all up blocks / bare forwards truncated at the same block: {overhead:.3f}")
    print(
        "Full-size, counted: " + ", ".join(f"{block or 'whole'} {value:.2f} TFLOP" for block, value in counted.items())
    )


if __name__ == "__main__":
    main()
