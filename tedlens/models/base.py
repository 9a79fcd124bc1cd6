"""What tedlens asks of a model, and what all diffusion models share."""

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
    """A diffusion model with all it needs around it, behind one small protocol.

    A probe calls, in this order: `encode` and, for each window, `condition` (once a clip each; an image
    model's one condition serves every frame); then, for every tau and seed, `add_noise` and `run`.
    Tensors are (frame, channel, y, x) throughout; the adapter alone knows in which layout its UNet
    wants them. How to write one: ``tedlens/models/README.md``.

    Parameters
    ----------
    pipeline
        A diffusers pipeline, or any object with what `part` names and `components` (name to part). A part that makes
        embeddings (text or image encoder) may be None: the structure can be listed without it.
    name, revision
        As given to the loader; the hub's commit where it is known.
    size, block
        See the attributes.
    offload
        Keep on the GPU only what is in use: encoders and VAE wait on the CPU while the denoiser runs. ``"layers"``: the
        denoiser's blocks and the encoders' layers, too, each until it runs.

    Attributes
    ----------
    denoiser
        The torch module itself; ``part`` is its name in the pipeline.
    blocks
        Names of the blocks, in the order in which they run: ``down_0`` .., ``mid``, ``up_0`` .., or
        ``block_0`` .. of a transformer.
    block
        The block whose features the paper's protocol takes.
    window
        Frames that the model was trained on at once; None for an image model, which sees each alone.
    longest_window
        Frames that it can see at once; None where there is no limit.
    latents
        ``"frame"``: each frame is encoded alone, as a latent of its own. ``"video"``: a window is encoded as a whole,
        by a VAE that makes one latent of several frames.
    between
        Of features with fewer frames than the clip, what each frame of the clip gets: those that stand for it
        (``"repeat"``), or between those before and after it (``"interpolate"``).
    text_first
        Whether text stands before the clip where both are one sequence.
    temporal
        Patterns of its layers that mix frames, where they are not known by their class.
    size
        Short side, in pixels, that frames are resized to where the user does not say.
    fixed_size
        Height and width of the only input that it takes; None where there are others.
    multiple
        Both sides of the input are made multiples of this, in pixels.
    options
        Settings of the conditioning, as kept with the results.
    outlines
        What `tedlens.models.outline` found, by size of the input.
    made_for
        Of an embedded model, the short side in pixels of the clips that it was trained on, all of them drawn by
        `tedlens.datasets.similar`; None for models that have seen real video.
    appearance_tau
        Noise level at which features hold appearance: by default DIFT's.
    place
        Where it computes, if its layers wait elsewhere.
    lock
        Held while hooks are on the UNet, so that threads that share a model take turns.
    interventions
        What is done inside it while it runs, in this order: of a model that `tedlens.ablate`, `patch` or `steer`
        made. It shares weights and lock with the one it was made of.
    """

    part = "unet"  # of the pipeline, what denoises
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
        self._whole: DiffusionModel | None = None  # of a cut model, the one that it was made of
        self._root: DiffusionModel | None = None  # of a copy, the first of all that share their weights
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
        """What the UNet denoises, without noise: (frame, channel, y, x)."""

    def condition(self, frames: Frames, clean: Tensor, window: range) -> Condition:
        """What the UNet is told about one window of the clip, besides its noisy frames."""
        return {}

    @property
    def schedule(self) -> Schedule | None:
        """The noise over tau; an adapter without one says `sigma` and `add_noise` itself."""
        return None

    def sigma(self, tau: int) -> float:
        """Noise-to-signal ratio at tau; infinite where nothing of the signal is left."""
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
        """One forward of the UNet; features are taken by hooks.

        Its output (frame, channel, y, x), or None where an adapter does without predictions.
        """

    def clean_from(self, noisy: Tensor, output: Tensor, tau: int) -> Tensor:
        """What the denoiser's output says that the clean sample is, in float32: (frame, channel, y, x)."""
        if self.schedule is None:
            raise self._without_prediction("how its output is to be read (clean_from)")
        return self.schedule.clean_from(noisy, output, tau)

    def decode(self, clean: Tensor) -> Tensor:
        """Pictures (frame, 3, y, x) in about [-1, 1] from clean samples: `encode` undone, as far as it can be."""
        raise self._without_prediction("how to make pictures of it (decode)")

    def _without_prediction(self, lacking: str) -> TedlensError:
        return TedlensError(
            f"Model {self.name!r} predicts no clip: its adapter ({type(self).__name__}) does not say {lacking}; choose "
            "a diffusion model, or write it (tedlens/models/README.md)."
        )

    @classmethod
    def part_for(cls, options: dict[str, Any]) -> str:
        """Of a pipeline the part that denoises, with these options."""
        return cls.part

    @staticmethod
    def left_out(options: dict[str, Any]) -> tuple[str, ...]:
        """Parts of a pipeline that need not be loaded, with these options."""
        return ()

    @property
    def options(self) -> dict[str, Any]:
        """Settings of the conditioning by name, as the loader takes them."""
        return {}

    @property
    def longest_window(self) -> int | None:
        return None

    @property
    def levels(self) -> int:
        """Number of noise levels: tau goes from 0 to one less."""
        return 1000 if self.schedule is None else self.schedule.levels

    # --- of a model on tokens, or on latents of several frames -----------------------------------

    def latent_frames(self, window: range) -> list[range]:
        """Of each latent of a window the clip's frames that it holds; none for one that fills up.

        Each frame is a latent of its own where ``latents`` is "frame".
        """
        return [range(i, i + 1) for i in window]

    def covered(self, window: range) -> list[range]:
        """Of each frame of a window's features the clip's frames that it stands for."""
        return self.latent_frames(window)

    def token_grid(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """Cells (y, x) of a model on tokens for an input of that size; None where maps tell of themselves."""
        return None

    @property
    def text_tokens(self) -> int:
        """Tokens of text that may stand in one sequence with those of the clip."""
        return 0

    # --- what all share -------------------------------------------------------------------------

    @property
    def kind(self) -> Literal["video", "image"]:
        """What it sees at once: windows of frames, or each frame alone."""
        return "image" if self.window is None else "video"

    def with_interventions(self, interventions: tuple[Intervention, ...]) -> Self:
        """The same model, weights and lock, with other interventions."""
        other = copy.copy(self)
        other.interventions, other._whole, other._scopes = interventions, None, []
        other._root = self._root or self
        return other

    def intervened(self, intervention: Intervention) -> Self:
        """This model with one more intervention, which is seen to be possible; also a scope, see `while_cut`."""
        intervention.check(self)
        other = self.with_interventions((*self.interventions, intervention))
        other._whole = self
        return other

    @contextmanager
    def while_cut(self, intervention: Intervention) -> Iterator[None]:
        """For the length of a ``with`` block this very object has one more intervention; other threads wait.

        Forwards that others run meanwhile, such as those of the pipeline that it was made of, have it, too.
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
        """The model that this one was made of, which is as this one is until the block ends."""
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
        """Natural logarithm of the signal-to-noise power ratio: the axis on which schedules compare."""
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
        """The denoiser, as adapters of UNets call it."""
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
        """While clips are encoded and conditioned: with `offload`, the only time that encoders are on the GPU."""
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
        """See that all weights are numbers.

        Raises
        ------
        TedlensError
            Where a tensor holds NaN or infinite values.
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
        """What a reader wants to know of it first, in words."""
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
        """How to get this model again, for the attributes of results."""
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
    """Memory that weights take, those that modules share once."""
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
    """Hash of a tensor's bytes, of which no copy is made where it lies on the CPU."""
    plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(plain.data).digest()


class VariancePreserving(DiffusionModel):
    """A model of the DDPM family: its noise is that of the scheduler's `alphas_cumprod`.

    Held by every scheduler of that family. Those that step in other units (Euler, LMS, ..) scale the
    sample to this form before they hand it to the UNet, so it is what the UNet sees with them, too.
    """

    @cached_property
    def schedule(self) -> Schedule:
        return VariancePreservingNoise.of(self.pipeline.scheduler, self.name)


def pictures(frames: Frames) -> Tensor:
    """Frames as diffusers' own image processors hand them on: (frame, 3, y, x) float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255 * 2 - 1
