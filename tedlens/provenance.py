"""How a result came to be, as plain attributes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from tedlens.clip import Clip
from tedlens.version import __version__


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    others = {f"version_{name}": version(name) for name in ("torch", "diffusers", "numpy", "xarray")}
    # Its own by the code that runs: what pip knows of a checkout is of the day when it was installed.
    return {"version_tedlens": __version__} | others


def grouped(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes in the order in which one reads them: settings, clip, models, then revisions, hashes and versions."""
    return dict(sorted(((str(name), value) for name, value in attributes.items()), key=lambda each: _group(each[0])))


def _group(name: str) -> int:
    bare = name.removeprefix("motion_").removeprefix("appearance_")  # of results of two models
    if bare.startswith("version_"):
        return 4
    if bare.endswith(("_sha256", "_revision")):
        return 3
    if bare == "dtype" or bare.split("_")[0] in ("model", "models", "interventions"):
        return 2
    return 1 if bare.split("_")[0] == "clip" else 0


def frames_sha256(clip: Clip) -> str:
    """Hash of a clip's frames, by which results are known to be of it."""
    return hashlib.sha256(clip.frames.tobytes()).hexdigest()


def clip_provenance(clip: Clip) -> dict[str, Any]:
    """Name, size and content of a clip, and how it was made if it was made."""
    made = {} if clip.objects is None else {f"clip_made_{k}": v for k, v in clip.objects.attrs.items()}
    return {
        "clip": clip.name,
        "clip_shape": list(clip.frames.shape[:3]),
        "clip_sha256": frames_sha256(clip),
        **made,
    }
