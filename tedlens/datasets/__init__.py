"""Clips to probe and to score on."""

from tedlens.datasets.synthetic import similar

__all__ = ["similar"]
