"""The settings of label propagation, as one object that is checked once and passed on as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from tedlens.errors import TedlensError

Convention = Literal["dift", "crw"]
Radius = int | Literal["grid"]
Upsample = Literal["dift", "argmax"]
PAPER_RADIUS, PAPER_ROWS = 15, 60  # of TED (NeurIPS 2025), table 4, on the grid of DAVIS at 480 pixels and stride 8


@dataclass(frozen=True)
class Propagation:
    """Settings of label propagation; by default those of TED's paper.

    Parameters
    ----------
    top_k
        Number of cells that vote for a cell.
    radius
        Number of cells from the centre of the window to each side. ``"grid"``: the paper's 15 for 60 rows, and in
        proportion on other grids, so that windows have the same size in the picture: 4 on the 16 rows of ``mini`` and
        ``mini-svd`` (`up_2`), 8 on the 32 rows of the image ``mini`` (`up_1`), 15 on the 60 rows of I2VGen-XL and SVD
        (`up_2`) and of ADM (`out_7`) at 480 pixels.
    n_last
        Number of most recent frames used as references, besides the first.
    temperature
        Temperature of the softmax that weighs the votes.
    convention
        ``"dift"`` (DIFT, DINO): the window is a square of +-radius cells, on every reference frame. The
        references are frame 0 and the last `n_last` frames; frame 0 counts once.
        ``"crw"`` (CRW, SFC): the window is a disc (distance < radius). Frame 0, as the long-term reference,
        is not restricted to the window. It also replaces each reference that would lie before the start.
    upsample
        How soft labels on the feature grid become masks at the size of the clip: bilinear to the input size of the
        model, argmax, nearest neighbour. ``"dift"`` (DIFT) normalises each label to 0..1 over the
        frame before the argmax, so that a faint object wins where it peaks; ``"argmax"`` does not.
    radius_pixels
        Radius of the window in pixels of the clip, instead of `radius`, so that all blocks and models see equally far.
        On each grid it is rounded to whole cells, at least 1.

    Raises
    ------
    TedlensError
        For a value out of range.
    """

    top_k: int = 10
    radius: Radius = "grid"
    n_last: int = 20
    temperature: float = 0.1
    convention: Convention = "dift"
    upsample: Upsample = "dift"
    radius_pixels: float | None = None

    def __post_init__(self) -> None:
        for name, words in (("convention", Convention), ("upsample", Upsample)):
            if getattr(self, name) not in get_args(words):
                known = " or ".join(map(repr, get_args(words)))
                raise TedlensError(f"{name}={getattr(self, name)!r} is not known; choose {known}.")
        if isinstance(self.radius, str) and self.radius != "grid":
            raise TedlensError(
                f"radius={self.radius!r} is not known; give a number of cells, or 'grid' to follow the grid."
            )
        for name in ("top_k", "radius", "n_last"):
            value = getattr(self, name)
            if not isinstance(value, str) and (int(value) != value or value < 1):
                raise TedlensError(f"{name}={value} is out of range; choose a whole number of at least 1.")
        if self.radius_pixels is not None and self.radius != "grid":
            raise TedlensError(
                f"radius={self.radius} and radius_pixels={self.radius_pixels:g} both say how far the window reaches; "
                "give one of the two."
            )
        if self.radius_pixels is not None and not 0 < self.radius_pixels < float("inf"):
            raise TedlensError(f"radius_pixels={self.radius_pixels} is out of range; choose a number above 0.")
        if not self.temperature > 0:
            raise TedlensError(f"temperature={self.temperature} is out of range; choose a number above 0.")

    def on(self, rows: int, height: float) -> Propagation:
        """The same settings with `radius` in cells, for a grid of `rows` rows over a clip of `height` pixels."""
        if self.radius_pixels is None:
            return replace(self, radius=self.reach(rows))
        return replace(self, radius=max(1, round(self.radius_pixels * rows / height)), radius_pixels=None)

    def reach(self, rows: int) -> int:
        """The radius in cells on a grid of `rows` rows."""
        if isinstance(self.radius, str):
            return max(1, round(PAPER_RADIUS * rows / PAPER_ROWS))
        return int(self.radius)

    def said(self) -> dict[str, Any]:
        """The settings by name, as attributes of results and as arguments."""
        return {name: value for name, value in asdict(self).items() if value is not None}


SETTINGS = tuple(each.name for each in fields(Propagation))


def check_lams(lams: Sequence[float]) -> None:
    """Check that there is at least one lambda, and that each is from 0 to 1."""
    if not len(lams):
        raise TedlensError("No lam is given; give at least one, from 0 (appearance only) to 1 (motion only).")
    for lam in lams:
        if not 0 <= lam <= 1:
            raise TedlensError(f"lam={lam} is out of range; choose 0 (appearance only) to 1 (motion only).")
