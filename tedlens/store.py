"""Save and load results: written completely or not at all, and never over something that tedlens did not write.

Everything that tedlens writes carries a mark: an attribute of a Zarr store, or a file ``.tedlens`` in any other
folder. Only what carries the mark is ever replaced or removed; `replaceable` alone decides this.
"""

from __future__ import annotations

import datetime
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tedlens.errors import TedlensError
from tedlens.escaping import printable

MARK = ".tedlens"  # file in a folder of results
KIND = "tedlens_result"  # attribute of a Zarr store: which xarray type was saved
MOST_LABELS = 10**8  # values of a coordinate
# Attributes of the stores of sweeps, of one model or several. Sweeps are no results, and results never replace them.
SWEEPS = ("tedlens_sweep", "tedlens_models")


def save(result: xr.DataTree | xr.Dataset | xr.DataArray, path: str | Path) -> Path:
    """Save a labelled result as a Zarr v3 folder; `load` reads it.

    The result is first written next to `path` and then moved there, so `path` never holds half a result. Encodings
    from an earlier store are dropped. Attributes are converted to JSON types (paths and dates to texts, sets to
    lists).

    Raises
    ------
    TedlensError
        If `path` exists and is not a result that `save` wrote (only such results are replaced); if it cannot be
        written; for a MultiIndex, an array named like one of its axes, or an attribute with no JSON type.
    """
    path = Path(path)
    check_replaceable(path)
    kind = "tree" if isinstance(result, xr.DataTree) else "dataset" if isinstance(result, xr.Dataset) else "array"
    if isinstance(result, xr.DataArray):
        name = str(result.name or "values")
        if name in result.dims:
            raise TedlensError(f"The array is named like its axis {name!r}; rename it, as in result.rename('values').")
        result = result.to_dataset(name=name)
    plain = result.map_over_datasets(storable) if isinstance(result, xr.DataTree) else storable(result)
    plain.attrs = {**plain.attrs, KIND: kind}
    with whole_folder(path) as folder:
        plain.to_zarr(folder, zarr_format=3, consolidated=False, mode="w")
    return path


def marked_root(root: xr.Dataset) -> xr.Dataset:
    """The root of a tree that is written node by node, with the mark that `save` sets."""
    return storable(root).assign_attrs({KIND: "tree"})


def load(path: str | Path) -> Any:
    """Open a store that tedlens wrote; the values are read from disk when they are used.

    Parameters
    ----------
    path
        A store that `save`, ``sweep(store=)``, the demo or the command line wrote.

    Returns
    -------
    DataTree, Dataset or DataArray, as it was saved; for a sweep its scores, as `open_sweep` returns them.

    Raises
    ------
    TedlensError
        If there is no store, or tedlens did not write it.
    """
    about = store_attributes(Path(path))
    if about is None:
        raise TedlensError(f"There is no Zarr v3 store at {path}; give the path of what tl.save() or a sweep wrote.")
    if not about.keys().isdisjoint(SWEEPS):
        from tedlens.sweeping import open_sweep  # a sweep saves through this module

        return open_sweep(path)
    kind = about.get(KIND)
    if kind not in ("tree", "dataset", "array"):
        raise TedlensError(f"{path} is a Zarr store that tedlens did not write; open it with xarray.open_zarr.")
    tree = open_tree(path)
    tree.attrs.pop(KIND, None)
    if kind == "tree":
        return tree
    opened = tree.to_dataset()
    if kind == "dataset":
        return opened
    (values,) = opened.data_vars.values()
    return values


def open_tree(path: str | Path, group: str | None = None) -> xr.DataTree:
    """The content of a Zarr v3 store; the values are read from disk when they are used.

    Raises
    ------
    TedlensError
        If it cannot be read, or declares coordinates larger than any result has.
    """
    if "://" not in str(path):
        check_claims(Path(path))
    try:
        return xr.open_datatree(path, group=group, engine="zarr", chunks=None, consolidated=False, zarr_format=3)
    except Exception as error:  # zarr, numcodecs, xarray and JSON each raise their own errors for damaged stores
        reason = printable(" ".join(str(error).split()))[:300].rstrip(".")
        raise TedlensError(f"The store {path} cannot be read ({reason}); save the result again.") from error


def check_claims(path: Path) -> None:
    """Check that coordinates, which are read into memory on opening, are not larger than those of any result.

    Raises
    ------
    TedlensError
        For a coordinate (an array named like its own axis) that declares more than `MOST_LABELS` values.
    """
    for file in sorted(path.rglob("zarr.json")):
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
            shape, axes = said.get("shape", []), said.get("dimension_names") or []
            claimed = max(map(int, shape), default=0) if file.parent.name in axes else 0
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            continue  # damaged: opening it will raise the error
        if claimed > MOST_LABELS:
            raise TedlensError(
                f"{file.parent} says that it has {claimed} values, more than any result of tedlens; the store is "
                "damaged, or was made to fill the memory."
            )


