"""A model without some of its layers, or without single heads of their attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from tedlens.errors import TedlensError
from tedlens.interventions.isolation import Isolation
from tedlens.interventions.sites import (
    attentions_in,
    check_frames,
    chosen_frames,
    inside,
    names_of,
    numbers_of,
    sites,
    within,
)
from tedlens.models.acting import Act, Acts, Intervention, Moment
from tedlens.models.base import DiffusionModel
from tedlens.models.points import HookPoint
from tedlens.models.registry import Model, as_model

How = Literal["bypass", "zero", "mean"]
TEMPORAL = "temporal layers"  # the word for all layers that mix frames
# diffusers' classes of these layers. The first input of each comes from the layers within a frame; without the layer,
# this input is what is left. SVD blends the two paths in an AlphaBlender.
TEMPORAL_LAYERS = ("TemporalConvLayer", "TransformerTemporalModel", "AnimateDiffTransformer3D", "AlphaBlender")
# diffusers' classes of layers whose caller adds their output to its own input: without them nothing is added.
ADDED_BY_CALLER = ("Attention", "WanAttention", "LTXAttention", "MochiAttention", "FeedForward")


def ablate(
    model: Model,
    layers: str | Sequence[str],
    how: How = "bypass",
    *,
    heads: int | Sequence[int] | None = None,
    frames: int | Sequence[int] | None = None,
    reach: int | None = None,
) -> DiffusionModel:
    """A model without some of its layers. It is a model like any other; its results record what was cut.

    It shares the weights of the given model, which stays whole. It is also a context manager: inside
    ``with tl.ablate(model, ..):`` the given model itself runs without the layers, also when its own pipeline
    generates. Other threads that use the model wait until the block ends.

    Parameters
    ----------
    model
        A loaded model, or anything that `probe` accepts as a model; it may have been cut before.
    layers
        Names and patterns as in `probe`, such as ``"up_2.temp_attentions.*"``; or ``"temporal layers"``: all layers
        that mix frames. For a down block, only its main output is cut; its skip connections belong to the layers
        inside it.
    how
        What replaces a layer's output. ``"bypass"``: what is left without the layer. This is the layer's input, or
        zeros where the caller adds the output to the layer's input (attention and feed-forward inside a transformer
        block). ``"zero"``: zeros. ``"mean"``: the output's mean over the frames of a window, which is the part that
        does not move.
    heads
        Numbers of heads, from 0. In every attention of the layers only these heads are cut, before the output
        projection, by ``"zero"`` or ``"mean"``; ``"bypass"`` means the same as ``"zero"`` here.
    frames
        Numbers of frames in the clip, from 0. The layers are cut only in these frames.
    reach
        For attention over all of a video, which transformers have in place of temporal layers. Only what a frame sees
        of other frames is limited: it attends to frames at most this many before and after it (0: only to itself),
        and to the text. The text attends only to text, so that it carries nothing from frame to frame. Frames are
        those of the layers, where one may stand for several frames of the clip (see `load_video_model`).

    Raises
    ------
    TedlensError
        For layers, heads or frames that do not exist; for the bypass of a layer that changes the shape of its input;
        for a mean over frames in an image model, which sees each frame alone.

    Examples
    --------
    >>> cut = tl.ablate(motion, "up_2.temp_attentions.*")  # doctest: +SKIP
    >>> tl.track(clip, motion=cut, lam=1)  # doctest: +SKIP
    """
    return as_model(model).intervened(Ablation.of(layers, how, heads=heads, frames=frames, reach=reach))


@contextmanager
def without_temporal_layers(model: DiffusionModel) -> Iterator[None]:
    """Bypass every layer of a video model that mixes frames, inside a ``with`` block.

    The same as ``with tl.ablate(model, "temporal layers")``. Each frame then passes through the UNet alone. The only
    other frame that it can see is the one that the model is conditioned on (I2VGen-XL spreads it over all frames before
    its first block). So nothing that the features still contain comes from motion that the model saw. Temporal
    convolutions, temporal transformers and motion modules return their input; where SVD blends a spatial with a
    temporal path, the spatial one is used. Results record this (``model_without``), so that a sweep's store never
    mixes them up with results of the whole model. Other threads that use the model wait until the block ends.

    Raises
    ------
    TedlensError
        For a model without such layers.
    """
    with ablate(model, TEMPORAL):
        yield


class Place(NamedTuple):
    """A layer to cut; or the output projection of an attention, with the attention's number of heads."""

    name: str
    point: HookPoint
    module: nn.Module
    heads: int = 0


