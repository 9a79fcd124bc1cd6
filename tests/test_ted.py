"""Fusion and propagation against their definitions, written out plainly here."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from definitions import dense_labels, window_mask
from hypothesis import given, settings
from hypothesis import strategies as st

import tedlens as tl
from tedlens.probing import noise_levels
from tedlens.ted import (
    Propagation,
    full_size_labels,
    fuse_features,
    one_hot,
    propagate_labels,
    propagation,
    unit,
)
from tedlens.ted.settings import SETTINGS


def defined(feats: torch.Tensor, first: torch.Tensor, top_k: int, radius: int, n_last: int, T: float, how: str) -> Any:
    """The field's way, cell by cell: the full affinity to every reference, masked, in float64."""
    frames, _, height, width = feats.shape
    f = feats.double().flatten(2)
    y, x = (g.flatten() for g in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    dy, dx = y[:, None] - y[None], x[:, None] - x[None]
    if how == "dift":
        near = (dy.abs() <= radius) & (dx.abs() <= radius)
    else:
        near = (dy**2 + dx**2).double().sqrt() < radius
    soft = [first.double().flatten(1)]
    for t in range(1, frames):
        if how == "dift":
            references = [(0, True)] + [(s, True) for s in range(max(1, t - n_last), t)]
        else:
            references = [(0, False)] + [(max(0, s), True) for s in range(t - n_last, t)]
        sims, labels = [], []
        for r, windowed in references:
            sim = f[t].T @ f[r]  # query, key
            sims.append(torch.where(near, sim, -torch.inf) if windowed else sim)
            labels.append(soft[r])
        sim, label = torch.cat(sims, 1), torch.cat(labels, 1)
        best, where = sim.topk(min(top_k, sim.shape[1]), 1)
        weight = torch.exp(best / T)
        weight = weight / weight.sum(1, keepdim=True)
        soft.append((label[:, where] * weight).sum(-1))
    return torch.stack(soft).unflatten(2, (height, width))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 19), st.integers(1, 19)),
    objects=st.integers(1, 3),
    top_k=st.integers(1, 40),
    radius=st.integers(1, 25),
    n_last=st.integers(1, 6),
    temperature=st.sampled_from([0.05, 0.1, 0.2]),
    convention=st.sampled_from(["dift", "crw"]),
    seed=st.integers(0, 2**31),
)
def test_propagation_equals_the_definition(
    shape: tuple[int, ...],
    objects: int,
    top_k: int,
    radius: int,
    n_last: int,
    temperature: float,
    convention: Any,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Up to five times longer than one channel: random directions, so that ties do not occur.
    feats = unit(torch.randn(shape[0], shape[1] + 2, *shape[2:], generator=generator))
    first = torch.rand(objects, *shape[2:], generator=generator)
    ours = propagate_labels(
        feats,
        first,
        top_k=top_k,
        radius=radius,
        n_last=n_last,
        temperature=temperature,
        convention=convention,
    )
    theirs = defined(feats, first, top_k, radius, n_last, temperature, convention)
    # At a near tie float32 may choose another key than float64, with weights alike to the rounding.
    close = torch.isclose(ours.double(), theirs, atol=1e-5)
    assert close.float().mean() > 0.999 or (ours - theirs).abs().max() < 1e-3


@pytest.mark.parametrize(("grid", "radius", "top_k"), [((13, 20), 4, 10), ((9, 30), 12, 5), ((5, 6), 9, 500)])
def test_propagation_equals_the_fields_own_way(grid: tuple[int, int], radius: int, top_k: int) -> None:
    generator = torch.Generator().manual_seed(2)
    feats = unit(torch.randn(6, 7, *grid, generator=generator))
    first = torch.rand(3, *grid, generator=generator)
    cells, theirs = feats.flatten(2), [first.flatten(1)]
    for t in range(1, 6):
        references = [0, *range(max(1, t - 3), t)]
        mask = window_mask(*grid, radius).repeat(len(references), 1, 1)
        labels = torch.stack([theirs[r] for r in references])
        theirs.append(dense_labels(cells[t].T, cells[references], labels, mask, top_k, 0.1))
    ours = propagate_labels(feats, first, radius=radius, top_k=top_k, n_last=3).flatten(2)
    torch.testing.assert_close(ours, torch.stack(theirs), atol=1e-5, rtol=0)
    assert torch.equal(ours.argmax(1), torch.stack(theirs).argmax(1))


@settings(max_examples=40, deadline=None)
@given(
    frames=st.integers(1, 4),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    cell=st.integers(1, 4),
    radius=st.integers(1, 30),
    top_k=st.integers(1, 200),
    ids=st.sets(st.sampled_from([0, 1, 3, 7, 254, 255]), min_size=1),
    upsample=st.sampled_from(["dift", "argmax"]),
    convention=st.sampled_from(["dift", "crw"]),
    seed=st.integers(0, 2**31),
)
def test_any_first_mask_becomes_labels(
    frames: int,
    grid: tuple[int, int],
    cell: int,
    radius: int,
    top_k: int,
    ids: set[int],
    upsample: Any,
    convention: Any,
    seed: int,
) -> None:
    """Ids with gaps and void, objects too small for the grid, more asked for than there is."""
    size = (grid[0] * cell, grid[1] * cell)
    mask = np.random.default_rng(seed).choice(np.array(sorted(ids), np.uint8), size)
    given_features = features(frames, 3, grid).assign_attrs(input_size=list(size))
    labels = tl.propagate(given_features, mask, radius=radius, top_k=top_k, upsample=upsample, convention=convention)
    assert labels.shape == (frames, *size)
    np.testing.assert_array_equal(labels[0], np.where(mask == 255, 0, mask))
    first, found = one_hot(mask, grid)
    # What no cell of the grid shows cannot come back.
    shown = {0} | {number for number, cells in zip(found, first[1:], strict=True) if cells.any()}
    assert set(np.unique(labels[1:])) <= shown


@settings(max_examples=30, deadline=None)
@given(
    frames=st.integers(1, 5),
    broken=st.integers(0, 4),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    part=st.sampled_from(["motion", "appearance"]),
    kind=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_features_that_are_not_finite_name_their_frame(
    frames: int, broken: int, value: float, part: str, kind: Any
) -> None:
    broken = broken % frames
    good, bad = features(frames).astype(kind), features(frames).astype(kind)
    bad[broken, 1, 2, 3] = value
    mask = np.ones((24, 32), np.uint8)
    with pytest.raises(tl.TedlensError, match=f"frame {broken} hold NaN or infinite"):
        tl.propagate(bad, mask)
    with pytest.raises(tl.TedlensError, match=f"frame {broken} hold NaN or infinite"):
        tl.propagate_fused(*((bad, good) if part == "motion" else (good, bad)), mask, lam=[0.5])


def test_memory_budget_and_half_precision_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(5)
    feats = unit(torch.randn(4, 6, 21, 18, generator=generator))
    first = torch.rand(2, 21, 18, generator=generator)
    whole = propagate_labels(feats, first, radius=4)
    half = propagate_labels(feats.bfloat16(), first, radius=4)
    torch.testing.assert_close(half, propagate_labels(feats.bfloat16().float(), first, radius=4))
    monkeypatch.setattr(propagation, "BUDGET", 1)  # one tile at a time
    torch.testing.assert_close(propagate_labels(feats, first, radius=4), whole)


@pytest.mark.parametrize("convention", ["dift", "crw"])
def test_many_lambdas_at_once_equal_each_alone(convention: Any) -> None:
    motion, appearance = features(4, 5, (9, 12)), features(4, 3, (6, 8)) ** 3  # on another grid
    mask = np.zeros((36, 48), np.uint8)
    mask[8:20, 10:24], mask[20:30, 30:44] = 1, 3
    how: dict[str, Any] = {"radius": 3, "top_k": 4, "convention": convention}
    lams = [0, 0.3, 0.5, 1]
    together = tl.propagate_fused(motion, appearance, mask, lam=lams, **how)
    assert together.dims == ("lam", "frame", "y", "x")
    for lam in lams:
        alone = tl.propagate(tl.fuse(motion, appearance, lam=lam), mask, **how)
        np.testing.assert_array_equal(together.sel(lam=lam), alone)
    assert len({together.sel(lam=lam).values.tobytes() for lam in lams}) > 1
    with pytest.raises(tl.TedlensError, match="lam=2"):
        tl.propagate_fused(motion, appearance, mask, lam=2)
    with pytest.raises(tl.TedlensError, match="No lam"):
        tl.propagate_fused(motion, appearance, mask, lam=[])


@pytest.mark.parametrize("convention", ["dift", "crw"])
def test_references_may_have_keys_of_their_own(convention: Any) -> None:
    """Query-key matching is the definition on features whose dot product is that of query and key."""
    generator = torch.Generator().manual_seed(3)
    query, key = torch.randn(2, 4, 5, 7, 9, generator=generator)
    first = torch.rand(2, 7, 9, generator=generator)
    how: dict[str, Any] = {"top_k": 5, "radius": 3, "n_last": 1, "convention": convention}
    ours = propagate_labels(query, first, keys=key, **how)
    # A frame as seen from frame 1 has its query, and frame 0 its key.
    mixed = torch.stack([key[0], query[1]])
    torch.testing.assert_close(ours[:2], propagate_labels(mixed, first, **how))
    assert not torch.allclose(ours[1], propagate_labels(query, first, **how)[1])
    queries, keys = features(3, 4), features(3, 4) ** 3
    mask = np.zeros((24, 32), np.uint8)
    mask[4:12, 4:12] = 1
    labels = tl.propagate(queries, mask, keys=keys.assign_attrs(block="up_2.to_k"), radius=3)
    assert labels.attrs["keys"] == "up_2.to_k"
    with pytest.raises(tl.TedlensError, match="do not fit features"):
        tl.propagate(queries, mask, keys=features(3, 5))


def test_plain_argmax_does_not_lift_a_faint_label() -> None:
    soft = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1).repeat(1, 1, 4, 4)
    soft[0, 1, 2, 2] = 0.3  # the object, faint everywhere
    assert full_size_labels(soft, (4, 4), (4, 4), "argmax").sum() == 0
    assert full_size_labels(soft, (4, 4), (4, 4))[0, 2, 2] == 1
    with pytest.raises(tl.TedlensError, match="upsample='nearest'"):
        full_size_labels(soft, (4, 4), (4, 4), "nearest")  # type: ignore[arg-type]


def test_dift_and_crw_differ() -> None:
    feats, first = unit(torch.randn(4, 8, 9, 9, generator=torch.Generator().manual_seed(0))), torch.rand(2, 9, 9)
    a, b = (propagate_labels(feats, first, radius=3, convention=c) for c in ("dift", "crw"))
    assert not torch.allclose(a[1], b[1])


def test_a_moving_pattern_is_followed() -> None:
    """Cells of unmistakable features that move one cell a frame carry their labels along."""
    feats = torch.zeros(6, 5, 8, 8)
    feats[:, 0] = 1
    first = torch.zeros(3, 8, 8)
    first[0] = 1
    for channel, (y, way) in enumerate(((2, 1), (5, -1)), start=1):
        for t in range(6):
            x = (1 if way == 1 else 6) + way * t
            feats[t, :, y, x] = 0
            feats[t, channel, y, x] = 1
        first[:, y, 1 if way == 1 else 6] = 0
        first[channel, y, 1 if way == 1 else 6] = 1
    soft = propagate_labels(feats, first, top_k=1, radius=2, n_last=2)
    hard = soft.argmax(1)
    assert hard[5, 2, 6] == 1
    assert hard[5, 5, 1] == 2
    assert int((hard[5] > 0).sum()) == 2


def test_fused_affinity_splits_exactly() -> None:
    """A_f = lam^2 A_m + (1 - lam)^2 A_a, the identity that makes lambda free."""
    generator = torch.Generator().manual_seed(1)
    m, a = torch.randn(2, 6, 4, 5, generator=generator), torch.randn(2, 3, 4, 5, generator=generator)
    for lam in (0.0, 0.3, 1.0):
        fused = fuse_features(m, a, lam)

        def affinity(f: torch.Tensor) -> torch.Tensor:
            return f[1].flatten(1).T @ f[0].flatten(1)

        expected = lam**2 * affinity(unit(m)) + (1 - lam) ** 2 * affinity(unit(a))
        torch.testing.assert_close(affinity(fused), expected, atol=1e-6, rtol=1e-5)


def test_appearance_is_resampled_to_the_grid_of_motion() -> None:
    fused = fuse_features(torch.randn(2, 3, 4, 6), torch.randn(2, 5, 8, 12), 0.5)
    assert fused.shape == (2, 8, 4, 6)
    torch.testing.assert_close(fused[:, 3:].norm(dim=1), torch.full((2, 4, 6), 0.5))


def test_one_hot_keeps_gaps_and_leaves_out_void() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:4, :4], mask[4:, :4], mask[:, 6:] = 7, 3, 255
    first, ids = one_hot(mask, (4, 4))
    assert ids == [3, 7]
    assert first.shape == (3, 4, 4)
    assert first[1, 3, 0] == first[2, 0, 0] == first[0, 0, 2] == 1
    assert first[:, 0, 3].sum() == 0  # void


