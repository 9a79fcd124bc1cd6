"""What tracking loses, by noise, without what the frames tell one another: the causal curve of `mini`, and its figure.

python tests/benchmarks/causal_curve.py [folder] [clips]    # 32 clips of two sets: about half an hour on one core
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import xarray as xr

import tedlens as tl
from tedlens.benchmark.similar import TAUS, similar_clip
from tedlens.interventions.ablation import TEMPORAL
from tedlens.models.mini import recipe

BLOCK = "up_2"
AXIS: dict[str, Any] = {
    "intact": None,
    "frames shuffled": {"patch": {"layers": BLOCK, "source": "shuffled"}},
    "no layers over frames": {"ablate": TEMPORAL},
}
SETS = {"side": "seen from the side", "above": "seen from above"}


def main(folder: Path, count: int) -> None:
    torch.set_num_threads(1)
    figures = {}
    for name in SETS:
        clips = [similar_clip(name, seed) for seed in recipe.TEST_SEEDS[:count]]
        store = folder / f"causal-{name}.zarr"
        how: dict[str, Any] = {"tau": list(TAUS), "blocks": BLOCK, "interventions": AXIS, "store": store}
        scores = tl.sweep(clips, motion="mini", progress=False, **how)
        against = tl.reference_scores(clips, scores)
        for metric in ("J", "identity"):
            print_table(name, scores, metric)
            chosen = scores.squeeze("block")
            figures[f"causal_{name}_{metric}"] = tl.plots.tau_curve(chosen, metric=metric, references=against)
    print(tl.plots.save_figures(figures, folder / "causal-figures"))


def print_table(name: str, scores: xr.Dataset, metric: str) -> None:
    if metric == "identity":  # after the objects have passed one another
        scores = scores.isel(frame=slice(-3, None))
    intact = 100 * tl.analysis.clip_statistics(scores.sel(intervention="intact"), metric, interval=0.95)
    effects = 100 * tl.analysis.effects(scores, metric)
    rows = {"intact": intact} | {str(cut): effects.sel(intervention=cut) for cut in effects["intervention"].values}
    print(f"\n{SETS[name]}, {metric}\n| | {' | '.join(f'tau {tau}' for tau in TAUS)} |\n|{'---|' * (len(TAUS) + 1)}")
    for row, each in rows.items():
        cells = [each.squeeze("block").sel(tau=tau) for tau in TAUS]
        said = " | ".join(f"{float(c['mean']):.1f} ({float(c['low']):.1f} to {float(c['high']):.1f})" for c in cells)
        print(f"| {row} | {said} |")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"), int(sys.argv[2]) if len(sys.argv) > 2 else 32)
