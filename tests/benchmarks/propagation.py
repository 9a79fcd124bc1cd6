"""Label propagation against the field's own way, many lambdas against one, and how cost grows.

    python tests/benchmarks/propagation.py

float32, two CPU threads, top_k 10, 7 reference frames; grid 60x107 and radius 12 unless said otherwise. Linux.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import timing
import torch
from definitions import dense_labels, window_mask
from torch import Tensor

from tedlens.ted import propagation, unit

GRID, REFERENCES, OBJECTS = (60, 107), 7, 5
RADIUS, TOP_K, TEMPERATURE = 12, 10, 0.1
LAMS = [i / 9 for i in range(10)]

FIELD, OURS = "the field's way, 640 channels", "tedlens, 640 channels"


def features(channels: int, grid: tuple[int, int] = GRID, frames: int = REFERENCES + 1, seed: int = 0) -> Tensor:
    """Random directions, of length 1 at each cell."""
    return unit(torch.randn(frames, channels, *grid, generator=torch.Generator().manual_seed(seed)))


def soft_labels(grid: tuple[int, int] = GRID) -> Tensor:
    """Labels (reference, object, y, x)."""
    return torch.rand(REFERENCES, OBJECTS, *grid, generator=torch.Generator().manual_seed(0))


def field_frame(feats: Tensor, mask: Tensor) -> Tensor:
    """The last frame's labels (object, cell), all other frames being references."""
    cells = feats.flatten(2)
    return dense_labels(cells[-1].T, cells[:-1], soft_labels().flatten(2), mask, TOP_K, TEMPERATURE)


def last_frame(parts: list[Tensor], lams: list[float], radius: int = RADIUS) -> Tensor:
    """The same (lam, object, y, x) from the module's own step."""
    labels = soft_labels((parts[0].shape[-2], parts[0].shape[-1]))
    soft = torch.cat([labels, torch.zeros_like(labels[:1])]).repeat(len(lams), 1, 1, 1, 1)
    rule = propagation._Rule(TOP_K, radius, REFERENCES - 1, TEMPERATURE, "dift")
    propagation._carry(parts, parts, lams, REFERENCES, soft, rule)
    return soft[:, -1]


def whole_clip(feats: Tensor, first: Tensor) -> Tensor:
    return propagation.propagate_labels(
        feats, first, top_k=TOP_K, radius=RADIUS, n_last=REFERENCES - 1, temperature=TEMPERATURE
    )


def ways() -> dict[str, Callable[[], Tensor]]:
    feats, mask = features(640), window_mask(*GRID, RADIUS).repeat(REFERENCES, 1, 1)
    each: dict[str, Callable[[], Tensor]] = {
        FIELD: partial(field_frame, feats, mask),
        OURS: partial(last_frame, [feats], [1.0]),
    }
    for channels in (640, 320):
        parts = [features(channels), features(channels, seed=1)]
        for lams in ([0.5], LAMS):
            each[f"tedlens, two parts of {channels} channels, lambdas: {len(lams)}"] = partial(last_frame, parts, lams)
    return each


# --- memory ---------------------------------------------------------------------------------------


def extra_megabytes(prepare: Callable[[], Callable[[], Tensor]]) -> float:
    """Peak memory of one run beyond its inputs and its result, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(_peak, (prepare,)))


def _peak(prepare: Callable[[], Callable[[], Tensor]]) -> float:
    torch.set_num_threads(2)
    run = prepare()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak of making the inputs
    before = _status("VmRSS")
    result = run()
    return (_status("VmHWM") - before) / 1024 - result.nbytes / 2**20


def _status(key: str) -> int:
    """Kilobytes of this process, by Linux' name for them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


class Prepared:
    """One of the ways, made in the process that runs it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> Callable[[], Tensor]:
        return ways()[self.name]


class Clip:
    """A whole clip on the grid of 1080p frames at stride 8."""

    def __init__(self, frames: int) -> None:
        self.frames = frames

    def __call__(self) -> Callable[[], Tensor]:
        grid = (135, 240)
        return partial(whole_clip, features(16, grid, self.frames), soft_labels(grid)[0])


# --- tables ---------------------------------------------------------------------------------------


def against_the_field() -> None:
    each = ways()
    theirs, ours = each[FIELD](), each[OURS]()[0].flatten(1)
    seconds = timing.medians(each)
    print("| | s a frame | extra MB |\n|---|---|---|")
    memory = {}
    for name, value in seconds.items():
        memory[name] = extra_megabytes(Prepared(name))
        print(f"| {name} | {value:.3f} | {memory[name]:.0f} |")
    _, _, one, ten, one_small, ten_small = seconds.values()
    print(f"\nTimes as fast as the field's way: {seconds[FIELD] / seconds[OURS]:.1f}")
    print(f"Share of its extra memory: {memory[OURS] / memory[FIELD]:.3f}")
    print(f"Ten lambdas / one: {ten / one:.2f} (640 channels each), {ten_small / one_small:.2f} (320 channels each)")
    print(f"Largest difference of soft labels: {float((theirs - ours).abs().max()):.1e}")
    print(f"Cells whose hard label differs: {int((theirs.argmax(0) != ours.argmax(0)).sum())} of {ours.shape[1]}")


def growth() -> None:
    feats, first = features(128, frames=56), soft_labels()[0]
    clips = {str(frames): partial(whole_clip, feats[:frames], first) for frames in (7, 14, 28, 56)}
    print("\n| frames (60x107, 128 channels) | s | ms a frame carried |\n|---|---|---|")
    for name, value in timing.medians(clips).items():
        print(f"| {name} | {value:.2f} | {1000 * value / (int(name) - 1):.0f} |")

    wide = features(128, (135, 240))
    windows = {str(radius): partial(last_frame, [wide], [1.0], radius) for radius in (4, 8, 12, 16, 24)}
    print("\n| radius (135x240, 128 channels) | window, cells | s a frame | µs a window cell |\n|---|---|---|---|")
    for name, value in timing.medians(windows).items():
        area = (2 * int(name) + 1) ** 2
        print(f"| {name} | {area} | {value:.2f} | {1e6 * value / area:.0f} |")

    print("\n| frames (135x240, 16 channels) | extra MB |\n|---|---|")
    for frames in (10, 300):
        print(f"| {frames} | {extra_megabytes(Clip(frames)):.0f} |")


if __name__ == "__main__":
    torch.set_num_threads(2)
    against_the_field()
    growth()
