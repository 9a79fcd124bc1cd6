"""What tedlens needs from a model, and what all diffusion models share."""

from __future__ import annotations

import copy
import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from diffusers import ModelMixin
from torch import Tensor, nn

from tedlens.errors import TedlensError
from tedlens.escaping import printable
from tedlens.models.acting import Intervention, acting_outside, provenance_of
from tedlens.models.loading import room_for
from tedlens.models.points import Outline
from tedlens.models.schedules import Schedule, VariancePreservingNoise
from tedlens.notebook import facts_html

Condition = dict[str, Any]  # what a denoiser is given besides the noisy sample and the time
Offload = bool | Literal["layers"]
Latents = Literal["frame", "video"]
Between = Literal["repeat", "interpolate"]
Frames = npt.NDArray[np.uint8]  # (frame, y, x, 3), at the model's own input size


class DiffusionModel(ABC):
    """A diffusion model with everything it needs, behind one small protocol.

    A probe calls, in this order: `encode` and, for each window, `condition` (both once per clip; an image
    model has one condition for all frames); then, for every tau and seed, `add_noise` and `run`.
    All tensors are (frame, channel, y, x); only the adapter deals with the layout that its UNet
    expects. How to write an adapter: ``tedlens/models/README.md``.

    Parameters
    ----------
    pipeline
        A diffusers pipeline, or any object with `components` (name to part) and an attribute of the name in `part`.
        Text and image encoders may be None: the structure can be listed without them.
    name, revision
        The name as given to the loader, and the hub's commit if it is known.
    size, block
        See the attributes.
    offload
        Keep on the GPU only what is in use: encoders and VAE wait on the CPU while the denoiser runs. ``"layers"``: the
        denoiser's blocks and the encoders' layers also wait there, each until it runs.

    Attributes
    ----------
    denoiser
        The torch module that denoises; ``part`` is its name in the pipeline.
    blocks
        Names of the blocks, in the order in which they run: ``down_0`` .., ``mid``, ``up_0`` .., or
        ``block_0`` .. of a transformer.
    block
        The block whose features the paper's protocol uses.
    window
        Number of frames that the model was trained on at once; None for an image model, which sees each frame alone.
    longest_window
        Largest number of frames that it can see at once; None if there is no limit.
    latents
        ``"frame"``: each frame is encoded alone, as a latent of its own. ``"video"``: a window is encoded as a whole,
        by a VAE that makes one latent from several frames.
    between
        How frames get their features if the features have fewer frames than the clip. ``"repeat"``: each frame gets
        the features that stand for it. ``"interpolate"``: an interpolation of the features before and after it.
    text_first
        Whether text tokens come before those of the clip if both form one sequence.
    temporal
        Patterns of its layers that mix frames, if these are not recognised by their class.
    size
        Short side, in pixels, to which frames are resized unless the user chooses one.
    fixed_size
        Height and width of the only input size that it accepts; None if it accepts others.
    multiple
        Both sides of the input are made multiples of this, in pixels.
    options
        Settings of the conditioning, as recorded with the results.
    outlines
        The results of `tedlens.models.outline`, by input size.
    made_for
        For an embedded model, the short side in pixels of its training clips, all of them drawn by
        `tedlens.datasets.similar`; None for models that have seen real video.
    appearance_tau
        Noise level at which features contain appearance; by default DIFT's.
    place
        Device on which it computes, if its layers wait elsewhere.
    lock
        Held while hooks are on the UNet, so that threads that share a model take turns.
    interventions
        Interventions that are applied while it runs, in this order, if `tedlens.ablate`, `patch` or `steer` made the
        model. It shares weights and lock with the model it was made from.
    """

    part = "unet"  # name, in the pipeline, of the part that denoises
    window: int | None = None
    latents: Latents = "frame"
    between: Between = "repeat"
    text_first = True
    temporal: tuple[str, ...] = ()
    block: str = "up_2"
    fixed_size: tuple[int, int] | None = None
    made_for: int | None = None
    place: torch.device | None = None
    appearance_tau: int = 51

    def __init__(
        self,
        pipeline: Any,
        *,
        name: str,
        revision: str | None = None,
        size: int = 480,
        block: str | None = None,
        offload: Offload = False,
    ) -> None:
        self.pipeline = pipeline
        self.denoiser: nn.Module = getattr(pipeline, self.part)
        self.name = name
        self.revision = revision
        self.size = size
        self.offload = offload
        self.lock = threading.RLock()
        self.outlines: dict[tuple[int, int], Outline] = {}
        self.interventions: tuple[Intervention, ...] = ()
        self._whole: DiffusionModel | None = None  # the model that an intervention made this one from
        self._root: DiffusionModel | None = None  # for a copy, the first of all models that share the weights
        self._scopes: list[Any] = []
        if block is not None:
            self.block = block
        for module in self._modules():
            module.eval().requires_grad_(False)
        self.blocks: tuple[str, ...] = tuple(self.block_modules)

    # --- what an adapter says -------------------------------------------------------------------

    @property
    @abstractmethod
    def multiple(self) -> int:
        """Both sides of the input are multiples of this, in pixels."""

    @abstractmethod
    def encode(self, frames: Frames) -> Tensor:
        """The clean sample, which the UNet denoises once noise is added: (frame, channel, y, x)."""

    def condition(self, frames: Frames, clean: Tensor, window: range) -> Condition:
        """What the UNet is given for one window of the clip, besides its noisy frames."""
        return {}

    @property
    def schedule(self) -> Schedule | None:
        """The noise schedule over tau; an adapter without one defines `sigma` and `add_noise` itself."""
        return None

    def sigma(self, tau: int) -> float:
        """Noise-to-signal ratio at tau; infinite if no signal is left."""
        return self._noise().sigma(tau)

    def add_noise(self, clean: Tensor, noise: Tensor, tau: int) -> Tensor:
        """The noisy sample at tau, as the model's own pipeline would hold it."""
        return self._noise().add_noise(clean, noise, tau)

    def _noise(self) -> Schedule:
        if self.schedule is None:
            raise TedlensError(f"The adapter {type(self).__name__} says neither schedule nor sigma and add_noise.")
        return self.schedule

    @abstractmethod
    def run(self, noisy: Tensor, tau: int, condition: Condition) -> Tensor | None:
        """Run one forward pass of the UNet; hooks record the features.

        Returns the output (frame, channel, y, x), or None if the adapter supports no predictions.
        """

    def clean_from(self, noisy: Tensor, output: Tensor, tau: int) -> Tensor:
        """The clean sample that the denoiser's output predicts, in float32: (frame, channel, y, x)."""
        if self.schedule is None:
            raise self._without_prediction("how its output is to be read (clean_from)")
        return self.schedule.clean_from(noisy, output, tau)

    def decode(self, clean: Tensor) -> Tensor:
        """Pictures (frame, 3, y, x) in about [-1, 1] from clean samples: `encode` inverted, as far as possible."""
        raise self._without_prediction("how to make pictures of it (decode)")

    def _without_prediction(self, lacking: str) -> TedlensError:
        return TedlensError(
            f"Model {self.name!r} predicts no clip: its adapter ({type(self).__name__}) does not say {lacking}; choose "
            "a diffusion model, or write it (tedlens/models/README.md)."
        )

    @classmethod
    def part_for(cls, options: dict[str, Any]) -> str:
        """Name of the part of a pipeline that denoises, with these options."""
        return cls.part

    @staticmethod
    def left_out(options: dict[str, Any]) -> tuple[str, ...]:
        """Parts of a pipeline that need not be loaded, with these options."""
        return ()

    @property
    def options(self) -> dict[str, Any]:
        """Settings of the conditioning by name, as the loader accepts them."""
        return {}

    @property
    def longest_window(self) -> int | None:
        return None

    @property
    def levels(self) -> int:
        """Number of noise levels: tau goes from 0 to `levels` - 1."""
        return 1000 if self.schedule is None else self.schedule.levels

    # --- of a model on tokens, or on latents of several frames -----------------------------------

    def latent_frames(self, window: range) -> list[range]:
        """For each latent of a window, the clip's frames that it holds; an empty range for a latent that only fills up.

        Each frame is a latent of its own if ``latents`` is "frame".
        """
        return [range(i, i + 1) for i in window]

    def covered(self, window: range) -> list[range]:
        """For each frame of a window's features, the clip's frames that it stands for."""
        return self.latent_frames(window)

    def token_grid(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """Grid of cells (y, x) for an input of that size, in a model on tokens; None if outputs are maps already."""
        return None

    @property
    def text_tokens(self) -> int:
        """Number of text tokens that may be in one sequence with the tokens of the clip."""
        return 0

    # --- what all share -------------------------------------------------------------------------

    @property
    def kind(self) -> Literal["video", "image"]:
        """``"video"`` if the model sees windows of frames, ``"image"`` if it sees each frame alone."""
        return "image" if self.window is None else "video"

    def with_interventions(self, interventions: tuple[Intervention, ...]) -> Self:
        """The same model, with the same weights and lock, but other interventions."""
        other = copy.copy(self)
        other.interventions, other._whole, other._scopes = interventions, None, []
        other._root = self._root or self
        return other

    def intervened(self, intervention: Intervention) -> Self:
        """This model with one more intervention, after a check that it is possible.

        The new model is also a context manager, see `while_cut`.
        """
        intervention.check(self)
        other = self.with_interventions((*self.interventions, intervention))
        other._whole = self
        return other

    @contextmanager
    def while_cut(self, intervention: Intervention) -> Iterator[None]:
        """Inside a ``with`` block, this object itself has one more intervention; other threads wait.

        It also applies to forward passes that tedlens does not start, such as those of the model's own pipeline.
        """
        with self.lock:
            before = self.interventions
            try:
                self.interventions = (*before, intervention)
                with acting_outside(self, intervention):
                    yield
            finally:
                self.interventions = before

    def __enter__(self) -> DiffusionModel:
        """Return the model that this one was made from; until the block ends it has this one's intervention."""
        if self._whole is None:
            raise TedlensError(
                f"Model {self.name!r} was not made by an intervention, so there is nothing that a with block would "
                "end; give what tl.ablate(..), tl.patch(..) or tl.steer(..) returns."
            )
        scope = self._whole.while_cut(self.interventions[-1])
        scope.__enter__()
        self._scopes.append(scope)
        return self._whole

    def __exit__(self, *error: Any) -> None:
        self._scopes.pop().__exit__(*error)

    def log_snr(self, tau: int) -> float:
        """Natural logarithm of the signal-to-noise power ratio: the axis on which schedules can be compared."""
        sigma = self.sigma(tau)
        return -2 * float(np.log(sigma)) if 0 < sigma < np.inf else float(np.inf if sigma == 0 else -np.inf)

    def nearest_tau(self, *, log_snr: float) -> int:
        """The tau whose log-SNR is nearest to the one given, which must lie within the model's range."""
        found = np.array([self.log_snr(tau) for tau in range(self.levels)])
        if not found.min() - 1e-3 <= log_snr <= found.max() + 1e-3:
            raise TedlensError(
                f"log_snr={log_snr:.4g} (sigma={np.exp(-log_snr / 2):.4g}) is outside of what {self.name!r} was "
                f"trained on; choose log_snr from {found.min():.4g} to {found.max():.4g}, which is sigma from "
                f"{self.sigma(0):.4g} to {self.sigma(self.levels - 1):.4g}."
            )
        with np.errstate(invalid="ignore"):  # infinite minus infinite, at zero signal
            distance = np.where(found == log_snr, 0, np.abs(found - log_snr))
        return int(distance.argmin())

    @property
    def unet(self) -> nn.Module:
        """The denoiser, under the name that adapters of UNets use."""
        return self.denoiser

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device if self.place is None else self.place

    @property
    def dtype(self) -> torch.dtype:
        return next(self.denoiser.parameters()).dtype

    @cached_property
    def block_modules(self) -> dict[str, nn.Module]:
        unet: Any = self.unet
        named = {f"down_{i}": block for i, block in enumerate(unet.down_blocks)}
        if getattr(unet, "mid_block", None) is not None:
            named["mid"] = unet.mid_block
        return named | {f"up_{i}": block for i, block in enumerate(unet.up_blocks)}

    def module(self, block: str) -> nn.Module:
        """The module whose output is the feature of `block`."""
        if block not in self.block_modules:
            raise TedlensError(f"Model {self.name!r} has no block {block!r}; choose from {', '.join(self.blocks)}.")
        return self.block_modules[block]

    def check_tau(self, tau: int) -> int:
        if int(tau) != tau or not 0 <= tau < self.levels:
            raise TedlensError(
                f"tau={tau} is not a training timestep; choose a whole number from 0 (clean) to {self.levels - 1}."
            )
        return int(tau)

    def _modules(self) -> list[nn.Module]:
        parts = self.pipeline.components.values()
        return [part for part in parts if isinstance(part, nn.Module)]

    @contextmanager
    def encoders(self) -> Iterator[None]:
        """Used while clips are encoded and conditioned: with `offload`, encoders are on the GPU only then."""
        waiting = [part for part in self._modules() if part is not self.denoiser] if self.offload else []
        if self.offload == "layers":  # those of transformers wait layer by layer, as the denoiser does
            waiting = [part for part in waiting if isinstance(part, ModelMixin)]
        device = self.device
        try:
            with room_for(self.name):
                for part in waiting:
                    part.to(device)
                yield
        finally:
            for part in waiting:
                part.to("cpu")

    def check_weights(self) -> None:
        """Check that all weights are finite numbers.

        Raises
        ------
        TedlensError
            If a tensor contains NaN or infinite values.
        """
        for module in self._modules():
            for name, value in module.state_dict().items():
                if value.is_floating_point() and not torch.isfinite(value).all():
                    raise TedlensError(
                        f"The weights of {self.name!r} hold NaN or infinite values, first in {name} of its "
                        f"{type(module).__name__}; the file is damaged, or was saved from a training that failed."
                    )

    def __repr__(self) -> str:
        facts = self._facts()
        wide = max(map(len, facts))
        lines = [f"  {name:<{wide}}  {printable(fact)}" for name, fact in facts.items()]
        return "\n".join([f"{type(self).__name__} {self.name!r}", *lines])

    def _repr_html_(self) -> str:
        return facts_html(f"{type(self).__name__} {self.name}", self._facts())

    def _facts(self) -> dict[str, str]:
        """The facts that a reader wants first, in words."""
        seen = "sees each frame alone" if self.window is None else f"{self.window} frames"
        blocks = ", ".join(self.blocks) if len(self.blocks) < 12 else f"{self.blocks[0]} .. {self.blocks[-1]}"
        facts = {
            "kind": f"{self.kind} model",
            "blocks": f"{len(self.blocks)} ({blocks}); by default {self.block}",
            "window": seen,
            "noise": self._noise_said(),
            "memory": f"{_size_said(self._modules())}, {str(self.dtype).removeprefix('torch.')}, on {self.device}",
        }
        if said := provenance_of(self.interventions):
            facts["interventions"] = ", ".join(map(str, said.values()))
        return facts

    def _noise_said(self) -> str:
        last = self.levels - 1
        if last == 0:
            return "none"
        try:
            ends = self.log_snr(0), self.log_snr(last)
        except TedlensError:  # of an adapter that is not finished
            return f"tau 0 to {last}"
        return f"tau 0 to {last}, log-SNR {ends[0]:.1f} to {ends[1]:.1f}"

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the names and hashes of all weights, in the order of their names."""
        return hash_of_weights(self._modules()) if self._root is None else self._root.weights_sha256

    def provenance(self) -> dict[str, Any]:
        """How to reproduce this model, for the attributes of results."""
        with self.lock:
            interventions = self.interventions
        return {
            "model": self.name,
            "model_class": type(self.denoiser).__name__,
            "model_revision": self.revision or "",
            "weights_sha256": self.weights_sha256,
            "dtype": str(self.dtype).removeprefix("torch."),
            **{f"model_{key}": value for key, value in self.options.items() if value is not None},
            **provenance_of(interventions),
        }


def _size_said(modules: Sequence[nn.Module]) -> str:
    """Memory of the weights; weights that modules share count once."""
    held = {id(value): value.nbytes for module in modules for value in (*module.parameters(), *module.buffers())}
    size, units = float(sum(held.values())), ["bytes", "KiB", "MiB", "GiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.4g} {units[0]}"


def hash_of_weights(modules: Sequence[nn.Module]) -> str:
    """Hash of the names and hashes of all weights of modules, in the order of their names."""
    weights = [each for module in modules for each in sorted(module.state_dict().items())]
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as pool:  # hashlib lets other threads run meanwhile
        for (name, _), sha256 in zip(weights, pool.map(_sha256, [value for _, value in weights]), strict=True):
            digest.update(name.encode() + sha256)
    return digest.hexdigest()


def _sha256(value: Tensor) -> bytes:
    """Hash of a tensor's bytes; a tensor on the CPU is not copied."""
    plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(plain.data).digest()


class VariancePreserving(DiffusionModel):
    """A model of the DDPM family, whose noise follows the scheduler's `alphas_cumprod`.

    Every scheduler of that family has it. Schedulers that step in other units (Euler, LMS, ..) scale the
    sample to this form before they pass it to the UNet, so the UNet sees the same with them.
    """

    @cached_property
    def schedule(self) -> Schedule:
        return VariancePreservingNoise.of(self.pipeline.scheduler, self.name)


def pictures(frames: Frames) -> Tensor:
    """Frames as diffusers' own image processors return them: (frame, 3, y, x), float32, in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255 * 2 - 1
