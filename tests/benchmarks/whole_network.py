"""All of `mini`: the output of every layer, at six noise levels, as a share of what its grid can show at best.

python tests/benchmarks/whole_network.py [folder] [clips] [workers]    # 3 clips, 2 workers
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

from distributed import Client, LocalCluster

import tedlens as tl
from tedlens.benchmark.similar import TAUS, similar_clip
from tedlens.models.mini import recipe


def main(folder: Path, count: int, workers: int) -> None:
    clips = [partial(similar_clip, "above", seed) for seed in recipe.TEST_SEEDS[:count]]
    start = time.perf_counter()
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        store = folder / "whole-network.zarr"
        scores = tl.sweep(
            clips, motion="mini", tau=list(TAUS), blocks="*.**", store=store, client=client, progress=False
        )
    against = tl.reference_scores([make() for make in clips], scores)
    figures = {
        f"whole_network_{metric}": tl.plots.tau_block_map(scores, metric=metric, references=against)
        for metric in ("J", "identity")
    }
    tl.plots.save_figures(figures, folder / "whole-network-figures")
    taken = time.perf_counter() - start
    print(f"{scores.sizes['block']} layers x {len(TAUS)} taus x {count} clips: {taken:.0f} s with {workers} workers")
    share = scores["J"].mean(["object", "frame", "seed", "clip"]) / against["J"].sel(features="ceiling").mean(
        ["object", "frame", "clip"]
    )
    for tau in TAUS:
        one = share.sel(tau=tau).fillna(0).sortby(share.sel(tau=tau).fillna(0), ascending=False)[:5]
        print(
            tau,
            ", ".join(f"{name} {100 * float(value):.0f}" for name, value in zip(one["block"].values, one, strict=True)),
        )


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        Path(arguments[0] if arguments else "runs"),
        int(arguments[1]) if len(arguments) > 1 else 3,
        int(arguments[2]) if len(arguments) > 2 else 2,
    )
