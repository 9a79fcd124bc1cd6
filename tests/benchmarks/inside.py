"""A look inside `mini`: which layers over frames tracking rests on, which heads match, what predictions lose; and costs.

python tests/benchmarks/inside.py [clips] [store]    # 12 clips: about 20 minutes on one core
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats
import torch
import xarray as xr

import tedlens as tl
from tedlens.attending.maps import _all
from tedlens.attending.watching import layers_of, watch
from tedlens.benchmark.similar import similar_clip
from tedlens.interventions.ablation import TEMPORAL, _temporal
from tedlens.interventions.sites import inside, sites
from tedlens.models.base import DiffusionModel
from tedlens.probing import Draw, Prepared

TAUS = [0, 200, 400, 600, 800, 999]
WITHIN = ["up_1.attentions.0", "up_1.attentions.1", "up_2.attentions.0", "up_2.attentions.1"]


def interval(values: Any) -> str:
    """Mean over clips and its bootstrap interval (BCa, 95 %)."""
    values = np.asarray(values, float)
    if np.ptp(values) == 0:
        return f"{values[0]:.1f}"
    found = scipy.stats.bootstrap((values,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    return f"{values.mean():.1f} ({found.low:.1f} to {found.high:.1f})"


def single_layers(model: DiffusionModel) -> list[str]:
    """Layers over frames up to the third block, and attentions within frames in the last two."""
    over_frames = [site.name for site in sites(model, _temporal(model)) if not site.name.startswith("up_3")]
    return [*over_frames, *WITHIN]


def cuts(model: DiffusionModel, clips: list[tl.Clip], store: str | None) -> None:
    axis = {"intact": None} | {name: {"ablate": name} for name in [*single_layers(model), TEMPORAL]}
    how: dict[str, Any] = {"blocks": "up_2", "interventions": axis, "store": store, "progress": False}
    scores = tl.sweep(clips, motion=model, tau=TAUS, **how)
    print(
        "intact, J:", scores["J"].sel(intervention="intact").mean(["clip", "object", "frame", "seed", "block"]).values
    )
    effects = 100 * tl.analysis.effects(scores, "J").squeeze("block", drop=True)
    for name in effects["intervention"].values:
        cells = [effects.sel(intervention=name, tau=tau) for tau in TAUS]
        said = " | ".join(f"{float(c['mean']):.1f} ({float(c['low']):.1f} to {float(c['high']):.1f})" for c in cells)
        print(f"| {name} | {said} |")


def heads(model: DiffusionModel, clips: list[tl.Clip]) -> None:
    each = [tl.head_statistics(model, clip, [200, 800], ["down_*.**", "mid.**", "up_*.**"]) for clip in clips]
    joined = xr.concat(each, "clip")
    gain = 100 * (joined["accuracy"] - joined["chance"])
    for tau in (200, 800):
        mean = gain.sel(tau=tau).mean("clip")
        order = np.argsort(-mean.fillna(-np.inf).values, axis=None)[:5]
        for place in order:
            layer, head = np.unravel_index(place, mean.shape)
            at = {"tau": tau, "layer": mean["layer"].values[layer], "head": head}
            entropy = float(joined["entropy"].sel(at).mean())
            chance = 100 * float(joined["chance"].sel(at).mean())
            print(
                at, "accuracy", interval(100 * joined["accuracy"].sel(at)), f"chance {chance:.1f} entropy {entropy:.2f}"
            )
    for kind in ("temporal", "spatial"):
        of_kind = joined.where(joined["kind"] == kind, drop=True)
        for tau in (200, 800):
            print(kind, tau, "entropy", interval(100 * of_kind["entropy"].sel(tau=tau).mean(["layer", "head"])))


def predictions(model: DiffusionModel, clips: list[tl.Clip]) -> None:
    models = {"intact": model} | {
        name: tl.ablate(model, name) for name in ("transformer_in", "down_0.temp_convs.0", TEMPORAL)
    }
    for name, one in models.items():
        each = xr.concat([tl.prediction_scores(one, clip, tau=[400, 800, 999]) for clip in clips], "clip")
        for tau in (400, 800, 999):
            cell = each.sel(tau=tau).isel(seed=0)
            inside_, outside = cell["error_inside"].mean(["object", "frame"]), cell["error_outside"].mean("frame")
            psnr = cell["psnr"].mean("frame")
            print(f"| {name} | {tau} | {interval(psnr)} | {interval(inside_)} | {interval(outside)} |")
        print("ceiling", interval(each["ceiling"].mean("frame")))


def costs(model: DiffusionModel, clip: tl.Clip) -> None:
    """In time of this process, the best of five: other processes do not count."""

    def least(do: Callable[[], object], rounds: int = 5) -> float:
        taken = []
        for _ in range(rounds):
            start = time.process_time()
            do()
            taken.append(time.process_time() - start)
        return min(taken)

    prepared = Prepared(model, clip)

    @torch.no_grad()
    def mapped(layer: str) -> None:
        list(watch(prepared, Draw(600, 0), layers_of(model, [layer]), lambda layer, call, moment: _all(layer, call)))

    names = [point.path for point in inside(model).points.values() if point.module_class == "Attention"]
    forward = least(lambda: list(prepared.features([600], [0], ["up_3"])))
    print(
        f"forward {forward:.2f} s; maps, in forwards: {max(least(lambda n=n: mapped(n)) / forward for n in names):.2f}"
    )
    taus, how = list(range(0, 1000, 100)), {"motion": model, "blocks": "up_2", "progress": False}
    axis = {name: {"ablate": name} for name in single_layers(model)}
    one = least(lambda: tl.sweep(clip, tau=taus, **how), 3)
    all_of_them = least(lambda: tl.sweep(clip, tau=taus, interventions=axis, **how), 1)
    print(f"{len(axis)} cuts x 10 taus: {all_of_them / (len(axis) * one):.2f} of as many sweeps without")


def main(count: int, store: str | None) -> None:
    torch.set_num_threads(1)
    model = tl.load_video_model("mini")
    made = [similar_clip("above", seed) for seed in range(count)]
    clips = [tl.Clip(clip.frames, clip.masks, name=f"above-{seed}") for seed, clip in enumerate(made)]
    costs(model, clips[0])
    cuts(model, clips, store)
    heads(model, clips)
    predictions(model, clips)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12, sys.argv[2] if len(sys.argv) > 2 else None)
