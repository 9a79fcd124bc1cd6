"""Acting inside a model while it runs: at a hook point, by its input and output; one mechanism for all that does.

Recording, stopping early, cutting, putting other activations in: each is an act, ``(input, output) -> output or
nothing``, on a module. Nothing of it is left behind, whatever ends the run.
"""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tedlens.errors import TedlensError
from tedlens.models.hooks import hooked
from tedlens.models.points import first_tensor

if TYPE_CHECKING:
    from tedlens.models.base import DiffusionModel

# What a module got first and what it gave, in its own layout; what it gives instead, or None: what it gave.
Act = Callable[[Tensor, Tensor], Tensor | None]
Acts = Iterable[tuple[nn.Module, Act]]
_prepared_run: ContextVar[bool] = ContextVar("prepared_run", default=False)


@dataclass(frozen=True)
class Moment:
    """Of one forward: which frames of the clip it sees, and at which noise.

    Attributes
    ----------
    number, window
        Number of the window, and its frames in the clip.
    tau, seed, sample
        Of the noise.
    covered
        Of each frame that the model's layers have, the clip's frames that it stands for.
    """

    number: int
    window: range
    tau: int
    seed: int
    sample: int
    covered: tuple[range, ...]


class Intervention(ABC):
    """Something that is done inside a model in each of its forwards, as a value that can be written down.

    Attributes
    ----------
    layers
        Names or patterns of the submodules where it is done, as `probe` takes them.
    """

    layers: tuple[str, ...]
    runs_model = False  # whether each of its forwards takes another one

    @property
    def known_as(self) -> str | None:
        """What results call it in ``model_without``, where they have done so since before there were others."""
        return None

    @property
    def by_frame(self) -> bool:
        """Whether it must know which frames of a clip a forward sees."""
        return True

    @abstractmethod
    def said(self) -> dict[str, Any]:
        """As JSON has it, from which `tedlens.interventions.intervened` makes it again."""

    @abstractmethod
    def check(self, model: DiffusionModel) -> None:
        """See that it can be done in this model, before any work."""

    def prepare(self, view: Any, before: tuple[Intervention, ...]) -> Any:
        """What it needs of a clip (`Prepared`) once; `before` is what is done in the model besides, before it."""
        return None

    @contextmanager
    def around(self, model: DiffusionModel, moment: Moment, ready: Any) -> Iterator[None]:
        """What is done around one forward besides, where acts on modules do not suffice."""
        yield

    @abstractmethod
    def acts(self, model: DiffusionModel, moment: Moment | None, ready: Any) -> Acts:
        """What is done, and where, in one forward; `ready` is what `prepare` gave."""


def forwards_of(interventions: tuple[Intervention, ...]) -> int:
    """Forwards that one with these interventions takes, with those of what is put in."""
    return 1 + sum(forwards_of(interventions[:i]) for i, each in enumerate(interventions) if each.runs_model)


def provenance_of(interventions: tuple[Intervention, ...]) -> dict[str, Any]:
    """How results of a model say what was done inside it."""
    names = [each.known_as for each in interventions]
    if not names:
        return {}
    if None in names:
        return {"model_interventions": json.dumps([each.said() for each in interventions])}
    return {"model_without": ", ".join(map(str, names))}


@contextmanager
def acting(acts: Acts) -> Iterator[None]:
    """Acts on modules for the length of a ``with`` block, in their order where a module has several."""
    with hooked([(module, _hook(act)) for module, act in acts], with_kwargs=True):
        yield


@contextmanager
def acting_in_run(acts: Acts) -> Iterator[None]:
    """`acting` while a prepared clip is run, which says of itself what is done and leaves out what a scope does."""
    token = _prepared_run.set(True)
    try:
        with acting(acts):
            yield
    finally:
        _prepared_run.reset(token)


@contextmanager
def acting_outside(model: DiffusionModel, intervention: Intervention) -> Iterator[None]:
    """An intervention in forwards that are not of a prepared clip, such as a pipeline's own."""

    def outside(act: Act) -> Act:
        def guarded(given: Tensor, output: Tensor) -> Tensor | None:
            if _prepared_run.get():
                return None
            if intervention.by_frame:
                raise TedlensError(
                    f"This intervention goes by the frames of a clip ({json.dumps(intervention.said())[:200]}), which "
                    "a forward of the bare network does not tell; run it through probe, track, sweep or predict."
                )
            return act(given, output)

        return guarded

    acts: Acts = [(model.denoiser, _nothing)] if intervention.by_frame else intervention.acts(model, None, None)
    with acting([(module, outside(act)) for module, act in acts]):
        yield


def _nothing(given: Tensor, output: Tensor) -> None:
    """The act that leaves an output as it is."""


def _hook(act: Act) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        found = act(first_given(module, args, kwargs), first_tensor(output))
        return None if found is None else _with_first(output, found)

    return hook


def first_given(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a module's forward was given first, by its place or by its name."""
    return args[0] if args else kwargs[_first_parameter(type(module).forward)]


@cache
def _first_parameter(forward: Callable[..., Any]) -> str:
    """Name of what a module's forward takes first, by which some callers give it."""
    return list(inspect.signature(forward).parameters)[1]


def _with_first(output: Any, first: Tensor) -> Any:
    """A module's output with another tensor in place of its first."""
    if isinstance(output, Tensor):
        return first
    if isinstance(output, tuple):
        return (first, *output[1:])
    return type(output)(**{**output, next(iter(output)): first})  # diffusers' outputs are ordered dictionaries
