"""One house style: colour-blind-safe (Okabe and Ito), light, readable at the width of a column."""

from __future__ import annotations

import plotly.colors
import plotly.graph_objects as go

from tedlens.metrics import names
from tedlens.plots.printing import FONT_PIXELS

COLOURS = {"motion": "#D55E00", "appearance": "#0072B2", "fused": "#009E73"}
NAMES = {"motion": "motion R<sub>m</sub>", "appearance": "appearance R<sub>a</sub>", "fused": "fused R<sub>f</sub>"}
OTHERS = ["#000000", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442"]
DASHES = {"motion": "solid", "appearance": "dash", "fused": "dot"}  # and readable without colour
DASHES_IN_TURN = ["solid", "dash", "dot"]
SYMBOLS_IN_TURN = ["circle", "square", "diamond", "triangle-up", "cross"]
SYMBOLS = {"motion": "circle", "appearance": "square", "fused": "diamond"}
AXES = {
    "tau": "noise level τ (training timestep)",
    "log_snr": "noise level (log SNR)",
    "lam": "weight of motion λ",
    "overlap": "overlap of windows (frames)",
    "top_k": "most similar cells (top-K)",
    "radius": "search radius (cells)",
    "radius_pixels": "search radius (pixels)",
    "n_last": "last frames used as references",
    "temperature": "temperature",
    "convention": "convention",
    "block": "block",
    "frame": "frame",
}
SEQUENTIAL = "Cividis"
DIVERGING = [(0, COLOURS["appearance"]), (0.5, "#F7F7F7"), (1, COLOURS["motion"])]
# In the order of the numbers that `tedlens.analysis.votes` gives.
KINDS = {
    "outcome": {
        "neither": "#000000",
        "appearance": COLOURS["appearance"],
        "motion": COLOURS["motion"],
        "both": "#E5E5E5",
    },
    "error": {"right": "#E5E5E5", "boundary": "#F0E442", "swap": "#CC79A7", "leak": "#000000", "spill": "#56B4E9"},
}
METRICS = {name: metric.html for name, metric in names.METRICS.items()}
PLAIN_METRICS = {name: metric.plain for name, metric in names.METRICS.items()}
FONT = {"family": "Arial, Helvetica, sans-serif", "size": FONT_PIXELS, "color": "#222222"}


def styled(figure: go.Figure, *, width: int, height: int) -> go.Figure:
    """The figure in house style, `width` by `height` pixels."""
    figure.update_layout(
        template="simple_white",
        width=width,
        height=height,
        font=FONT,
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 60, "r": 12, "t": 16, "b": 50},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "left", "x": 0},
    )
    return figure


def in_turn(number: int, count: int) -> str:
    """Colour of one of several lines: distinct ones for a few; for many, steps of a scale, in their order."""
    few = [*OTHERS, *COLOURS.values()]
    if count <= len(few):
        return few[number]
    red, green, blue = plotly.colors.sample_colorscale("Viridis", [number / (count - 1)], colortype="tuple")[0]
    return f"#{round(255 * red):02X}{round(255 * green):02X}{round(255 * blue):02X}"


def band_colour(colour: str, alpha: float = 0.18) -> str:
    """A colour such as ``#D55E00``, transparent, for a band of standard errors."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