def storable(dataset: xr.Dataset) -> xr.Dataset:
    """A dataset that Zarr v3 can hold: no encodings of an earlier store, texts of any length, JSON attributes."""
    for name, index in dataset.indexes.items():
        if index.nlevels > 1:
            raise TedlensError(
                f"{name!r} is a MultiIndex, which Zarr does not hold; save result.reset_index({name!r})."
            )
    dataset = dataset.drop_encoding()
    texts = {n: c.astype(object) for n, c in dataset.coords.items() if c.dtype.kind == "U"}
    dataset = dataset.assign_coords(texts)
    for variable in dataset.variables.values():
        variable.attrs = _plain_attributes(variable.attrs)
    return dataset.assign_attrs(_plain_attributes(dataset.attrs))


def _plain_attributes(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): _plain(value, str(name)) for name, value in attrs.items()}


def _plain(value: Any, name: str) -> Any:
    """A value converted to JSON types."""
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist(), name)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike | datetime.date | datetime.time):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each, name) for key, each in value.items()}
    if isinstance(value, set | frozenset):
        return [_plain(each, name) for each in sorted(value, key=str)]
    if isinstance(value, list | tuple | range):
        return [_plain(each, name) for each in value]
    raise TedlensError(
        f"The attribute {name!r} is of type {type(value).__name__}, which a store does not hold; "
        "make it a number, a text or a list of such, or delete it."
    )


# --- folders --------------------------------------------------------------------------------------


def store_attributes(path: Path) -> dict[str, Any] | None:
    """Attributes of a Zarr v3 group on disk; None if there is none, or its metadata file is damaged."""
    try:
        said = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        return dict(said["attributes"]) if said["zarr_format"] == 3 else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def replaceable(path: Path) -> bool:
    """Whether `path` may be replaced: it does not exist, is an empty folder, or carries the mark of tedlens."""
    if not path.exists():
        return True
    if not path.is_dir() or path.resolve() in (Path.cwd(), *Path.cwd().parents):
        return False
    return (path / MARK).is_file() or KIND in (store_attributes(path) or {}) or not any(path.iterdir())


def check_replaceable(path: Path, what: str = "a result of tedlens") -> None:
    """Check, before any work, that `path` may be replaced.

    Raises
    ------
    TedlensError
        If it may not.
    """
    check_name(path)
    if not replaceable(path):
        raise TedlensError(f"{path} exists and is not {what}, so it is left alone; choose another path.")


def check_free(out: Path) -> None:
    """Check that `out` does not exist yet, so that no file of the user is replaced or mixed with results."""
    check_name(out)
    if out.exists() or out.is_symlink():
        raise TedlensError(f"{out} exists already, so nothing was written; choose another --out or remove it.")


def check_name(path: Path) -> None:
    """Refuse, before any work, a name that Zarr would interpret as something else."""
    if "::" in str(path):
        raise TedlensError(
            f"{path} has '::' in its name, by which fsspec and Zarr mean chained file systems; choose another name."
        )


@contextmanager
def whole_folder(path: Path, *, marked: bool = False) -> Iterator[Path]:
    """A temporary folder that replaces `path` if the block ends without an error, and is removed otherwise.

    The old folder is first moved aside, and removed once the new folder is in place, so at any time one of the two is
    complete. If a call was killed, the next call restores or removes what it left. A symbolic link is kept, and the
    folder that it points to is replaced. `marked`: put the mark into the folder, so that it may be replaced later.
    """
    path = Path(os.path.realpath(path))
    _put_back(path)
    check_replaceable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-new-{os.getpid()}-", dir=path.parent))
    except OSError as error:
        raise TedlensError(f"Cannot write to {path}: {error.strerror or error}; choose another path.") from error
    try:
        yield temporary
        if marked:
            (temporary / MARK).touch()
        temporary.chmod(0o755)  # mkdtemp's 700 would hide the result from the user's group
        check_replaceable(path)  # again: the work took its time
        aside = path.with_name(f".{path.name}-old-{os.getpid()}")
        if path.exists():
            os.replace(path, aside)
        try:
            os.replace(temporary, path)
        except OSError:
            _put_back(path)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        there = "what was there before is whole" if path.exists() else "nothing was left behind"
        raise TedlensError(f"Cannot write {path}: {error.strerror or error}; {there}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # gone already if all went well


def _put_back(path: Path) -> None:
    """Clean up after a killed call: restore the old content if `path` is missing, and remove leftovers next to it."""
    pattern = f".{glob.escape(path.name)}-"
    for aside in sorted(path.parent.glob(f"{pattern}old-*")):
        if path.exists() and replaceable(aside):
            shutil.rmtree(aside, ignore_errors=True)
        elif not path.exists():
            os.replace(aside, path)
    for unfinished in path.parent.glob(f"{pattern}new-*-*"):
        process = unfinished.name.rsplit("-", 2)[1]
        if process.isdecimal() and not _running(int(process)):
            shutil.rmtree(unfinished, ignore_errors=True)


def _running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # a process of another user
        return True
    return True
