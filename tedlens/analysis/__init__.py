"""From results to findings: plain functions, labelled in and labelled out."""

from tedlens.analysis.decoding import decode, object_features
from tedlens.analysis.decomposition import decomposition, votes
from tedlens.analysis.effects import effects
from tedlens.analysis.likeness import cka
from tedlens.analysis.motion_filter import motion_filter
from tedlens.analysis.pca import pca
from tedlens.analysis.references import references, score_references
from tedlens.analysis.similarity import similarity
from tedlens.analysis.statistics import best_cell, chosen_on_others, clip_statistics, paired_difference
from tedlens.analysis.tracks import swaps
from tedlens.interventions import without_temporal_layers

__all__ = [
    "best_cell",
    "chosen_on_others",
    "cka",
    "clip_statistics",
    "decode",
    "decomposition",
    "effects",
    "motion_filter",
    "object_features",
    "paired_difference",
    "pca",
    "references",
    "score_references",
    "similarity",
    "swaps",
    "votes",
    "without_temporal_layers",
]
