"""Pure functions from labelled results to plotly figures, in one house style."""

from tedlens.plots.curves import tau_curve
from tedlens.plots.export import notebook_renderer, save_figures
from tedlens.plots.pictures import overlay, pca_map

__all__ = ["notebook_renderer", "overlay", "pca_map", "save_figures", "tau_curve"]
