"""The paper's figures 6 to 8 on one benchmark."""

from __future__ import annotations

import plotly.graph_objects as go
import xarray as xr

from tedlens.benchmark.field import published
from tedlens.benchmark.field.asked import Asked, Found, along, at, first
from tedlens.benchmark.field.running import Method, loaded, swept
from tedlens.benchmark.similar import joined
from tedlens.errors import TedlensError
from tedlens.plots import lambda_curve, overlap_bars, tau_curve

TAUS, LAMS, OVERLAPS = tuple(range(0, 1000, 100)), tuple(i / 10 for i in range(11)), (0, 1, 2, 4)


def curve(found: Found, part: str) -> None:
    """Figure 6 (``noise``), 7 (``weight``) or 8 (``overlap``)."""
    asked = found.asked
    metric = "J" if asked.benchmark.title == "Kubric-Similar" else "JF"  # of that data set the paper reports J
    scores, figure = {"noise": _noise, "weight": _weight, "overlap": _overlap}[part](asked, metric)
    number = {"noise": 6, "weight": 7, "overlap": 8}[part]
    found.scores[part], found.figures[f"figure_{number}"] = scores, figure


def _noise(asked: Asked, metric: str) -> tuple[xr.Dataset, go.Figure]:
    kinds = {}
    for kind, models, word in (
        ("motion", asked.motions, "block"),
        ("appearance", asked.appearances, "appearance_block"),
    ):
        if models and loaded(models[0], word).levels > 1:
            given = {"motion": None, "appearance": None} | {kind: models[0]}
            method = Method.of({kind: float(kind == "motion")}, preset=asked.preset, said=asked.said, **given)
            scores = swept(asked.benchmark, asked.clips, method, asked.sweeps, client=asked.client, tau=list(TAUS))
            kinds[kind] = along(scores, "clip", "tau")
    if not kinds:
        raise TedlensError("Figure 6 needs a model with noise levels; give --motion or --appearance.")
    scores = joined("features", kinds)
    figure = tau_curve(scores, metric=metric)
    return scores, _marked(figure, published.BEST_TAU.get(asked.benchmark.title))


def _weight(asked: Asked, metric: str) -> tuple[xr.Dataset, go.Figure]:
    models = first(asked.motions, "--motion"), first(asked.appearances, "--appearance")
    scores = swept(asked.benchmark, asked.clips, asked.ted(*models), asked.sweeps, client=asked.client, lam=list(LAMS))
    scores = along(scores, "clip", "lam")
    return scores, _marked(lambda_curve(scores, metric=metric), published.BEST_LAM.get(asked.benchmark.title))


def _overlap(asked: Asked, metric: str) -> tuple[xr.Dataset, go.Figure]:
    motion = first(asked.motions, "--motion")
    appearance = asked.appearances[0] if asked.appearances else None
    window = loaded(motion, "block").window or 1
    each = {}
    for overlap in (overlap for overlap in OVERLAPS if overlap < window):
        method = asked.ted(motion, appearance, overlap=overlap)
        every = swept(asked.benchmark, asked.clips, method, asked.sweeps, client=asked.client)
        each[overlap] = at(every, next(iter(method.lams.values())))
    scores = joined("overlap", each)
    return scores, overlap_bars(scores, metric=metric)


def _marked(figure: go.Figure, best: float | None) -> go.Figure:
    """With a line where the paper has its best."""
    if best is not None:
        figure.add_vline(x=best, line={"color": "#777777", "width": 1, "dash": "dot"}, annotation_text="paper's best")
    return figure
