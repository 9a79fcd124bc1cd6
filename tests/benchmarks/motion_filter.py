"""What taking the mean over frames away does to tracking and to the reading of velocity, on `mini`.

python tests/benchmarks/motion_filter.py [clips]    # 12: a few minutes on one core
"""

from __future__ import annotations

import sys

import numpy as np
import torch

import tedlens as tl
from tedlens.benchmark.similar import similar_clip
from tedlens.models.mini import recipe

TAUS, BLOCK = [200, 600, 800], "up_2"


def main(count: int) -> None:
    torch.set_num_threads(1)
    model = tl.load_video_model("mini")
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for seed in recipe.TEST_SEEDS[:count]:
        clip = similar_clip("side", seed)
        assert clip.masks is not None
        feats = tl.probe(model, clip, tau=TAUS, blocks=BLOCK)[BLOCK]["features"]
        for tau in TAUS:
            one = feats.sel(tau=tau, seed=0)
            channels = one.sizes["channel"]
            ways = {"whole": one, "less the mean": tl.analysis.motion_filter(one)}
            ways |= {
                f"{n} of {channels} channels": tl.analysis.motion_filter(one, n) for n in (channels // 2, channels // 4)
            }
            for name, each in ways.items():
                scores = tl.evaluate(tl.propagate(each, clip.masks), clip.masks, objects=clip.objects)
                identity = float(scores["identity"].isel(frame=slice(-3, None)).mean())
                found.setdefault((name, tau), []).append((float(scores["J"].mean()), identity))
    for (name, tau), values in found.items():
        mean, error = 100 * np.mean(values, 0), 100 * np.std(values, 0, ddof=1) / count**0.5
        print(f"| {name} | {tau} | {mean[0]:.1f} ± {error[0]:.1f} | {mean[1]:.0f} ± {error[1]:.0f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