def test_full_size_labels_normalise_each_channel() -> None:
    """A faint object wins where it peaks: DIFT's min-max normalisation."""
    soft = torch.zeros(1, 2, 4, 4)
    soft[0, 0] = 0.9
    soft[0, 0, 1, 1] = 0.85
    soft[0, 1, 1, 1] = 0.1
    hard = full_size_labels(soft, (4, 4), (8, 8))
    assert hard.shape == (1, 8, 8)
    assert hard[0, 2:4, 2:4].eq(1).all()
    assert int(hard.sum()) == 4


def features(frames: int = 3, channels: int = 4, grid: tuple[int, int] = (6, 8)) -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=(frames, channels, *grid)).astype(np.float32)
    return xr.DataArray(
        values,
        dims=("frame", "channel", "y", "x"),
        coords={"frame": range(frames), "y": np.arange(grid[0]) * 4 + 1.5, "x": np.arange(grid[1]) * 4 + 1.5},
        attrs={"input_size": [24, 32]},
    )


def test_labels_are_at_the_clips_size_with_the_masks_ids() -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[:20, :30], mask[30:, 40:] = 3, 7
    labels = tl.propagate(features(), mask, radius=2)
    assert labels.dims == ("frame", "y", "x")
    assert labels.shape == (3, 48, 64)
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {0, 3, 7}
    assert np.array_equal(labels[0], mask)  # what was given stays
    assert labels.attrs["radius"] == 2


