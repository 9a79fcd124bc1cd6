"""The whole of TED: from a clip and its first mask to masks of all frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from torch import Tensor

from tedlens.clip import Clip, as_clip
from tedlens.errors import TedlensError
from tedlens.labels import object_ids
from tedlens.models.base import DiffusionModel
from tedlens.models.registry import ROLES, Kind, Model, as_model
from tedlens.presets import takes_preset, track_words
from tedlens.probing import Prepared, Stitch, check_samples, noise_levels, only_one
from tedlens.ted.api import label_masks
from tedlens.ted.fusion import fuse_features, unit
from tedlens.ted.masks import label_clip
from tedlens.ted.settings import Convention, Propagation, Radius, Upsample, check_lams

PAPER_TAU = 600  # of motion features


@takes_preset(track_words)
def track(
    clip: Clip | str | Path,
    *,
    motion: Model | None = None,
    appearance: Model | None = None,
    preset: str | None = None,
    tau: int | None = None,
    sigma: float | None = None,
    log_snr: float | None = None,
    block: str | None = None,
    samples: int = 1,
    lam: float = 0.5,
    appearance_tau: int | None = None,
    appearance_block: str | None = None,
    appearance_samples: int = 1,
    seed: int = 0,
    overlap: int = 2,
    stitch: Stitch = "first",
    size: int | tuple[int, int] | None = None,
    top_k: int = 10,
    radius: Radius = "grid",
    n_last: int = 20,
    temperature: float = 0.1,
    convention: Convention = "dift",
    upsample: Upsample = "dift",
) -> xr.Dataset:
    """Track the objects of the first mask through the clip with TED; features stay on the device.

    Parameters
    ----------
    clip
        With masks, of which each object's first is its start; the others are not looked at. Tracking goes forward:
        what is before the first mask is background. Or a path of such a clip.
    motion, appearance
        A video and an image model, loaded or as `probe` takes them. Only the one that `lam` uses need be given:
        motion alone with ``lam=1``, appearance alone with ``lam=0``.
    preset
        Published settings by name (``tedlens info --presets`` lists them), as in ``preset="ted-davis"``: what the
        other parameters mean where they are not given.
    tau, sigma, log_snr
        Noise level of the motion features in one of three ways, see `probe`; by default the paper's tau, 600.
    block
        Block of the motion features; by default the paper's (``up_2``).
    samples
        Noise samples that motion features are the mean of. The paper's full method has several (it does not say how
        many), its efficient one has 1.
    lam
        Weight of motion in the fusion, 0 to 1.
    appearance_tau, appearance_block
        Those of the appearance features; by default DIFT's noise level (51; an encoder has none: 0) and the model's
        block.
    appearance_samples
        Noise samples that appearance features are the mean of (DIFT: 8 with Stable Diffusion, 4 with ADM).
    seed, overlap, stitch, size
        See `probe`; `size` holds for both models.
    top_k, radius, n_last, temperature, convention, upsample
        See `tedlens.ted.Propagation`.

    Returns
    -------
    Dataset with ``labels`` (frame, y, x) uint8 at the clip's own size: the ids of the first mask.

    Raises
    ------
    TedlensError
        For a clip without first mask, a model that is missing or of the other kind, or settings out of range.
    """
    how = Propagation(top_k, radius, n_last, temperature, convention, upsample)
    check_lams([lam])
    if tau is None and sigma is None and log_snr is None:
        tau = PAPER_TAU
    clip = as_clip(clip)
    masks = start_masks(clip)
    roles: list[_Role] = []
    if lam > 0:
        model = _given(motion, "video", lam)
        [level] = noise_levels(model, tau, sigma, log_snr)
        check_samples(samples)
        roles.append(_Role("motion", model, model.check_tau(level), block or model.block, samples))
    if lam < 1:
        model = _given(appearance, "image", lam)
        check_samples(appearance_samples)
        level = model.check_tau(model.appearance_tau if appearance_tau is None else appearance_tau)
        roles.append(_Role("appearance", model, level, appearance_block or model.block, appearance_samples))
    parts: list[Tensor] = []
    inputs: list[tuple[int, int]] = []
    about: dict[str, Any] = {}
    for role in roles:
        prepared = Prepared(role.model, clip, overlap=overlap, stitch=stitch, size=size)
        parts.append(clip_features(prepared, role.tau, seed, role.block, role.samples))
        inputs.append(prepared.input_size)
        said = {**prepared.provenance(), "tau": role.tau, "block": role.block, "samples": role.samples}
        about |= {f"{role.name}_{key}": value for key, value in said.items()}
    feats = fuse_features(parts[0], parts[1], lam) if len(parts) == 2 else unit(parts[0])
    how = how.on(feats.shape[-2])
    labels = label_clip(feats, masks, inputs[0], how)
    attrs = about | how.said() | {"lam": lam, "seed": seed} | ({"preset": preset} if preset else {})
    return label_masks(labels, np.arange(len(clip)), attrs).to_dataset(name="labels").assign_attrs(attrs)


class _Role(NamedTuple):
    """A model, and the features that are taken from it."""

    name: str
    model: DiffusionModel
    tau: int
    block: str
    samples: int = 1


def _given(model: Model | None, kind: Kind, lam: float) -> DiffusionModel:
    if model is None:
        role = ROLES[kind]
        raise TedlensError(
            f"lam={lam} needs a model for {role}; give {role}=tl.load_{kind}_model(...), or the name of one."
        )
    return as_model(model, kind)


def clip_features(prepared: Prepared, tau: int, seed: int, block: str, samples: int = 1) -> Tensor:
    """Features (frame, channel, y, x) of a whole clip at one tau, seed and block, on the device."""
    name = only_one(prepared.names(block), block)
    _, _, features = next(iter(prepared.features([tau], [seed], [name], samples)))
    return features[name]


def start_masks(clip: Clip) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A clip's masks (frame, H, W), of which one must hold an object."""
    if clip.masks is None or not object_ids(clip.masks):
        raise TedlensError(
            f"Clip {clip.name!r} has no object in its masks, so there is nothing to track; "
            "give read_clip(..., masks=...) a mask of the first frame."
        )
    return clip.masks
