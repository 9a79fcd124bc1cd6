"""Statistics of scores: means with errors and intervals that cover, paired comparisons, choices on other clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import tedlens as tl
from tedlens.analysis import best_cell, clip_statistics, paired_difference

RNG = np.random.default_rng


def scores(values: np.ndarray[Any, Any], dims: tuple[str, ...], **coords: Any) -> xr.Dataset:
    return xr.Dataset({"JF": (dims, values)}, coords)


def clips(number: int) -> list[str]:
    return [f"clip {i}" for i in range(number)]


def test_a_clip_counts_once() -> None:
    """Whatever its number of objects, frames and seeds; missing ones are NaN."""
    values = np.full((2, 2, 2, 3), np.nan)
    values[0, :, 0] = 0.2  # one object in three frames
    values[1, :, :, :2] = [[[0.4], [0.8]], [[0.6], [1.0]]]  # two objects in two frames, two seeds
    found = clip_statistics(scores(values, ("clip", "seed", "object", "frame"), clip=clips(2)), interval=0.95)
    assert float(found["mean"]) == pytest.approx((0.2 + 0.7) / 2)
    assert float(found["error"]) == pytest.approx(np.std([0.2, 0.7], ddof=1) / np.sqrt(2))
    assert 0.2 - 1e-9 <= found["low"] < found["mean"] < found["high"] <= 0.7 + 1e-9


def test_intervals_cover_as_often_as_they_say() -> None:
    """400 samples of 20 clips from a skewed distribution: the true mean lies in about 90 % of the intervals."""
    truth = RNG(1).beta(2, 5, size=(20, 400))
    found = clip_statistics(scores(truth, ("clip", "cell"), clip=clips(20)), interval=0.9)
    covered = float(((found["low"] <= 2 / 7) & (found["high"] >= 2 / 7)).mean())
    assert 0.84 < covered < 0.94
    again = clip_statistics(scores(truth, ("clip", "cell"), clip=clips(20)), interval=0.9)
    xr.testing.assert_identical(found, again)


def test_intervals_of_what_does_not_vary_or_is_not_there() -> None:
    values = np.array([[0.5, np.nan, 0.1], [0.5, np.nan, np.nan], [0.5, 0.3, 0.4]])
    found = clip_statistics(scores(values, ("clip", "tau"), clip=clips(3), tau=[1, 2, 3]), interval=0.95)
    assert found["low"][0] == found["high"][0] == 0.5
    assert np.isnan(found["low"][1])
    assert found["low"][2] < 0.25 < found["high"][2]


def test_pairing_sees_what_clips_hide() -> None:
    """Clips differ by 0.2, the two by 0.02 on each clip: only paired it shows."""
    random = RNG(2)
    hard = random.normal(0.5, 0.2, 30)
    first = scores(hard + 0.02 + random.normal(0, 0.01, 30), ("clip",), clip=clips(30), tau=600)
    second = scores(hard + random.normal(0, 0.01, 30), ("clip",), clip=clips(30), tau=51)
    found = paired_difference(first, second)
    assert 0.01 < float(found["low"]) < float(found["mean"]) < float(found["high"]) < 0.03
    assert float(found["mean"]) == pytest.approx(float((first["JF"] - second["JF"].drop_vars("tau")).mean()))
    apart = clip_statistics(first, interval=0.95)
    assert float(apart["low"]) < float(second["JF"].mean())
    # In another order, and with clips that the other lacks.
    shuffled = second.isel(clip=random.permutation(30)[:20])
    some = paired_difference(first, shuffled)
    assert int(some["clips"]) == 20
    assert float(some["mean"]) == pytest.approx(
        float(first["JF"].sel(clip=shuffled["clip"]).mean() - shuffled["JF"].mean())
    )


def test_pairs_over_other_axes() -> None:
    values = RNG(3).uniform(size=(5, 3))
    many = scores(values, ("clip", "tau"), clip=clips(5), tau=[1, 2, 3])
    one = many.sel(tau=2)
    found = paired_difference(many, one)
    assert found["mean"].dims == ("tau",)
    assert float(found["mean"].sel(tau=2)) == 0
    assert found["low"].sel(tau=2) == found["high"].sel(tau=2) == 0
    with pytest.raises(tl.TedlensError, match="different values on an axis"):
        paired_difference(many, many.assign_coords(tau=[1, 2, 4]))


def test_the_best_cell_is_chosen_on_clips_that_it_is_not_reported_on() -> None:
    values = np.zeros((6, 2, 2))
    values[:2, 1, 0] = 0.9  # the best of clips 0 and 1
    values[2:, 0, 1] = 1.0  # of the others
    values[2:, 1, 0] = [0.1, 0.2, 0.3, 0.4]
    swept = scores(values, ("clip", "tau", "block"), clip=clips(6), tau=[100, 600], block=["up_1", "up_2"])
    found = best_cell(swept, ["clip 0", "clip 1"])
    assert (int(found["tau"]), str(found["block"].values)) == (600, "up_1")
    assert float(found["mean"]) == pytest.approx(0.25)
    assert float(found["validation_mean"]) == pytest.approx(0.9)
    assert 0.1 <= found["low"] < 0.25 < found["high"] <= 0.4
    assert found.attrs["reported_on"] == ["clip 2", "clip 3", "clip 4", "clip 5"]


def test_choosing_on_the_clips_reported_on_flatters() -> None:
    """A hundred cells that are all alike: the choice gains nothing on clips that had no part in it."""
    noise = RNG(4).normal(0.5, 0.1, size=(20, 100))
    swept = scores(noise, ("clip", "tau"), clip=clips(20), tau=np.arange(100))
    found = best_cell(swept, clips(10))
    assert float(found["validation_mean"]) > 0.54
    assert float(found["low"]) < 0.5 < float(found["high"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: clip_statistics(s, "IoU"), "metric='IoU'"),
        (lambda s: clip_statistics(s, interval=95), "interval=95"),
        (lambda s: clip_statistics(s.isel(clip=[0]), interval=0.95), "at least two, and there are 1"),
        (lambda s: paired_difference(s, s.isel(clip=0, drop=True)), "without an axis clip"),
        (lambda s: paired_difference(s, s.assign_coords(clip=list("abc"))), "there are 0"),
        (lambda s: best_cell(s, ["nobody"]), "choose some of clip 0, clip 1, clip 2"),
        (lambda s: best_cell(s, []), "names no clips"),
        (lambda s: best_cell(s, clips(2)), "there are 1"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(call: Any, words: str) -> None:
    with pytest.raises(tl.TedlensError, match=words):
        call(scores(np.eye(3), ("clip", "tau"), clip=clips(3), tau=[1, 2, 3]))
