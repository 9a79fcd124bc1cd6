"""Noise levels from user input, and the axes of probed features: noise, seeds, frames and cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.models.base import DiffusionModel


def noise_levels(
    model: DiffusionModel,
    tau: int | Sequence[int] | None,
    sigma: float | Sequence[float] | None,
    log_snr: float | Sequence[float] | None,
) -> list[int]:
    """Training timesteps, from the one of `tau`, `sigma` and `log_snr` that is given."""
    if (tau is not None) + (sigma is not None) + (log_snr is not None) != 1:
        raise TedlensError("Give the noise levels as one of tau, sigma and log_snr.")
    if tau is not None:
        return as_list(tau)
    given = np.atleast_1d(np.asarray(log_snr if sigma is None else sigma, float))
    if sigma is not None:
        if (given < 0).any():
            raise TedlensError(f"sigma={given.min():.4g} is negative; choose noise-to-signal ratios of 0 or more.")
        with np.errstate(divide="ignore"):
            given = -2 * np.log(given)
    return as_list([model.nearest_tau(log_snr=float(value)) for value in given])


def as_list(value: int | Sequence[int]) -> list[int]:
    """One or several numbers as a list, without duplicates, in the given order."""
    if isinstance(value, str) or not isinstance(value, Real | Iterable):  # a text would be read letter by letter
        raise TedlensError(f"{value!r} was given where taus or seeds are whole numbers; give one, or a list of them.")
    values: list[Any] = [value] if isinstance(value, Real) else list(value)
    if not values:
        raise TedlensError("An empty list of taus or seeds was given; give at least one.")
    return [int(v) if int(v) == v else v for v in dict.fromkeys(values)]


def noise_axis(model: DiffusionModel, taus: Sequence[int]) -> dict[str, Any]:
    """Coordinates of noise levels: tau, and the equivalent sigma and log_snr."""
    return {
        "tau": ("tau", list(taus), {"long_name": "training timestep"}),
        "sigma": ("tau", [model.sigma(t) for t in taus], {"long_name": "noise-to-signal ratio"}),
        "log_snr": ("tau", [model.log_snr(t) for t in taus], {"long_name": "log signal-to-noise power ratio"}),
    }


def places(clip: Clip, grid: tuple[int, int]) -> dict[str, Any]:
    """Coordinates of features (.., frame, .., y, x) of a clip on a grid (y, x)."""
    return {
        "frame": np.arange(len(clip)),
        "y": ("y", cell_centres(grid[0], clip.height), {"units": "pixel"}),
        "x": ("x", cell_centres(grid[1], clip.width), {"units": "pixel"}),
    }


def cell_centres(cells: int, pixels: int) -> np.ndarray[Any, np.dtype[np.floating]]:
    """Centres of `cells` equal cells over `pixels` pixels; the first pixel's centre is 0."""
    return (np.arange(cells) + 0.5) * (pixels / cells) - 0.5
