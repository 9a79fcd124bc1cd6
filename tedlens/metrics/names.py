"""Display names of the mask scores, in one table."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    plain: str  # in text and tables
    html: str  # in figures, as the mean


METRICS = {
    "J": Metric("J", "J<sub>m</sub> (%)"),
    "F": Metric("F", "F<sub>m</sub> (%)"),
    "JF": Metric("J&F", "J&F<sub>m</sub> (%)"),
    "identity": Metric("identity", "identity (%)"),
    "HOTA": Metric("HOTA", "HOTA (%)"),
    "DetA": Metric("DetA", "DetA (%)"),
    "AssA": Metric("AssA", "AssA (%)"),
    "IDF1": Metric("IDF1", "IDF1 (%)"),
}
