"""How well labels agree with the truth: J and F of masks, and whose label lies on whom."""

from tedlens.metrics.identity import combine_identity, evaluate_identity
from tedlens.metrics.masks import Protocol, check_truth, evaluate, summarize

__all__ = ["Protocol", "check_truth", "combine_identity", "evaluate", "evaluate_identity", "summarize"]