def test_propagate_normalises_features_but_not_their_fusion() -> None:
    mask = np.zeros((24, 32), np.uint8)
    mask[:12, :12] = 1
    plain = features()
    assert np.array_equal(tl.propagate(plain, mask), tl.propagate(plain * 100, mask))
    fused = tl.fuse(plain, plain, lam=0.8)
    assert np.allclose(np.linalg.norm(fused.sel(channel=fused["part"] == "motion"), axis=1), 0.8, atol=1e-6)
    assert fused.attrs["lam"] == 0.8


def test_fusing_with_nothing_of_the_other_is_the_one() -> None:
    mask = np.zeros((24, 32), np.uint8)
    mask[:12, :12] = 1
    m, a = features(), features(channels=3)
    assert np.array_equal(tl.propagate(tl.fuse(m, a, lam=1), mask), tl.propagate(m, mask))
    assert np.array_equal(tl.propagate(tl.fuse(m, a, lam=0), mask), tl.propagate(a, mask))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"top_k": 0}, "top_k=0"),
        ({"radius": 0}, "radius=0"),
        ({"n_last": 0}, "n_last=0"),
        ({"temperature": 0.0}, "temperature=0"),
        ({"convention": "dino"}, "'dino'"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(tl.TedlensError, match=words):
        tl.propagate(features(), np.ones((24, 32), np.uint8), **wrong)


def test_other_wrong_inputs() -> None:
    mask = np.ones((24, 32), np.uint8)
    with pytest.raises(tl.TedlensError, match=r"\.sel\(tau"):
        tl.propagate(features().expand_dims(tau=[1, 2]), mask)
    with pytest.raises(tl.TedlensError, match=r"\(H, W\)"):
        tl.propagate(features(), mask[None])
    with pytest.raises(tl.TedlensError, match=r"lam=1\.5"):
        tl.fuse(features(), features(), lam=1.5)
    with pytest.raises(tl.TedlensError, match="frames 0 to 2 and the appearance features frames 1 to 3"):
        tl.fuse(features(), features().assign_coords(frame=[1, 2, 3]))
    broken = features()
    broken[1, 0, 2, 2] = np.nan
    with pytest.raises(tl.TedlensError, match="frame 1"):
        tl.propagate(broken, mask)


# --- objects that enter later ---------------------------------------------------------------------


@pytest.mark.parametrize("convention", ["dift", "crw"])
@pytest.mark.parametrize("entering", [1, 2, 4])
def test_an_object_that_enters_starts_there(convention: Any, entering: int) -> None:
    """By the definition: labels up to its frame without it, then its cells put in, and on from there."""
    generator = torch.Generator().manual_seed(3)
    feats = unit(torch.randn(6, 5, 7, 9, generator=generator))
    masks = np.zeros((6, 7, 9), np.uint8)
    masks[0, :3, :3] = 4
    masks[entering, 4:6, 5:8] = 2
    masks[entering, 0, 0] = 4  # of what was seen before nothing is taken
    masks[5, 6, 0] = 2
    how: dict[str, Any] = {"top_k": 5, "radius": 3, "n_last": 3, "temperature": 0.1}
    first = torch.stack([torch.from_numpy(masks[0] == n).float() for n in (0, 2, 4)])
    entry = torch.zeros(3, 7, 9)
    entry[1, 4:6, 5:8] = 1
    soft = propagate_labels(feats, first, entries={entering: entry}, convention=convention, **how)
    before = defined(feats[: entering + 1], first, 5, 3, 3, 0.1, convention)
    torch.testing.assert_close(soft[:entering].double(), before[:entering], atol=1e-5, rtol=1e-5)
    assert soft[:entering, 1].abs().max() == 0
    there = entry.sum(0) > 0
    torch.testing.assert_close(
        soft[entering].double(), torch.where(there, entry.double(), before[entering]), atol=1e-5, rtol=1e-5
    )
    labels = tl.ted.label_clip(feats, masks, (7, 9), tl.ted.Propagation(convention=convention, **how))
    assert (labels[:entering] != 2).all()
    assert (labels[entering][there.numpy()] == 2).all()
    assert (labels[entering + 1 :] == 2).any() or entering == 4


@pytest.mark.parametrize("convention", ["dift", "crw"])
def test_tracking_starts_where_the_first_mask_is(convention: Any) -> None:
    masks = np.full((6, 24, 32), 255, np.uint8)
    masks[2] = 0
    masks[2, :10, :12] = 3
    masks[4, 14:, 20:] = 7  # beside void
    masks[4, 14:, :20] = 0
    whole = tl.propagate(features(6), masks, radius=2, n_last=1, convention=convention)
    part = tl.propagate(features(6)[2:], masks[2:], radius=2, n_last=1, convention=convention)
    assert (whole[:2] == 0).all()
    np.testing.assert_array_equal(whole[2:], part)
    assert {3, 7} <= set(np.unique(part))
    both = tl.propagate_fused(features(6), features(6), masks, lam=[1.0], radius=2, convention=convention)
    np.testing.assert_array_equal(
        both[0, 2:], tl.propagate(features(6)[2:], masks[2:], radius=2, convention=convention)
    )


def test_a_first_mask_without_an_object_is_background() -> None:
    masks = np.full((4, 24, 32), 255, np.uint8)
    masks[0] = 0
    masks[1, :12, :12] = 5
    masks[1, 12:] = 0
    labels = tl.propagate(features(4), masks, radius=2)
    assert (labels[0] == 0).all()
    assert (labels[1:] == 5).any(["y", "x"]).all()
    assert (labels[1:] == 0).any(["y", "x"]).all()


def test_masks_of_all_frames_change_nothing_where_nobody_enters() -> None:
    masks = np.zeros((3, 24, 32), np.uint8)
    masks[:, :10, :12], masks[0, 14:, 20:], masks[2, :, 30:] = 3, 7, 255
    one, all_of_them = (tl.propagate(features(), given, radius=2) for given in (masks[0], masks))
    xr.testing.assert_identical(one, all_of_them)
    both = [tl.propagate_fused(features(), features(), given, lam=[0.3], radius=2) for given in (masks[0], masks)]
    xr.testing.assert_identical(*both)


@pytest.mark.parametrize("wrong", [1001, 2048, -1])
def test_ids_out_of_range_are_refused_everywhere(wrong: int) -> None:
    mask = np.zeros((24, 32), np.int64)
    mask[:8, :8] = wrong
    for call in (
        lambda: tl.propagate(features(), mask),
        lambda: tl.propagate_fused(features(), features(), mask, lam=0.5),
        lambda: tl.analysis.decomposition(features(), features(), mask),
        lambda: tl.analysis.decomposition(features(), features(), np.stack([mask] * 3)),
    ):
        with pytest.raises(tl.TedlensError, match=str(wrong)):
            call()


def test_an_object_that_no_cell_sees_is_named() -> None:
    mask = np.zeros((24, 32), np.uint8)
    mask[:12, :12], mask[16, 16] = 1, 9
    with pytest.warns(UserWarning, match=r"Object 9 \(1x1 pixels\) .* cell \(4x4 pixels\)"):
        tl.propagate(features(), mask)


# --- labels, not positions ------------------------------------------------------------------------


def probed(clip: str = "a") -> xr.DataArray:
    """Features that say of what clip they are, as `probe` gives them."""
    return features(6).assign_attrs(clip=clip, clip_sha256=clip, clip_shape=[6, 24, 32], input_size=[24, 32])


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(6)), rows=st.permutations(range(6)), columns=st.permutations(range(8)))
def test_the_order_of_labels_does_not_matter(order: list[int], rows: list[int], columns: list[int]) -> None:
    mask = np.zeros((24, 32), np.uint8)
    mask[:12, :12], mask[14:, 20:] = 1, 2
    mixed = probed().isel(frame=order, y=rows, x=columns)
    expected = tl.propagate(probed(), mask, radius=2)
    xr.testing.assert_equal(tl.propagate(mixed, mask, radius=2), expected)
    xr.testing.assert_allclose(tl.fuse(mixed, probed()), tl.fuse(probed(), probed()))
    both = tl.propagate_fused(probed(), mixed, mask, lam=[0.5], radius=2)
    xr.testing.assert_equal(both, tl.propagate_fused(probed(), probed(), mask, lam=[0.5], radius=2))


