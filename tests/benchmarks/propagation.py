"""Label propagation against the field's own way, and many lambdas against one.

    python tests/benchmarks/propagation.py

One frame of a 60x107 grid, 640 channels, 7 reference frames, radius 12, top_k 10, float32, two CPU threads.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import timing
import torch
from torch import Tensor

from tedlens import propagation
from tedlens.ted import unit

HEIGHT, WIDTH, CHANNELS, REFERENCES, OBJECTS = 60, 107, 640, 7, 5
RADIUS, TOP_K, TEMPERATURE = 12, 10, 0.1
HOW = {"radius": RADIUS, "top_k": TOP_K, "temperature": TEMPERATURE}


def inputs(channels: int = CHANNELS) -> tuple[Tensor, Tensor]:
    """Features of the references and one frame more, and soft labels of the first."""
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    feats = unit(torch.randn(REFERENCES + 1, channels, HEIGHT, WIDTH, generator=generator))
    return feats, torch.rand(OBJECTS, HEIGHT, WIDTH, generator=generator)


def dense(feats: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """The last frame's labels (object, cell) as the field's scripts compute them: the whole affinity, masked."""
    target, references = feats[-1].flatten(1), feats[:-1].flatten(2)
    affinity = torch.exp(torch.bmm(references.transpose(1, 2), target.expand(len(references), -1, -1)) / TEMPERATURE)
    affinity *= mask
    affinity = affinity.flatten(0, 1)  # key of every reference, query
    least = affinity.topk(TOP_K, dim=0).values[-1]
    affinity[affinity < least] = 0
    affinity /= affinity.sum(0, keepdim=True)
    return labels.flatten(2).transpose(0, 1).flatten(1) @ affinity


def window() -> Tensor:
    y, x = (g.flatten() for g in torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij"))
    near = ((y[:, None] - y).abs() <= RADIUS) & ((x[:, None] - x).abs() <= RADIUS)
    return near.float()


def last_frame(parts: list[Tensor], labels: Tensor, lams: list[float]) -> Tensor:
    """The last frame's labels (lam, object, y, x) from the module's own step, all other frames being references."""
    rule = propagation._Rule(TOP_K, RADIUS, REFERENCES, TEMPERATURE, "dift")
    soft = torch.cat([labels, torch.zeros_like(labels[:1])]).repeat(len(lams), 1, 1, 1, 1)
    propagation._carry(parts, parts, lams, REFERENCES, soft, rule)
    return soft[:, -1]


def extra_megabytes(way: str) -> float:
    """Peak memory of one frame beyond what features, labels and window mask take, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(_peak, (way,)))


def _peak(way: str) -> float:
    run = ways()[way]
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak of making the inputs
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    """Kilobytes of this process, by Linux' name for them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def ways() -> dict[str, Callable[[], Tensor]]:
    feats, first = inputs()
    labels = first.expand(REFERENCES, *first.shape)
    mask = window()
    halves = [unit(feats[:, :320]), unit(feats[:, 320:])]
    lams = [i / 9 for i in range(10)]
    return {
        "the field's way": lambda: dense(feats, labels, mask),
        "tedlens": lambda: last_frame([feats], labels, [1.0])[0],
        "tedlens, motion and appearance of 320 channels, one lambda": lambda: last_frame(halves, labels, [0.5]),
        "tedlens, the same, ten lambdas": lambda: last_frame(halves, labels, lams),
    }


def main() -> None:
    each = ways()
    theirs, ours = each["the field's way"](), each["tedlens"]()
    difference = float((theirs - ours.flatten(1)).abs().max())
    seconds = timing.medians(each)
    print("| | s a frame | extra MB |\n|---|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {value:.2f} | {extra_megabytes(name):.0f} |")
    theirs_s, ours_s, one, ten = seconds.values()
    print(f"\nTimes as fast as the field's way: {theirs_s / ours_s:.1f}")
    print(f"Ten lambdas / one: {ten / one:.2f}")
    print(f"Largest difference of soft labels: {difference:.1e}")


if __name__ == "__main__":
    main()
