"""The whole of TED: from a clip and its first mask to masks of all frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.models.base import DiffusionModel
from tedlens.probing import Prepared, check_samples, only_one
from tedlens.propagation import Convention, Radius, check_lams, check_settings, radius_on
from tedlens.ted import fuse_features, label_clip, label_masks, unit


def track(
    clip: Clip,
    *,
    motion: DiffusionModel | None = None,
    appearance: DiffusionModel | None = None,
    tau: int = 600,
    block: str | None = None,
    lam: float = 0.5,
    appearance_tau: int = 51,
    appearance_block: str | None = None,
    appearance_samples: int = 1,
    seed: int = 0,
    overlap: int = 2,
    size: int | tuple[int, int] | None = None,
    top_k: int = 10,
    radius: Radius = "grid",
    n_last: int = 20,
    temperature: float = 0.1,
    convention: Convention = "dift",
) -> xr.Dataset:
    """Track the objects of the first mask through the clip with TED; features stay on the device.

    Parameters
    ----------
    clip
        With masks, of which each object's first is its start; the others are not looked at.
    motion, appearance
        A video and an image model. Only the one that `lam` uses need be given: motion alone with
        ``lam=1``, appearance alone with ``lam=0``.
    tau, block
        Noise level and block of the motion features; by default the paper's (600, ``up_2``).
    lam
        Weight of motion in the fusion, 0 to 1.
    appearance_tau, appearance_block
        Those of the appearance features; by default DIFT's noise level (51) and the model's block.
    appearance_samples
        Noise samples that appearance features are the mean of (DIFT: 8 with Stable Diffusion, 4 with ADM).
    seed, overlap, size
        See `probe`; `size` holds for both models.
    top_k, radius, n_last, temperature, convention
        See `propagate`.

    Returns
    -------
    Dataset with ``labels`` (frame, y, x) uint8 at the clip's own size: the ids of the first mask.

    Raises
    ------
    TedlensError
        For a clip without first mask, a missing model, or settings out of range.
    """
    settings: dict[str, Any] = {
        "top_k": top_k,
        "radius": radius,
        "n_last": n_last,
        "temperature": temperature,
        "convention": convention,
    }
    masks = start_masks(clip)
    check_lams([lam])
    check_settings(**settings)
    roles: list[tuple[str, DiffusionModel, int, str | None, int]] = []
    for role, model, needed, level, name, samples in (
        ("motion", motion, lam > 0, tau, block, 1),
        ("appearance", appearance, lam < 1, appearance_tau, appearance_block, appearance_samples),
    ):
        if needed:
            if model is None:
                raise TedlensError(f"lam={lam} needs a model for {role}; give {role}=tl.load_..._model(...).")
            check_samples(samples)
            roles.append((role, model, model.check_tau(level), name, samples))
    parts: list[Tensor] = []
    prepared: dict[str, Prepared] = {}
    about: dict[str, Any] = {}
    for role, model, level, name, samples in roles:
        prepared[role] = Prepared(model, clip, overlap=overlap, size=size)
        name = name or model.block
        parts.append(clip_features(prepared[role], level, seed, name, samples))
        about |= {f"{role}_{k}": v for k, v in prepared[role].provenance().items()}
        about |= {f"{role}_tau": level, f"{role}_block": name, f"{role}_samples": samples}
    feats = fuse_features(parts[0], parts[1], lam) if len(parts) == 2 else unit(parts[0])
    settings["radius"] = radius_on(radius, feats.shape[-2])
    labels = label_clip(feats, masks, next(iter(prepared.values())).input_size, **settings)
    attrs = about | settings | {"lam": lam, "seed": seed}
    return label_masks(labels, np.arange(len(clip)), attrs).to_dataset(name="labels").assign_attrs(attrs)


def clip_features(prepared: Prepared, tau: int, seed: int, block: str, samples: int = 1) -> Tensor:
    """Features (frame, channel, y, x) of a whole clip at one tau, seed and block, on the device."""
    name = only_one(prepared.names(block), block)
    _, _, features = next(iter(prepared.features([tau], [seed], [name], samples)))
    return features[name]


def start_masks(clip: Clip) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A clip's masks (frame, H, W), of which the first must hold an object."""
    if clip.masks is None or not np.isin(clip.masks[0], (0, 255), invert=True).any():
        raise TedlensError(
            f"Clip {clip.name!r} has no object in its first mask, so there is nothing to track; "
            "give read_clip(..., masks=...) a mask of the first frame."
        )
    return clip.masks
