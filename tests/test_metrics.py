"""J and F against figures worked out by hand, and against a slow implementation of the definition."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from definitions import boundary, davis_scores
from hypothesis import given, settings
from hypothesis import strategies as st

from tedlens.errors import TedlensError
from tedlens.metrics.masks import _boundary, evaluate, summarize, summarize_lvos

Array = npt.NDArray[Any]


def drawn(picture: str) -> Array:
    """Masks from rows of digits; v is void (255), a dot is background."""
    rows = picture.split()
    return np.array([[{"v": 255, ".": 0}.get(c, ord(c) - ord("0")) for c in row] for row in rows], np.uint8)


def score(labels: Array, truth: Array) -> tuple[float, float]:
    """J and F of the one object of one frame."""
    scores = evaluate(labels[None], truth[None], protocol="all")
    return float(scores.J.squeeze()), float(scores.F.squeeze())


def columns(stop: int) -> Array:
    """Columns 0..stop - 1 of a 6 x 12 picture are object 1. The tolerance of F is ceil(0.008 * 13.4) = 1 pixel."""
    return np.repeat((np.arange(12) < stop).astype(np.uint8)[None], 6, 0)


# --- by hand --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        # In the middle: offset by half a pixel up and left, so one wider than the mask.
        (".... .11. .11. ....", "111. 1.1. 111. ...."),
        # Lower right corner: the last row looks right only, the last column down only.
        (".... .... ..11 ..11", ".... .111 .1.. .1.."),
        # Upper left corner.
        ("11.. 11.. .... ....", ".1.. 11.. .... ...."),
        # Only the last pixel: its neighbours see it, itself is never boundary.
        (".... .... .... ...1", ".... .... ..11 ..1."),
        ("1111 1111 1111 1111", ".... .... .... ...."),
    ],
)
def test_boundary_by_hand(mask: str, expected: str) -> None:
    np.testing.assert_array_equal(_boundary(drawn(mask) == 1), drawn(expected) == 1)


def test_shift_by_one_pixel_is_within_tolerance() -> None:
    # Boundaries are column 3 and column 4: 1 pixel apart. J = 4 columns of 5.
    assert score(columns(5), columns(4)) == (4 / 5, 1.0)


def test_shift_by_two_pixels_is_not() -> None:
    assert score(columns(6), columns(4)) == (4 / 6, 0.0)


def test_half_right_boundary() -> None:
    labels = columns(4)
    labels[3:, :6] = 1
    # The truth's boundary: column 3, 6 pixels. The prediction's: (0..2, 3), the step (2, 4), (2, 5) and (3..5, 5):
    # 8 pixels, of which (0..2, 3) and (2, 4) lie within 1 pixel of the truth's: P = 4/8. The other way
    # (0..2, 3) and (3, 3) are matched: R = 4/6. F = 2 * 1/2 * 2/3 / (7/6) = 4/7. J = 24 pixels of 30.
    j, f = score(labels, columns(4))
    assert j == 24 / 30
    assert f == pytest.approx(4 / 7, abs=1e-15)


def test_tolerance_is_a_disc() -> None:
    # One pixel has a boundary of 2 x 2. Moved by (1, 1), three of the four lie within 1 pixel of the other
    # boundary; the fourth is sqrt(2) away, inside a square of radius 1 but outside the disc.
    truth, labels = np.zeros((2, 8, 8), np.uint8)
    truth[3, 3] = labels[4, 4] = 1
    assert score(labels, truth) == (0.0, 0.75)


def test_empty_masks() -> None:
    empty, part, whole = columns(0), columns(4), columns(12)
    scores = evaluate(np.stack([part, empty, part, empty]), np.stack([part, empty, empty, part]), protocol="all")
    # Both empty: 1. One of them empty: no overlap; precision and recall are 1 and 0, so F = 0.
    np.testing.assert_array_equal(scores.J[0], [1, 1, 0, 0])
    np.testing.assert_array_equal(scores.F[0], [1, 1, 0, 0])
    # An object that fills the picture has no boundary: against nothing at all, F is 1 though J is 0.
    assert score(empty, whole) == (0.0, 1.0)
    assert score(whole, part) == (4 / 12, 0.0)


def test_void_pixels_are_left_out() -> None:
    truth = columns(4)
    truth[:, 4:6] = 255
    assert score(columns(6), truth) == (1.0, 1.0)
    # Void cuts both masks: 2 columns are left of each, where the prediction has one more beyond.
    truth = columns(4)
    truth[:, 2:4] = 255
    # J = 2 of 3 columns; boundaries: truth column 1; prediction columns 1, 3 and 4 (a stripe on column 4). Within
    # 1 pixel of column 1 lies column 1 only: P = 1/3, R = 1, F = 1/2.
    j, f = score(columns(5), truth)
    assert j == 2 / 3
    assert f == pytest.approx(1 / 2, abs=1e-15)


def test_wholly_void_frames_are_not_scored() -> None:
    truth = np.stack([columns(4)] * 5)
    truth[2] = 255
    scores = evaluate(np.stack([columns(4), columns(5), columns(0), columns(6), columns(4)]), truth)
    np.testing.assert_array_equal(scores.J[0], [4 / 5, np.nan, 4 / 6])
    np.testing.assert_array_equal(scores.F[0], [1, np.nan, 0])
    np.testing.assert_array_equal(scores.JF[0], [0.9, np.nan, 1 / 3])
    summary = summarize(scores)
    assert float(summary.J_mean) == pytest.approx((4 / 5 + 4 / 6) / 2)
    assert float(summary.F_recall) == 0.5


def test_ids_with_gaps_and_missing_objects() -> None:
    truth = drawn("1133 ..33 77.. 77..")[None]
    labels = drawn("1111 .... 77.. 77..")[None]
    scores = evaluate(labels, truth, protocol="all")
    np.testing.assert_array_equal(scores.object, [1, 3, 7])
    np.testing.assert_array_equal(scores.J[:, 0], [2 / 4, 0, 1])
    assert scores.F.values[1, 0] == 0


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 2, 4), (2, 3, 3), (3, 1, 8), (1, 5, 7)])
def test_an_id_of_one_pixel_is_found_wherever_it_is(shape: tuple[int, int, int]) -> None:
    """Ids are looked for eight pixels at a time; the last ones may be fewer."""
    for place in range(np.prod(shape)):
        truth = np.ones(shape, np.uint8)
        truth.ravel()[place] = 9
        assert evaluate(truth, truth, protocol="all").object.values.tolist() == [1, 9]
        assert evaluate(truth[..., ::-1], truth[..., ::-1], protocol="all").object.values.tolist() == [1, 9]


# --- names and numbers ----------------------------------------------------------------------------


def test_labelled_output() -> None:
    truth = np.stack([columns(4)] * 5)
    scores = evaluate(truth, truth)
    assert scores.J.dims == scores.F.dims == scores.JF.dims == ("object", "frame")
    assert {v.dtype for v in scores.values()} == {np.dtype("float64")}
    np.testing.assert_array_equal(scores.frame, [1, 2, 3])
    np.testing.assert_array_equal(evaluate(truth, truth, protocol="all").frame, np.arange(5))
    assert scores.attrs == {"metric": "DAVIS 2017 J and F", "protocol": "davis", "bound_th": 0.008}


def test_labels_hand_on_their_coordinates() -> None:
    truth = np.stack([columns(n) for n in (3, 4, 5, 6)])
    coords = {"frame": [10, 20, 30, 40], "tau": 600, "y": np.arange(6)}
    labels = xr.DataArray(truth, dims=("frame", "y", "x"), coords=coords, attrs={"seed": 3}).transpose(
        "y", "x", "frame"
    )
    scores = evaluate(labels, truth)
    np.testing.assert_array_equal(scores.frame, [20, 30])
    assert int(scores.tau) == 600
    assert set(scores.coords) == {"object", "frame", "tau"}
    assert scores.attrs["seed"] == 3
    assert summarize(scores).attrs == scores.attrs
    assert scores.J.values.min() == 1


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int64])
def test_integer_kinds(kind: type[np.generic]) -> None:
    assert score(columns(5).astype(kind), columns(4).astype(kind)) == (4 / 5, 1.0)


def test_inputs_are_left_alone() -> None:
    labels, truth = np.stack([columns(5)] * 3), np.stack([columns(4)] * 3)
    truth[:, 0] = 255
    copies = labels.copy(), truth.copy()
    evaluate(labels, truth)
    np.testing.assert_array_equal(labels, copies[0])
    np.testing.assert_array_equal(truth, copies[1])


# --- errors ---------------------------------------------------------------------------------------

CLIP = np.stack([columns(4)] * 3)


@pytest.mark.parametrize(
    ("labels", "truth", "options", "message"),
    [
        (CLIP, CLIP, {"protocol": "youtube"}, r"protocol='youtube' .* davis, youtube-vos, lvos, all"),
        (CLIP[:2], CLIP, {}, r"2 frames and the truth 3: of frames 2 there is no prediction"),
        (CLIP[:, :4], CLIP, {}, r"\(3, 4, 12\) .* \(3, 6, 12\)"),
        (CLIP[:2], CLIP[:2], {}, r"2 frames.* protocol='all'"),
        (CLIP[0], CLIP, {}, r"labels is uint8 of shape \(6, 12\)"),
        (CLIP, CLIP * 0.5, {}, r"truth is float64 of shape \(3, 6, 12\)"),
        (CLIP[:0], CLIP[:0], {}, r"at least one pixel"),
        (CLIP, CLIP * 0, {}, r"holds no object"),
        (CLIP, CLIP * 0 + 255, {}, r"holds no object"),
        (CLIP * 4, CLIP * 3, {}, r"the id 4, .* objects: 3\)"),
        (CLIP * 255, CLIP * 3, {}, r"the id 255, .* objects: 3\)"),
        (CLIP.astype(int) * -1, CLIP, {}, r"labels holds the id -1"),
        (CLIP, CLIP.astype(int) * 300, {}, r"truth holds the id 300"),
        (xr.DataArray(CLIP[None], dims=("tau", "frame", "y", "x")), CLIP, {}, r"tau, frame, y, x, but needs frame"),
    ],
)
def test_errors_name_what_was_given(labels: Any, truth: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TedlensError, match=message):
        evaluate(labels, truth, **options)


def test_summarize_needs_scores() -> None:
    scores = evaluate(CLIP, CLIP)
    for bad in (scores[["J"]], scores.mean("frame")):
        with pytest.raises(TedlensError, match="over object and frame; give what evaluate"):
            summarize(bad)


# --- summaries ------------------------------------------------------------------------------------


def scored(j: Any, f: Any = None) -> xr.Dataset:
    """Scores from rows (object, frame); ids and frames from 1."""
    values = np.atleast_2d(np.asarray(j, float))
    other = values if f is None else np.atleast_2d(np.asarray(f, float))
    coords = {"object": np.arange(values.shape[0]) + 1, "frame": np.arange(values.shape[1]) + 1}
    dims = ("object", "frame")
    return xr.Dataset({"J": (dims, values), "F": (dims, other), "JF": (dims, (values + other) / 2)}, coords)


def test_summary_by_hand() -> None:
    # linspace(1, 7, 5) = 1, 2.5, 4, 5.5, 7 rounds to 1, 3, 4, 6, 7 (2.5 goes up by the added 1e-10): the first quarter
    # is frames 1..3, mean 0.9; the last 6..7, mean 0.3. A score of exactly 0.5 is not over 0.5.
    falling = [1, 0.9, 0.8, 0.7, 0.5, 0.4, 0.2]
    summary = summarize(scored(falling, [0.25] * 7))
    expected = {"J_mean": 4.5 / 7, "J_recall": 4 / 7, "J_decay": 0.6, "F_mean": 0.25, "F_recall": 0.0, "F_decay": 0.0}
    assert set(summary) == {*expected, "JF_mean"}
    assert set(summary.dims) == set()
    for name, value in expected.items():
        assert float(summary[name]) == pytest.approx(value, abs=1e-15)
    assert float(summary.JF_mean) == pytest.approx((4.5 / 7 + 0.25) / 2)


def test_summary_averages_over_objects_and_skips_nan() -> None:
    summary = summarize(scored([[np.nan, 1, np.nan, 0.8], [0.2] * 4, [np.nan] * 4]))
    # The first object's two frames, the second's four; the third is not there at all.
    assert float(summary.J_mean) == pytest.approx((0.9 + 0.2) / 2)
    assert float(summary.J_recall) == 0.5
    # Two frames: linspace(1, 2, 5) = 1, 1.25, 1.5, 1.75, 2 rounds to 1, 1, 2, 2, 2, so first - last = 1 - 0.8.
    assert float(summary.J_decay) == pytest.approx(0.1)


def test_decay_of_long_clips() -> None:
    # 400 frames: quarters end at 1, 101, 201 (200.5 goes up), 300, 400. Means of -frame: -51 and -350. The
    # benchmark's own uint8 would wrap here.
    assert float(summarize(scored(-np.arange(1.0, 401))).J_decay) == pytest.approx(299)


def test_one_frame_and_none() -> None:
    assert float(summarize(scored([0.7])).J_decay) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(float(summarize(scored([np.nan])).JF_mean))


def test_other_dimensions_stay() -> None:
    rng = np.random.default_rng(0)
    short, long = scored(rng.random((2, 5))), scored(rng.random((3, 9)))
    both = xr.concat([short, long], "clip", join="outer").assign_coords(clip=["short", "long"])
    swept = xr.concat([both, both / 2], "tau").assign_coords(tau=[100, 600])
    summary = summarize(swept)
    assert dict(summary.sizes) == {"clip": 2, "tau": 2}
    for name, clip in (("short", short), ("long", long)):
        xr.testing.assert_allclose(summary.sel(tau=100, clip=name).drop_vars(["tau", "clip"]), summarize(clip))
    np.testing.assert_allclose(summary.J_mean.sel(tau=600), summary.J_mean.sel(tau=100) / 2)


def test_clips_along_object_weigh_by_their_objects() -> None:
    one, three = scored([0.4, 0.4]), scored([[0.8] * 4] * 3)
    assert float(summarize(xr.concat([one, three], "object", join="outer")).J_mean) == pytest.approx(0.7)


# --- against a slow implementation ----------------------------------------------------------------


def slow_boundary(mask: Array) -> Array:
    """Pixel by pixel, as DAVIS words it."""
    height, width = mask.shape
    edge = np.zeros(mask.shape, bool)
    for y in range(height):
        for x in range(width):
            last_row, last_column = y == height - 1, x == width - 1
            if last_row and last_column:
                continue
            if last_row:
                edge[y, x] = mask[y, x] != mask[y, x + 1]
            elif last_column:
                edge[y, x] = mask[y, x] != mask[y + 1, x]
            else:
                edge[y, x] = (
                    mask[y, x] != mask[y, x + 1] or mask[y, x] != mask[y + 1, x] or mask[y, x] != mask[y + 1, x + 1]
                )
    return edge


def random_masks(rng: np.random.Generator, shape: tuple[int, int], ids: list[int], grain: int) -> Array:
    """Blocks of random ids with a sprinkle of single pixels."""
    height, width = shape
    coarse = rng.choice(ids, (height // grain + 1, width // grain + 1))
    masks = coarse.repeat(grain, 0).repeat(grain, 1)[:height, :width].astype(np.uint8)
    return np.where(rng.random(shape) < 0.02, rng.choice(ids, shape), masks).astype(np.uint8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(1, 1), (1, 9), (7, 1), (5, 6), (16, 11), (3, 400), (60, 140)]),  # radius 1, 1, .., 4, 2
    grain=st.sampled_from([1, 2, 5, 13]),
)
def test_agrees_with_slow_implementation(seed: int, shape: tuple[int, int], grain: int) -> None:
    rng = np.random.default_rng(seed)
    ids = [1, 3, 7]
    truth = random_masks(rng, shape, [0, 0, *ids, 255], grain)
    labels = random_masks(rng, shape, [0, *ids], grain)
    # Half of the prediction is right, so that there is something to match.
    labels = np.where((rng.random(shape) < 0.5) & (truth != 255), truth, labels)
    # A frame of its own shows every object, so that each is in the truth.
    first = np.zeros((len(ids), *shape), np.uint8) + np.array(ids, np.uint8)[:, None, None]
    scores = evaluate(np.stack([*first, labels]), np.stack([*first, truth]), protocol="all").isel(frame=-1)
    for number in ids:
        if (truth == 255).all():
            assert np.isnan(scores.J.sel(object=number))
            continue
        one = scores.sel(object=number)
        p, q = (labels == number) & (truth != 255), truth == number
        assert (float(one.J), float(one.F)) == pytest.approx(davis_scores(p, q), abs=1e-14)
        np.testing.assert_array_equal(boundary(p), slow_boundary(p))


def test_an_object_that_enters_later_is_scored_from_then_on() -> None:
    truth = np.stack([columns(4)] * 6)
    truth[3:, :, 8:] = 2
    labels = truth.copy()
    labels[4, :, 8:] = 0
    late = evaluate(labels, truth).sel(object=2)
    np.testing.assert_array_equal(late["frame"], [1, 2, 3, 4])
    np.testing.assert_array_equal(late["J"], [np.nan, np.nan, np.nan, 0])
    np.testing.assert_array_equal(evaluate(labels, truth, protocol="all")["J"].sel(object=2), [np.nan] * 3 + [1, 0, 1])
    assert float(summarize(evaluate(truth, truth))["J_mean"]) == 1


def test_labels_and_truth_are_matched_by_their_frames() -> None:
    truth = np.stack([columns(n) for n in (3, 4, 5, 6, 7)])
    axes = {"dims": ("frame", "y", "x"), "coords": {"frame": [3, 4, 5, 6, 7]}}
    labels, named = xr.DataArray(truth, **axes), xr.DataArray(truth, **axes)
    for one, other in ((labels[::-1], named), (labels, named[[2, 0, 4, 1, 3]]), (labels[::-1], truth)):
        assert float(evaluate(one, other)["J"].min()) == 1
    with pytest.raises(TedlensError, match="differ along frame: the truth alone has frame 7"):
        evaluate(labels[:4], named)
    with pytest.raises(TedlensError, match="differ along frame: the truth alone has frame 3;"):
        evaluate(labels.assign_coords(frame=[4, 5, 6, 7, 8]), named)
    with pytest.raises(TedlensError, match="are of clip 'a' and the truth of clip 'b'"):
        evaluate(labels.assign_attrs(clip_sha256="1", clip="a"), named.assign_attrs(clip_sha256="2", clip="b"))


def test_void_is_background_to_the_davis_package_and_nothing_to_all() -> None:
    truth = np.stack([columns(4)] * 4)
    truth[:, :, 4:6] = 255
    truth[2] = 255
    labels = np.stack([columns(6)] * 4)
    davis = evaluate(labels, truth)["J"].sel(object=1)
    np.testing.assert_array_equal(davis, [4 / 6, np.nan])
    np.testing.assert_array_equal(evaluate(labels, truth, protocol="all")["J"].sel(object=1), [1, 1, np.nan, 1])


# --- YouTube-VOS ------------------------------------------------------------------------------------


def squares(frames: int, places: dict[int, Sequence[int]]) -> Any:
    """Masks in which each object is a square of its own on the frames named; other objects elsewhere."""
    masks = np.zeros((frames, 24, 24), np.uint8)
    for number, shown in places.items():
        for t in shown:
            masks[t, 8 * (number - 1) : 8 * (number - 1) + 6, 4:12] = number
    return masks


def test_youtube_vos_scores_an_object_from_where_it_is_first_seen() -> None:
    truth = squares(7, {1: range(0, 4), 2: range(3, 7)})  # 1 goes after frame 3, 2 enters at 3
    found = evaluate(squares(7, {1: range(7), 2: range(2, 7)}), truth, protocol="youtube-vos")
    assert list(found["frame"].values) == list(range(7))
    nan = np.nan
    # 1: right, then predicted after it has gone. 2: predicted a frame too early, which begins its scores.
    np.testing.assert_array_equal(found["J"].sel(object=1), [nan, 1, 1, 1, 0, 0, nan])
    np.testing.assert_array_equal(found["J"].sel(object=2), [nan, nan, 0, 1, 1, 1, nan])
    in_time = evaluate(squares(7, {1: range(4), 2: range(3, 7)}), truth, protocol="youtube-vos")
    np.testing.assert_array_equal(in_time["J"].sel(object=1), [nan, 1, 1, 1, 1, 1, nan])
    np.testing.assert_array_equal(in_time["J"].sel(object=2), [nan, nan, nan, 1, 1, 1, nan])


def test_youtube_vos_leaves_out_the_first_and_last_annotated_frames() -> None:
    truth = squares(9, {1: range(9)})
    truth[[0, 2, 4, 6, 8]] = 255  # not annotated
    found = evaluate(squares(9, {1: range(9)}), truth, protocol="youtube-vos")
    np.testing.assert_array_equal(np.flatnonzero(found["J"].sel(object=1).notnull()), [3, 5])


def test_youtube_vos_passes_over_what_it_cannot_score() -> None:
    truth = squares(5, {1: range(5), 2: [0]})  # 2 is on a left-out frame alone
    predicted = squares(5, {1: range(5), 2: range(5), 3: [1]})  # 3 is in the prediction alone
    found = evaluate(predicted, truth, protocol="youtube-vos")
    assert list(found["object"].values) == [1, 2]
    assert bool(found["J"].sel(object=2).isnull().all())
    assert float(summarize(found)["J_mean"]) == 1.0


def test_youtube_vos_needs_three_annotated_frames() -> None:
    truth = squares(5, {1: range(5)})
    truth[1:4] = 255
    with pytest.raises(TedlensError, match="first and the last of 2 annotated frames"):
        evaluate(squares(5, {1: range(5)}), truth, protocol="youtube-vos")


# --- LVOS -----------------------------------------------------------------------------------------


def ranges(first: Sequence[int], last: Sequence[int], ids: Sequence[int] = (1, 2), **more: Any) -> xr.Dataset:
    each = {"first_frame": first, "last_frame": last, **more}
    return xr.Dataset({name: ("object", list(values)) for name, values in each.items()}, {"object": list(ids)})


def test_lvos_scores_each_object_strictly_between_its_ends() -> None:
    truth = squares(7, {1: range(7), 2: range(2, 5)})
    truth[3] = 255  # not annotated
    labels = np.where(truth == 255, 0, truth)
    labels[5][labels[5] == 0] = 9  # known to the prediction alone
    labels[1][truth[1] == 1] = 2  # too early, where nobody asks for 2
    scores = evaluate(labels, truth, protocol="lvos", objects=ranges([0, 2], [6, 6]))
    assert scores["J"].notnull().values.tolist() == [
        [False, True, True, False, True, True, False],
        [False, False, False, False, True, True, False],
    ]
    assert scores["J"].sel(object=1).values[[1, 2]].tolist() == [0, 1]
    assert scores["J"].sel(object=2, frame=5) == 1  # gone, and not predicted


def test_lvos_ranges_hold_where_a_clip_is_cut() -> None:
    truth = squares(7, {1: range(7)})
    about = ranges([1], [5], [1]).assign_coords(frame=np.arange(7))
    whole = evaluate(truth, truth, protocol="lvos", objects=about)
    part = evaluate(truth[2:], truth[2:], protocol="lvos", objects=about.isel(frame=slice(2, None)))
    assert whole["frame"].where(whole["J"][0].notnull(), drop=True).values.tolist() == [2, 3, 4]
    assert part["frame"].where(part["J"][0].notnull(), drop=True).values.tolist() == [0, 1, 2]


def test_lvos_is_its_definition() -> None:
    """Against lvos-evaluation written out: clips with files of every fifth frame; seen objects are of two clips."""
    rng = np.random.default_rng(0)
    # start, end, frame_nums by id; one ends between two files, whose last is left out all the same.
    listed = [{1: (1, 41, 9), 2: (11, 33, 5)}, {1: (6, 26, 5), 5: (1, 31, 7)}, {3: (1, 36, 8)}]
    every, wanted = [], {(kind, name): [] for kind in ("seen", "unseen") for name in "JFV"}
    for kind, about, count in zip(("seen", "unseen", "seen"), listed, (9, 7, 8), strict=True):
        truth, labels = (rng.choice([0, *about], (count, 12, 3)).repeat(6, 2).astype(np.uint8) for _ in range(2))
        truth[4][truth[4] == 1] = labels[4][labels[4] == 1] = 0  # away, and not predicted: 1
        objects = ranges(
            [(start - 1) // 5 for start, _, _ in about.values()],
            [(end - 1) // 5 for _, end, _ in about.values()],
            list(about),
            unseen=[kind == "unseen"] * len(about),
        )
        every.append(evaluate(labels, truth, protocol="lvos", objects=objects))
        for number, (start, end, frame_nums) in about.items():
            pairs = []
            for place, file in enumerate(range(start, end, 5)):
                if place not in (0, frame_nums - 1):
                    t = (file - 1) // 5
                    pairs.append(davis_scores(labels[t] == number, truth[t] == number))
            assert len(pairs) == frame_nums - 2
            j, f = (np.array(each) for each in zip(*pairs, strict=True))
            jf = (j + f) / 2
            v = round(sum((jf.mean() - each) ** 2 for each in jf) / len(jf), 4) ** 0.5
            for name, figure in zip("JFV", (j.mean(), f.mean(), v), strict=True):
                wanted[kind, name].append(figure)
    found = summarize_lvos(xr.concat(every, "object", join="outer", data_vars="all"))
    for (kind, name), figures in wanted.items():
        assert float(found[name].sel(categories=kind)) == pytest.approx(np.mean(figures), abs=1e-12)
    for name in "JFV":
        both = np.mean(wanted["seen", name]) + np.mean(wanted["unseen", name])
        assert float(found[f"{name}_mean"]) == pytest.approx(both / 2, abs=1e-12)


def test_lvos_refuses_a_part_that_does_not_say_which() -> None:
    truth = squares(7, {1: range(7)})
    about = ranges([0], [6], [1]).assign_coords(frame=np.arange(7))
    with pytest.raises(TedlensError, match=r"labels have 5 frames, without their numbers, and objects 7; give objects"):
        evaluate(truth[2:], truth[2:], protocol="lvos", objects=about)
    part = xr.DataArray(truth, {"frame": np.arange(7)}, ("frame", "y", "x"))[2:]
    scores = evaluate(part, part, protocol="lvos", objects=about)
    assert scores["frame"].where(scores["J"][0].notnull(), drop=True).values.tolist() == [2, 3, 4, 5]


def test_lvos_leaves_out_an_object_without_a_scored_frame() -> None:
    truth = squares(7, {1: range(7), 2: [2, 3]})
    scores = evaluate(truth, truth, protocol="lvos", objects=ranges([0, 2], [6, 3], unseen=[False, False]))
    assert scores["J"].sel(object=2).isnull().all()
    assert summarize_lvos(scores)["J"].sel(categories="seen") == 1


def test_lvos_figures_by_hand() -> None:
    """Objects without regard to clips; seen and unseen alike; V of the mean of J and F, rounded before the root."""
    j = xr.DataArray([[0.2, 0.4, np.nan], [0.6, 0.6, 0.9], [0.5, 0.5, 0.8]], dims=("object", "frame"))
    scores = xr.Dataset({"J": j, "F": j / 2, "JF": 0.75 * j}, {"unseen": ("object", [False, False, True])})
    found = summarize_lvos(scores)
    assert found["J"].values == pytest.approx([(0.3 + 0.7) / 2, 0.6])
    assert float(found["J_mean"]) == pytest.approx((0.5 + 0.6) / 2)
    assert float(found["JF_mean"]) == pytest.approx(0.75 * 0.55)
    v = [round(float(np.var(0.75 * np.array(row))), 4) ** 0.5 for row in ([0.2, 0.4], [0.6, 0.6, 0.9], [0.5, 0.5, 0.8])]
    assert found["V"].values == pytest.approx([(v[0] + v[1]) / 2, v[2]])
    assert np.isnan(summarize_lvos(scores.isel(object=[0, 1]))["JF_mean"])


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        (None, "not given; give objects=clip.objects"),
        (xr.Dataset({"first_frame": ("object", [0])}, {"object": [1]}), "not given; give objects=clip.objects"),
        (ranges([0], [6], [2]), "say nothing of the objects 1"),
    ],
)
def test_lvos_needs_ranges(objects: Any, said: str) -> None:
    truth = squares(7, {1: range(7)})
    with pytest.raises(TedlensError, match=said):
        evaluate(truth, truth, protocol="lvos", objects=objects)


def test_lvos_figures_need_to_know_what_is_unseen() -> None:
    truth = squares(7, {1: range(7)})
    scores = evaluate(truth, truth, protocol="lvos", objects=ranges([0], [6], [1]))
    with pytest.raises(TedlensError, match=r"unseen_videos\.txt"):
        summarize_lvos(scores)
    known = evaluate(truth, truth, protocol="lvos", objects=ranges([0], [6], [1], unseen=[True]))
    assert known["unseen"].values.tolist() == [True]
