"""Time and memory of the whole TED on a 480p clip, in parts, by its preset: the paper's table 5 in form.

    python tests/benchmarks/ted_time.py                            # CUDA where there is one, else one window on the CPU
    python tests/benchmarks/ted_time.py --frames 68 --dtype bfloat16

I2VGen-XL and ADM of the published sizes with random weights. The paper, on one A100 and DAVIS: 521 ms a frame and
11.8 GB without averaging over noise draws ("efficient"), 682 ms and 15.3 GB with it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import full_size

import tedlens as tl
from tedlens.models.unets.i2vgen_xl import I2VGenXL
from tedlens.presets import PRESETS
from tedlens.probing import Prepared
from tedlens.ted import propagation
from tedlens.ted.masks import label_clip_fused
from tedlens.ted.settings import Propagation
from tedlens.ted.tracking import clip_features

SIZE = (480, 854)  # of DAVIS at 480p
PRESET = "ted-davis"


def models(device: str, dtype: torch.dtype, folder: Path) -> tuple[Any, Any]:
    with torch.device(device):
        pipeline = full_size.i2vgen_xl_pipeline(folder)
    pipeline.to(device=device, dtype=dtype)
    motion = I2VGenXL(pipeline, name="i2vgen-xl of random weights", size=480)
    with torch.device(device):
        path = full_size.made("adm", folder)
    appearance = tl.load_image_model(path, device=device, dtype=str(dtype).removeprefix("torch."), size=480)
    return motion, appearance


class Timer:
    """Seconds and, on CUDA, the most memory of each part."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.found: dict[str, tuple[float, float]] = {}

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def of(self, name: str, do: Callable[[], Any]) -> Any:
        self.wait()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        result = do()
        self.wait()
        most = torch.cuda.max_memory_allocated() / 1e9 if self.cuda else full_size.held()
        self.found[name] = (time.perf_counter() - start, most)
        return result


@contextmanager
def budget(size: int) -> Any:
    before = propagation.BUDGET_ON_GPU
    propagation.BUDGET_ON_GPU = size
    yield
    propagation.BUDGET_ON_GPU = before


def parts(motion: Any, appearance: Any, clip: tl.Clip, samples: int, timer: Timer) -> np.ndarray[Any, Any]:
    """`track` in its steps, each timed."""
    words = PRESETS[PRESET].words
    moving = timer.of("encode, motion", lambda: Prepared(motion, clip, size=SIZE, progress=False))
    still = timer.of("encode, appearance", lambda: Prepared(appearance, clip, size=SIZE, progress=False))
    r_m = timer.of("video UNet", lambda: clip_features(moving, words["tau"], 0, words["block"], samples))
    r_a = timer.of(
        "image UNet", lambda: clip_features(still, words["appearance_tau"], 0, words["appearance_block"], samples)
    )
    settings = {name: words[name] for name in Propagation().said()}
    how = Propagation(**settings)

    def carry() -> Any:
        return label_clip_fused(r_m, r_a, [words["lam"]], clip.masks, moving.input_size, how)[0]  # type: ignore[arg-type]

    labels = timer.of("propagation", carry)
    for size in (64, 1024) if timer.cuda else ():
        with budget(size * 2**20):
            again = timer.of(f"propagation, budget {size} MiB", carry)
        assert np.array_equal(again, labels)
    timer.of("J and F", lambda: tl.evaluate(labels, clip.masks))
    return labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, help="68, or on the CPU one window, by default")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 4], help="noise draws")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    frames = asked.frames or (68 if device == "cuda" else 16)
    clip = tl.datasets.similar(0, frames=frames, size=SIZE)
    every: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        motion, appearance = models(device, getattr(torch, asked.dtype), Path(place))
        _ = motion.weights_sha256, appearance.weights_sha256  # once a model, not once a clip
        parts(motion, appearance, clip[:16], 1, Timer(device))  # what the first run alone costs
        for samples in asked.samples:
            timer = Timer(device)
            parts(motion, appearance, clip, samples, timer)
            words = {"preset": PRESET, "samples": samples, "appearance_samples": samples, "size": SIZE}
            timer.of("whole", lambda w=words: tl.track(clip, motion=motion, appearance=appearance, **w))  # type: ignore[misc]
            every[str(samples)] = timer.found
            name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
            print(f"\n{name}, {asked.dtype}, {frames} frames of {SIZE[0]}x{SIZE[1]}, {samples} noise draws")
            print("| part | ms a frame | most memory, GB |\n|---|---|---|")
            for part, (seconds, most) in timer.found.items():
                print(f"| {part} | {1000 * seconds / frames:.1f} | {most:.1f} |", flush=True)
    if asked.out:
        asked.out.write_text(json.dumps(every, indent=1))


if __name__ == "__main__":
    main()
