"""TED: fuse motion and appearance features, and propagate the first mask of each object along them.

Functions on tensors (`fusion`, `propagation`, `matching`, `masks`, `points`), which all take the same settings object
(`settings`), and the labelled functions that users call (`api`, and `tracking`, the only module that needs models).
"""

from tedlens.ted.api import comparable, fuse, label_masks, propagate, propagate_fused, propagate_points
from tedlens.ted.fusion import fuse_features, unit, unit_parts
from tedlens.ted.masks import (
    cell_shares,
    full_size_labels,
    given_masks,
    grid_masks,
    label_clip,
    label_clip_fused,
    one_hot,
)
from tedlens.ted.matching import best_matches
from tedlens.ted.propagation import propagate_fused_labels, propagate_labels
from tedlens.ted.settings import Convention, Propagation, Radius, Upsample, check_lams

__all__ = [
    "Convention",
    "Propagation",
    "Radius",
    "Upsample",
    "best_matches",
    "cell_shares",
    "check_lams",
    "comparable",
    "full_size_labels",
    "fuse",
    "fuse_features",
    "given_masks",
    "grid_masks",
    "label_clip",
    "label_clip_fused",
    "label_masks",
    "one_hot",
    "propagate",
    "propagate_fused",
    "propagate_fused_labels",
    "propagate_labels",
    "propagate_points",
    "unit",
    "unit_parts",
]