def test_a_part_is_matched_by_its_labels_and_the_rest_refused() -> None:
    part = probed().isel(frame=slice(2, 5))
    fused = tl.fuse(probed(), part)
    assert fused["frame"].values.tolist() == [2, 3, 4]
    xr.testing.assert_allclose(fused, tl.fuse(part, part))
    mask = np.ones((24, 32), np.uint8)
    shifted = probed().assign_coords(frame=range(1, 7))
    for call in (
        lambda: tl.fuse(probed(), shifted),
        lambda: tl.propagate_fused(probed(), shifted, mask, lam=0.5),
        lambda: tl.analysis.decomposition(probed(), shifted, mask),
        lambda: tl.propagate(probed(), mask, keys=shifted),
        lambda: tl.analysis.similarity(probed(), frame=1, y=2, x=3, appearance=shifted),
    ):
        with pytest.raises(tl.TedlensError, match=r"0 to 5 and the .*1 to 6"):
            call()
    for call in (
        lambda: tl.fuse(probed(), probed("b")),
        lambda: tl.propagate_fused(probed(), probed("b"), mask, lam=0.5),
        lambda: tl.analysis.decomposition(probed(), probed("b"), mask),
        lambda: tl.propagate(probed(), mask, keys=probed("b")),
    ):
        with pytest.raises(tl.TedlensError, match=r"clip 'a' and the .* of clip 'b'"):
            call()
    for cropped in (probed().isel(y=slice(1, None)), probed().isel(x=slice(0, 5))):
        for call in (lambda: tl.propagate(cropped, mask), lambda: tl.fuse(probed(), cropped)):  # noqa: B023
            with pytest.raises(tl.TedlensError, match="whole frame"):
                call()
    with pytest.raises(tl.TedlensError, match=r"12x32 .* of a clip of 24x32"):
        tl.propagate(probed(), mask[:12])


