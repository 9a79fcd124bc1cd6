"""The prediction of the clean clip that a model makes at a noise level, as pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor

from tedlens.clip import Clip, as_clip
from tedlens.errors import TedlensError
from tedlens.models.registry import Model, as_model
from tedlens.probing import Draw, Prepared, as_list, noise_axis, noise_levels, resize
from tedlens.provenance import grouped


def predict(
    model: Model,
    clip: Clip | str | Path,
    *,
    tau: int | None = None,
    sigma: float | None = None,
    log_snr: float | None = None,
    seed: int = 0,
    overlap: int = 2,
    window: int | None = None,
    size: int | tuple[int, int] | None = None,
) -> Clip:
    """The clean clip that a model predicts from the noisy clip: x0 from its output, decoded by its VAE.

    Each window takes one forward pass, without guidance and without sampling. With interventions (`ablate`,
    `patch`, ..) the prediction shows in pictures what a layer does.

    Parameters
    ----------
    model, clip, overlap, window, size
        See `probe`; a frame in several windows is taken from the first of them.
    tau, sigma, log_snr
        Noise level, in one of three ways, see `probe`.
    seed
        Seed of the noise.

    Returns
    -------
    Clip
        With the size, frame rate and masks of the given clip; its name includes the noise level.

    Raises
    ------
    TedlensError
        For a model that makes no prediction (an encoder), and as `probe`.

    Examples
    --------
    >>> tl.write_video("seen.mp4", tl.predict(motion, clip, tau=900))  # doctest: +SKIP
    """
    model, clip = as_model(model), as_clip(clip)
    [level] = noise_levels(model, tau, sigma, log_snr)
    prepared = Prepared(model, clip, overlap=overlap, window=window, size=size)
    return predicted(prepared, Draw(model.check_tau(level), seed))


def prediction_scores(
    model: Model,
    clip: Clip | str | Path,
    *,
    tau: int | Sequence[int] | None = None,
    sigma: float | Sequence[float] | None = None,
    log_snr: float | Sequence[float] | None = None,
    seed: int | Sequence[int] = 0,
    overlap: int = 2,
    window: int | None = None,
    size: int | tuple[int, int] | None = None,
) -> xr.Dataset:
    """How close the predictions of a model are to the clip, for several noise levels and seeds.

    Parameters
    ----------
    model, clip, overlap, window, size
        See `predict`.
    tau, sigma, log_snr, seed
        One or several, see `probe`.

    Returns
    -------
    Dataset
        The results of `evaluate_prediction` over tau and seed, and ``ceiling``: the ``psnr`` of the clip encoded and
        decoded without noise and without the model, the most that can be expected of a prediction. ``sigma`` and
        ``log_snr`` lie along tau. The attributes record how to reproduce the result.

    Raises
    ------
    TedlensError
        As `predict`.
    """
    model, clip = as_model(model), as_clip(clip)
    taus, seeds = [model.check_tau(t) for t in noise_levels(model, tau, sigma, log_snr)], as_list(seed)
    prepared = Prepared(model, clip, overlap=overlap, window=window, size=size)
    by_tau = ((predicted(prepared, Draw(t, s)) for s in seeds) for t in taus)
    return scored(prepared, by_tau, taus, seeds)


def scored(prepared: Prepared, by_tau: Iterable[Iterable[Clip]], taus: list[int], seeds: list[int]) -> xr.Dataset:
    """The result of `prediction_scores`, from predictions by tau and seed."""
    clip = prepared.clip
    each = [xr.concat([evaluate_prediction(one, clip) for one in by_seed], "seed") for by_seed in by_tau]
    scores = xr.concat(each, "tau").assign_coords({**noise_axis(prepared.model, taus), "seed": seeds})
    ceiling = evaluate_prediction(pictured(prepared, prepared.pictures(), clip.name), clip)["psnr"]
    about = grouped(prepared.provenance() | {"taus": taus, "seeds": seeds})
    return scores.assign(ceiling=ceiling.assign_attrs(long_name="PSNR without noise")).assign_attrs(about)


def evaluate_prediction(predicted: Clip, clip: Clip) -> xr.Dataset:
    """How close a predicted clip is to the true clip.

    Parameters
    ----------
    predicted, clip
        Clips of the same size and length; the masks of `clip` are used.

    Returns
    -------
    Dataset
        ``psnr`` (frame), in dB, infinite where the frames are equal; ``error`` (frame), the mean absolute error of
        pixels, in grey levels of 255. If `clip` has masks of objects: ``error_inside`` (object, frame), the same error
        within each object, and ``error_outside`` (frame), outside all objects; NaN in frames without such pixels.

    Raises
    ------
    TedlensError
        For clips of different sizes.
    """
    if predicted.frames.shape != clip.frames.shape:
        raise TedlensError(
            f"A prediction of {predicted.frames.shape[:3]} (frames, height, width) does not fit clip {clip.name!r} of "
            f"{clip.frames.shape[:3]}; give the clip that was predicted."
        )
    difference = predicted.frames.astype(np.float64) - clip.frames
    squared = (difference**2).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        psnr = 10 * np.log10(255**2 / squared)
    absolute = np.abs(difference).mean(axis=-1)
    found: dict[str, Any] = {
        "psnr": ("frame", psnr, {"units": "dB"}),
        "error": ("frame", absolute.mean(axis=(1, 2)), {"units": "grey level"}),
    }
    coords: dict[str, Any] = {"frame": np.arange(len(clip))}
    if clip.masks is not None and (ids := clip.object_ids):
        inside = np.stack([_mean_where(absolute, clip.masks == number) for number in ids])
        outside = _mean_where(absolute, clip.masks == 0)
        found["error_inside"] = (("object", "frame"), inside, {"units": "grey level"})
        found["error_outside"] = ("frame", outside, {"units": "grey level"})
        coords["object"] = list(ids)
    return xr.Dataset(found, coords)


def _mean_where(values: npt.NDArray[np.float64], where: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Mean of the values (frame, y, x) of each frame over the pixels in `where`; NaN if there are none."""
    count = where.sum(axis=(1, 2))
    total = (values * where).sum(axis=(1, 2))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def predicted(prepared: Prepared, draw: Draw) -> Clip:
    """The clean clip that a model predicts for the prepared clip."""
    return pictured(prepared, prepared.pictures(draw), f"{prepared.clip.name}, predicted at tau {draw.tau}")


def noisy_input(prepared: Prepared, draw: Draw) -> Clip:
    """The noisy input of a model, decoded by its VAE: signal and noise in the proportions of the noise level."""
    return pictured(prepared, prepared.pictures(draw, noisy=True), f"{prepared.clip.name}, noisy at tau {draw.tau}")


def pictured(prepared: Prepared, pictures: Tensor, name: str) -> Clip:
    """Pictures (frame, 3, y, x) from -1 to 1 as a clip of the size of the prepared clip."""
    clip = prepared.clip
    levels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    frames = resize(levels.permute(0, 2, 3, 1).cpu().numpy(), (clip.height, clip.width))
    return Clip(frames, clip.masks, clip.fps, name, frame_names=clip.frame_names)
