"""The split of votes into motion and appearance, against the definition: every cell with every cell."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import xarray as xr
from numpy.typing import NDArray

import tedlens as tl
from tedlens.analysis import decomposition, votes
from tedlens.errors import TedlensError
from tedlens.labels import on_grid

GRID = (5, 6)
SIZE = (10, 12)
FRAMES = 4
LAMS = [0.0, 0.2, 0.5, 0.77, 1.0]
FLAGS = ["right", "boundary", "swap", "leak", "spill"]


def features(seed: int, channels: int = 7, grid: tuple[int, int] = GRID) -> xr.DataArray:
    values = np.random.default_rng(seed).normal(size=(FRAMES, channels, *grid)).astype(np.float32)
    coords = {"frame": range(FRAMES), "y": 2.0 * np.arange(grid[0]) + 0.5, "x": 2.0 * np.arange(grid[1]) + 0.5}
    return xr.DataArray(values, dims=("frame", "channel", "y", "x"), coords={**coords, "tau": 600})


def masks(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).choice([0, 1, 3], (FRAMES, *SIZE)).astype(np.uint8)


def affinity(feats: xr.DataArray, t: int, r: int) -> NDArray[np.float64]:
    """Cosine of every cell of frame t with every cell of frame r."""
    a, b = (feats.values[f].reshape(feats.sizes["channel"], -1).astype(float) for f in (t, r))
    return (a / np.linalg.norm(a, axis=0)).T @ (b / np.linalg.norm(b, axis=0))


def references(t: int, n_last: int, convention: str) -> list[int]:
    if convention == "dift":
        return [0, *range(max(1, t - n_last), t)]
    return [max(0, r) for r in range(t - n_last, t)]


def best_match(
    m: xr.DataArray, a: xr.DataArray, labels: NDArray[np.uint8], t: int, o: int, lam: float, how: dict[str, object]
) -> NDArray[np.float64]:
    """Fused score of object o in each cell of frame t, by its definition."""
    y, x = np.divmod(np.arange(GRID[0] * GRID[1]), GRID[1])
    dy, dx = y[:, None] - y, x[:, None] - x
    radius = how["radius"]
    near = (abs(dy) <= radius) & (abs(dx) <= radius)
    if how["convention"] == "crw":
        near = dy**2 + dx**2 < radius**2
    seen = [(r, near) for r in references(t, how["n_last"], how["convention"])]
    if how["convention"] == "crw":
        seen.append((0, np.ones_like(near)))
    score = np.full(len(y), -(lam**2) - (1 - lam) ** 2)  # as if both similarities were -1
    for r, window in seen:
        fused = lam**2 * affinity(m, t, r) + (1 - lam) ** 2 * affinity(a, t, r)
        allowed = window & (on_grid(labels[r], GRID).ravel() == o)
        score = np.maximum(score, np.where(allowed, fused, -np.inf).max(1))
    return score.reshape(GRID)


@pytest.mark.parametrize(
    "how",
    [
        {"radius": 2, "n_last": 2, "convention": "dift"},
        {"radius": 1, "n_last": 20, "convention": "dift"},
        {"radius": 2, "n_last": 2, "convention": "crw"},
    ],
)
def test_parts_sum_to_the_best_fused_score_at_every_lambda(how: dict[str, object]) -> None:
    m, a, labels = features(0), features(1, channels=5), masks()
    found = decomposition(m, a, labels, **how)
    assert found["object"].values.tolist() == [0, 1, 3]
    for lam in LAMS:
        score = votes(found, lam)["score"]
        total = score.sum("part")
        for t, o in itertools.product(range(1, FRAMES), (0, 1, 3)):
            expected = best_match(m, a, labels, t, o, lam, how)
            np.testing.assert_allclose(total.sel(frame=t, object=o), expected, atol=2e-6)


def test_each_part_is_the_similarity_of_the_match_that_won() -> None:
    """Not any two numbers with that sum: the parts are one cell's A_m and A_a, weighted."""
    m, a, labels = features(0), features(1), masks()
    found = votes(decomposition(m, a, labels, radius=10, n_last=1), 0.4)["score"].sel(frame=1, object=3)
    there = on_grid(labels[0], GRID).ravel() == 3
    am, aa = affinity(m, 1, 0)[:, there], affinity(a, 1, 0)[:, there]
    best = (0.16 * am + 0.36 * aa).argmax(1)
    cells = np.arange(len(best))
    np.testing.assert_allclose(found.sel(part="motion").values.ravel(), 0.16 * am[cells, best], atol=2e-6)
    np.testing.assert_allclose(found.sel(part="appearance").values.ravel(), 0.36 * aa[cells, best], atol=2e-6)


