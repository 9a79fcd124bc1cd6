"""Figures of attention: every weight where it belongs."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import tedlens as tl


@pytest.fixture(scope="module")
def clip() -> tl.Clip:
    made = tl.datasets.similar(1, frames=3, size=32)
    return tl.Clip(made.frames, made.masks)


def maps(clip: tl.Clip, dims: tuple[str, ...]) -> xr.DataArray:
    sizes = {"head": 2, "y": 4, "x": 4, "key_y": 4, "key_x": 4, "token": 5, "query": 2}
    shape = [sizes.get(dim, 3) for dim in dims]
    values = np.random.default_rng(0).random(shape)
    coords = {dim: np.arange(size) * (8 if dim[-1] in "yx" else 1) for dim, size in zip(dims, shape, strict=True)}
    if "query" in dims:
        del coords["query"]
        at = {"query_frame": [2, 0], "query_y": [3.0, 20.0], "query_x": [5.0, 9.0]}
        coords |= {name: ("query", value) for name, value in at.items()}
    from tedlens.provenance import clip_provenance

    return xr.DataArray(values, dims=dims, coords=coords, attrs=clip_provenance(clip))


def test_attention_over_frames_is_a_matrix_for_each_head(clip: tl.Clip) -> None:
    whole = maps(clip, ("head", "y", "x", "query_frame", "key_frame"))
    figure = tl.plots.attention_map(whole, clip)
    assert len(figure.data) == 2
    for head, chart in enumerate(figure.data):
        np.testing.assert_allclose(np.asarray(chart.z, float), whole.sel(head=head).mean(["y", "x"]))
    one = tl.plots.attention_map(whole.sel(y=8, x=16), clip)
    np.testing.assert_allclose(np.asarray(one.data[1].z, float), whole.sel(head=1, y=8, x=16))


def test_points_are_pictures_beside_the_clip(clip: tl.Clip) -> None:
    found = maps(clip, ("query", "head", "y", "x"))
    figure = tl.plots.attention_map(found, clip)
    charts = [trace for trace in figure.data if trace.type == "heatmap"]
    assert len(charts) == 4
    for number, chart in enumerate(charts):
        np.testing.assert_allclose(np.asarray(chart.z, float), found[number // 2, number % 2])
    marks = [trace for trace in figure.data if trace.type == "scatter"]
    assert {(mark.x[0], mark.y[0]) for mark in marks} == {(5, 3), (9, 20)}
    assert len([trace for trace in figure.data if trace.type == "image"]) == 2
    over_frames = maps(clip, ("query", "head", "frame"))
    matrices = tl.plots.attention_map(over_frames, clip).data
    np.testing.assert_allclose(np.asarray(matrices[1].z, float), over_frames[1])


def test_one_cell_of_a_full_map_and_one_token(clip: tl.Clip) -> None:
    within = maps(clip, ("head", "frame", "y", "x", "key_y", "key_x"))
    figure = tl.plots.attention_map(within.sel(y=0, x=8), clip)
    np.testing.assert_allclose(np.asarray(figure.data[4].z, float), within.sel(y=0, x=8)[1, 1])
    tokens = maps(clip, ("head", "frame", "y", "x", "token"))
    figure = tl.plots.attention_map(tokens.sel(token=3).mean("head", keep_attrs=True), clip)
    np.testing.assert_allclose(np.asarray(figure.data[2].z, float), tokens.sel(token=3).mean("head")[2])
    for many in (within, tokens):
        with pytest.raises(tl.TedlensError, match="not two axes and a picture"):
            tl.plots.attention_map(many, clip)


def test_a_map_of_heads(clip: tl.Clip) -> None:
    values = np.array([[[0.2, 0.4], [0.9, np.nan]], [[0, 0], [0, 0]]])
    statistics = xr.Dataset(
        {"accuracy": (("tau", "layer", "head"), values)}, {"tau": [1, 2], "layer": ["a", "b"], "head": [0, 1]}
    )
    figure = tl.plots.head_map(statistics.sel(tau=[1]))
    assert figure.data[0].z.tolist() == [[0.2, 0.4], [0.9, None]]
    assert list(figure.data[0].y) == ["a", "b"]
    with pytest.raises(tl.TedlensError, match="choose one with"):
        tl.plots.head_map(statistics)
    with pytest.raises(tl.TedlensError, match="statistic='entropy' is not known"):
        tl.plots.head_map(statistics, "entropy")
