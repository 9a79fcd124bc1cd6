"""Sweeps: a grid of clips, noise levels, blocks, lambdas, seeds and settings, scored (see README.md here)."""

from tedlens.sweeping.cells import clip_cells
from tedlens.sweeping.grid import Grid, Models, make_grid
from tedlens.sweeping.plan import Plan, make_plan
from tedlens.sweeping.store import open_sweep
from tedlens.sweeping.sweep import sweep

__all__ = ["Grid", "Models", "Plan", "clip_cells", "make_grid", "make_plan", "open_sweep", "sweep"]
