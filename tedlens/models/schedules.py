"""How much noise there is at a tau, and how it is added: values that an adapter has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor

from tedlens.errors import TedlensError


class Schedule(ABC):
    """Noise over tau, which goes from 0 (clean) to one less than `levels`."""

    levels: int = 1000

    @abstractmethod
    def sigma(self, tau: int) -> float:
        """Noise-to-signal ratio at tau; infinite where nothing of the signal is left."""

    @abstractmethod
    def add_noise(self, clean: Tensor, noise: Tensor, tau: int) -> Tensor:
        """The noisy sample at tau."""

    @abstractmethod
    def clean_from(self, noisy: Tensor, output: Tensor, tau: int) -> Tensor:
        """What a denoiser's output says that the clean sample is, in float32; all are (frame, channel, y, x)."""


@dataclass(frozen=True)
class VariancePreservingNoise(Schedule):
    """x = sqrt(a) x0 + sqrt(1 - a) noise.

    Attributes
    ----------
    alphas
        The scheduler's `alphas_cumprod`, by tau, in float64.
    prediction
        What the denoiser tells: ``"epsilon"``, ``"v_prediction"`` or ``"sample"``.
    name
        Of the model, for errors.
    """

    alphas: Tensor
    prediction: str
    name: str

    @classmethod
    def of(cls, scheduler: Any, name: str) -> Self:
        """As a scheduler of the DDPM family has it.

        Raises
        ------
        TedlensError
            For a scheduler of another family, also one that has `alphas_cumprod` and does not use it (UniPC or
            DPM-Solver with flow sigmas).
        """
        if not hasattr(scheduler, "alphas_cumprod") or is_flow(scheduler):
            lack = "steps along a flow" if is_flow(scheduler) else "has no alphas_cumprod"
            raise TedlensError(
                f"{name} has a {type(scheduler).__name__}, which {lack}; this adapter knows "
                "the noise of schedulers of the DDPM family (DDPM, DDIM, PNDM, Euler, DPM-Solver, ..)."
            )
        return cls(scheduler.alphas_cumprod.double().cpu(), scheduler.config.get("prediction_type", "epsilon"), name)

    @property
    def levels(self) -> int:  # type: ignore[override]
        return len(self.alphas)

    def sigma(self, tau: int) -> float:
        alpha = float(self.alphas[tau])
        return float(np.sqrt((1 - alpha) / alpha)) if alpha > 0 else float("inf")

    def add_noise(self, clean: Tensor, noise: Tensor, tau: int) -> Tensor:
        alpha = float(self.alphas[tau])
        return float(np.sqrt(alpha)) * clean + float(np.sqrt(1 - alpha)) * noise

    def clean_from(self, noisy: Tensor, output: Tensor, tau: int) -> Tensor:
        alpha = float(self.alphas[tau])
        signal, noise = float(np.sqrt(alpha)), float(np.sqrt(1 - alpha))
        # A denoiser that learns its variance gives it after the mean.
        noisy, output = noisy.float(), output[:, : noisy.shape[1]].float()
        if self.prediction == "v_prediction":
            return signal * noisy - noise * output
        if self.prediction == "sample":
            return output
        if signal == 0:
            raise TedlensError(
                f"At tau={tau} nothing of the signal is left, and {self.name!r} tells the noise, from which no clip "
                "follows there; choose a smaller tau."
            )
        return (noisy - noise * output) / signal


@dataclass(frozen=True)
class KarrasNoise(Schedule):
    """x = x0 + sigma noise, with the sigmas that a scheduler lays out for 1000 steps (EDM).

    Attributes
    ----------
    sigmas
        By tau.
    prediction
        ``"v_prediction"`` or ``"epsilon"``.
    """

    sigmas: Tensor
    prediction: str

    def sigma(self, tau: int) -> float:
        return float(self.sigmas[tau])

    def add_noise(self, clean: Tensor, noise: Tensor, tau: int) -> Tensor:
        return clean + self.sigma(tau) * noise

    def clean_from(self, noisy: Tensor, output: Tensor, tau: int) -> Tensor:
        # As its scheduler does in each step (EDM's preconditioning).
        sigma, noisy, output = self.sigma(tau), noisy.float(), output.float()
        if self.prediction == "epsilon":
            return noisy - sigma * output
        return noisy / (sigma**2 + 1) - output * (sigma / float(np.sqrt(sigma**2 + 1)))


@dataclass(frozen=True)
class FlowNoise(Schedule):
    """x = (1 - s) x0 + s noise with s = tau / 1000 (rectified flow); the denoiser tells noise - x0.

    tau is the time as the denoiser was trained on it. A sampler's shift only chooses where on this axis it steps.

    Attributes
    ----------
    sign
        Of what the denoiser tells: -1 where it is x0 - noise.
    """

    sign: int = 1

    @classmethod
    def of(cls, scheduler: Any, name: str) -> Self:
        """As a flow-matching scheduler has it; its `invert_sigmas` says that the denoiser tells x0 - noise.

        Raises
        ------
        TedlensError
            For a scheduler of another family.
        """
        if not is_flow(scheduler):
            raise TedlensError(
                f"{name} has a {type(scheduler).__name__} that does not step along a flow, and was trained as one; "
                "give the pipeline as it was published (FlowMatchEulerDiscreteScheduler, or UniPC with "
                "use_flow_sigmas)."
            )
        return cls(-1 if scheduler.config.get("invert_sigmas", False) else 1)

    def sigma(self, tau: int) -> float:
        return tau / (self.levels - tau)

    def add_noise(self, clean: Tensor, noise: Tensor, tau: int) -> Tensor:
        s = tau / self.levels
        return (1 - s) * clean + s * noise

    def clean_from(self, noisy: Tensor, output: Tensor, tau: int) -> Tensor:
        return noisy.float() - self.sign * (tau / self.levels) * output.float()


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler steps along a flow: by its class, or by its settings where its class can do both."""
    said = scheduler.config
    return (
        "FlowMatch" in type(scheduler).__name__
        or bool(said.get("use_flow_sigmas"))
        or said.get("prediction_type") == "flow_prediction"
    )
