"""How well labels agree with the truth: J and F of masks, identity over time, parts, points and joints."""

from tedlens.metrics.identity import combine_identity, evaluate_identity
from tedlens.metrics.masks import Protocol, check_truth, evaluate, scored_frames, summarize, summarize_lvos
from tedlens.metrics.parts import combine_parts, evaluate_parts
from tedlens.metrics.points import PointMode, evaluate_points, point_queries
from tedlens.metrics.pose import PoseConvention, combine_pose, evaluate_pose

__all__ = [
    "PointMode",
    "PoseConvention",
    "Protocol",
    "check_truth",
    "combine_identity",
    "combine_parts",
    "combine_pose",
    "evaluate",
    "evaluate_identity",
    "evaluate_parts",
    "evaluate_points",
    "evaluate_pose",
    "point_queries",
    "scored_frames",
    "summarize",
    "summarize_lvos",
]
