"""A sweep on disk or in the cloud: every cell whole or absent, whatever happens to whoever writes it.

A store is a Zarr v3 group, at any URL that fsspec knows. Each cell of the sweep (a clip at one tau and seed) is a
group of its own below ``cells``, which shares no file with another. Its ``zarr.json`` is written last and lists
size and checksum of each file of the cell, and has a checksum of its own, as the store's has. So what is half written,
cut short or garbled is noticed and made anew, two writers at worst do the same work twice, and nothing is locked.

A store is known by the attributes of these files. Nothing is written to a folder that holds anything else, and
nothing is removed that the store does not list as its own.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import reduce
from math import prod
from pathlib import Path
from typing import Any

import fsspec
import natsort
import numpy as np
import xarray as xr
from fsspec.implementations.local import LocalFileSystem

from tedlens.errors import TedlensError
from tedlens.provenance import versions
from tedlens.store import check_name
from tedlens.sweeping.cells import AXES, Kept, interventions_said, join_cells, label_scores
from tedlens.sweeping.clips import ClipFacts
from tedlens.sweeping.encoding import (
    MARKER,
    BrokenCell,
    Cell,
    Files,
    attributes,
    decode_cell,
    decode_dataset,
    encode_cell,
    encode_dataset,
    files_of,
    group_file,
    said_in,
)
from tedlens.sweeping.grid import Grid
from tedlens.ted.settings import SETTINGS

LAYOUT = 3  # number of the layout described above, kept as the attribute "tedlens_sweep"
CELL_KEY = re.compile(r".+-[0-9a-f]{8}-tau\d+-seed\d+-[0-9a-f]{8}")  # what `cell_key` gives
OPENING = group_file({"tedlens_sweep": LAYOUT})[MARKER].split(b",")[0]  # how a store's own file begins
MOST_SCORES = 10**10
AT_ONCE = 64  # files in memory while they are looked through
HALF = "half written"  # node type of the joined scores while they are: Zarr sees no group, we see what is ours
# Names say nothing that other attributes do not. The weights say which model it is, whose name may be the hub's or that
# of a job's scratch folder; the settings say what a preset stands for.
NAMES = {f"{role}_{name}" for role in ("motion", "appearance") for name in ("model", "model_revision")} | {"preset"}


class SweepStore:
    """The store at a path or URL (``runs/sweep.zarr``, ``s3://bucket/sweep.zarr``), whether it is there yet or not."""

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        if "://" in self.url:
            try:
                self.fs, root = fsspec.url_to_fs(self.url)
            except (ImportError, ValueError) as error:
                raise TedlensError(f"Cannot use the store {self.url}: {error}.") from error
        else:
            check_name(Path(self.url))
            self.fs, root = LocalFileSystem(), os.path.abspath(os.path.expanduser(self.url))
        self.root = root.rstrip("/")

    @property
    def address(self) -> str:
        """Path or URL that means the same in every process, whatever its working folder."""
        return self.root if isinstance(self.fs, LocalFileSystem) else self.url

    # --- reading --------------------------------------------------------------------------------

    def about(self) -> dict[str, Any] | None:
        """Attributes of the store; None where there is none yet, or one whose own file is damaged or lost.

        Raises
        ------
        TedlensError
            Where anything is there that is not a sweep's store.
        """
        with self._sentences("read"):
            self.fs.invalidate_cache()
            names = self._names("")
            if not names:
                return None
            marker = self._said("") if MARKER in names else None
            about = attributes(marker) if marker is not None else None
            if about is None and not self._all_ours(names):
                raise self._foreign()
        if about is None:
            return None
        if about.get("tedlens_sweep") != LAYOUT:
            raise self._foreign()
        return about

    def models_about(self) -> dict[str, Any] | None:
        """What the store of several models says of them; None where there is none."""
        with self._sentences("read"):
            self.fs.invalidate_cache()
            about = attributes(self._said(""))
        return None if about is None or about.pop("tedlens_models", None) != LAYOUT else about

    def write_models(self, about: Mapping[str, Any]) -> None:
        """Make this the store of several models, whose own stores lie in it, unless anything else is there.

        Raises
        ------
        TedlensError
            Where anything else is.
        """
        with self._sentences("read"):
            names = self._names("")
        if names and self.models_about() is None:
            raise self._foreign()
        self._write("", group_file({"tedlens_models": LAYOUT, **about}))

    def _names(self, folder: str) -> set[str]:
        """Names of what lies in a folder of the store; none where there is no such folder."""
        try:
            listed = self.fs.ls(f"{self.root}/{folder}".rstrip("/"), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return set()
        return {path.rstrip("/").rsplit("/", 1)[-1] for path in listed}

    def _said(self, group: str) -> bytes:
        """Content of a group's own file; empty where there is none."""
        try:
            return bytes(self.fs.cat_file("/".join(part for part in (self.root, group, MARKER) if part)))
        except (FileNotFoundError, IsADirectoryError):
            return b""

    def _all_ours(self, names: set[str]) -> bool:
        """Whether what lies in a store whose own file is damaged or lost can be nothing but a sweep's."""
        if names == {MARKER}:  # a sweep that was killed while it wrote its first file
            said = self._said("")
            return OPENING.startswith(said[: len(OPENING)])
        keys = self._names("cells") - {MARKER}
        known = names <= {MARKER, "cells", "scores"} and all(map(CELL_KEY.fullmatch, keys))
        return known and bool(keys) and ("scores" not in names or self._joined_listing() is not None)

    def _joined_listing(self) -> dict[str, tuple[int, int]] | None:
        """What is ours of the joined scores, by the list in their own file; None where it is lost or not ours."""
        about = said_in(self._said("scores"))
        return files_of(about) if about is not None and "made_of_sha256" in about else None

    def _foreign(self) -> TedlensError:
        return TedlensError(
            f"{self.url} exists and is not the store of a sweep (of this version of tedlens), so it is left alone; "
            "choose another path."
        )

    def is_sweep(self) -> bool:
        """Whether a store says of itself that it is a sweep's."""
        with self._sentences("read"):
            if not self.fs.exists(f"{self.root}/{MARKER}"):
                raise TedlensError(f"There is no Zarr store at {self.url}; give the path or URL of one.")
            return not {"tedlens_sweep", "tedlens_models"}.isdisjoint(said_in(self._said("")) or {})

    def cells(self, kind: str, *, kept: bool = False) -> tuple[list[Cell], dict[str, str]]:
        """All whole cells of a kind, and by key what is wrong with each other one.

        `kept`: what they keep beside scores is looked through, too.
        """
        sizes = self._sizes()
        files = self._markers_and_scores(sizes)
        whole, broken = [], {}
        for key in sorted(sizes):
            try:
                cell = decode_cell(key, files[key], sizes[key])
                if kept:
                    self.check_kept(cell.key, cell.about)
            except BrokenCell as error:
                broken[key] = str(error)
                continue
            if cell.about["kind"] == kind:
                whole.append(cell)
            else:  # two sweeps with different settings began one store in the same instant
                broken[key] = "was made with other settings"
        return whole, broken

    def check_kept(self, key: str, about: Mapping[str, Any]) -> None:
        """See that what a cell keeps beside scores is as it was written.

        Raises
        ------
        BrokenCell
            Where a file is lost or has another checksum.
        """
        kept = {name: listed for name, listed in files_of(about).items() if name.startswith("kept/")}
        if (name := self._changed(f"cells/{key}", kept)) is not None:
            raise BrokenCell(f"has a damaged {name}")

    def _sizes(self) -> dict[str, dict[str, int]]:
        """Of each cell, whole or not, the sizes of all its files."""
        folder = f"{self.root}/cells/"
        sizes: dict[str, dict[str, int]] = {}
        with self._sentences("read"):
            self.fs.invalidate_cache()
            for path, entry in self.fs.find(folder, detail=True).items():
                key, _, name = path.removeprefix(folder).partition("/")
                if name:
                    sizes.setdefault(key, {})[name] = entry["size"]
        return sizes

    def _markers_and_scores(self, sizes: Mapping[str, Mapping[str, int]]) -> dict[str, Files]:
        """Of each cell the content of its marker and scores."""
        names = [
            f"{key}/{name}" for key, each in sizes.items() for name in each if name == MARKER or name[:7] == "scores/"
        ]
        files: dict[str, Files] = {key: {} for key in sizes}
        for path, data in self._contents("cells", names).items():
            key, _, name = path.partition("/")
            files[key][name] = data
        return files

    def _contents(self, group: str, names: Sequence[str]) -> Files:
        """Content by name of those files of a group that are there."""
        prefix = f"{self.root}/{group}/" if group else f"{self.root}/"
        paths = [prefix + name for name in names]
        with self._sentences("read"):
            if isinstance(self.fs, LocalFileSystem) or any(map(glob.has_magic, paths)):
                found = {}
                for path in paths:
                    with suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
                        found[path] = self.fs.cat_file(path)
            else:  # all at once: cloud file systems fetch them side by side
                found = self.fs.cat(paths, recursive=False, on_error="omit") if paths else {}
                if isinstance(found, bytes):  # fsspec's answer where there is one path
                    found = {paths[0]: found}
        return {path[len(prefix) :]: data for path, data in found.items()}

    def _changed(self, group: str, listed: Mapping[str, tuple[int, int]]) -> str | None:
        """The first of a group's files that is lost or has another checksum than is listed; None where all are whole.

        A few at a time, since together they may be larger than memory.
        """
        names = list(listed)
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            found = self._contents(group, some)
            for name in some:
                if name not in found or zlib.crc32(found[name]) != listed[name][1]:
                    return name
        return None

    def joined_scores(self, keys: Iterable[str], about: Mapping[str, Any]) -> xr.Dataset | None:
        """The scores of all cells as they were joined; None where they are not of just these cells, or not whole."""
        held = attributes(self._said("scores")) or {}
        if held.get("made_of_sha256") != _made_of(keys, about):
            return None
        files = self._contents("scores", [MARKER, *files_of(held)])
        if any(zlib.crc32(files.get(name, b"")) != crc32 for name, (_, crc32) in files_of(held).items()):
            return None
        scores = decode_dataset(files)
        del scores.attrs["made_of_sha256"]
        return scores

    def scores(self) -> xr.Dataset | None:
        """All scores that the store holds: as joined, where that is up to date, else cell by cell; None of no sweep."""
        about = self.about()
        if about is None:
            return None
        whole = [key for key, names in self._sizes().items() if MARKER in names]
        found = self.joined_scores(whole, about)
        return joined(self.cells(kind_of(about["fixed"]))[0], about) if found is None else found

    def key_of(self, clip: str, tau: int, seed: int) -> str | None:
        """Key of a cell that keeps something beside scores, by what lies in the folder and that cell's own file."""
        about = self.about()
        start = _place_key(clip, tau, seed)
        with self._sentences("read"):
            names = sorted(name for name in self._names("cells") if name.startswith(start)) if about else []
        for key in reversed(names):
            cell = attributes(self._said(f"cells/{key}"))
            ours = cell is not None and about is not None and cell.get("kind") == kind_of(about["fixed"])
            if ours and any(name.startswith("kept/") for name in files_of(cell)):
                return key
        return None

    def held(self, grid: Grid, clips: Iterable[ClipFacts]) -> tuple[list[Cell], dict[str, str]]:
        """As `cells`, once it is known that they are of the grid's kind and of these clips.

        Raises
        ------
        TedlensError
            Where a setting, a model or a clip differs.
        """
        about = self.about()
        cells, broken = self.cells(kind_of(grid.fixed), kept=True)
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
            for name, said in cell.about.get("interventions", {}).items():
                if (now := json.loads(json.dumps(grid.said_interventions.get(name, said)))) != said:
                    raise TedlensError(
                        f"{self.url} holds results of an intervention {name!r} that is {said}, and now it is {now}; "
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
        if grid.interventions is not None:
            about["interventions"] = grid.said_interventions
        self._write(f"cells/{cell_key(clip.name, tau, seed, grid)}", encode_cell(cell, kept, list(grid.inner), about))

    def finish(self, cells: Sequence[Cell]) -> xr.Dataset:
        """Join all cells in the group ``scores``, which any reader of Zarr opens; left alone where it is up to date."""
        about = self.about()
        if about is None:
            raise TedlensError(f"{self.url} was removed or damaged while the sweep ran; call the same sweep again.")
        keys = [cell.key for cell in cells]
        with self._sentences("read"):
            if (scores := self.joined_scores(keys, about)) is not None:
                return scores
            folder = f"{self.root}/scores/"
            there = {path.removeprefix(folder) for path in self.fs.find(folder)}
        scores = joined(cells, about)
        files = encode_dataset(scores.assign_attrs(made_of_sha256=_made_of(keys, about)))
        ours = self._joined_listing() or {}
        if foreign := there - ours.keys() - files.keys():
            raise TedlensError(
                f"{self.url}/scores holds {min(foreign)}, which no sweep lists as its own, so it is left alone; "
                "move it elsewhere, and call the same sweep again."
            )
        mine = ours | files_of(attributes(files[MARKER]))
        self._write("scores", group_file({"made_of_sha256": "", "files": mine}, HALF))
        for name in ours.keys() - files.keys():  # of arrays that are gone or had another shape
            self._remove(f"scores/{name}")
        self._write("scores", files)
        return scores

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


def joined(cells: Sequence[Cell], about: Mapping[str, Any]) -> xr.Dataset:
    """Scores of all cells over all that was asked of a store with the attributes `about`."""
    axes = _union([about["asked"]], cells) | {
        name: _in_order(v for cell in cells for v in cell.axes[name]) for name in ("object", "frame")
    }
    if (size := prod(map(len, axes.values()))) > MOST_SCORES:
        raise TedlensError(
            f"This store says that {size} scores were asked of it, more than a sweep makes; it is damaged, or was made "
            "to fill the memory."
        )
    scores = join_cells((cell.scores for cell in cells), {name: axes[name] for name in AXES if name in axes})
    noise = {cell.about["tau"]: (float(cell.about["sigma"]), float(cell.about["log_snr"])) for cell in cells}
    attrs = {name: value for name, value in about.items() if name.startswith("version_")} | about["fixed"]
    attrs |= interventions_said(cell.about.get("interventions", {}) for cell in cells)
    single = {name: 0 for name in SETTINGS if len(axes.get(name, [])) == 1}
    return label_scores(scores, noise, attrs).isel(single)


def missing_cells(grid: Grid, clips: Iterable[ClipFacts], cells: Iterable[Cell]) -> dict[str, list[tuple[int, int]]]:
    """(tau, seed) of the grid's cells that lack any of its blocks, lambdas or settings, by name of the clip."""
    covered = covered_places(cells, grid.inner)
    return {
        clip.name: [(tau, seed) for tau, seed in grid.cells if (clip.name, tau, seed) not in covered] for clip in clips
    }


def lacking(grid: Grid, clips: Iterable[ClipFacts], cells: Sequence[Cell]) -> Grid:
    """The grid with those interventions alone that some of its cells lack: each has its own forwards to save.

    Not where something is kept beside scores, of which one cell holds all.
    """
    if grid.interventions is None or grid.keep:
        return grid
    clips = list(clips)
    alone = {name: grid.narrowed([name]) for name in grid.interventions}
    return grid.narrowed([n for n, one in alone.items() if any(missing_cells(one, clips, cells).values())])


def covered_places(cells: Iterable[Cell], inner: Mapping[str, Sequence[Any]]) -> set[tuple[str, int, int]]:
    """Clip, tau and seed where one cell, or several that differ in blocks, lambdas or settings, hold all of `inner`."""
    seen: dict[tuple[str, int, int], Any] = {}
    for cell in cells:
        has = [np.isin(list(values), cell.axes[name]) for name, values in inner.items()]
        seen[cell.place] = seen.get(cell.place, False) | reduce(np.logical_and.outer, has)
    return {place for place, each in seen.items() if each.all()}


def cell_key(clip: str, tau: int, seed: int, grid: Grid) -> str:
    """Name of a cell's folder: readable, safe on any file system, and its own for each clip and set of inner axes."""
    return f"{_place_key(clip, tau, seed)}{_sha256(grid.inner)[:8]}"


def _place_key(clip: str, tau: int, seed: int) -> str:
    """How the names of all cells of a clip at one tau and seed begin."""
    readable = re.sub(r"[^A-Za-z0-9._]+", "_", clip)[:40]
    return f"{readable}-{_sha256(clip)[:8]}-tau{tau}-seed{seed}-"


def _made_of(keys: Iterable[str], about: Mapping[str, Any]) -> str:
    """Digest of what joined scores are made of: the cells, and what was asked of the store."""
    return _sha256([about["asked"], *sorted(keys)])


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
