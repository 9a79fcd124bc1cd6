"""How well labels agree with the truth: J and F of masks, and whose label lies on whom."""

from tedlens.metrics.identity import combine_identity, evaluate_identity
from tedlens.metrics.masks import Protocol, check_truth, evaluate, scored_frames, summarize
from tedlens.metrics.parts import combine_parts, evaluate_parts
from tedlens.metrics.points import PointMode, evaluate_points, point_queries

__all__ = [
    "PointMode",
    "Protocol",
    "check_truth",
    "combine_identity",
    "combine_parts",
    "evaluate",
    "evaluate_identity",
    "evaluate_parts",
    "evaluate_points",
    "point_queries",
    "scored_frames",
    "summarize",
]
