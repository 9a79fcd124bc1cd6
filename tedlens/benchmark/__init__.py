"""The fixed benchmark on `similar`: who tracks what looks alike, at which noise level, block and lambda."""

from tedlens.benchmark.report import Report, write_report
from tedlens.benchmark.similar import QUICK, Found, Setup, run, similar_clip

__all__ = ["QUICK", "Found", "Report", "Setup", "run", "similar_clip", "write_report"]