def test_pictures_and_features_of_another_clip_are_refused() -> None:
    one, other = (tl.datasets.similar(seed, frames=4, size=32) for seed in (0, 1))
    model = tl.load_image_model("mini")
    feats = tl.probe(model, one, tau=51, blocks="up_0", size=32)
    features = feats["up_0"].to_dataset()["features"].isel(tau=0, seed=0)
    labels = tl.propagate(features, one.masks)
    matches = tl.analysis.decomposition(features, features, one.masks)
    similar = tl.analysis.similarity(features, frame=0, y=5, x=5)
    for call in (
        lambda clip: tl.plots.tracks(labels, clip),
        lambda clip: tl.plots.decomposition(tl.analysis.votes(matches, 0.5), clip),
        lambda clip: tl.plots.similarity_map(similar.assign_attrs(features.attrs | similar.attrs), clip),
        lambda clip: tl.plots.pca_map(feats, clip),
        lambda clip: tl.analysis.object_features(feats, clip),
    ):
        call(one)
        with pytest.raises(tl.TedlensError, match="whose frames are not those of 'similar-cross-1'"):
            call(other)


@pytest.mark.parametrize(
    "function",
    [tl.propagate, tl.propagate_fused, tl.track, tl.sweep, tl.analysis.decomposition],
    ids=lambda function: function.__name__,
)
def test_every_signature_says_the_same_settings(function: Any) -> None:
    taken = inspect.signature(function).parameters
    assert {name: taken[name].default for name in SETTINGS} == {n: getattr(Propagation(), n) for n in SETTINGS}


