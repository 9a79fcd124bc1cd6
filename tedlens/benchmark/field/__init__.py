"""The benchmarks of the field: its data, settings and metrics, and the TED paper's tables and figures on them."""

from tedlens.benchmark.field.asked import PARTS, Asked, Found
from tedlens.benchmark.field.curves import curve
from tedlens.benchmark.field.report import Written, write
from tedlens.benchmark.field.tables import by_block, by_models, costs, main

TABLES = {"main": main, "cost": costs, "blocks": by_block, "models": by_models}


def run(asked: Asked) -> Found:
    """All parts that were asked for; what an earlier run kept is not computed again."""
    found = Found(asked, methods=asked.methods())
    for part in PARTS:
        if part in asked.parts:
            if part in TABLES:
                TABLES[part](found)
            else:
                curve(found, part)
    return found


__all__ = ["PARTS", "Asked", "Found", "Written", "run", "write"]
