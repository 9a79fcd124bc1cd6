"""Where a cell is found again: its similarity to every cell of every frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from tedlens.align import check_finite
from tedlens.errors import TedlensError


def similarity(
    motion: xr.DataArray, appearance: xr.DataArray | None = None, *, frame: int, y: float, x: float, lam: float = 0.5
) -> xr.DataArray:
    """Similarity of one cell to every cell of every frame: by motion, by appearance and fused.

    Parameters
    ----------
    motion, appearance
        Features (frame, channel, y, x) of the same clip, as for `fuse`. Without `appearance`, only motion's
        are compared.
    frame, y, x
        The cell: its frame, and a point in pixels of the clip, of which the nearest cell is taken.
    lam
        Weight of motion in the fusion, 0 to 1.

    Returns
    -------
    DataArray (part, frame, y, x), cosines from -1 to 1, on motion's grid. ``part`` is motion, and with
        `appearance` also appearance and fused: the cosine of fused features, which is
        (lam^2 A_m + (1 - lam)^2 A_a) / (lam^2 + (1 - lam)^2). The cell is in the attributes.

    Raises
    ------
    TedlensError
        As `fuse`; for a frame that the features lack.
    """
    if appearance is not None:
        # Only where there is something to fuse: it takes torch.
        from tedlens.ted import check_lams, comparable

        check_lams([lam])
        parts, motion, _ = comparable(motion, appearance)
    frames = motion["frame"].values
    if frame not in frames:
        raise TedlensError(f"frame={frame} is not among the features'; choose from {frames.min()} to {frames.max()}.")
    place = {name: int(np.abs(motion[name].values - at).argmin()) for name, at in (("y", y), ("x", x))}
    at = (int(np.flatnonzero(frames == frame)[0]), place["y"], place["x"])
    found: dict[str, npt.NDArray[Any]] = {}
    if appearance is None:
        check_finite(motion.values, motion.attrs, "features")
        found["motion"] = _cosines(motion.transpose("frame", "channel", "y", "x").values, at)
    else:
        for name, part in zip(("motion", "appearance"), parts, strict=True):
            found[name] = _cosines(part.numpy(), at)
    similarities = xr.DataArray(
        np.stack(list(found.values())),
        dims=("part", "frame", "y", "x"),
        coords={"part": list(found), **{name: motion[name] for name in ("frame", "y", "x")}},
        attrs={"frame": int(frame), **{name: float(motion[name][i]) for name, i in place.items()}},
    )
    return similarities if appearance is None else with_fused(similarities, lam)


def with_fused(similarities: xr.DataArray, lam: float) -> xr.DataArray:
    """The similarities by motion and by appearance with that of fused features, at another lambda."""
    motion, appearance = (similarities.sel(part=part, drop=True) for part in ("motion", "appearance"))
    fused = (lam**2 * motion + (1 - lam) ** 2 * appearance) / (lam**2 + (1 - lam) ** 2)
    parts = xr.concat([motion, appearance, fused], xr.Variable("part", ["motion", "appearance", "fused"]))
    return parts.assign_attrs(similarities.attrs | {"lam": lam})


def _cosines(features: npt.NDArray[Any], at: tuple[int, int, int]) -> npt.NDArray[Any]:
    """Of features (frame, channel, y, x) with those of one cell: (frame, y, x)."""
    one = features[at[0], :, at[1], at[2]].astype(np.float32)
    products = np.einsum("fcyx,c->fyx", features, one)
    lengths = np.sqrt(np.einsum("fcyx,fcyx->fyx", features, features))
    return np.asarray(products / np.maximum(lengths * np.linalg.norm(one), 1e-12))
