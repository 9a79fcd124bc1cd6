"""Principal components of features: what a block spends its variance on, as colours."""

from __future__ import annotations

import numpy as np
import xarray as xr
from sklearn.decomposition import PCA

from tedlens.errors import TedlensError


def pca(features: xr.DataArray, n_components: int = 3) -> xr.Dataset:
    """PCA over channels, one basis for all cells of all the other axes.

    Parameters
    ----------
    features
        With axes ``channel``, ``y`` and ``x``, and any others (frame, tau, seed, ...), over which the
        basis is shared, so that a colour means the same in each of them.
    n_components
        At most the number of channels, and of cells.

    Returns
    -------
    Dataset
        ``score``: features' axes with ``component`` for ``channel``; ``loading`` (component, channel);
        ``explained`` (component), the share of variance. Signs are fixed: the largest loading of each
        component is positive.
    """
    channels = features.sizes.get("channel", 0)
    if not 1 <= n_components <= channels:
        raise TedlensError(
            f"n_components={n_components} does not fit features with {channels} channels; choose 1 to {channels}."
        )
    kept = {name: c for name, c in features.coords.items() if "channel" not in c.dims}
    cells = features.stack(cell=[d for d in features.dims if d != "channel"]).transpose("cell", "channel")
    if n_components > cells.sizes["cell"]:
        raise TedlensError(
            f"n_components={n_components} does not fit features with {cells.sizes['cell']} cells; "
            "choose no more components than cells."
        )
    # Fixed solver and seed: the same picture each time.
    model = PCA(n_components, svd_solver="covariance_eigh").fit(cells.values.astype(np.float64))
    largest = np.abs(model.components_).argmax(axis=1)
    signs = np.sign(model.components_[np.arange(n_components), largest])
    components = np.arange(n_components)
    score = xr.DataArray(
        model.transform(cells.values) * signs,
        dims=("cell", "component"),
        coords={"cell": cells.coords["cell"], "component": components},
    ).unstack("cell")
    order = ["component" if d == "channel" else d for d in features.dims]
    return xr.Dataset(
        {
            "score": score.transpose(*order).assign_coords(kept).astype(np.float32),
            "loading": (("component", "channel"), model.components_ * signs[:, None]),
            "explained": ("component", model.explained_variance_ratio_),
        },
        attrs=dict(features.attrs),
    )
