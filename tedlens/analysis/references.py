"""What a comparison of features is read against: place, colour, true velocity and true masks in their stead.

Features that keep objects apart by place or colour do not need motion; and on a coarse grid the truth itself scores
low. So these, on the same grid and propagated with the same settings, and the ceiling of that grid stand beside every
score.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import xarray as xr

from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.labels import object_ids, on_grid
from tedlens.metrics import Protocol, evaluate
from tedlens.probing import cell_centres, places
from tedlens.provenance import clip_provenance
from tedlens.ted import Propagation, cell_shares, grid_masks, label_clip, unit

Reference = Literal["place", "colour", "velocity", "masks"]
CEILING = "ceiling"
REFERENCES: tuple[Reference, ...] = get_args(Reference)
Maps = npt.NDArray[np.float32]  # (frame, channel, y, x)


def references(clip: Clip, grid: tuple[int, int]) -> dict[Reference, xr.DataArray]:
    """Features that need no model, on a grid: how far do they get?

    Parameters
    ----------
    clip
        With masks for ``masks``, and with the truth about its objects (`Clip.objects`) for ``velocity``.
    grid
        Cells (y, x), those of the features that are compared.

    Returns
    -------
    dict of DataArray (frame, channel, y, x), with the coordinates of `probe`'s features, as `propagate` takes them:

        - ``place``: where a cell is in the picture, and nothing of what it shows;
        - ``colour``: the mean pixel of each cell;
        - ``velocity``: the true velocity of the object at the cell's centre, or that there is none;
        - ``masks``: each true object's share of the cell: what propagation makes of perfect features.

        Numbers of the first three are turned into angles, so that the similarity of two cells falls as they differ.

    Raises
    ------
    TedlensError
        For a clip without masks, or a grid without cells.
    """
    if clip.masks is None:
        raise TedlensError(f"Clip {clip.name!r} has no masks to compare with; give a clip with masks.")
    if min(grid) < 1:
        raise TedlensError(f"grid={grid} has no cells; give (rows, columns), as of the features that are compared.")
    made: dict[Reference, Maps] = {"place": _place(len(clip), grid), "colour": _colour(clip, grid)}
    if clip.objects is not None and "velocity" in clip.objects:
        made["velocity"] = _velocity(clip.masks, clip.objects, grid)
    made["masks"] = cell_shares(clip.masks, grid, object_ids(clip.masks)).numpy()
    about = clip_provenance(clip)
    return {name: _labelled(maps, clip).assign_attrs(about | {"block": name}) for name, maps in made.items()}


def score_references(
    clip: Clip,
    grid: tuple[int, int],
    how: Propagation | None = None,
    *,
    input_size: tuple[int, int] | None = None,
    protocol: Protocol = "davis",
) -> dict[str, xr.Dataset]:
    """What `references` score as tracks, and ``"ceiling"``: the true masks as the grid can show them.

    The ceiling is each frame's true share of every cell, enlarged to pixels as tracks are. Features that are
    propagated lie below it wherever they say no more than what is in a cell; true masks as features (``masks``) do
    too, as propagation blurs them.

    Parameters
    ----------
    clip, grid
        See `references`.
    how
        Settings of propagation; by default those of `propagate`.
    input_size
        Pixels (y, x) of the frames that the model sees, over which masks are enlarged; by default the clip's.
    protocol
        See `evaluate`.

    Returns
    -------
    dict of what `evaluate` gives, by the names of `references`, and ``"ceiling"``.

    Raises
    ------
    TedlensError
        As `references` and `evaluate`.
    """
    how = how or Propagation()
    found = references(clip, grid)
    assert clip.masks is not None
    size = (clip.height, clip.width) if input_size is None else input_size
    tracks = {
        str(name): label_clip(unit(torch.from_numpy(each.values)), clip.masks, size, how)
        for name, each in found.items()
    } | {CEILING: grid_masks(clip.masks, grid, size, how.upsample)}
    return {
        name: evaluate(track, clip.masks, protocol=protocol, objects=clip.objects) for name, track in tracks.items()
    }


def _labelled(maps: Maps, clip: Clip) -> xr.DataArray:
    coords = places(clip, (maps.shape[2], maps.shape[3]))
    return xr.DataArray(maps, dims=("frame", "channel", "y", "x"), coords=coords, name="features")


def _angles(values: npt.NDArray[np.floating], half_turns: float) -> Maps:
    """Numbers 0..1 (frame, number, y, x) as cosine and sine: 0 and 1 are so many half turns apart."""
    turned = np.pi * half_turns * values
    return np.concatenate([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)


def _place(frames: int, grid: tuple[int, int]) -> Maps:
    at = np.stack(np.meshgrid(*(cell_centres(side, side) / side for side in grid), indexing="ij"))
    return np.repeat(_angles(at[None], 0.5), frames, axis=0)


def _colour(clip: Clip, grid: tuple[int, int]) -> Maps:
    pixels = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float() / 255
    return _angles(F.adaptive_avg_pool2d(pixels, grid).numpy(), 0.5)


def _velocity(masks: npt.NDArray[np.uint8], truth: xr.Dataset, grid: tuple[int, int]) -> Maps:
    """Of the object at each cell's centre, as shares of the clip's greatest speed; half a turn from the background."""
    speeds = truth["velocity"].transpose("object", "frame", "axis").values
    speeds = 0.5 + 0.5 * speeds / max(float(np.abs(speeds).max()), 1e-9)
    small = on_grid(masks, grid)
    values = np.zeros((len(masks), 3, *grid))
    values[:, 1:] = 0.5
    for number, each in zip(truth["object"].values, speeds, strict=True):
        here = small == number
        values[:, 0][here] = 1
        for axis in (0, 1):
            values[:, 1 + axis] = np.where(here, each[:, axis, None, None], values[:, 1 + axis])
    return _angles(values, 1)
