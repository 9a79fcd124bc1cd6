"""CKA against its definition, and what it must and must not see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import tedlens as tl


def features(seed: int, channels: int = 6, grid: tuple[int, int] = (5, 6), frames: int = 3) -> xr.DataArray:
    values = np.random.default_rng(seed).normal(size=(frames, channels, *grid))
    return xr.DataArray(values, {"frame": np.arange(frames)}, ("frame", "channel", "y", "x"))


def defined(one: xr.DataArray, other: xr.DataArray) -> float:
    """The unbiased estimate written out, sample by sample, without centring."""

    def hsic(k: Any, m: Any) -> float:
        n = len(k)
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        ones = np.ones(n)
        trace = np.trace(k @ m) + ones @ k @ ones * (ones @ m @ ones) / ((n - 1) * (n - 2))
        return float((trace - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3)))

    x, y = (
        each.transpose("frame", "y", "x", "channel").values.reshape(-1, each.sizes["channel"]) for each in (one, other)
    )
    a, b = x @ x.T, y @ y.T
    return hsic(a, b) / (hsic(a, a) * hsic(b, b)) ** 0.5


def test_cka_is_its_definition() -> None:
    one = features(0)
    other = one * 0.5 + features(1)
    found = tl.analysis.cka({"one": one, "other": other})
    assert float(found.sel(first="one", second="other")) == pytest.approx(defined(one, other), abs=1e-6)
    assert found.values == pytest.approx(found.values.T)
    assert np.diag(found) == pytest.approx(1)
    assert 0.05 < float(found[0, 1]) < 0.95


def test_turns_scale_and_shift_change_nothing_and_chance_is_nought() -> None:
    one = features(0, channels=40)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(40, 40)))[0]
    turned = one.copy(data=np.einsum("fcyx,cd->fdyx", one.values, turn) * 7 + 3)
    found = tl.analysis.cka({"one": one, "turned": turned, "chance": features(5, channels=200)})
    assert float(found.sel(first="one", second="turned")) == pytest.approx(1, abs=1e-5)
    # The biased estimate would say 0.7 here, for there are more channels than cells.
    assert abs(float(found.sel(first="one", second="chance"))) < 0.1


def test_grids_meet_at_the_coarsest_and_cells_are_drawn_alike() -> None:
    coarse = features(0, grid=(4, 4))
    fine = coarse.isel(y=np.repeat(range(4), 2), x=np.repeat(range(4), 3))
    found = tl.analysis.cka({"coarse": coarse, "fine": fine}, cells=20, seed=1)
    assert float(found[0, 1]) == pytest.approx(1, abs=1e-6)
    assert (found.attrs["cells"], found.attrs["grid"]) == (20, [4, 4])
    still = tl.analysis.cka({"coarse": coarse, "still": coarse * 0})
    assert np.isnan(still.sel(second="still")).all()


def test_of_a_probe_and_its_map() -> None:
    clip = tl.datasets.similar(seed=0, frames=4, size=32)
    feats = tl.probe("mini", clip, tau=[100, 900], blocks=["up_1", "up_2"])
    each = {f"{b}, {t}": feats[b]["features"].sel(tau=t) for b in ("up_1", "up_2") for t in (100, 900)}
    found = tl.analysis.cka(each)
    figure = tl.plots.cka_map(found)
    assert list(figure.data[0].x) == list(each)
    assert np.asarray(figure.data[0].z) == pytest.approx(found.values)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no features to compare"),
        ({"a": features(0), "b": features(0).isel(frame=[0, 1])}, "other frames than 'a'"),
        ({"a": features(0), "b": features(0).isel(y=0)}, "'b' have axes"),
        ({"a": features(0).assign_attrs(clip_sha256="1"), "b": features(0).assign_attrs(clip_sha256="2")}, "of clip"),
        ({"a": features(0, grid=(1, 1))}, "3 cells are too few"),
        ({"a": features(0) * np.nan}, "NaN"),
    ],
)
def test_what_cannot_be_is_said(given: dict[str, xr.DataArray], said: str) -> None:
    with pytest.raises(tl.TedlensError, match=said):
        tl.analysis.cka(given)
    with pytest.raises(tl.TedlensError, match="cka_map draws"):
        tl.plots.cka_map(features(0))
