"""`tl.probe`: features of a clip for several noise levels, blocks and seeds, in memory or on disk."""

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

LOOKED_AT = 10**8  # from so many input pixels in all, the size of the result is computed before the probe starts
SAID = 10**9  # from so many bytes, the size of the result is printed


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

    Each (tau, seed) costs one forward pass per window, whatever the number of blocks. It stops after the
    deepest block asked for. Latents and embeddings are computed once.

    Parameters
    ----------
    model
        A loaded model, or the input of a loader: a name, or the arguments, as in
        ``{"name": "i2vgen-xl", "dtype": "bfloat16"}``. A name that a video and an image model share means the video
        model.
    clip
        A clip, or the path of one, see `read_clip`.
    tau, sigma, log_snr
        Noise levels, in one of three ways: training timesteps, 0 (clean) to 999 (noise); noise-to-signal
        ratios; or logarithms of the signal-to-noise power ratio, the axis on which models with different
        schedules can be compared. `sigma` and `log_snr` select the training timestep nearest in log-SNR;
        the result holds the exact values of that timestep.
    blocks
        Names from ``model.blocks``; by default all ``up`` blocks. Or any submodule, by its dotted path or
        a pattern: ``up_2.temp_attentions.*``, ``up_blocks.2.attentions.1``, and the query and key
        projections of an attention layer, ``up_2.attentions.1.transformer_blocks.0.attn1.to_q``. ``*`` stands for
        any part between two dots, ``**`` for several; ``tedlens info`` lists all names.
    seed
        Seeds of the noise. The noise of a frame depends only on the seed and the index of the frame.
    samples
        Number of noise draws to average for the features at each tau and seed (DIFT: 8 with Stable Diffusion, 4 with
        ADM). Each draw costs a forward pass.
    overlap
        Frames that neighbouring windows of a video model share (the paper: 2). The last window is moved back to end
        with the clip, so it may share more. (The paper's algorithm, as printed, drops the frames after the last whole
        window.)
    window
        Number of frames the model sees at once; by default as many as it was trained on.
    stitch
        Features of a frame that is in several windows: ``"first"``, those of the first window that contains it (the
        paper's algorithm 1), or ``"mean"``, the mean over windows.
    size
        Size in pixels to which frames are resized: the short side, or (height, width). It is rounded to multiples
        that the model needs. By default the model's own size.
    store
        Path of a Zarr folder. Each (tau, seed) is written as soon as it is computed, so that only one is in memory.
        As with `save`, the folder is written completely or not at all. The result is then read from disk when it is
        used.

    Returns
    -------
    DataTree
        One node per block or submodule with ``features`` (tau, seed, frame, channel, y, x), float32 (float16 from a
        float16 model); coordinates ``sigma`` and ``log_snr`` along tau; ``y`` and ``x``, the centre
        of each cell in pixels of the clip (the centre of the first pixel is 0). If several frames share features (the
        model has one latent for several frames), ``latent_frame`` gives for each frame the first of the frames that
        share. The attributes record how to reproduce the result.

    Raises
    ------
    TedlensError
        For an unknown block; a tau, seed, overlap or window out of range; features that are not finite; a GPU without
        room for one window. Before any work: for a result that does not fit into memory, or a `store` path that holds
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
        # On the array too: users pass the array alone, through .sel(), to fuse and propagate.
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
    """Write the features of each cell (tau, seed) to a Zarr folder as soon as they are computed; return it opened."""
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
    """A node on disk with features still to be written; one chunk holds one frame of one (tau, seed)."""
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
    """Check that the features of so many (tau, seed) cells fit into memory; print their size if it is large."""
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
    """Bytes of memory available; None if the system does not report it."""
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
    """The value on the CPU, in a type that numpy supports."""
    return (value.float() if value.dtype == torch.bfloat16 else value).cpu()
