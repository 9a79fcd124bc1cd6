"""Sweeps: a grid of clips, noise levels, blocks, lambdas, seeds and settings, scored (see README.md here)."""

from tedlens.sweeping.grid import Grid, Models, make_grid
from tedlens.sweeping.opening import describe_sweep, open_kept, open_sweep
from tedlens.sweeping.plan import Plan, make_plan
from tedlens.sweeping.references import reference_scores
from tedlens.sweeping.sweep import sweep

__all__ = [
    "Grid",
    "Models",
    "Plan",
    "describe_sweep",
    "make_grid",
    "make_plan",
    "open_kept",
    "open_sweep",
    "reference_scores",
    "sweep",
]
