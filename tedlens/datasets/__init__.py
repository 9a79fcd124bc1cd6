"""Clips to probe and to score on."""

from tedlens.datasets.candidates import similar_candidates as similar_candidates
from tedlens.datasets.davis import davis
from tedlens.datasets.jhmdb import jhmdb
from tedlens.datasets.kubric import kubric
from tedlens.datasets.lvos import lvos
from tedlens.datasets.mose import mose
from tedlens.datasets.synthetic.clip import similar
from tedlens.datasets.tapvid import tapvid
from tedlens.datasets.vip import vip
from tedlens.datasets.youtube_vos import youtube_vos

# The functions that return clips; a grid file can name them.
__all__ = ["davis", "jhmdb", "kubric", "lvos", "mose", "similar", "tapvid", "vip", "youtube_vos"]