@dataclass(frozen=True)
class Ablation(Intervention):
    """The layers, or heads of their attention, that a model runs without. See `ablate`."""

    layers: tuple[str, ...]
    how: How = "bypass"
    heads: tuple[int, ...] | None = None
    frames: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        layers: str | Sequence[str],
        how: How = "bypass",
        *,
        heads: int | Sequence[int] | None = None,
        frames: int | Sequence[int] | None = None,
        reach: int | None = None,
    ) -> Ablation | Isolation:
        if how not in get_args(How):
            raise TedlensError(f"how={how!r} is no way to cut; choose {', '.join(map(repr, get_args(How)))}.")
        if reach is not None:
            if (how, heads, frames) != ("bypass", None, None):
                raise TedlensError("reach cuts what frames see of others, and goes with neither how, heads nor frames.")
            return Isolation(names_of(layers), reach)
        return cls(names_of(layers), how, numbers_of("heads", heads), numbers_of("frames", frames))

    @property
    def known_as(self) -> str | None:
        return TEMPORAL if self == Ablation((TEMPORAL,)) else None

    @property
    def by_frame(self) -> bool:
        return self.how == "mean" or self.frames is not None

    def said(self) -> dict[str, Any]:
        said = {"layers": list(self.layers), "how": self.how}
        more = {"heads": self.heads, "frames": self.frames}
        return {"ablate": said | {key: list(value) for key, value in more.items() if value is not None}}

    def check(self, model: DiffusionModel) -> None:
        if self.how == "mean" and model.kind == "image":
            raise TedlensError(
                f"how='mean' is the mean over frames, and {model.name!r} is an image model that sees each alone; "
                "choose 'bypass' or 'zero'."
            )
        for place in self._places(model):
            if self.heads is None:
                self._check_bypass(place)
            elif max(self.heads) >= place.heads:
                raise TedlensError(
                    f"heads={list(self.heads)} are not all in {place.name!r}, which has {place.heads}; "
                    f"choose from 0 to {place.heads - 1}."
                )

    def _check_bypass(self, site: Place) -> None:
        if self.how == "bypass" and not (site.point.keeps_shape or _added_by_caller(site.module)):
            raise TedlensError(
                f"Layer {site.name!r} changes the shape of its input, so it cannot hand that on; choose how='zero' or "
                "'mean', or a layer inside it."
            )

    def prepare(self, view: Any, before: tuple[Intervention, ...]) -> list[Place]:
        check_frames(self.frames, view.clip.name, len(view.clip))
        places = self._places(view.model)
        if any(place.point.layout == "sequence" for place in places):  # its frames follow from the grid of this clip
            return [place._replace(point=view.point(place.point.path)) for place in places]
        return places

    def acts(self, model: DiffusionModel, moment: Moment | None, ready: list[Place] | None) -> Acts:
        chosen = None if self.frames is None or moment is None else chosen_frames(self.frames, moment)
        act = self._on_layer if self.heads is None else self._on_heads
        return [(place.module, act(place, chosen)) for place in ready or self._places(model)]

    def _places(self, model: DiffusionModel) -> list[Place]:
        """The layers; or, for heads, the output projection of each attention, whose input is all heads side by side."""
        found = sites(model, _temporal(model) if self.layers == (TEMPORAL,) else self.layers)
        if self.heads is None:
            return [Place(*site) for site in found]
        attentions = attentions_in(model, found)
        if not attentions:
            raise TedlensError(
                f"There is no attention in {', '.join(site.name for site in found[:3])}, so there are no heads to cut; "
                "name a layer with attention, such as those that end with attn1 (tedlens info lists them)."
            )
        projections = []
        for site in attentions:
            [projection] = sites(model, [f"{site.point.path}.to_out.0"])
            heads: Any = site.module.heads
            projections.append(Place(*projection, heads=heads))
        return projections

    def _on_layer(self, place: Place, chosen: Tensor | None) -> Act:
        hands_on = self.how == "bypass" and not _added_by_caller(place.module)

        def act(given: Tensor, output: Tensor) -> Tensor:
            new = given if hands_on else self._instead(place.point, output)
            return within(place.point, chosen, new, output)

        return act

    def _on_heads(self, place: Place, chosen: Tensor | None) -> Act:
        cut = torch.tensor([head in (self.heads or ()) for head in range(place.heads)])

        def act(given: Tensor, output: Tensor) -> Tensor:
            of_heads = cut.repeat_interleave(given.shape[-1] // place.heads).to(given.device)
            changed = torch.where(of_heads, self._instead(place.point, given), given)
            # The module's own `forward`, so that no hook takes this for another run.
            return within(place.point, chosen, place.module.forward(changed), output)

        return act

    def _instead(self, point: HookPoint, output: Tensor) -> Tensor:
        if self.how == "mean":
            return point.mean_over_frames(output)
        return torch.zeros_like(output)


def _temporal(model: DiffusionModel) -> list[str]:
    outline = inside(model)
    found = [path for path, point in outline.points.items() if point.module_class in TEMPORAL_LAYERS]
    found += [point.path for pattern in model.temporal for _, point in outline.matching(pattern)]
    if not found:
        raise TedlensError(
            f"Model {model.name!r} has no temporal layers to bypass ({', '.join(TEMPORAL_LAYERS)}); give a video "
            "model, or of one with attention over all of a video keep each frame to itself: tl.ablate(model, "
            "'**.attn1', reach=0)."
        )
    return found


def _added_by_caller(module: Any) -> bool:
    return type(module).__name__ in ADDED_BY_CALLER and not getattr(module, "residual_connection", False)
