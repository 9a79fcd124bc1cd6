"""How a result was made, as plain attributes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from tedlens.clip import Clip
from tedlens.version import __version__


def versions() -> dict[str, str]:
    """Versions of tedlens and of the packages that the numbers depend on."""
    others = {f"version_{name}": version(name) for name in ("torch", "diffusers", "numpy", "xarray")}
    # The version of tedlens comes from the running code: for a checkout, pip has the version at installation.
    return {"version_tedlens": __version__} | others


def grouped(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes in reading order: settings, clip, models, then revisions, hashes and versions."""
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
    """Hash of the frames of a clip, which identifies the clip of a result."""
    return hashlib.sha256(clip.frames.tobytes()).hexdigest()


def clip_provenance(clip: Clip) -> dict[str, Any]:
    """Name, size and hash of a clip, and, if it is synthetic, how it was made."""
    made = {} if clip.objects is None else {f"clip_made_{k}": v for k, v in clip.objects.attrs.items()}
    return {
        "clip": clip.name,
        "clip_shape": list(clip.frames.shape[:3]),
        "clip_sha256": frames_sha256(clip),
        **made,
    }
