"""Pure functions from labelled results to plotly figures, in one house style."""

from tedlens.plots.curves import decoding_curves, lambda_curve, overlap_bars, tau_block_map, tau_curve
from tedlens.plots.export import notebook_renderer, save_figures
from tedlens.plots.pictures import overlay, pca_map

__all__ = [
    "decoding_curves",
    "lambda_curve",
    "notebook_renderer",
    "overlap_bars",
    "overlay",
    "pca_map",
    "save_figures",
    "tau_block_map",
    "tau_curve",
]
