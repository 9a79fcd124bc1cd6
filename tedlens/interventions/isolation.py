"""Attention over all of a video, limited to each frame alone or to its neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tedlens.errors import TedlensError
from tedlens.interventions.sites import Site, attentions_in, sites
from tedlens.models.acting import Act, Acts, Intervention, Moment, acting
from tedlens.models.base import DiffusionModel


@dataclass(frozen=True)
class Isolation(Intervention):
    """Attention in which each frame attends only to frames near to it. See `ablate`.

    Attributes
    ----------
    reach
        Number of frames that a frame sees before itself, and after itself; 0: only itself. Frames are those of the
        model's layers.
    """

    layers: tuple[str, ...]
    reach: int = 0

    def said(self) -> dict[str, Any]:
        return {"ablate": {"layers": list(self.layers), "reach": self.reach}}

    def check(self, model: DiffusionModel) -> None:
        if isinstance(self.reach, bool) or not isinstance(self.reach, int) or self.reach < 0:
            raise TedlensError(f"reach={self.reach!r} is no number of frames; choose 0 (each alone), 1, 2, ..")
        self._attentions(model)

    def prepare(self, view: Any, before: tuple[Intervention, ...]) -> list[tuple[Any, int]]:
        """Each attention, and the number of cells in a frame."""
        found = self._attentions(view.model)
        return [(site.module, prod(view.point(site.point.path).grid)) for site in found]

    def acts(self, model: DiffusionModel, moment: Moment | None, ready: list[tuple[Any, int]]) -> Acts:
        return ()

    @contextmanager
    def around(self, model: DiffusionModel, moment: Moment, ready: list[tuple[Any, int]]) -> Iterator[None]:
        apart = _Apart(len(moment.covered), self.reach, model.text_first)
        begun = [(module.to_q, apart.begin(cells)) for module, cells in ready]
        with apart, acting([*begun, *((module, apart.end()) for module, _ in ready)]):
            yield

    def covers(self, model: DiffusionModel, path: str) -> bool:
        """Whether the attention at `path` is one of those that are limited."""
        return any(site.point.path == path for site in self._attentions(model))

    def _attentions(self, model: DiffusionModel) -> list[Site]:
        found = [
            site
            for site in attentions_in(model, sites(model, self.layers))
            if site.point.layout == "sequence" and not getattr(site.module, "is_cross_attention", False)
        ]
        if not found:
            raise TedlensError(
                f"There is no attention over all of a video in {', '.join(self.layers)}, so no frame is to be kept to "
                "itself; name layers with one ('**.attn1' of a transformer), or leave reach out."
            )
        return found


class _Apart(TorchFunctionMode):
    """Computes torch's attention frame by frame, inside the chosen attentions."""

    def __init__(self, frames: int, reach: int, text_first: bool) -> None:
        super().__init__()
        self.frames, self.reach, self.text_first = frames, reach, text_first
        self.cells: int | None = None  # in a frame; None outside of the chosen attentions

    def begin(self, cells: int) -> Act:
        def act(given: Tensor, output: Tensor) -> None:
            self.cells = cells

        return act

    def end(self) -> Act:
        def act(given: Tensor, output: Tensor) -> None:
            self.cells = None

        return act

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention and self.cells is not None:
            return self._attend(self.cells, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attend(
        self, cells: int, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **how: Any
    ) -> Tensor:
        """Each frame attends to frames within reach and to text; text only to text, so that it carries nothing over."""
        tokens, video = query.shape[2], self.frames * cells
        first = tokens - video if self.text_first else 0
        text = torch.arange(0, first) if self.text_first else torch.arange(video, tokens)
        looks = [(text, text)] if len(text) else []
        for frame in range(self.frames):
            near = range(max(0, frame - self.reach), min(self.frames, frame + self.reach + 1))
            seen = torch.arange(near.start * cells, near.stop * cells) + first
            looks.append((torch.arange(frame * cells, (frame + 1) * cells) + first, torch.cat([seen, text])))
        output = torch.empty_like(query)
        for rows, columns in looks:
            mask = None if attn_mask is None else attn_mask.expand(*attn_mask.shape[:-1], tokens)[..., columns]
            if mask is not None and mask.shape[-2] == tokens:
                mask = mask[..., rows, :]
            output[:, :, rows] = F.scaled_dot_product_attention(
                query[:, :, rows], key[:, :, columns], value[:, :, columns], attn_mask=mask, **how
            )
        return output
