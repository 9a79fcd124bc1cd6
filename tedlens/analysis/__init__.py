"""From results to findings: plain functions, labelled in and labelled out."""

from tedlens.analysis.decoding import decode, object_features
from tedlens.analysis.interventions import without_temporal_layers
from tedlens.analysis.pca import pca
from tedlens.analysis.statistics import clip_statistics

__all__ = ["clip_statistics", "decode", "object_features", "pca", "without_temporal_layers"]
