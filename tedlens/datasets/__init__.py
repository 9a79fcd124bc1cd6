"""Clips to probe and to score on."""

from tedlens.datasets.davis import davis
from tedlens.datasets.synthetic import similar

__all__ = ["davis", "similar"]
