"""The whole TED method: from a clip and its first mask to masks of all frames."""

from __future__ import annotations

import inspect
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
from tedlens.probing import Prepared, Stitch, check_samples, noise_levels, only_one, places
from tedlens.ted.api import follow, label_masks
from tedlens.ted.fusion import fuse_features, unit
from tedlens.ted.masks import label_clip
from tedlens.ted.points import Locate
from tedlens.ted.settings import SETTINGS, Convention, Propagation, Radius, Upsample, check_lams

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
    radius_pixels: float | None = None,
) -> xr.Dataset:
    """Track the objects of the first mask through the clip with TED; features stay on the device.

    Parameters
    ----------
    clip
        A clip with masks, or the path of one. Each object starts at its first mask; later masks are not used.
        Tracking goes forward in time; frames before the first mask are background.
    motion, appearance
        A video and an image model, loaded or as `probe` takes them. Only the models that `lam` uses are needed:
        motion alone with ``lam=1``, appearance alone with ``lam=0``.
    preset
        Published settings by name (``tedlens info --presets`` lists them), as in ``preset="ted-davis"``. They replace
        the defaults of the parameters that are not given.
    tau, sigma, log_snr
        Noise level of the motion features in one of three ways, see `probe`; by default the paper's tau, 600.
    block
        Block of the motion features; by default the paper's (``up_2``).
    samples
        Number of noise draws to average for the motion features. The paper's full method uses several (it does not
        say how many), its efficient method 1.
    lam
        Weight of motion in the fusion, 0 to 1.
    appearance_tau, appearance_block
        Noise level and block of the appearance features; by default DIFT's noise level (51; 0 for an encoder, which
        has no noise) and the model's block.
    appearance_samples
        Number of noise draws to average for the appearance features (DIFT: 8 with Stable Diffusion, 4 with ADM).
    seed, overlap, stitch, size
        See `probe`; `size` applies to both models.
    top_k, radius, n_last, temperature, convention, upsample, radius_pixels
        See `tedlens.ted.Propagation`.

    Returns
    -------
    Dataset with ``labels`` (frame, y, x) uint8 at the size of the clip: the ids of the first mask.

    Raises
    ------
    TedlensError
        For a clip without a first mask, a model that is missing or of the wrong kind, or settings out of range.
    """
    how = Propagation(top_k, radius, n_last, temperature, convention, upsample, radius_pixels)
    clip = as_clip(clip)
    masks = start_masks(clip)
    found = _features(
        clip,
        motion=motion,
        appearance=appearance,
        tau=tau,
        sigma=sigma,
        log_snr=log_snr,
        block=block,
        samples=samples,
        lam=lam,
        appearance_tau=appearance_tau,
        appearance_block=appearance_block,
        appearance_samples=appearance_samples,
        seed=seed,
        overlap=overlap,
        stitch=stitch,
        size=size,
    )
    how = how.on(found.grid[0], clip.height)
    labels = label_clip(found.values, masks, found.input_size, how)
    attrs = found.attrs | how.said() | ({"preset": preset} if preset else {})
    return label_masks(labels, np.arange(len(clip)), attrs).to_dataset(name="labels", promote_attrs=True)


def track_points(
    clip: Clip | str | Path,
    queries: xr.Dataset,
    *,
    locate: Locate = "peak",
    visible_above: float = 0.5,
    **words: Any,
) -> xr.Dataset:
    """Track points through the clip with TED, as `track` does with objects.

    Parameters
    ----------
    clip
        A clip or the path of one; its masks are not used.
    queries, locate, visible_above
        See `propagate_points`.
    **words
        Models, noise levels, blocks and settings, with the parameter names of `track`, and ``preset``.

    Returns
    -------
    Dataset ``position``, ``visible`` and ``similarity``, as from `propagate_points`.

    Raises
    ------
    TedlensError
        As `track` and `propagate_points`, and for a word that is no parameter of `track`.
    """
    known = {name: each.default for name, each in inspect.signature(track).parameters.items() if name != "clip"}
    if unknown := [name for name in words if name not in known]:
        raise TedlensError(f"{', '.join(unknown)}: tl.track has no such word; its words are {', '.join(known)}.")
    preset = words.get("preset")
    known |= words if preset is None else track_words(str(preset), words)
    how = Propagation(**{name: known.pop(name) for name in SETTINGS})
    clip = as_clip(clip)
    found = _features(clip, **{name: value for name, value in known.items() if name != "preset"})
    attrs = found.attrs | ({"preset": preset} if preset else {})
    coords = xr.Coordinates(places(clip, found.grid))
    return follow(found.values, coords, queries, how, locate, visible_above, attrs)


class _Features(NamedTuple):
    """Features for propagation: those of one model, of length 1 at each cell, or those of two models, fused."""

    values: Tensor  # (frame, channel, y, x), on the device
    input_size: tuple[int, int]  # of the frames that the first model saw
    attrs: dict[str, Any]

    @property
    def grid(self) -> tuple[int, int]:
        return (self.values.shape[-2], self.values.shape[-1])


def _features(
    clip: Clip,
    *,
    motion: Model | None,
    appearance: Model | None,
    tau: int | None,
    sigma: float | None,
    log_snr: float | None,
    block: str | None,
    samples: int,
    lam: float,
    appearance_tau: int | None,
    appearance_block: str | None,
    appearance_samples: int,
    seed: int,
    overlap: int,
    stitch: Stitch,
    size: int | tuple[int, int] | None,
) -> _Features:
    """Features for the parameters of `track`, which are all checked before a UNet runs."""
    check_lams([lam])
    if tau is None and sigma is None and log_snr is None:
        tau = PAPER_TAU
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
    return _Features(
        fuse_features(parts[0], parts[1], lam) if len(parts) == 2 else unit(parts[0]),
        inputs[0],
        about | {"lam": lam, "seed": seed},
    )


class _Role(NamedTuple):
    """A model, and which features to take from it."""

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
    """The masks (frame, H, W) of a clip; at least one must contain an object."""
    if clip.masks is None or not object_ids(clip.masks):
        raise TedlensError(
            f"Clip {clip.name!r} has no object in its masks, so there is nothing to track; "
            "give read_clip(..., masks=...) a mask of the first frame."
        )
    return clip.masks
