"""Pure functions from labelled results to plotly figures, in one house style."""

from tedlens.plots.attention import attention_map, head_map
from tedlens.plots.comparison import comparison
from tedlens.plots.curves import decoding_curves, lambda_curve, overlap_bars, setting_bars, tau_curve
from tedlens.plots.effects import effect_map
from tedlens.plots.export import notebook_renderer, save_figures
from tedlens.plots.layers import tau_block_map
from tedlens.plots.likeness import cka_map
from tedlens.plots.maps import decomposition, margin_curves, similarity_map
from tedlens.plots.pictures import overlay, pca_map
from tedlens.plots.predictions import prediction_curves, prediction_strip
from tedlens.plots.tables import latex_table, main_table, plain_table
from tedlens.plots.tracks import track_curves, tracks

__all__ = [
    "attention_map",
    "cka_map",
    "comparison",
    "decoding_curves",
    "decomposition",
    "effect_map",
    "head_map",
    "lambda_curve",
    "latex_table",
    "main_table",
    "margin_curves",
    "notebook_renderer",
    "overlap_bars",
    "overlay",
    "pca_map",
    "plain_table",
    "prediction_curves",
    "prediction_strip",
    "save_figures",
    "setting_bars",
    "similarity_map",
    "tau_block_map",
    "tau_curve",
    "track_curves",
    "tracks",
]
