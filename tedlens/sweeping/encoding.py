"""A cell as the files of a Zarr v3 group, and back; what is not whole is not read."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.buffer.cpu import Buffer
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from tedlens.errors import TedlensError
from tedlens.store import storable
from tedlens.sweeping.cells import GRID, OF_CLIP, Kept

Files = dict[str, bytes]  # content by path within a group
MARKER = "zarr.json"  # without it Zarr sees no group: written last, it makes all the rest count
# JF is the mean of the first two. Those of the clip as a whole stand at every object and frame again: so a cell is one
# array still, and one file.
METRICS = ("J", "F", "identity", *OF_CLIP)


class BrokenCell(Exception):
    """Says what is wrong with a cell."""


@dataclass(frozen=True)
class Cell:
    """A whole cell as a store holds it: its key, its attributes, the files of its scores."""

    key: str
    about: dict[str, Any]
    files: Files

    @cached_property
    def scores(self) -> xr.Dataset:
        """Decoded when they are asked for: of thousands of cells most are only counted."""
        try:
            values = np.asarray(zarr.open_array(_in_memory(self.files), path="scores", mode="r")[...])
            axes = self.about["axes"]
            # A cell that was written before there were scores of the clip as a whole has the first three.
            each = {name: (list(axes), one) for name, one in zip(METRICS, values, strict=False)}
            whole = {name: (list(axes)[:-2], each[name][1][..., 0, 0]) for name in OF_CLIP if name in each}
            mean = {"JF": (list(axes), (each["J"][1] + each["F"][1]) / 2)}
            place = {name: self.about[name] for name in ("clip", "tau", "seed")}
            # A cell that was written before its grid was noted has none.
            grids = {name: (GRID[name][1:], value) for name, value in self.about.get("grid", {}).items()}
            return xr.Dataset(each | whole | mean, axes | place | grids)
        except Exception as error:  # checksums agree, so no accident wrote this
            raise TedlensError(f"The scores of cell {self.key} are not what a sweep writes ({error}).") from error

    @property
    def place(self) -> tuple[str, int, int]:
        """Clip, tau and seed."""
        return self.about["clip"], self.about["tau"], self.about["seed"]

    @property
    def axes(self) -> dict[str, list[Any]]:
        """Values of every axis of the sweep that lie in the cell."""
        return {name: [self.about[name]] for name in ("clip", "tau", "seed")} | dict(self.about["axes"])


def group_file(about: Mapping[str, Any], node_type: str = "group") -> Files:
    """A Zarr v3 group's own file, whose attributes carry a checksum; of another node type, Zarr sees no group."""
    said = {"attributes": {**about, "crc32": _crc32(about)}, "zarr_format": 3, "node_type": node_type}
    return {MARKER: json.dumps(said, indent=2, allow_nan=False).encode()}


def said_in(marker: bytes) -> dict[str, Any] | None:
    """Attributes in a file of Zarr, whoever wrote it; None where it is cut short or garbled."""
    try:
        return dict(json.loads(marker)["attributes"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def attributes(marker: bytes) -> dict[str, Any] | None:
    """As written by `group_file`; None where a bit of them is not, or somebody else wrote them."""
    about = said_in(marker)
    return about if about is not None and about.pop("crc32", None) == _crc32(about) else None


def files_of(about: Mapping[str, Any] | None) -> dict[str, tuple[int, int]]:
    """Size and checksum of each file that a group lists in its attributes."""
    return {name: (size, crc32) for name, (size, crc32) in (about or {}).get("files", {}).items()}


def encode_cell(cell: xr.Dataset, kept: Kept, inner: Sequence[str], about: Mapping[str, Any]) -> Files:
    """Files of a cell: one array of scores in one chunk, what is kept beside them below ``kept``.

    The group's attributes hold the axes and `about`.
    """
    dims = [*inner, "object", "frame"]
    values = np.stack([cell[name].broadcast_like(cell["J"]).transpose(*dims).values for name in METRICS])
    files: dict[str, Any] = {}
    zarr.create_array(
        MemoryStore(files),
        name="scores",
        data=values,
        chunks=values.shape,
        compressors=[Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},  # one file, not a folder for each axis
        config={"write_empty_chunks": True},
        dimension_names=["metric", *dims],
    )
    for path, dataset in kept.items():
        storable(dataset).to_zarr(
            MemoryStore(files),
            group=f"kept/{path}",
            zarr_format=3,
            consolidated=False,
            encoding={name: _kept_encoding(values) for name, values in dataset.data_vars.items()},
        )
    written = {name: buffer.to_bytes() for name, buffer in sorted(files.items()) if name != MARKER}
    axes = {name: cell[name].values.tolist() for name in dims}
    return with_marker(written, {**about, "axes": axes, "grid": {name: cell[name].values.tolist() for name in GRID}})


def _kept_encoding(values: xr.DataArray) -> dict[str, Any]:
    """Chunks that are read at once: a clip's masks of one track, a frame's features of one block."""
    whole = {"frame", "y", "x"} if values.dtype == np.uint8 else {"channel", "component", "y", "x"}
    chunks = tuple(size if dim in whole else 1 for dim, size in values.sizes.items())
    return {"chunks": chunks, "compressors": [ZstdCodec(), Crc32cCodec()]}


def decode_cell(key: str, files: Files, sizes: Mapping[str, int]) -> Cell:
    """A cell from its marker and the files of its scores, and the sizes of all files that are there."""
    if MARKER not in files:
        raise BrokenCell("is half written")
    about = attributes(files[MARKER])
    if about is None:
        raise BrokenCell(f"has a damaged {MARKER}")
    for name, (size, crc32) in files_of(about).items():
        if name not in sizes:
            raise BrokenCell(f"lacks {name}")
        if sizes[name] != size:
            raise BrokenCell(f"has {sizes[name]} of the {size} bytes of {name}")
        if name in files and zlib.crc32(files[name]) != crc32:
            raise BrokenCell(f"has a damaged {name}")
    return Cell(key, about, files)


def encode_dataset(dataset: xr.Dataset) -> Files:
    """Files of a Dataset as a group; its attributes are the Dataset's, and a list of the other files."""
    files: dict[str, Any] = {}
    how = {name: {"compressors": [ZstdCodec(), Crc32cCodec()]} for name in dataset.variables}
    storable(dataset).to_zarr(MemoryStore(files), zarr_format=3, consolidated=False, encoding=how)
    return with_marker(
        {name: buffer.to_bytes() for name, buffer in sorted(files.items()) if name != MARKER}, dataset.attrs
    )


def decode_dataset(files: Files) -> xr.Dataset:
    """A Dataset from its files, once each is known to have its checksum; the list of them is left out."""
    dataset: xr.Dataset = xr.open_zarr(_in_memory(files), consolidated=False, zarr_format=3, chunks=None).load()
    for name in ("files", "crc32"):
        dataset.attrs.pop(name, None)
    plain: xr.Dataset = dataset.drop_encoding()
    return plain


def _in_memory(files: Files) -> MemoryStore:
    return MemoryStore({name: Buffer.from_bytes(data) for name, data in files.items()}, read_only=True)


def with_marker(files: Files, about: Mapping[str, Any]) -> Files:
    """A group's files with its own, whose attributes list size and checksum of the others beside `about`."""
    return files | group_file({**about, "files": {name: [len(data), zlib.crc32(data)] for name, data in files.items()}})


def _crc32(said: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(said, sort_keys=True).encode())
