"""Results as a user has them on disk, made without a model: features of a clip's own colours, blurred and noisy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

import tedlens as tl
from tedlens.clip import Clip
from tedlens.probing import cell_centres

TAUS = [100, 600, 900]
BLOCKS = {"up_1": (12, 8), "up_2": (16, 16)}  # channels, side of the grid
SIZE = 64


def make_clip() -> Clip:
    return tl.datasets.similar(2, size=SIZE, frames=8)


def features_of(clip: Clip, channels: int, side: int, noise: float, seed: int) -> np.ndarray:
    """(frame, channel, y, x): a random mixture of each cell's mean colour and position, and noise."""
    rng = np.random.default_rng(seed)
    cells = clip.frames.reshape(len(clip), side, SIZE // side, side, SIZE // side, 3).mean((2, 4)) / 255
    y, x = np.meshgrid(np.linspace(-0.5, 0.5, side), np.linspace(-0.5, 0.5, side), indexing="ij")
    place = np.broadcast_to(np.stack([y, x], -1), (*cells.shape[:-1], 2))
    mixed = np.concatenate([cells - 0.5, place], -1) @ rng.normal(size=(5, channels))
    return np.moveaxis(mixed + noise * rng.normal(size=mixed.shape), -1, 1).astype(np.float32)


def labelled(clip: Clip, block: str, taus: list[int], seed: int = 0) -> xr.DataArray:
    channels, side = BLOCKS[block]
    values = np.stack([features_of(clip, channels, side, tau / 2000, seed + tau) for tau in taus])[:, None]
    coords = {
        "tau": taus,
        "log_snr": ("tau", [10 - tau / 60 for tau in taus]),
        "seed": [0],
        "frame": np.arange(len(clip)),
        "y": cell_centres(side, SIZE),
        "x": cell_centres(side, SIZE),
    }
    dims = ("tau", "seed", "frame", "channel", "y", "x")
    return xr.DataArray(values, dims=dims, coords=coords, attrs={"block": block})


def tree_of(feats: dict[str, xr.DataArray]) -> xr.DataTree:
    """As `probe` gives it."""
    tree = xr.DataTree.from_dict({block: each.to_dataset(name="features") for block, each in feats.items()})
    tree.attrs["blocks"] = list(feats)
    return tree


def store_all(folder: Path) -> Clip:
    """Save features, appearance, matches, labels (tau, block) and scores of a clip; returns it."""
    clip = make_clip()
    assert clip.masks is not None
    feats = {block: labelled(clip, block, TAUS) for block in BLOCKS}
    appearance = labelled(clip, "up_2", [51], seed=7)
    tl.save(tree_of(feats), folder / "feats.zarr")
    tl.save(tree_of({"up_2": appearance}), folder / "appearance.zarr")
    one = feats["up_2"].sel(tau=600, seed=0), appearance.isel(tau=0, seed=0)
    tl.save(tl.analysis.decomposition(*one, clip.masks, radius=4), folder / "matches.zarr")
    cells = {
        (tau, block): tl.propagate(f.sel(tau=tau, seed=0), clip.masks[0], radius=4)
        for block, f in feats.items()
        for tau in TAUS
    }
    labels = [c.expand_dims(tau=[t], block=[b]).to_dataset(name="labels") for (t, b), c in cells.items()]
    scores = [tl.evaluate(c, clip.masks).expand_dims(tau=[t], block=[b]) for (t, b), c in cells.items()]
    for name, each in (("labels", labels), ("scores", scores)):
        joined = xr.combine_by_coords([d.drop_vars("seed", errors="ignore") for d in each], combine_attrs="drop")
        assert isinstance(joined, xr.Dataset)
        tl.save(joined.assign_coords(log_snr=feats["up_2"]["log_snr"]), folder / f"{name}.zarr")
    return clip
