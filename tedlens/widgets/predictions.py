"""What models take a clip to be, by noise level and frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tedlens.clip import Clip
from tedlens.models.registry import Model, as_model
from tedlens.plots.predictions import prediction_curves, prediction_strip
from tedlens.predicting import noisy_input, predicted, scored
from tedlens.probing import Draw, Prepared, as_list
from tedlens.widgets.explorer import LABELS, WIDE, Explorer, choice, explained, frame_controls, side_for
from tedlens.widgets.live import LiveFigure

CURVES = 460  # width of the curves beside the pictures


def prediction_explorer(
    models: Model | Mapping[str, Model], clip: Clip, *, tau: Sequence[int], seed: int = 0
) -> Explorer:
    """The clip, the noisy input, and what models take it to be; beside them how near that is over noise levels.

    Sliders go through noise levels and frames, a button plays the clip, and a click on a curve goes to its noise
    level. All is computed when the explorer is made: a forward a window, noise level and model.

    Parameters
    ----------
    models
        A model, or several by names to show, such as ``{"intact": motion, "cut": tl.ablate(motion, ..)}``.
    clip
        The clip.
    tau
        Noise levels (training timesteps).
    seed
        Seed of the noise.

    Returns
    -------
    A widget. What does not fit is said in it, in one sentence.
    """
    return explained(lambda: PredictionExplorer(models, clip, as_list(tau), seed))


class PredictionExplorer(Explorer):
    """Controls ``tau``, ``frame`` and ``play`` over the figures ``pictures`` and ``curves``."""

    def __init__(self, models: Model | Mapping[str, Model], clip: Clip, taus: list[int], seed: int) -> None:
        super().__init__()
        self.clip = clip
        # A mapping with a name is a model by its arguments.
        several = isinstance(models, Mapping) and "name" not in models
        named: Mapping[str, Model] = models if several else {"prediction": models}  # type: ignore[assignment]
        self.shown: dict[int, dict[str, Clip]] = {tau: {} for tau in taus}
        self.scores = {}
        inputs: dict[int, Clip] = {}
        for name, model in named.items():
            prepared = Prepared(as_model(model), clip)
            draws = [Draw(prepared.model.check_tau(tau), seed) for tau in taus]
            by_tau = [predicted(prepared, draw) for draw in draws]
            for draw, prediction in zip(draws, by_tau, strict=True):
                noisy = noisy_input(prepared, draw)
                first = inputs.setdefault(draw.tau, noisy)
                if first is noisy:
                    self.shown[draw.tau]["noisy input"] = noisy
                elif not np.array_equal(first.frames, noisy.frames):  # another schedule, or another VAE
                    self.shown[draw.tau][f"input of<br>{name}"] = noisy
                self.shown[draw.tau][name] = prediction
            self.scores[name] = scored(prepared, [[each] for each in by_tau], taus, [seed])
        self.tau = choice("τ", taus)
        self.frame, self.play = frame_controls(0, len(clip) - 1)
        self.pictures, self.curves = LiveFigure(), LiveFigure(self.go_to)
        click = "Click a point of a curve to see the pictures of its noise level."
        self.arrange([self.tau, self.play, self.frame], [self.pictures, self.curves], click=click)

    def draw(self) -> None:
        tau, frame = self.tau.value, self.frame.value
        self.pictures.show_figure((tau, frame), lambda: self._pictures(tau, frame))
        self.curves.show_figure(tau, lambda: self._curves(tau))

    def _pictures(self, tau: int, frame: int) -> go.Figure:
        shown = self.shown[tau]
        side = side_for(self.clip, rows=1 + len(shown), wide=WIDE - CURVES - LABELS)
        return prediction_strip(self.clip, shown, frames=[frame], side=side)

    def _curves(self, tau: int) -> go.Figure:
        scores = self.scores if len(self.scores) > 1 else next(iter(self.scores.values()))
        return prediction_curves(scores, tau=tau).update_layout(width=CURVES)

    def go_to(self, trace: Any, x: float, y: float) -> None:
        self.tau.value = int(x)
