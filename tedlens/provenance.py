"""How a result came to be, as plain attributes."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Any

from tedlens.clip import Clip
from tedlens.version import __version__


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    others = {f"version_{name}": version(name) for name in ("torch", "diffusers", "numpy", "xarray")}
    # Its own by the code that runs: what pip knows of a checkout is of the day when it was installed.
    return {"version_tedlens": __version__} | others


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