def test_settings_follow_the_grid() -> None:
    assert [Propagation().on(rows, 480).radius for rows in (60, 32, 16, 2)] == [15, 8, 4, 1]
    assert Propagation(radius=3).on(60, 480) == Propagation(radius=3)
    how = Propagation(radius_pixels=40)
    assert [how.on(rows, 480) for rows in (60, 32, 4)] == [Propagation(radius=radius) for radius in (5, 3, 1)]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"radius": 4, "radius_pixels": 32.0}, "radius=4 and radius_pixels=32 both say how far the window reaches"),
        ({"radius_pixels": 0}, "radius_pixels=0 is out of range"),
        ({"radius_pixels": float("nan")}, "radius_pixels=nan is out of range"),
    ],
)
def test_one_window_is_given(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(tl.TedlensError, match=words):
        Propagation(**wrong)


def test_a_window_in_pixels_is_the_same_everywhere() -> None:
    """By each entrance, on two grids: pixels of the clip in place of cells, whatever size the model sees it in."""
    clip = tl.datasets.similar(0, frames=4, size=64)
    assert clip.masks is not None
    model = tl.load_video_model("mini")
    feats = tl.probe(model, clip, tau=100, blocks=["up_1", "up_2"])
    radius = {"up_1": 3, "up_2": 6}  # of 8 and of 16 rows
    for block, cells in radius.items():
        one = feats[block]["features"].squeeze(["tau", "seed"])
        labels = tl.propagate(one, clip.masks, radius_pixels=23)
        xr.testing.assert_identical(labels, tl.propagate(one, clip.masks, radius=cells))
        assert labels.attrs["radius"] == cells
        assert "radius_pixels" not in labels.attrs
        how: dict[str, Any] = {"motion": model, "lam": 1, "tau": 100, "block": block}
        np.testing.assert_array_equal(tl.track(clip, radius_pixels=23, **how)["labels"], labels)
        np.testing.assert_array_equal(tl.propagate_fused(one, one, clip.masks, lam=1, radius_pixels=23)[0], labels)
        matches = tl.analysis.decomposition(one, one, clip.masks, radius_pixels=23)
        xr.testing.assert_identical(matches, tl.analysis.decomposition(one, one, clip.masks, radius=cells))
        query = xr.Dataset({"x": ("query", [30.0]), "y": ("query", [30.0]), "frame": ("query", [0])})
        points = tl.propagate_points(one, query, radius_pixels=23)
        xr.testing.assert_identical(points, tl.propagate_points(one, query, radius=cells))
    sweep: dict[str, Any] = {"motion": model, "tau": 100, "progress": False}
    scores = tl.sweep(clip, blocks=list(radius), radius_pixels=[23, 8], **sweep)
    assert scores["JF"].dims == ("clip", "block", "tau", "seed", "radius_pixels", "object", "frame")
    for block, cells in radius.items():
        apart = tl.sweep(clip, blocks=block, radius=cells, **sweep)["JF"].squeeze("block")
        np.testing.assert_array_equal(scores["JF"].sel(block=block, radius_pixels=23), apart)


def test_a_window_in_pixels_takes_the_place_of_a_presets() -> None:
    clip = tl.datasets.similar(0, frames=3, size=32)
    how: dict[str, Any] = {"appearance": "mini", "preset": "dift-adm", "appearance_block": "up_0", "size": 32}
    how["appearance_samples"] = 1
    assert [tl.track(clip, **how, **more).attrs["radius"] for more in ({}, {"radius_pixels": 4})] == [15, 1]


@pytest.mark.parametrize(("name", "value"), [("tau", 550), ("sigma", 2.0), ("log_snr", -1.0)])
def test_a_noise_level_is_said_in_three_ways(name: str, value: float) -> None:
    model = tl.load_video_model("mini")
    clip = tl.datasets.similar(0, frames=4, size=32)
    [tau] = noise_levels(model, **{"tau": None, "sigma": None, "log_snr": None, name: value})  # type: ignore[arg-type]
    labels = tl.track(clip, motion=model, lam=1, size=32, **{name: value})
    assert labels.attrs["motion_tau"] == tau
    scores = tl.sweep(clip, motion=model, blocks="up_2", size=32, progress=False, **{name: [value]})
    assert scores["tau"].values.tolist() == [tau]
    assert clip.masks is not None
    again = tl.evaluate(labels, clip.masks)
    np.testing.assert_array_equal(again["J"], scores["J"].squeeze())
