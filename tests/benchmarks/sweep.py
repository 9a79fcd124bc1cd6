"""What a sweep costs beside the UNet, propagation and metrics; its memory; two Dask workers against one process.

    python tests/benchmarks/sweep.py

The embedded models, 64-pixel clips of 8 frames, one thread a process. Seconds are those of the processor, which
other work on the machine does not lengthen as it does the clock's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is first imported; Dask's workers have one thread, too

import dask
from distributed import Client, LocalCluster

import tedlens as tl
from tedlens.sweeping import cells

sys.path.insert(0, str(Path(__file__).parents[1]))
import timing

HOW: dict[str, Any] = {"lam": [0, 0.25, 0.5, 0.75, 1], "radius": 4, "progress": False}
NAMED: dict[str, Any] = {"motion": "mini", "appearance": "mini"}
# As tedlens/sweeping/README.md advises for workers on CPUs.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": 2**27, "MALLOC_MMAP_THRESHOLD_": 2**25}
TAUS = range(0, 1000, 100)


def read(number: int) -> tl.Clip:
    made = tl.datasets.similar(number, frames=8, size=64)
    return tl.Clip(made.frames, made.masks, name=f"clip {number}")


def clips(number: int) -> list[Callable[[], tl.Clip]]:
    return [partial(read, i) for i in range(number)]


def new_store() -> str:
    return f"{tempfile.mkdtemp()}/sweep.zarr"


class Stopwatch:
    """Processor seconds spent in functions."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            begun = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[part] = self.seconds.get(part, 0) + time.process_time() - begun

        return call


def shares() -> dict[str, float]:
    """Seconds of a sweep with a store, by what they went to."""
    watch = Stopwatch()
    models = {"motion": tl.load_video_model("mini"), "appearance": tl.load_image_model("mini")}
    for model in models.values():
        model.run = watch.timed("UNet", model.run)  # type: ignore[method-assign]
    with (
        mock.patch.object(cells, "label_clip_fused", watch.timed("propagation", cells.label_clip_fused)),
        mock.patch.object(cells, "evaluate", watch.timed("metrics", cells.evaluate)),
    ):
        sweep = partial(tl.sweep, clips(2), tau=TAUS, store=new_store(), **models, **HOW)
        watch.timed("whole", sweep)()
    return watch.seconds


def peak_megabytes(number: int, taus: int) -> float:
    """Peak memory of a process that sweeps."""
    code = f"import sweep; sweep.tl.sweep(sweep.clips({number}), tau=range({taus}), **sweep.NAMED, **sweep.HOW)"
    code += "; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    return int(ran.stdout) / 1024


def on_workers(client: Client | None) -> None:
    tl.sweep(clips(4), tau=TAUS[::2], store=new_store(), client=client, **NAMED, **HOW)


def processor_seconds(client: Client) -> tuple[float, float]:
    """Of a sweep in this process, and of two workers together; each has the models already."""
    on_workers(None)
    on_workers(client)
    before = time.process_time()
    on_workers(None)
    here, workers = time.process_time() - before, sum(client.run(time.process_time).values())
    on_workers(client)
    return here, sum(client.run(time.process_time).values()) - workers


def scheduler_seconds(client: Client, tasks: int = 1000) -> float:
    """Of a task that does nothing, by the clock."""
    begun = time.perf_counter()
    client.gather(client.map(abs, range(tasks), pure=False))
    return (time.perf_counter() - begun) / tasks


def main() -> None:
    seconds = shares()
    whole = seconds.pop("whole")
    print("| of a sweep of 2 clips x 10 taus x 4 blocks x 5 lambdas | s | share |\n|---|---|---|")
    for part, value in (seconds | {"all else": whole - sum(seconds.values())}).items():
        print(f"| {part} | {value:.2f} | {value / whole:.3f} |")
    print("\n| clips x taus | peak MB |\n|---|---|")
    for number, taus in ((1, 1), (1, 10), (8, 1), (8, 10)):
        print(f"| {number} x {taus} | {peak_megabytes(number, taus):.0f} |")
    dask.config.set({f"distributed.nanny.pre-spawn-environ.{name}": size for name, size in MALLOC.items()})
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        here, both = processor_seconds(client)
        clock = timing.medians({"here": partial(on_workers, None), "two": partial(on_workers, client)}, rounds=3)
        task = scheduler_seconds(client)
    print("\n| 4 clips x 5 taus | processor s | clock s |\n|---|---|---|")
    print(f"| one process | {here:.2f} | {clock['here']:.2f} |")
    print(f"| two workers together | {both:.2f} | {clock['two']:.2f} |")
    print(
        f"\nTwo workers: {clock['here'] / clock['two']:.2f} times as fast by the clock; evenly loaded, on idle cores,"
    )
    print(f"2 x {here:.2f} / {both:.2f} = {2 * here / both:.2f} times. An empty task takes {1000 * task:.1f} ms.")


if __name__ == "__main__":
    main()
