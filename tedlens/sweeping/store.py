"""A sweep on disk or in the cloud: every cell whole or absent, whatever happens to whoever writes it.

A store is a Zarr v3 group, at any URL that fsspec knows. Each cell of the sweep (a clip at one tau and seed) is a
group of its own below ``cells``, which shares no file with another. Its ``zarr.json`` is written last and lists
the size of each file of the cell, and the scores carry a checksum. So a cell that is half written, cut short or
garbled is noticed and computed anew, two writers at worst do the same work twice, and nothing is locked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import reduce
from pathlib import Path
from typing import Any

import fsspec
import natsort
import numpy as np
import xarray as xr
from fsspec.implementations.local import LocalFileSystem

from tedlens.errors import TedlensError
from tedlens.provenance import versions
from tedlens.sweeping.cells import AXES, Kept, join_cells, label_scores
from tedlens.sweeping.clips import ClipFacts
from tedlens.sweeping.encoding import (
    MARKER,
    BrokenCell,
    Cell,
    Files,
    attributes,
    decode_cell,
    encode_cell,
    encode_dataset,
    group_file,
)
from tedlens.sweeping.grid import SETTINGS, Grid

LAYOUT = 1  # number of the layout described above, kept as the attribute "tedlens_sweep"
# The weights say which model it is; its name may be the hub's or that of a job's scratch folder.
NAMES = {f"{role}_{name}" for role in ("motion", "appearance") for name in ("model", "model_revision")}


class SweepStore:
    """The store at a path or URL (``runs/sweep.zarr``, ``s3://bucket/sweep.zarr``), whether it is there yet or not."""

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        try:
            self.fs, root = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise TedlensError(f"Cannot use the store {self.url}: {error}.") from error
        self.root = root.rstrip("/")

    @property
    def address(self) -> str:
        """Path or URL that means the same in every process, whatever its working folder."""
        return self.root if isinstance(self.fs, LocalFileSystem) else self.url

    # --- reading --------------------------------------------------------------------------------

    def about(self) -> dict[str, Any] | None:
        """Attributes of the store; None where there is none yet, or one whose own file is damaged."""
        with self._sentences("read"):
            self.fs.invalidate_cache()
            try:
                names = {path.rstrip("/").rsplit("/", 1)[-1] for path in self.fs.ls(self.root, detail=False)}
            except FileNotFoundError:
                return None
            about = attributes(self.fs.cat_file(f"{self.root}/{MARKER}")) if MARKER in names else None
        ours = names <= {MARKER, "cells", "scores"} if about is None else about.get("tedlens_sweep") == LAYOUT
        if not ours:
            raise TedlensError(
                f"{self.url} exists and is not the store of a sweep, so it is left alone; choose another path."
            )
        return about

    def is_sweep(self) -> bool:
        """Whether a store says of itself that it is a sweep's."""
        with self._sentences("read"):
            if not self.fs.exists(f"{self.root}/{MARKER}"):
                raise TedlensError(f"There is no Zarr store at {self.url}; give the path or URL of one.")
            return "tedlens_sweep" in (attributes(self.fs.cat_file(f"{self.root}/{MARKER}")) or {})

    def cells(self, kind: str) -> tuple[list[Cell], dict[str, str]]:
        """All whole cells of a kind, and by key what is wrong with each other one."""
        sizes, files = self._listed()
        whole, broken = [], {}
        for key in sorted(sizes):
            try:
                cell = decode_cell(key, files[key], sizes[key])
            except BrokenCell as error:
                broken[key] = str(error)
                continue
            if cell.about["kind"] == kind:
                whole.append(cell)
            else:  # two sweeps with different settings began one store in the same instant
                broken[key] = "was made with other settings"
        return whole, broken

    def _listed(self) -> tuple[dict[str, dict[str, int]], dict[str, Files]]:
        """Of each cell, whole or not, the sizes of all files, and the content of its marker and scores."""
        folder = f"{self.root}/cells/"
        sizes: dict[str, dict[str, int]] = {}
        with self._sentences("read"):
            self.fs.invalidate_cache()
            for path, entry in self.fs.find(folder, detail=True).items():
                key, _, name = path.removeprefix(folder).partition("/")
                if name:
                    sizes.setdefault(key, {})[name] = entry["size"]
            wanted = [
                f"{folder}{key}/{name}"
                for key, names in sizes.items()
                for name in names
                if name == MARKER or name.startswith("scores/")
            ]
            # All at once: cloud file systems fetch them side by side.
            content = self.fs.cat(wanted, recursive=False, on_error="omit") if wanted else {}
        if isinstance(content, bytes):  # fsspec's answer where there is one path
            content = {wanted[0]: content}
        files: dict[str, Files] = {key: {} for key in sizes}
        for path, data in content.items():
            key, _, name = path.removeprefix(folder).partition("/")
            files[key][name] = data
        return sizes, files

    def held(self, grid: Grid, clips: Iterable[ClipFacts]) -> tuple[list[Cell], dict[str, str]]:
        """As `cells`, once it is known that they are of the grid's kind and of these clips.

        Raises
        ------
        TedlensError
            Where a setting, a model or a clip differs.
        """
        about = self.about()
        cells, broken = self.cells(kind_of(grid.fixed))
        if about is not None and (cells or broken):  # else a sweep that ended before its first cell: it binds nobody
            for name, before, now in _differences(about["fixed"], grid):
                raise TedlensError(
                    f"{self.url} holds results with {name}={before!r}, and now {name}={now!r} is "
                    "asked for: they are of different kinds, so use another store or the same setting."
                )
        content = {clip.name: clip.sha256 for clip in clips}
        for cell in cells:
            name, sha256 = cell.about["clip"], cell.about["clip_sha256"]
            if content.get(name, sha256) != sha256:
                raise TedlensError(
                    f"Clip {name!r} is not the one that {self.url} holds under this name (its frames or masks differ); "
                    "give it another name, or use another store."
                )
        return cells, broken

    # --- writing --------------------------------------------------------------------------------

    def begin(self, grid: Grid, clips: Iterable[ClipFacts], cells: Iterable[Cell], broken: Iterable[str]) -> None:
        """Make the store ready for a grid: note what is asked of it, and make absent what is broken in it."""
        about = self.about()
        if about is None or list(_differences(about["fixed"], grid)):
            about = {"tedlens_sweep": LAYOUT, **versions(), "fixed": grid.fixed, "asked": {}}
        asked = {"clip": [clip.name for clip in clips], "tau": grid.tau, "seed": grid.seed, **grid.inner}
        union = _union([asked, about["asked"]], cells)
        if about["asked"] != union:
            self._write("", group_file(about | {"asked": union}))
        self._write("cells", group_file({}))
        for key in broken:
            self._remove(f"cells/{key}/{MARKER}")

    def unwritten(self, clip: ClipFacts, grid: Grid, cells: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Of these cells (tau, seed) of a clip, those that are not there yet."""
        return [
            (tau, seed)
            for tau, seed in cells
            if not self._exists(f"cells/{cell_key(clip.name, tau, seed, grid)}/{MARKER}")
        ]

    def commit(self, cell: xr.Dataset, kept: Kept, grid: Grid, clip: ClipFacts) -> None:
        """Write a cell; it counts once all of it is there."""
        tau, seed = int(cell["tau"]), int(cell["seed"])
        place = grid.tau.index(tau)
        about = {
            "clip": clip.name,
            "clip_sha256": clip.sha256,
            "tau": tau,
            "seed": seed,
            # As text: JSON has no infinity, which sigma is where nothing of the signal is left.
            "sigma": str(grid.sigma[place]),
            "log_snr": str(grid.log_snr[place]),
            "kind": kind_of(grid.fixed),
            **versions(),
        }
        self._write(f"cells/{cell_key(clip.name, tau, seed, grid)}", encode_cell(cell, kept, list(grid.inner), about))

    def finish(self, cells: Sequence[Cell]) -> None:
        """Join all cells in the group ``scores``, which any reader of Zarr opens; left alone where it is up to date."""
        about = self.about()
        assert about is not None
        digest = _sha256([about["asked"], *(cell.key for cell in cells)])
        folder = f"{self.root}/scores/"
        with self._sentences("read"):
            there = {p.removeprefix(folder): entry["size"] for p, entry in self.fs.find(folder, detail=True).items()}
            held = (attributes(self.fs.cat_file(folder + MARKER)) if MARKER in there else None) or {}
        listed = {name: size for name, (size, _) in held.get("files", {}).items()}
        if held.get("made_of_sha256") == digest and listed.items() <= there.items():
            return
        files = encode_dataset(joined(cells, about).assign_attrs(made_of_sha256=digest))
        self._remove(f"scores/{MARKER}")
        with self._sentences("write"):  # arrays of other shapes; the same ones, of another writer, are let be
            for array in {name.split("/")[0] for name in there if name not in files}:
                self.fs.rm(folder + array, recursive=True)
        self._write("scores", files)

    def _exists(self, path: str) -> bool:
        with self._sentences("read"):
            return bool(self.fs.exists(f"{self.root}/{path}"))

    def _remove(self, path: str) -> None:
        with self._sentences("write"), suppress(FileNotFoundError):
            self.fs.rm_file(f"{self.root}/{path}")

    def _write(self, group: str, files: Files) -> None:
        """Files of a group, its marker last."""
        with self._sentences("write"):
            for name in sorted(files, key=lambda name: (name == MARKER, name)):
                path = "/".join(part for part in (self.root, group, name) if part)
                if isinstance(self.fs, LocalFileSystem):
                    self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
                self.fs.pipe_file(path, files[name])

    @contextmanager
    def _sentences(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TedlensError(
                f"Cannot {what} the store {self.url}: {error.strerror or error}; what is whole in it stays whole, "
                "and the same sweep goes on from there once that is mended."
            ) from error


def open_sweep(store: str | Path) -> xr.Dataset:
    """Scores of a sweep that is done, broken off or still running, as one labelled array.

    No model is needed and nothing is computed. Of a finished sweep,
    ``xr.open_zarr("runs/sweep.zarr", group="scores")`` gives the same.

    Parameters
    ----------
    store
        Path or URL of the store.

    Returns
    -------
    Dataset
        As `sweep` gives it, with every axis in ascending order: all that was ever asked of this store, NaN
        where it has not been computed yet.

    Raises
    ------
    TedlensError
        Where there is no sweep.
    """
    opened = SweepStore(store)
    about = opened.about()
    if about is None:
        raise TedlensError(f"There is no sweep at {store}; give the store of tl.sweep(..., store=...).")
    return joined(opened.cells(kind_of(about["fixed"]))[0], about)


def open_kept(store: str | Path, *, clip: str, tau: int, seed: int = 0) -> xr.DataTree:
    """What a sweep kept of one cell beside its scores, read from disk when it is used.

    Parameters
    ----------
    store
        Path or URL of the store of a sweep with ``keep=("labels", "features")`` or one of them.
    clip, tau, seed
        The cell: name of the clip, noise level, seed of the noise.

    Returns
    -------
    DataTree
        ``labels``: tracked masks (block, top_k, .., lam, frame, y, x). ``features``: one node a block, as from
        `probe`, in float16; or, of features reduced to principal components, what `pca` gives and their ``mean``,
        so that score @ loading + mean is the features again as nearly as the components allow.

    Raises
    ------
    TedlensError
        Where there is no such cell, or nothing was kept.
    """
    return KeptCells(store).open(clip, tau, seed)


class KeptCells:
    """What a sweep kept, as `open_kept` gives it, of many cells: the store is looked through once."""

    def __init__(self, store: str | Path) -> None:
        self._store = SweepStore(store)
        about = self._store.about()
        cells = self._store.cells(kind_of(about["fixed"]))[0] if about else []
        self._clips = sorted({cell.place[0] for cell in cells})
        self._keys = {
            cell.place: cell.key for cell in cells if any(name.startswith("kept/") for name in cell.about["files"])
        }

    def open(self, clip: str, tau: int, seed: int) -> xr.DataTree:
        key = self._keys.get((clip, tau, seed))
        if key is None:
            raise TedlensError(
                f"{self._store.url} keeps nothing of clip {clip!r} at tau={tau} and seed={seed} beside scores; it has "
                f"clips {', '.join(self._clips) or '(none)'}, and keeps what "
                'tl.sweep(..., keep=("labels", "features")) asked for.'
            )
        address = f"{self._store.url.rstrip('/')}/cells/{key}"
        return xr.open_datatree(address, group="kept", engine="zarr", consolidated=False)


def swept_clips(store: str | Path) -> dict[str, str]:
    """Hash of the frames and masks of each clip of which there are scores, by its name."""
    opened = SweepStore(store)
    about = opened.about()
    cells = opened.cells(kind_of(about["fixed"]))[0] if about else []
    return {cell.about["clip"]: cell.about["clip_sha256"] for cell in cells}


def describe_sweep(store: str | Path) -> str | None:
    """For a person: what was asked of a store, how much is done, and how it came to be; None if it is no sweep's."""
    opened = SweepStore(store)
    about = opened.about() if opened.is_sweep() else None
    if about is None:
        return None
    asked = about["asked"]
    cells, broken = opened.cells(kind_of(about["fixed"]))
    inner = {name: values for name, values in asked.items() if name not in ("clip", "tau", "seed")}
    total = len(asked["clip"]) * len(asked["tau"]) * len(asked["seed"])
    lines = [
        f"{store}: sweep of {' x '.join(f'{len(values)} {name}' for name, values in asked.items() if len(values) > 1)}",
        f"  done: {len(covered_places(cells, inner))} of {total} cells",
        *(f"  not whole: {key} {what}" for key, what in broken.items()),
        *(f"  {name}: {_listing(values)}" for name, values in asked.items()),
        *(f"  {name}: {value}" for name, value in about["fixed"].items()),
        *(f"  {name.removeprefix('version_')} {v}" for name, v in about.items() if name.startswith("version_")),
    ]
    return "\n".join(lines)


def _listing(values: Sequence[Any]) -> str:
    few = values if len(values) <= 12 else [*values[:6], "..", *values[-3:]]
    return ", ".join(map(str, few))


def joined(cells: Sequence[Cell], about: Mapping[str, Any]) -> xr.Dataset:
    """Scores of all cells over all that was asked of a store with the attributes `about`."""
    axes = _union([about["asked"]], cells) | {
        name: _in_order(v for cell in cells for v in cell.axes[name]) for name in ("object", "frame")
    }
    scores = join_cells((cell.scores for cell in cells), {name: axes[name] for name in AXES if name in axes})
    noise = {cell.about["tau"]: (float(cell.about["sigma"]), float(cell.about["log_snr"])) for cell in cells}
    attrs = {name: value for name, value in about.items() if name.startswith("version_")} | about["fixed"]
    single = {name: 0 for name in SETTINGS if len(axes[name]) == 1}
    return label_scores(scores, noise, attrs).isel(single)


def missing_cells(grid: Grid, clips: Iterable[ClipFacts], cells: Iterable[Cell]) -> dict[str, list[tuple[int, int]]]:
    """(tau, seed) of the grid's cells that lack any of its blocks, lambdas or settings, by name of the clip."""
    covered = covered_places(cells, grid.inner)
    return {
        clip.name: [(tau, seed) for tau, seed in grid.cells if (clip.name, tau, seed) not in covered] for clip in clips
    }


def covered_places(cells: Iterable[Cell], inner: Mapping[str, Sequence[Any]]) -> set[tuple[str, int, int]]:
    """Clip, tau and seed where one cell, or several that differ in blocks, lambdas or settings, hold all of `inner`."""
    seen: dict[tuple[str, int, int], Any] = {}
    for cell in cells:
        has = [np.isin(list(values), cell.axes[name]) for name, values in inner.items()]
        seen[cell.place] = seen.get(cell.place, False) | reduce(np.logical_and.outer, has)
    return {place for place, each in seen.items() if each.all()}


def cell_key(clip: str, tau: int, seed: int, grid: Grid) -> str:
    """Name of a cell's folder: readable, safe on any file system, and its own for each clip and set of inner axes."""
    readable = re.sub(r"[^A-Za-z0-9._]+", "_", clip)[:40]
    return f"{readable}-{_sha256(clip)[:8]}-tau{tau}-seed{seed}-{_sha256(grid.inner)[:8]}"


def kind_of(fixed: Mapping[str, Any]) -> str:
    """Digest of the settings that results of one kind have in common."""
    return _sha256({name: value for name, value in sorted(fixed.items()) if name not in NAMES})


def _sha256(said: Any) -> str:
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _differences(fixed: Mapping[str, Any], grid: Grid) -> Iterator[tuple[str, Any, Any]]:
    """Settings that a store holds fixed and a grid has otherwise: name, before, now."""
    asked = json.loads(json.dumps(grid.fixed))
    for name in sorted({*asked, *fixed} - NAMES):
        if asked.get(name) != fixed.get(name):
            yield name, fixed.get(name), asked.get(name)


def _union(asked: Sequence[Mapping[str, Sequence[Any]]], cells: Iterable[Cell]) -> dict[str, list[Any]]:
    """All that was asked for, and all that is there: a second writer may have noted other clips and taus."""
    every = [*asked, *(cell.axes for cell in cells)]
    return {name: _in_order(value for one in every for value in one.get(name, [])) for name in asked[0]}


def _in_order(values: Iterable[Any]) -> list[Any]:
    """Distinct values, ascending: numbers by size, names as a person counts (``up_2`` before ``up_10``)."""
    ordered: list[Any] = natsort.natsorted(set(values))
    return ordered
