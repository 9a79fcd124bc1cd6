"""What interventions do to scores: paired differences to the model as it is."""

from __future__ import annotations

import xarray as xr

from tedlens.analysis.statistics import paired_difference
from tedlens.errors import TedlensError


def effects(scores: xr.Dataset, metric: str = "JF", *, baseline: str = "intact", interval: float = 0.95) -> xr.Dataset:
    """Score with each intervention minus the score without, clip by clip.

    Parameters
    ----------
    scores
        Of ``tl.sweep(.., interventions=..)``, with axes clip and intervention.
    metric, interval
        See `clip_statistics`.
    baseline
        Name of the intervention that the others are compared with.

    Returns
    -------
    Dataset
        As `paired_difference`, over intervention and whatever else was swept, as shares from -1 to 1: below 0 where
        something breaks. An interval without 0 says that it is no chance.

    Raises
    ------
    TedlensError
        For scores without the axis or the baseline, and as `paired_difference`.
    """
    if "intervention" not in scores.dims:
        raise TedlensError("These scores have no axis intervention; give those of tl.sweep(.., interventions=..).")
    names = [str(name) for name in scores["intervention"].values]
    if baseline not in names or len(names) < 2:
        raise TedlensError(
            f"baseline={baseline!r} is to be compared with others, and the scores have {', '.join(names)}; sweep it "
            'beside them, as in interventions={"intact": None, ..}.'
        )
    whole = scores.sel(intervention=baseline, drop=True)
    others = [name for name in names if name != baseline]
    each = [paired_difference(scores.sel(intervention=o, drop=True), whole, metric, interval=interval) for o in others]
    found = xr.concat(each, xr.Variable("intervention", others))
    return found.assign_attrs(metric=metric, baseline=baseline, interval=interval)
