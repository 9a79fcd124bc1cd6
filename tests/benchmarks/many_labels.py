"""Memory of parts of the body: 20 labels at 560 pixels (VIP), beside 1 label. Linux.

python tests/benchmarks/many_labels.py
"""

from __future__ import annotations

import multiprocessing

import numpy as np
import torch

from tedlens.ted import Propagation, label_clip, unit

INPUT, STRIDE, CHANNELS, FRAMES = (560, 992), 8, 640, 24  # of a VIP clip at 560 pixels; features of I2VGen-XL's up_2


def peak_mb() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def extra_mb(labels: int) -> float:
    torch.manual_seed(0)
    torch.set_num_threads(2)
    grid = (INPUT[0] // STRIDE, INPUT[1] // STRIDE)
    feats = unit(torch.randn(1, CHANNELS, *grid)).repeat(FRAMES, 1, 1, 1)
    mask = np.zeros(INPUT, np.uint8)
    for number in range(1, labels + 1):
        mask[:, (number - 1) * 40 : number * 40] = number
    how = Propagation(radius=15, n_last=20)
    label_clip(feats[:2], mask, INPUT, how)
    before = peak_mb()
    label_clip(feats, mask, INPUT, how)
    return peak_mb() - before


def main() -> None:
    print("| labels | extra MB |\n|---|---|")
    for labels in (1, 20):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(f"| {labels} | {pool.apply(extra_mb, (labels,)):.0f} |", flush=True)


if __name__ == "__main__":
    main()
