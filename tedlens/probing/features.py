"""`tl.probe`: features of a clip over noise levels, blocks and seeds, in memory or on disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import zarr
from torch import Tensor

from tedlens.clip import Clip, as_clip
from tedlens.errors import TedlensError
from tedlens.models.registry import Model, as_model
from tedlens.probing.labelling import as_list, noise_axis, noise_levels, places
from tedlens.probing.prepared import Prepared
from tedlens.probing.view import Stitch, View
from tedlens.provenance import grouped
from tedlens.store import check_replaceable, load, marked_root, storable, whole_folder

LOOKED_AT = 10**8  # pixels of input in all from which a probe is measured before it starts
SAID = 10**9  # bytes of a result from which its size is said


def probe(
    model: Model,
    clip: Clip | str | Path,
    *,
    tau: int | Sequence[int] | None = None,
    sigma: float | Sequence[float] | None = None,
    log_snr: float | Sequence[float] | None = None,
    blocks: str | Sequence[str] | None = None,
    seed: int | Sequence[int] = 0,
    samples: int = 1,
    overlap: int = 2,
    window: int | None = None,
    stitch: Stitch = "first",
    size: int | tuple[int, int] | None = None,
    store: str | Path | None = None,
) -> xr.DataTree:
    """Features of `clip` in `model`, for each noise level, block and seed.

    Each (tau, seed) costs one forward a window, whatever the number of blocks, and stops after the
    deepest block asked for. Latents and embeddings are computed once.

    Parameters
    ----------
    model
        A loaded model, or what a loader takes: its name, or its arguments, as in
        ``{"name": "i2vgen-xl", "dtype": "bfloat16"}``. A name that both kinds have means the video model.
    clip
        A clip, or the path of one, see `read_clip`.
    tau, sigma, log_snr
        Noise levels, in one of three ways: training timesteps, 0 (clean) to 999 (noise); noise-to-signal
        ratios; or logarithms of the signal-to-noise power ratio, the axis on which models with different
        schedules compare. `sigma` and `log_snr` mean the training timestep nearest to them in log-SNR;
        the result holds the exact values of that one.
    blocks
        Names from ``model.blocks``; by default all ``up`` blocks. Or any submodule, by its dotted path or
        a pattern: ``up_2.temp_attentions.*``, ``up_blocks.2.attentions.1``, and an attention's query and
        key projections, ``up_2.attentions.1.transformer_blocks.0.attn1.to_q``. ``*`` stands for any part
        between two dots, ``**`` for several; ``tedlens info`` lists what there is.
    seed
        Seeds of the noise. A frame's noise depends on the seed and the frame's index alone.
    samples
        Noise samples a seed, over which features are the mean (DIFT: 8 with Stable Diffusion, 4 with
        ADM). Each costs a forward.
    overlap
        Frames that neighbouring windows of a video model share (the paper: 2). The last window is moved back to end
        with the clip, and so may share more (as printed, the paper's algorithm drops the frames after the last whole
        window).
    window
        Frames seen at once; by default as many as the model was trained on.
    stitch
        What a frame in several windows gets: ``"first"``, the features of the first window that holds it (the paper's
        algorithm 1), or the ``"mean"`` over windows.
    size
        Short side, or (height, width), in pixels that frames are resized to; made multiples of what
        the model needs. By default the model's own.
    store
        Path of a Zarr folder that takes each cell as it comes, so that no more than one is in memory; as from
        `save`, whole or not at all. The result is then read from there when it is used.

    Returns
    -------
    DataTree
        One node a block or submodule with ``features`` (tau, seed, frame, channel, y, x), float32 (float16 from a
        float16 model); coordinates ``sigma`` and ``log_snr`` along tau; ``y`` and ``x``, the centre
        of each cell in pixels of the clip (the centre of its first pixel is 0). Where frames share features (a
        model of latents of several frames), ``latent_frame`` along frame is the first of those that do. The attributes
        say how to make it again.

    Raises
    ------
    TedlensError
        For an unknown block, a tau, seed, overlap or window out of range, features that are not finite, a GPU without
        room for one window; before any work for a result that the memory does not hold, and for a `store` that is
        something else.
    """
    if store is not None:
        check_replaceable(Path(store))
    model, clip = as_model(model), as_clip(clip)
    taus, seeds = noise_levels(model, tau, sigma, log_snr), as_list(seed)
    how: dict[str, Any] = {"overlap": overlap, "window": window, "stitch": stitch, "size": size}
    view = View(model, clip, **how)
    names = view.names(blocks)
    if store is None:
        _check_memory(view, names, len(taus) * len(seeds))
    prepared = Prepared(model, clip, **how)
    about = prepared.provenance() | {"taus": taus, "seeds": seeds, "samples": samples}
    cells = prepared.features(taus, seeds, names, samples)

    def labelled(name: str, values: np.ndarray[Any, Any]) -> xr.Dataset:
        features = label_features(values, prepared, taus, seeds)
        # On the array too: it travels alone, through .sel() into fuse and propagate.
        return features.assign_attrs(grouped(about | {"block": name})).to_dataset(name="features")

    if store is not None:
        return _on_disk(Path(store), cells, (len(taus), len(seeds)), labelled, grouped(about | {"blocks": names}))
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for number, (_, _, features) in enumerate(cells):
        for name in names:
            values = _storable(features[name]).numpy()
            if name not in arrays:
                arrays[name] = np.empty((len(taus), len(seeds), *values.shape), values.dtype)
            arrays[name][divmod(number, len(seeds))] = values
    tree = xr.DataTree.from_dict({name: labelled(name, values) for name, values in arrays.items()})
    tree.attrs = grouped(about | {"blocks": names})
    return tree


def _on_disk(
    store: Path,
    cells: Iterable[tuple[int, int, dict[str, Tensor]]],
    shape: tuple[int, int],
    labelled: Callable[[str, np.ndarray[Any, Any]], xr.Dataset],
    about: dict[str, Any],
) -> xr.DataTree:
    """Features of all cells (tau, seed) in a Zarr folder, each written as it comes; opened."""
    arrays: dict[str, Any] = {}
    with whole_folder(store) as folder:
        marked_root(xr.Dataset(attrs=about)).to_zarr(folder, zarr_format=3, consolidated=False, mode="w")
        for number, (_, _, features) in enumerate(cells):
            for name, value in features.items():
                values = _storable(value).numpy()
                if name not in arrays:
                    whole = np.broadcast_to(np.zeros((), values.dtype), (*shape, *values.shape))
                    arrays[name] = _empty_node(folder / name, storable(labelled(name, whole)))
                arrays[name][divmod(number, shape[1])] = values
    tree: xr.DataTree = load(store)
    return tree


def _empty_node(folder: Path, node: xr.Dataset) -> Any:
    """A node of a result on disk whose features are still to be written, a frame of a cell to a chunk."""
    node.drop_vars("features").to_zarr(folder, zarr_format=3, consolidated=False, mode="w")
    features = node["features"]
    return zarr.open_group(folder, mode="r+").create_array(
        "features",
        shape=features.shape,
        dtype=features.dtype,
        chunks=(1, 1, 1, *features.shape[3:]),
        dimension_names=[str(d) for d in features.dims],
        attributes=features.attrs,
    )


def _check_memory(view: View, names: Sequence[str], cells: int) -> None:
    """See that the features of so many cells fit into memory, and say how large they are where that is much."""
    frames = len(view.clip)
    if cells * frames * prod(view.input_size) < LOOKED_AT:
        return
    points = [view.point(name) for name in names]
    size = 4 * cells * frames * sum(point.channels * prod(point.grid) for point in points)
    free = _free_memory()
    if free is not None and size > free:
        raise TedlensError(
            f"These features take {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free; give store= to "
            "write them to disk as they come, or fewer noise levels, blocks or frames."
        )
    if size > SAID:
        print(f"Features of {size / 1e9:.1f} GB.")


def _free_memory() -> int | None:
    """Bytes that can be had; None where the system does not say."""
    try:
        said = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"MemAvailable:\s*(\d+) kB", said)
    return 1024 * int(found.group(1)) if found else None


def label_features(
    values: np.ndarray[Any, Any], prepared: Prepared, taus: Sequence[int], seeds: Sequence[int]
) -> xr.DataArray:
    """Name the axes of (tau, seed, frame, channel, y, x)."""
    height, width = values.shape[-2:]
    shared = prepared.latent_frames()
    first = {} if shared is None else {"latent_frame": ("frame", shared, {"long_name": "first frame of its latent"})}
    return xr.DataArray(
        values,
        dims=("tau", "seed", "frame", "channel", "y", "x"),
        coords={
            **noise_axis(prepared.model, taus),
            "seed": list(seeds),
            **places(prepared.clip, (height, width)),
            **first,
        },
    )


def _storable(value: Tensor) -> Tensor:
    """On the CPU, in a type that numpy has."""
    return (value.float() if value.dtype == torch.bfloat16 else value).cpu()
