"""Curves, bars and heat maps: their traces hold the means and standard errors that were asked for."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr

from tedlens.errors import TedlensError
from tedlens.plots import decoding_curves, lambda_curve, overlap_bars, tau_block_map, tau_curve


def scores_over(**axes: list[object]) -> xr.Dataset:
    """Random scores over some axes and clip, seed, object and frame."""
    coords = {**axes, "clip": ["a", "b", "c"], "seed": [0, 1], "object": [1, 2], "frame": [1, 2, 3]}
    values = np.random.default_rng(3).random([len(v) for v in coords.values()])
    return xr.Dataset({name: (list(coords), values**p) for p, name in enumerate(("J", "F", "JF"), 1)}, coords=coords)


def expected(scores: xr.Dataset, metric: str, **cell: object) -> tuple[float, float]:
    """Mean and standard error over clips, in percent, by hand."""
    each = 100 * scores[metric].sel(cell).transpose("clip", ...).values.reshape(3, -1).mean(1)
    return each.mean(), each.std(ddof=1) / 3**0.5


def lines(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in figure.data if trace.fill is None}


def test_lambda_curve_draws_means_with_their_standard_errors() -> None:
    scores = scores_over(lam=[1.0, 0.0, 0.5], block=["up_1", "up_2"])
    figure = lambda_curve(scores, metric="J")
    assert set(lines(figure)) == {"up_1", "up_2"}
    for block, line in lines(figure).items():
        assert list(line.x) == [0, 0.5, 1]
        for place, lam in enumerate(line.x):
            assert (line.y[place], line.customdata[place]) == pytest.approx(expected(scores, "J", lam=lam, block=block))
    assert figure.layout.xaxis.title.text == "weight of motion λ"


def test_lines_say_which_axis_a_number_is_of() -> None:
    figure = tau_curve(scores_over(tau=[100, 900], lam=[0.0, 1.0]))
    assert list(lines(figure)) == ["weight of motion λ 0.0", "weight of motion λ 1.0"]


def test_tau_curve_over_log_snr_runs_towards_noise() -> None:
    scores = scores_over(tau=[0, 100, 999]).assign_coords(log_snr=("tau", [9.0, 4.0, -np.inf]))
    figure = tau_curve(scores, x="log_snr")
    (line,) = [trace for trace in figure.data if trace.fill is None]
    assert list(line.x) == [9, 4]  # pure noise has no place on this axis
    assert line.y[1] == pytest.approx(expected(scores, "JF", tau=100)[0])
    assert figure.layout.xaxis.autorange == "reversed"
    with pytest.raises(TedlensError, match=r"no 'log_snr' along tau; choose from tau\."):
        tau_curve(scores_over(tau=[0, 100]), x="log_snr")


def test_overlap_bars() -> None:
    scores = scores_over(overlap=[2, 0], features=["motion", "fused"])
    figure = overlap_bars(scores, metric="F")
    assert [bar.type for bar in figure.data] == ["bar", "bar"]
    for bar, kind in zip(figure.data, ("motion", "fused"), strict=True):
        assert list(bar.x) == ["0", "2"]
        for place, overlap in enumerate((0, 2)):
            mean, error = expected(scores, "F", overlap=overlap, features=kind)
            assert bar.y[place] == pytest.approx(mean)
            assert bar.error_y.array[place] == pytest.approx(error)
    assert figure.data[0].marker.line.color == "#D55E00"


def test_tau_block_map_frames_the_best_cell() -> None:
    scores = scores_over(block=["up_1", "up_2", "mid"], tau=[900, 100])
    figure = tau_block_map(scores)
    (heat,) = figure.data
    assert list(heat.x) == ["100", "900"]
    assert list(heat.y) == ["up_1", "up_2", "mid"]
    means = np.array([[expected(scores, "JF", block=b, tau=t)[0] for t in (100, 900)] for b in heat.y])
    np.testing.assert_allclose(heat.z, means)
    row, column = np.unravel_index(means.argmax(), means.shape)
    (frame,) = figure.layout.shapes
    assert (frame.x0 + frame.x1, frame.y0 + frame.y1) == (2 * column, 2 * row)


@pytest.mark.parametrize(
    ("draw", "axes", "axis"),
    [
        (lambda_curve, {"tau": [0, 1]}, "lam"),
        (overlap_bars, {"tau": [0, 1]}, "overlap"),
        (tau_block_map, {"tau": [0, 1]}, "block"),
        (tau_block_map, {"block": ["mid"]}, "tau"),
        (tau_curve, {"block": ["mid"]}, "tau"),
    ],
)
def test_the_axis_of_a_plot_must_be_there(draw: object, axes: dict[str, list[object]], axis: str) -> None:
    with pytest.raises(TedlensError, match=rf"no axis {axis}, only .*clip.*dim='{axis}'"):
        draw(scores_over(**axes))  # type: ignore[operator]


def test_tau_block_map_has_no_room_for_a_third_axis() -> None:
    with pytest.raises(TedlensError, match=r"over lam too; .*\.sel\(\)"):
        tau_block_map(scores_over(block=["mid"], tau=[0], lam=[0, 1]))


def test_decoding_curves_have_a_panel_for_each_target() -> None:
    values = np.random.default_rng(1).random((2, 3, 4))
    decoded = xr.Dataset(
        {"score": (("block", "tau", "target"), values), "error": (("block", "tau", "target"), values / 10)},
        coords={
            "block": ["up_1", "up_2"],
            "tau": [900, 0, 400],
            "target": ["velocity", "position", "colour", "identity"],
            "measure": ("target", ["R2", "R2", "R2", "accuracy"]),
        },
    )
    figure = decoding_curves(decoded)
    assert [a.text for a in figure.layout.annotations] == ["velocity", "position", "colour", "identity"]
    drawn = [trace for trace in figure.data if trace.fill is None]
    assert [trace.name for trace in drawn] == ["up_1", "up_2"] * 4
    assert [trace.showlegend for trace in drawn] == [True] * 2 + [False] * 6  # each block once
    fourth = drawn[7]
    assert (list(fourth.x), fourth.xaxis) == ([0, 400, 900], "x4")
    np.testing.assert_allclose(fourth.y, values[1, [1, 2, 0], 3])
    np.testing.assert_allclose(fourth.customdata, values[1, [1, 2, 0], 3] / 10)
    assert [shape.y0 for shape in figure.layout.shapes] == [0, 0, 0, 0.5]  # chance
    assert figure.layout.yaxis4.title.text == "accuracy"
