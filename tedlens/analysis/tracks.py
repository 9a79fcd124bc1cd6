"""What went wrong along a track."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tedlens.errors import TedlensError
from tedlens.labels import object_ids
from tedlens.metrics.given import Given, matched


def swaps(labels: Given, truth: Given) -> xr.DataArray:
    """For each object and frame, the other object that its label covers instead of it; 0 where there is none.

    Parameters
    ----------
    labels
        (frame, y, x), or what `track` gives.
    truth
        (frame, H, W), for example ``clip.masks``.

    Returns
    -------
    DataArray (object, frame): the id of the true object that most pixels of the label lie on, where these are
        more than lie on its own object; else 0.

    Raises
    ------
    TedlensError
        For truth of another shape, or without objects.
    """
    named, predicted, true = matched(labels, truth)
    ids = object_ids(true)
    if not ids:
        raise TedlensError("The truth holds no object, so none can be swapped; give masks that show at least one.")
    # Pixels of each label on each true object: (label, true object, frame).
    shared = np.array([[((predicted == a) & (true == b)).sum((1, 2)) for b in ids] for a in ids])
    own = shared[np.arange(len(ids)), np.arange(len(ids))]
    other = np.array(ids)[shared.argmax(1)]
    frames = named["frame"].values if isinstance(named, xr.DataArray) and "frame" in named.coords else range(len(true))
    swapped = np.where(shared.max(1) > own, other, 0)
    return xr.DataArray(swapped, dims=("object", "frame"), coords={"object": ids, "frame": frames}, name="swaps")
