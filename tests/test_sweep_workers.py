"""A sweep on the workers of a Dask cluster: the same store as one process makes, also where a worker is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
import xarray as xr

import tedlens as tl
from tedlens.sweeping.engine import Workers

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def how(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small grid, with tiny models that workers load from a folder."""
    folder = tmp_path_factory.mktemp("models")
    tiny.i2vgen_xl(folder).save_pretrained(folder / "video")
    tiny.unet2d().save_pretrained(folder / "image")
    return {
        "motion": {"name": str(folder / "video"), "size": 32},
        "appearance": {"name": str(folder / "image"), "size": 32, "block": "up_0"},
        "tau": [100, 500, 900],
        "blocks": ["up_1", "up_2"],
        "lam": [0.5, 1],
        "radius": 3,
        "progress": False,
    }


def read(number: int) -> tl.Clip:
    """As a clip on disk: read by whoever tracks it."""
    made = tl.datasets.similar(number, frames=6, size=32)
    return tl.Clip(made.frames, made.masks, name=f"clip {number}")


CLIPS = [partial(read, number) for number in range(4)]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two processes of one thread each."""
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, how: dict[str, Any]) -> Path:
    """The store of one process, with one thread, as workers have."""
    path = tmp_path_factory.mktemp("straight") / "sweep.zarr"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tl.sweep(CLIPS, store=path, **how)
    torch.set_num_threads(threads)
    return path


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def kill_one_worker(client: Any, store: Path, killed: list[int]) -> None:
    """SIGKILL to the process of a worker once the first cells are there."""
    while len(list(store.glob("cells/*/zarr.json"))) < 2:
        time.sleep(0.02)
    pids = client.run(os.getpid)
    killed.append(next(iter(pids.values())))
    os.kill(killed[0], signal.SIGKILL)


@pytest.mark.release
def test_a_worker_killed_midway(
    client: Any, how: dict[str, Any], straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path, too: workers may have another working folder."""
    monkeypatch.chdir(tmp_path)
    killed: list[int] = []
    killer = threading.Thread(target=kill_one_worker, args=(client, tmp_path / "sweep.zarr", killed))
    killer.start()
    scores = tl.sweep(CLIPS, store="sweep.zarr", client=client, **how)
    killer.join()
    assert len(killed) == 1
    assert content(tmp_path / "sweep.zarr") == content(straight)
    xr.testing.assert_identical(scores, tl.sweep(CLIPS, store=straight, **how))


def test_workers_without_a_store(client: Any, how: dict[str, Any], straight: Path) -> None:
    scores = tl.sweep(CLIPS[:2], client=client, **how)
    xr.testing.assert_identical(scores, tl.sweep(CLIPS[:2], store=straight, **how))


def loaded() -> list[int]:
    """Which models a worker holds."""
    from tedlens.sweeping.engine import _loaded

    return [id(models) for models in _loaded.values()]


def test_models_are_loaded_once_a_worker(client: Any, how: dict[str, Any]) -> None:
    held = []
    for tau in ([100, 200], [300, 400]):
        tl.sweep(CLIPS, client=client, **(how | {"tau": tau, "lam": 1}))
        held.append(client.run(loaded))
    assert held[0] == held[1]
    assert [len(each) for each in held[0].values()] == [1, 1]


def test_what_a_user_got_wrong_comes_back_as_a_sentence(client: Any, how: dict[str, Any]) -> None:
    for wrong, words in (
        ({"tau": 1000}, "tau=1000"),
        ({"motion": tl.load_video_model("mini")}, "workers load their own"),
        ({"motion": "nonesuch"}, "no video model 'nonesuch'"),
        ({"motion": None, "appearance": None}, "no model to sweep"),
        # The memory of a process is no place that others reach.
        ({"store": "memory://sweep.zarr", "tau": [100], "lam": 1}, "not in memory://sweep.zarr"),
    ):
        with pytest.raises(tl.TedlensError, match=words):
            tl.sweep(CLIPS[:1], client=client, **(how | wrong))


def deadly(parent: int) -> tl.Clip:
    """A clip that no worker survives."""
    if os.getpid() != parent:
        os._exit(1)
    return read(0)


# Last, because the cluster is of little use after it.
def test_what_kills_every_worker_ends_in_a_sentence(client: Any, how: dict[str, Any], tmp_path: Path) -> None:
    client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 0))
    with pytest.raises(tl.TedlensError, match="Workers died again and again"):
        tl.sweep([partial(deadly, os.getpid())], client=client, store=tmp_path / "sweep.zarr", **how)


@pytest.mark.parametrize("given", ["there", "adapting", "queued", "address"])
def test_tasks_are_for_as_many_workers_as_may_come(given: str) -> None:
    clusters = {
        "there": SimpleNamespace(worker_spec={n: {} for n in range(4)}),
        "adapting": SimpleNamespace(worker_spec={}, _adaptive=SimpleNamespace(minimum=0, maximum=4)),
        "queued": SimpleNamespace(worker_spec={0: {"group": ["-0", "-1"]}, 1: {"group": ["-0", "-1"]}}),
        "address": None,
    }
    there = 4 if given in ("there", "address") else 0
    client: Any = SimpleNamespace(cluster=clusters[given], nthreads=lambda: dict.fromkeys(range(there), 1))
    assert Workers(client, "mini", None).most_workers() == 4
