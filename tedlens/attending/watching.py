"""Queries and keys as attention uses them, after norms and position embeddings, and the weights computed from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tedlens.errors import TedlensError
from tedlens.interventions.isolation import Isolation
from tedlens.interventions.sites import Site, attentions_in, inside, sites
from tedlens.models.acting import Act, Moment, acting
from tedlens.models.base import DiffusionModel
from tedlens.models.points import Layout
from tedlens.probing import Draw, Prepared, Reading, Tap

# What an attention goes over: the frames of a cell, the cells of a frame, all of a video, or tokens of text or image.
Kind = Literal["temporal", "spatial", "joint", "cross"]
KINDS: dict[Layout, Kind] = {"tracks": "temporal", "sequence": "joint"}
SLICE = 2**24  # weights that are in memory at once, besides those that are asked for


class Layer(NamedTuple):
    """An attention, and what it attends over."""

    name: str
    site: Site
    heads: int
    kind: Kind

    @property
    def grid(self) -> tuple[int, int]:
        return self.site.point.grid


class Call(NamedTuple):
    """The inputs from which an attention computed its weights: (batch, head, query or key, channel)."""

    query: Tensor
    key: Tensor
    mask: Tensor | None
    causal: bool
    scale: float

    def weights(self, batch: slice | Sequence[int], rows: slice | Sequence[int]) -> Tensor:
        """Weights (batch, head, row, key), float32, of some queries, computed as torch defines its attention."""
        query, key = self.query[batch][:, :, rows].float(), self.key[batch].float()
        scores = query @ key.transpose(-1, -2) * self.scale
        whole = (*self.query.shape[:3], self.key.shape[2])
        if self.mask is not None:
            mask = self.mask.expand(whole)[batch][:, :, rows]
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.float()
        if self.causal:
            before = torch.ones(whole[2:], dtype=torch.bool, device=scores.device).tril()[rows]
            scores = scores.masked_fill(~before, -torch.inf)
        return scores.softmax(-1)

    def of_video(self, tokens: int, text_first: bool) -> Call:
        """Only the video's queries and keys from a sequence of video and text, as if there were no text."""
        if self.query.shape[2] == self.key.shape[2] == tokens:
            return self
        query, key = (each[:, :, -tokens:] if text_first else each[:, :, :tokens] for each in (self.query, self.key))
        return Call(query, key, None, self.causal, self.scale)

    def sliced(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """All `weights`, for a part of the batch and of the queries at a time, so that memory is bounded."""
        of_query = self.query.shape[1] * self.key.shape[2]
        queries = self.query.shape[2]
        rows, batch = max(1, SLICE // of_query), max(1, SLICE // (of_query * queries))
        for start in range(0, len(self.query), batch):
            for first in range(0, queries, rows):
                part = slice(start, start + batch), slice(first, first + rows)
                yield *part, self.weights(*part)


class Watch(TorchFunctionMode):
    """Records an attention's call of torch's attention function, without changing what is computed.

    It is on only inside an attention, from the query projection to the end, because it slows down every torch function.
    """

    def __init__(self) -> None:
        super().__init__()
        self._on = ExitStack()
        self.within: nn.Module | None = None
        self.last: Call | None = None
        self.plain: dict[str, Tensor] = {}  # query and key before rotary position embedding

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.last = _call(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def begin(self, attention: nn.Module) -> Act:
        """The act on an attention's query projection, which starts the recording."""

        def act(given: Tensor, output: Tensor) -> None:
            self.stop()  # a run of the model for activation patching began, but was not read
            self.within = attention
            self._on.enter_context(self)

        return act

    def before_places(self, name: str) -> Act:
        """The act on an attention's last step before the rotary position embedding of queries or keys."""

        def act(given: Tensor, output: Tensor) -> None:
            self.plain[name] = output.clone()  # some layers rotate them in place

        return act

    def end(self, attention: nn.Module) -> Call | None:
        """The recorded call when the attention ends; None if it made no call, or if its beginning was not seen."""
        call = self.last if self.within is attention else None
        if call is not None and self.plain:
            heads = call.query.shape[1]
            query, key = (_by_head(self.plain[name], heads) for name in ("query", "key"))
            call = call._replace(query=query, key=key, mask=None)
        self.stop()
        return call

    def stop(self) -> None:
        self._on.close()
        self.within, self.last = None, None
        self.plain.clear()


def _by_head(value: Tensor, heads: int) -> Tensor:
    """Queries or keys as (batch, head, token, channel), from (batch, token, channels of all heads) or split by head."""
    if value.ndim == 3:
        value = value.unflatten(-1, (heads, -1))
    return value if value.shape[1] == heads else value.transpose(1, 2)


def _call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Call:
    return Call(query, key, attn_mask, is_causal, query.shape[-1] ** -0.5 if scale is None else scale)


def layers_of(model: DiffusionModel, names: Sequence[str]) -> list[Layer]:
    """The layers that are attentions, and all attentions inside layers.

    Raises
    ------
    TedlensError
        For layers without attention, or with one of an unknown kind.
    """
    found = attentions_in(model, sites(model, names))
    if not found:
        raise TedlensError(
            f"There is no attention in {', '.join(names)}; name a layer with attention, such as those that end with "
            "attn1 (tedlens info lists them)."
        )
    return [_layer(site) for site in found]


def _layer(site: Site) -> Layer:
    module: Any = site.module
    kind = "cross" if getattr(module, "is_cross_attention", False) else KINDS.get(site.point.layout, "spatial")
    return Layer(site.name, site, module.heads, kind)


def watch(
    prepared: Prepared,
    draw: Draw,
    layers: Sequence[Layer],
    take: Callable[[Layer, Call, Moment], Any],
    *,
    rotary: bool = True,
) -> Iterator[tuple[Moment, dict[str, Any]]]:
    """Yield, for each window, what `take` returns for each layer's call, by the layer's name.

    A forward pass stops after the deepest layer. For a sequence of video and text, the call contains only the video's
    tokens. Without `rotary`, queries and keys are those before rotary position embedding.
    """
    for each in prepared.model.interventions:
        if isinstance(each, Isolation) and any(each.covers(prepared.model, layer.site.point.path) for layer in layers):
            raise TedlensError(
                f"The frames of {layers[0].name!r} are kept apart (reach={each.reach}), so it has no weights over all "
                "of a video to show; give the model without that, or another layer."
            )
    points = [prepared.point(layer.name) for layer in layers]
    order = list(inside(prepared.model).points)
    deepest = max(layers, key=lambda layer: order.index(layer.site.point.path)).name
    on_this_grid = [
        layer._replace(site=layer.site._replace(point=point)) for layer, point in zip(layers, points, strict=True)
    ]
    modules: list[Any] = [layer.site.module for layer in layers]
    for number in range(len(prepared.windows)):
        moment = prepared.moment(number, draw)
        seen = Watch()
        text_first = prepared.model.text_first
        taps = {
            layer.name: Tap(layer.site.module, _reader(layer, seen, moment, take, text_first)) for layer in on_this_grid
        }
        begun = [(module.to_q, seen.begin(module)) for module in modules]
        if not rotary:
            for module in modules:
                begun += [
                    (getattr(module, "norm_q", None) or module.to_q, seen.before_places("query")),
                    (getattr(module, "norm_k", None) or module.to_k, seen.before_places("key")),
                ]
        try:
            with acting(begun):
                found = prepared.window(prepared.noisy(draw, number), moment, Reading(taps, deepest, lambda: None))
        finally:
            seen.stop()
        yield moment, found


def _reader(
    layer: Layer, seen: Watch, moment: Moment, take: Callable[[Layer, Call, Moment], Any], text_first: bool
) -> Any:
    def read(output: Any) -> Any:
        call = seen.end(layer.site.module)
        if call is None or call.query.shape[1] != layer.heads:
            raise TedlensError(
                f"Attention {layer.name!r} does not go through torch's scaled_dot_product_attention, so its weights "
                "are not seen; give the pipeline diffusers' default processor (AttnProcessor2_0)."
            )
        if layer.kind == "joint":
            call = call.of_video(len(moment.covered) * layer.grid[0] * layer.grid[1], text_first)
        return take(layer, call, moment)

    return read
