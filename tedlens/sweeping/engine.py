"""Where cells are computed: in this process, or by the workers of a Dask cluster."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xarray as xr

from tedlens.errors import TedlensError
from tedlens.models.base import DiffusionModel
from tedlens.models.registry import Model
from tedlens.sweeping.cells import kept_cells
from tedlens.sweeping.clips import SweptClip
from tedlens.sweeping.grid import Grid, Models, check_models, load_models, make_grid
from tedlens.sweeping.store import SweepStore

if TYPE_CHECKING:
    from distributed import Client

# At least, where there are cells enough, so that none is idle long at the end. Not many more, because each task
# reads and encodes its clip.
TASKS_A_WORKER = 4


@dataclass(frozen=True)
class Task:
    """Cells (tau, seed) of a clip that are still to be computed."""

    clip: SweptClip
    cells: Sequence[tuple[int, int]]

    def parts(self, size: int) -> Iterator[Task]:
        """Tasks of at most `size` cells, each of one seed, for whose appearance features it pays once."""
        for seed in dict.fromkeys(seed for _, seed in self.cells):
            cells = [cell for cell in self.cells if cell[1] == seed]
            for start in range(0, len(cells), size):
                yield Task(self.clip, cells[start : start + size])


class Here:
    """This process."""

    def __init__(self, motion: Model | None, appearance: Model | None) -> None:
        self.models = load_models(motion, appearance)

    def grid(self, words: Mapping[str, Any]) -> Grid:
        """The grid that the words of `sweep` describe."""
        return make_grid(self.models, **words)

    def run(self, tasks: Sequence[Task], grid: Grid, store: str | None) -> Iterator[list[xr.Dataset]]:
        """Compute the cells of tasks, one after another, each in the store before the next is begun."""
        for task in tasks:
            for cell in run_task(task, self.models, grid, store):
                yield [cell]


class Workers:
    """Workers of a Dask cluster; each loads the models once."""

    def __init__(self, client: Client, motion: Model | None, appearance: Model | None) -> None:
        check_models(motion, appearance)
        for role, model in (("motion", motion), ("appearance", appearance)):
            if isinstance(model, DiffusionModel):
                said = {"name": model.name} | {k: v for each in model.interventions for k, v in each.said().items()}
                raise TedlensError(
                    f"{role}= is a loaded model, but workers load their own; give its name or the arguments to load "
                    f"it, as in {role}={json.dumps(said)}."
                )
        self.client = client
        self.given = (motion, appearance)

    def most_workers(self) -> int:
        """Workers that are there, or, of a cluster that adapts or whose jobs wait in a queue, that may come."""
        cluster = self.client.cluster
        adapts = getattr(getattr(cluster, "_adaptive", None), "maximum", 0)
        # Of a job queue each entry may be a group of workers.
        asked = sum(len(spec.get("group", [0])) for spec in (getattr(cluster, "worker_spec", None) or {}).values())
        expected = [len(self.client.nthreads()), asked, adapts if adapts != math.inf else 0]
        return max(1, *map(int, expected))

    def grid(self, words: Mapping[str, Any]) -> Grid:
        """The grid that the words of `sweep` describe, made by a worker: it has the models."""
        grid: Grid = self.client.submit(_grid_on_worker, self.given, dict(words), pure=False).result()
        return grid

    def run(self, tasks: Sequence[Task], grid: Grid, store: str | None) -> Iterator[list[xr.Dataset]]:
        """Compute the cells of tasks, in parts of one seed; those of a worker that dies are done again."""
        from distributed import KilledWorker, as_completed

        total = sum(len(task.cells) for task in tasks)
        size = max(1, -(-total // (TASKS_A_WORKER * self.most_workers())))
        futures = [
            self.client.submit(_cells_on_worker, self.given, part, grid, store, pure=False)
            for task in tasks
            for part in task.parts(size)
        ]
        try:
            for future in as_completed(futures):
                yield future.result()
                future.release()  # its scores are here now
        except KilledWorker as error:
            raise TedlensError(
                f"Workers died again and again at the same cells, most often for want of memory ({error}); what is "
                "whole in the store stays, and the same sweep goes on from there."
            ) from error
        finally:
            self.client.cancel(futures)


def run_task(task: Task, models: Models, grid: Grid, store: str | None) -> Iterator[xr.Dataset]:
    """Compute a task's cells and write each; those that another writer has written meanwhile are left out."""
    opened = None if store is None else SweepStore(store)
    cells = task.cells if opened is None else opened.unwritten(task.clip.facts, grid, task.cells)
    if cells:
        for cell, kept in kept_cells(task.clip.source(), models, grid, cells):
            if opened is not None:
                opened.commit(cell, kept, grid, task.clip.facts)
            yield cell


# --- on a worker ----------------------------------------------------------------------------------

Given = tuple[Model | None, Model | None]  # motion and appearance, by name or arguments
_loaded: dict[str, Models] = {}  # the models of the last task, by what was given
_one_at_a_time = threading.Lock()  # threads of a worker load a model once, and take turns with it


def _grid_on_worker(given: Given, words: Mapping[str, Any]) -> Grid:
    with _one_at_a_time:
        return make_grid(_models_of_worker(given), **words)


def _cells_on_worker(given: Given, task: Task, grid: Grid, store: str | None) -> list[xr.Dataset]:
    with _one_at_a_time:
        return list(run_task(task, _models_of_worker(given), grid, store))


def _models_of_worker(given: Given) -> Models:
    from dask.base import tokenize

    key = tokenize(given)
    if key not in _loaded:
        _loaded.clear()  # memory for two sets of models may not be there
        _loaded[key] = load_models(*given)
    return _loaded[key]
