"""Where the query of a clicked pixel looks, by layer, head and noise level."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import plotly.graph_objects as go
import xarray as xr

from tedlens.align import check_of_clip
from tedlens.attending import attention, head_statistics
from tedlens.attending.watching import layers_of
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.media import overlay
from tedlens.models.registry import Model, as_model
from tedlens.plots.attention import attention_map, head_map, mark
from tedlens.plots.pictures import panels, picture
from tedlens.probing import as_list
from tedlens.widgets.explorer import (
    HIGH,
    WIDE,
    Explorer,
    choice,
    drop_down,
    explained,
    first_query,
    frame_controls,
    side_for,
)
from tedlens.widgets.live import LiveFigure

ALL, MEAN = "all", "mean of all"
ACCURACY = "accuracy"
QUERY = 270  # room for the picture with the query


def attention_explorer(
    maps: xr.DataArray | Sequence[xr.DataArray] | Model,
    clip: Clip,
    *,
    tau: int | Sequence[int] | None = None,
    layers: str | Sequence[str] | None = None,
    seed: int = 0,
) -> Explorer:
    """Where the query of a clicked pixel looks: over frames, within its frame, or to tokens, as the layer does.

    Layer, noise level, head and frame are chosen above. With a model each query is computed when it is first asked
    for, one forward a window, so that layers of any size can be explored; below, all heads of all layers stand with
    their matching accuracy (or, of a clip without masks, their entropy), and a click on one chooses it.

    Parameters
    ----------
    maps
        From `tl.attention`, of all queries: one result or several, of different layers or noise levels. Or a model, or
        its name, to ask.
    clip
        The clip that was looked at.
    tau, layers
        Of a model: noise levels, and names or patterns of layers that are or hold attentions, as for
        `tl.head_statistics`.
    seed
        Of a model: seed of the noise.

    Returns
    -------
    A widget. What does not fit is said in it, in one sentence.
    """
    return explained(lambda: AttentionExplorer(_source(maps, clip, tau, layers, seed), clip))


class Source(Protocol):
    """Something to ask for weights."""

    layers: list[str]
    taus: list[int]
    computes: bool  # which takes time

    def weights(self, layer: str, tau: int, frame: int, y: float, x: float) -> xr.DataArray:
        """Of a query by its pixel: (head, key_frame), (head, y, x) or (head, token)."""

    def heads(self, tau: int) -> xr.Dataset | None:
        """Statistics of all heads, if there are any."""


class AttentionExplorer(Explorer):
    """Controls ``layer``, ``tau``, ``head``, ``frame`` and ``play`` over the figures ``query``, ``maps``, ``heads``."""

    def __init__(self, source: Source, clip: Clip) -> None:
        super().__init__()
        self.source, self.clip = source, clip
        self.layer, self.tau = choice("layer", source.layers), choice("τ", source.taus)
        self.head = drop_down("head", [ALL, MEAN])
        self.frame, self.play = frame_controls(0, len(clip) - 1)
        self.frame.value, *self.pixel = first_query(clip)
        self.weights = lru_cache(256)(source.weights)
        self.query, self.maps, self.heads = LiveFigure(self.look_from), LiveFigure(), LiveFigure(self.choose_head)
        rows = [[self.query, self.heads], [self.maps]] if source.computes else [[self.query, self.maps]]
        click = "Click a pixel of the clip to see where its query looks"
        click += ", or a head on the right to see it alone." if source.computes else "."
        self.arrange([self.layer, self.tau, self.head, self.play, self.frame], *rows, click=click)

    def draw(self) -> None:
        at = (self.frame.value, *self.pixel)
        self.query.show_figure(at, lambda: self._query(*at))
        asked = (self.layer.value, self.tau.value, *at)
        if self.source.computes:
            self.say("The model runs ..")
        weights = self.weights(*asked)
        self._offer([ALL, MEAN, *weights["head"].values.tolist()])
        self.maps.show_figure((asked, self.head.value), lambda: self._maps(weights))
        if self.source.computes:
            self.heads.show_figure(self.tau.value, self._heads)

    def _query(self, frame: int, y: float, x: float) -> go.Figure:
        shown, size = self.clip.frames[[frame]], (self.clip.height, self.clip.width)
        if self.clip.masks is not None:
            shown = overlay(shown, self.clip.masks[[frame]])
        return panels(
            [("", [[picture(shown[0], size), mark(y, x)]])],
            [f"frame {frame}"],
            size,
            side=side_for(self.clip, wide=QUERY, high=QUERY),
        )

    def _maps(self, weights: xr.DataArray) -> go.Figure:
        if self.head.value == MEAN:
            weights = weights.mean("head").expand_dims(head=["mean"])
        elif self.head.value != ALL:
            weights = weights.sel(head=[self.head.value])
        side = side_for(self.clip, columns=weights.sizes["head"], wide=WIDE - 20, high=HIGH - QUERY - 60)
        return attention_map(weights, self.clip, side=side)

    def _heads(self) -> go.Figure:
        found = self.source.heads(self.tau.value)
        assert found is not None
        statistic = ACCURACY if found[ACCURACY].notnull().any() else "entropy"
        found = found.dropna("layer", how="all", subset=[statistic])
        figure = head_map(found, statistic)
        layers = found["layer"].values.tolist()
        names = [name.replace(".transformer_blocks.", " ") for name in layers]
        figure.update_yaxes(tickvals=layers, ticktext=names, tickfont_size=11)
        height = max(QUERY, 60 + 16 * len(layers))
        return figure.update_layout(width=WIDE - QUERY - 30, height=height, margin={"l": 40 + 6 * max(map(len, names))})

    def _offer(self, heads: list[str | int]) -> None:
        """The heads of this layer, and of them the one chosen before, where there is one of its number."""
        if list(self.head.options) != heads:
            chosen = self.head.value if self.head.value in heads else ALL
            self.head.options = heads  # which chooses the first
            self.head.value = chosen

    def look_from(self, trace: object, x: float, y: float) -> None:
        """Show where the pixel at x, y of the frame on show looks."""
        self.pixel = [float(y), float(x)]
        self.explain(self.draw)

    def choose_head(self, trace: object, x: Any, y: Any) -> None:
        """Show one head, x, of one layer, y."""
        self.layer.value = y
        if int(x) in self.head.options:
            self.head.value = int(x)


# --- where weights come from ----------------------------------------------------------------------


def _source(
    given: xr.DataArray | Sequence[xr.DataArray] | Model,
    clip: Clip,
    tau: int | Sequence[int] | None,
    layers: str | Sequence[str] | None,
    seed: int,
) -> Source:
    if isinstance(given, xr.DataArray):
        return Given([given], clip)
    if isinstance(given, Sequence) and not isinstance(given, str):
        return Given(given, clip)
    if tau is None or layers is None:
        raise TedlensError(
            "To look into a model, give attention_explorer() tau= and layers=, such as tau=[200, 800], "
            'layers="up_2.temp_attentions.*".'
        )
    return Asked(given, clip, as_list(tau), [layers] if isinstance(layers, str) else list(layers), seed)


class Given:
    """Results of `tl.attention`."""

    computes = False

    def __init__(self, maps: Sequence[xr.DataArray], clip: Clip) -> None:
        for one in maps:
            if not isinstance(one, xr.DataArray) or not {"layer", "tau", "kind"} <= set(one.attrs):
                raise TedlensError("These are no maps of attention; give what tl.attention() gives, or a model.")
            check_of_clip(one, clip, "maps")
            if "query" in one.dims or not {"head", "y", "x"} <= set(one.dims):
                raise TedlensError(
                    f"The maps of {one.attrs['layer']!r} are not of all heads and queries; give tl.attention(..) "
                    "without query= and as it is, or a model, which is asked for each query."
                )
        self.maps = {(str(one.attrs["layer"]), int(one.attrs["tau"])): one for one in maps}
        self.layers, self.taus = [list(dict.fromkeys(each)) for each in zip(*self.maps, strict=True)]

    def weights(self, layer: str, tau: int, frame: int, y: float, x: float) -> xr.DataArray:
        if (layer, tau) not in self.maps:
            known = ", ".join(str(t) for name, t in self.maps if name == layer)
            raise TedlensError(f"There are no maps of {layer!r} at tau {tau}; those at {known} were given.")
        maps = self.maps[layer, tau]
        frames = "query_frame" if "query_frame" in maps.dims else "frame"
        return maps.sel({frames: frame}).sel(y=y, x=x, method="nearest")

    def heads(self, tau: int) -> None:
        return None


class Asked:
    """A model, run when something new is asked for."""

    computes = True

    def __init__(self, model: Model, clip: Clip, taus: list[int], layers: list[str], seed: int) -> None:
        self.model, self.clip, self.seed = as_model(model), clip, seed
        self.taus = [self.model.check_tau(tau) for tau in taus]
        self.layers = [layer.name for layer in layers_of(self.model, layers)]
        self.heads = lru_cache(None)(self._heads)

    def weights(self, layer: str, tau: int, frame: int, y: float, x: float) -> xr.DataArray:
        found = attention(self.model, self.clip, tau, layer, seed=self.seed, query=[(frame, y, x)])
        return found.isel(query=0, drop=True)

    def _heads(self, tau: int) -> xr.Dataset:
        return head_statistics(self.model, self.clip, tau, self.layers, seed=self.seed)
