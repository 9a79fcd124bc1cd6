"""From results to findings: plain functions, labelled in and labelled out."""

from tedlens.analysis.pca import pca
from tedlens.analysis.statistics import clip_statistics

__all__ = ["clip_statistics", "pca"]
