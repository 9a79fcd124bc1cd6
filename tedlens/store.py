"""Results to disk, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xarray as xr

from tedlens.errors import TedlensError


def save(result: xr.DataTree | xr.Dataset | xr.DataArray, path: str | Path) -> Path:
    """Save a labelled result as a Zarr v3 folder; read it with ``xr.open_datatree`` or ``xr.open_dataset``.

    Written beside `path` first and then moved there, so that `path` never holds half a result.

    Raises
    ------
    TedlensError
        If `path` exists and is not a Zarr folder, which a result may replace, or cannot be written.
    """
    path = Path(path)
    check_replaceable(path)
    if isinstance(result, xr.DataArray):
        result = result.to_dataset(name=result.name or "values")
    result = result.map_over_datasets(storable) if isinstance(result, xr.DataTree) else storable(result)
    with whole_folder(path) as folder:
        result.to_zarr(folder, zarr_format=3, consolidated=False, mode="w")
    return path


def storable(dataset: xr.Dataset) -> xr.Dataset:
    """Texts of any length, for which Zarr v3 has a specification, in place of texts of a fixed one."""
    return dataset.assign_coords({n: c.astype(object) for n, c in dataset.coords.items() if c.dtype.kind == "U"})


def check_replaceable(path: Path) -> None:
    """Only a Zarr folder may be replaced by a result: never somebody's other files."""
    if path.exists() and not (path / "zarr.json").is_file():
        raise TedlensError(f"{path} exists and is not a Zarr store, so it is left alone; choose another path.")


def check_free(out: Path) -> None:
    """Results go to a new folder: nothing of the user's is mixed with or replaced."""
    if out.exists():
        raise TedlensError(f"{out} exists already, so nothing was written; choose another --out or remove it.")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `path` if the block ends well, and is gone if not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise TedlensError(f"Cannot write to {path}: {error.strerror or error}; choose another path.") from error
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp's 700 would hide the result from the user's group
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError as error:
        raise TedlensError(f"Cannot write {path}: {error.strerror or error}; nothing was left behind.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # gone already if all went well
