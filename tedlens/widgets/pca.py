"""What a block holds at a noise level, as colours, and where a pixel is found again."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import xarray as xr

from tedlens.analysis.features import blocks_of, check_clip, choose, choose_block
from tedlens.analysis.similarity import similarity, with_fused
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.media import overlay
from tedlens.plots.maps import LEGEND, similarity_map
from tedlens.plots.pictures import Images, chosen_frames, panels, pca_colours, picture
from tedlens.widgets.explorer import (
    LABELS,
    WIDE,
    Explorer,
    choice,
    drop_down,
    explained,
    first_query,
    frame_controls,
    lambda_slider,
    open_tree,
    side_for,
)
from tedlens.widgets.live import LiveFigure

PICTURES, SIMILARITIES = 190, 270  # room for their heights
KEPT = 2  # cells of the store that are held in memory at once

Cell = tuple[str, int, int]  # block, tau, seed
Features = xr.DataTree | xr.DataArray | str | Path


def pca_explorer(feats: Features, clip: Clip, *, appearance: Features | None = None) -> Explorer:
    """PCA maps of any block, noise level and seed, and the similarity of a clicked pixel to all others.

    Sliders choose the cell and the frame, and a button plays the clip. Colours mean the same in all frames, and
    at choice at all noise levels; their basis is fitted on all pixels or on objects only. A click on a picture
    shows where that pixel is found again: by these features and, with `appearance`, by those and by both.

    Parameters
    ----------
    feats
        From `probe`, or the path where they were saved: they are then read as they are needed.
    clip
        The clip that was probed; with masks, objects are drawn and can be fitted on.
    appearance
        Features (of one tau, block and seed) of an image model for the same clip, or their path.

    Returns
    -------
    A widget. What does not fit is said in it, in one sentence.
    """
    return explained(lambda: PCAExplorer(feats, clip, appearance))


class PCAExplorer(Explorer):
    """Controls ``block``, ``tau``, ``seed``, ``frame``, ``play``, ``basis``, ``fit`` and ``lam``.

    They stand over the figures ``pictures`` and ``similarities``.
    """

    def __init__(self, feats: Features, clip: Clip, appearance: Features | None) -> None:
        super().__init__()
        self.feats, self.clip = open_tree(feats, "features"), clip
        self.appearance = None if appearance is None else _one_cell(open_tree(appearance, "features"))
        first = choose_block(self.feats, None)
        check_clip(first, clip)
        self.block = choice("block", list(blocks_of(self.feats)))
        self.block.value = self.block.options[-1]
        self.tau, self.seed = choice("τ", first["tau"].values), choice("seed", first["seed"].values)
        self.frame, self.play = frame_controls(0, len(clip) - 1)
        self.basis = drop_down("colours of", ["this τ", "all τ"])
        self.fit = drop_down("fitted on", ["all pixels", "objects"])
        self.lam = lambda_slider()
        self.pixel = first_query(clip)
        self.frame.value = self.pixel[0]
        # Whole features are large; colours and similarities are not.
        self.features = lru_cache(KEPT)(self._features)
        self.colours = lru_cache(256)(self._colours)
        self.similar = lru_cache(256)(self._similar)
        self.pictures, self.similarities = LiveFigure(self.look_for), LiveFigure()
        controls = [self.block, self.tau, self.seed, self.play, self.frame, self.basis]
        controls += [self.fit] if clip.masks is not None else []
        controls += [self.lam] if self.appearance is not None else []
        click = "Click a pixel to see how similar all others are to it; a cross marks the most similar of each frame."
        self.arrange(controls, [self.pictures], [self.similarities], click=click)

    def draw(self) -> None:
        cell = (self.block.value, self.tau.value, self.seed.value)
        shown = (cell, self.basis.value, self.fit.value, self.frame.value)
        self.pictures.show_figure(shown, lambda: self._pictures(*shown))
        pixel = (cell, self.pixel, self.lam.value)
        self.similarities.show_figure(pixel, lambda: self._similarities(*pixel))

    def _pictures(self, cell: Cell, basis: str, fit: str, frame: int) -> go.Figure:
        size = (self.clip.height, self.clip.width)
        shown = {"clip": self.clip.frames[frame]}
        if self.clip.masks is not None:
            shown["masks"] = overlay(self.clip.frames[[frame]], self.clip.masks[[frame]])[0]
        shown["PCA"] = self.colours(*cell, basis, fit)[frame]
        side = side_for(self.clip, columns=len(shown), high=PICTURES)
        return panels([("", [[picture(image, size)] for image in shown.values()])], list(shown), size, side=side)

    def _similarities(self, cell: Cell, pixel: tuple[int, float, float], lam: float) -> go.Figure:
        found = self.similar(*cell, *pixel)
        if self.appearance is not None:
            found = with_fused(found, lam)
        columns = len({*chosen_frames(len(self.clip), None), pixel[0]})  # the query's own frame is among them
        room = {"wide": WIDE - LABELS - LEGEND, "high": SIMILARITIES}
        side = side_for(self.clip, columns=columns, rows=1 + found.sizes["part"], **room)
        return similarity_map(found, self.clip, side=side)

    def look_for(self, trace: Any, x: float, y: float) -> None:
        """Show the similarity of the pixel at x, y of the frame on show."""
        self.pixel = (self.frame.value, float(y), float(x))
        self.explain(self.draw)

    def _features(self, block: str, tau: int, seed: int) -> xr.DataArray:
        chosen = choose(choose(choose_block(self.feats, block), "tau", tau), "seed", seed)
        return chosen.load()

    def _colours(self, block: str, tau: int, seed: int, basis: str, fit: str) -> Images:
        masks = self.clip.masks if fit == "objects" else None
        if basis == "this τ":
            return pca_colours(self.features(block, tau, seed), masks)
        return self._colours_of_all(block, seed, fit)[tau]

    def _colours_of_all(self, block: str, seed: int, fit: str) -> dict[int, Images]:
        features = choose(choose_block(self.feats, block), "seed", seed)
        masks = self.clip.masks if fit == "objects" else None
        of_all = pca_colours(features.transpose("tau", "frame", ...), masks)
        return dict(zip(features["tau"].values.tolist(), of_all, strict=True))

    def _similar(self, block: str, tau: int, seed: int, frame: int, y: float, x: float) -> xr.DataArray:
        return similarity(self.features(block, tau, seed), self.appearance, frame=frame, y=y, x=x)


def _one_cell(feats: xr.DataTree | xr.DataArray) -> xr.DataArray:
    """Appearance features of one tau and seed, loaded."""
    features = choose_block(feats, None)
    for axis in ("tau", "seed"):
        if features.sizes.get(axis, 1) > 1:
            raise TedlensError(
                f"The appearance features have {features.sizes[axis]} values of {axis}; "
                f"choose one with .sel({axis}=...)."
            )
    return features.load()