def test_candidates_are_few() -> None:
    m, a = features(0, channels=3, grid=(12, 12)), features(1, channels=3, grid=(12, 12))
    found = decomposition(m, a, masks(), radius=12)
    assert 3 <= found.sizes["candidate"] <= 12  # of up to 144 matches in each of 3 references
    ordered = found["motion"].diff("candidate"), found["appearance"].diff("candidate")
    assert (ordered[0] <= 0).all()
    assert (ordered[1] >= 0).all()


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_labels_are_those_of_the_propagation_with_one_vote(lam: float) -> None:
    first = masks()[0]
    m, a = features(2), features(3)
    how = {"radius": 2, "n_last": 2}
    found = decomposition(m, a, first, lam=lam, top_k=1, **how)
    soft = tl.ted.propagate_labels(
        torch.from_numpy(tl.fuse(m, a, lam).values), tl.ted.one_hot(first, GRID)[0], top_k=1, temperature=0.1, **how
    )
    expected = np.array([0, 1, 3])[soft.argmax(1).numpy()]
    # References as the track has them, on its grid: full-size masks would be smoothed first.
    given = xr.DataArray(expected.astype(np.uint8)).values.repeat(2, 1).repeat(2, 2)
    again = votes(decomposition(m, a, given, **how), lam)
    np.testing.assert_array_equal(again["label"], expected[1:])
    assert found.attrs["lam"] == lam
    tracked = tl.propagate_fused(m, a, first, lam=lam, top_k=1, **how)[0].values
    np.testing.assert_array_equal(found["labels"], on_grid(tracked, GRID)[1:])


def planted() -> tuple[xr.DataArray, xr.DataArray, NDArray[np.uint8]]:
    """Three cells: background, object 1, object 2. Motion tells all apart; appearance mixes up the two objects."""
    labels = np.tile(np.array([[0, 1, 2]], np.uint8), (2, 1, 1))
    motion = np.tile(np.eye(3, dtype=np.float32)[None, :, None], (2, 1, 1, 1))  # frame, channel, y, x
    appearance = motion.copy()
    appearance[1, :, :, 1], appearance[1, :, :, 2] = motion[1, :, :, 2], motion[1, :, :, 1]
    dims = ("frame", "channel", "y", "x")
    coords = {"frame": [0, 1], "y": [0], "x": [0, 1, 2]}
    return xr.DataArray(motion, dims=dims, coords=coords), xr.DataArray(appearance, dims=dims, coords=coords), labels


def test_outcome_margin_and_share_of_a_planted_case() -> None:
    m, a, labels = planted()
    found = decomposition(m, a, labels)
    outcome = votes(found, 0.5)["outcome"]
    assert outcome.attrs["flag_meanings"] == "neither appearance motion both"
    assert outcome.values.ravel().tolist() == [3, 2, 2]  # both, motion, motion
    by_motion, by_appearance = votes(found, 0.9), votes(found, 0.2)
    assert by_motion["label"].values.ravel().tolist() == [0, 1, 2]
    assert by_appearance["label"].values.ravel().tolist() == [0, 2, 1]
    margin = by_motion["margin"].squeeze()  # part, x
    np.testing.assert_allclose(margin.sel(part="motion"), [0.81, 0.81, 0.81], atol=1e-6)
    np.testing.assert_allclose(margin.sel(part="appearance"), [0.01, -0.01, -0.01], atol=1e-6)
    np.testing.assert_allclose(by_motion["object_margin"].sel(frame=1, part="motion"), [0.81] * 3, atol=1e-6)
    np.testing.assert_allclose(by_motion["share"].values.ravel(), [0.81 / 0.82, 1, 1], atol=1e-6)
    assert by_appearance["error"].values.ravel().tolist() == [0, 1, 1]  # next to where their labels belong


