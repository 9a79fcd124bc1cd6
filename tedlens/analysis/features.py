"""One block, one clip: what of stored features is asked for, or why it is not there."""

from __future__ import annotations

from typing import Any

import xarray as xr

from tedlens.align import check_of_clip
from tedlens.clip import Clip
from tedlens.errors import TedlensError


def blocks_of(feats: xr.DataTree | xr.DataArray) -> dict[str, xr.DataArray]:
    """Features by block, of a tree or of one block alone."""
    if isinstance(feats, xr.DataTree):
        if "features" in feats.data_vars:  # one block alone, saved and opened again
            return blocks_of(feats.to_dataset()["features"])
        # A store lists its groups in any order; the order of the model's blocks is in the attributes.
        names = [name for name in feats.attrs.get("blocks", feats.children) if name in feats.children]
        return {name: feats[name].to_dataset()["features"] for name in names}
    return {str(feats.attrs.get("block", "features")): feats}


def choose_block(feats: xr.DataTree | xr.DataArray, block: str | None) -> xr.DataArray:
    """Features of a block; by default the last."""
    blocks = blocks_of(feats)
    if not blocks:
        raise TedlensError("There are no features in this tree; give what probe() returns.")
    if block is None or isinstance(feats, xr.DataArray):
        return list(blocks.values())[-1]
    if block not in blocks:
        raise TedlensError(f"These features have no block {block!r}; choose from {', '.join(blocks)}.")
    return blocks[block]


def choose(features: xr.DataArray, axis: str, value: Any) -> xr.DataArray:
    """Features at one value of an axis."""
    if value not in features[axis].values:
        known = ", ".join(str(v) for v in features[axis].values)
        raise TedlensError(f"These features have no {axis}={value}; choose from {known}.")
    return features.sel({axis: value})


def check_clip(features: xr.DataArray, clip: Clip) -> None:
    """The clip that the features are of, with as many frames."""
    check_of_clip(features, clip, "features")
    if features.sizes.get("frame") != len(clip):
        raise TedlensError(
            f"Features of {features.sizes.get('frame', 0)} frames do not fit clip {clip.name!r} of {len(clip)}; "
            "give the clip that was probed."
        )
