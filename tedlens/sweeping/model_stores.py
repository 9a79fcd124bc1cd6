"""The store of a sweep of several models: a Zarr group whose attributes say which model lies where in it.

Each model has a folder of its own, which is a sweep's store like any other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from tedlens.errors import TedlensError
from tedlens.sweeping.models import side_by_side
from tedlens.sweeping.store import SweepStore


class ModelsStore:
    """The store at a path or URL, whether it is there yet or not."""

    def __init__(self, url: str | Path) -> None:
        self.around = SweepStore(url)

    def about(self) -> dict[str, Any] | None:
        """Folders of ``models`` by name, and the ``levels`` of log-SNR that were asked for, or None where taus were;
        None where this is no store of several models.
        """
        return self.around.models_about()

    def addresses(self) -> dict[str, str]:
        """Where each model's own store is; of nothing, where this is no store of several models."""
        about = self.about() or {"models": {}}
        return {name: f"{self.around.address}/{folder}" for name, folder in about["models"].items()}

    def begin(self, names: Iterable[str], levels: Sequence[float] | None) -> None:
        """Note that these models are swept at these levels, beside what is noted.

        Raises
        ------
        TedlensError
            Where anything else is there, or levels were said in the other way.
        """
        about = self.about() or {"models": {}, "levels": levels}
        if (about["levels"] is None) != (levels is None):
            ways = ["tau" if each is None else "log-SNR" for each in (about["levels"], levels)]
            raise TedlensError(
                f"{self.around.url} holds noise levels by {ways[0]}, and now they are given by {ways[1]}; use another "
                "store, or say them in the same way."
            )
        models = dict(about["models"]) | {name: _folder(name) for name in names}
        union = None if levels is None else sorted({*about["levels"], *levels}, reverse=True)
        self.around.write_models({"models": models, "levels": union})

    def scores(self) -> xr.Dataset | None:
        """All that the models' stores hold, side by side; None where there is nothing."""
        each = {name: SweepStore(address).scores() for name, address in self.addresses().items()}
        begun = {name: scores for name, scores in each.items() if scores is not None}
        return side_by_side(begun, (self.about() or {})["levels"]) if begun else None


def _folder(name: str) -> str:
    """A model's folder: readable, safe on any file system, and its own."""
    readable = re.sub(r"[^A-Za-z0-9._]+", "_", name)[:40].strip(".") or "model"
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