def test_errors_are_told_apart() -> None:
    """A row of cells whose features lead each to a label that we choose."""
    truth = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 255], np.uint8)
    wanted = [0, 1, 1, 1, 2, 0, 2, 2, 0, 1, 2, 0]
    kinds = ["right", "spill", "boundary", "right", "swap", "leak", "boundary", "right", "leak", "swap", "right"]
    codes = np.eye(3, dtype=np.float32)
    values = np.stack([codes[np.minimum(truth, 2)], codes[wanted]])[:, None].transpose(0, 3, 1, 2)
    coords = {"frame": [0, 1], "y": [0], "x": range(len(truth))}
    feats = xr.DataArray(values, dims=("frame", "channel", "y", "x"), coords=coords)
    found = votes(decomposition(feats, feats, np.stack([truth, truth])[:, None], radius=12), 0.5)
    assert found["label"].values.ravel().tolist() == wanted
    assert found["error"].attrs["flag_meanings"].split() == FLAGS
    error = found["error"].values.ravel()
    assert [FLAGS[e] for e in error[:-1]] == kinds
    assert error[-1] == found["outcome"].values.ravel()[-1] == -1  # void
    assert np.isnan(found["margin"].values[..., -1]).all()


def test_without_truth_nothing_is_judged() -> None:
    m, a, labels = planted()
    found = votes(decomposition(m, a, labels[0]), 1)
    assert "outcome" not in found
    assert "error" not in found
    assert (found["margin"].sum("part") > 0).all()  # of the label that won
    judged = votes(decomposition(m, a, labels[0], truth=labels, lam=0), 0)
    assert judged["label"].values.ravel().tolist() == [0, 2, 1]
    assert judged["error"].values.ravel().tolist() == [0, 1, 1]


def test_an_object_out_of_sight_has_the_least_similarity() -> None:
    m, a, labels = planted()
    found = decomposition(m, a, labels, radius=1)
    assert (found["motion"].sel(object=2, x=0) == -1).all()
    assert (found["motion"].sel(object=2, x=1) > -1).all()


def test_there_is_no_margin_where_nothing_is_to_decide() -> None:
    """Cells in a row of background, background, 1, 1, all of which see their neighbours only."""
    labels = np.tile(np.array([[0, 0, 1, 1]], np.uint8), (2, 1, 1))
    feats = features(4).isel(frame=[0, 1], y=[0], x=slice(4))
    found = votes(decomposition(feats, feats, labels, radius=1), 0.5)
    assert np.isnan(found["margin"].isel(frame=0, y=0)).all("part").values.tolist() == [True, False, False, True]
    for o, x in ((0, 1), (1, 2)):
        assert (found["object_margin"].sel(object=o, frame=1) == found["margin"].isel(frame=0, y=0, x=x)).all()


def test_decomposition_survives_the_store(tmp_path) -> None:
    m, a, labels = planted()
    found = decomposition(m, a, labels)
    with xr.open_zarr(tl.save(found, tmp_path / "parts.zarr"), consolidated=False) as opened:
        xr.testing.assert_equal(votes(opened, 0.3).load(), votes(found, 0.3))


def test_decomposition_says_what_does_not_fit() -> None:
    m, a, labels = planted()
    with pytest.raises(TedlensError, match=r"mask has shape \(3, 1, 3\).*\(2, height, width\)"):
        decomposition(m, a, np.concatenate([labels, labels[:1]]))
    with pytest.raises(TedlensError, match=r"truth has shape \(1, 3\)"):
        decomposition(m, a, labels, truth=labels[0])
    with pytest.raises(TedlensError, match="frames 0, 1 and the appearance features frames 1, 2"):
        decomposition(m, a.assign_coords(frame=[1, 2]), labels)
    with pytest.raises(TedlensError, match="at least two"):
        decomposition(m.isel(frame=[0]), a.isel(frame=[0]), labels[:1])
    with pytest.raises(TedlensError, match=r"lam=1.5 is out of range"):
        votes(decomposition(m, a, labels), 1.5)
    with pytest.raises(TedlensError, match="radius=0 is out of range"):
        decomposition(m, a, labels, radius=0)
