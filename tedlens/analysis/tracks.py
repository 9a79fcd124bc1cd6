"""What went wrong along a track."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from tedlens.align import in_order
from tedlens.clip import VOID
from tedlens.errors import TedlensError


def swaps(labels: xr.DataArray, truth: npt.NDArray[np.uint8]) -> xr.DataArray:
    """For each object and frame, the other object that its label covers instead of it; 0 where there is none.

    Parameters
    ----------
    labels
        (frame, y, x), for example ``tl.track(...)["labels"]``.
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
    labels = in_order(labels)
    if labels.shape != truth.shape:
        raise TedlensError(
            f"Labels of shape {labels.shape} do not fit a truth of {truth.shape}; give one mask a frame."
        )
    ids = [int(i) for i in np.unique(truth) if i not in (0, VOID)]
    if not ids:
        raise TedlensError("The truth holds no object, so none can be swapped; give masks that show at least one.")
    # Pixels of each label on each true object: (label, true object, frame).
    shared = np.array([[((labels.values == a) & (truth == b)).sum((1, 2)) for b in ids] for a in ids])
    own = shared[np.arange(len(ids)), np.arange(len(ids))]
    other = np.array(ids)[shared.argmax(1)]
    swapped = np.where(shared.max(1) > own, other, 0)
    return xr.DataArray(
        swapped, dims=("object", "frame"), coords={"object": ids, "frame": labels["frame"].values}, name="swaps"
    )
