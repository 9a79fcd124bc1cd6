"""Features without what stays, on planted channels."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import tedlens as tl
from tedlens.analysis import motion_filter


def planted() -> xr.DataArray:
    """Channels that stay, that move, that do nothing, and that mostly stay: (tau, seed, frame, channel, y, x)."""
    rng = np.random.default_rng(0)
    still, moving = rng.normal(size=(4, 5)), rng.normal(size=(6, 4, 5))
    values = np.stack(
        [np.broadcast_to(still, moving.shape), 7 * moving, np.zeros_like(moving), still + 0.1 * moving], 1
    )
    coords = {"tau": [300], "seed": [0], "frame": range(6), "y": range(4), "x": range(5)}
    return xr.DataArray(values[None, None], dims=("tau", "seed", "frame", "channel", "y", "x"), coords=coords)


def test_what_stays_is_gone_and_what_moves_is_left() -> None:
    features = planted()
    found = motion_filter(features)
    assert isinstance(found, xr.DataArray)
    assert found.dims == features.dims
    np.testing.assert_allclose(found.mean("frame"), 0, atol=1e-6)
    np.testing.assert_allclose(found.isel(channel=[0, 2]), 0, atol=1e-6)
    by_hand = features.isel(channel=1) - features.isel(channel=1).mean("frame")
    np.testing.assert_allclose(found.isel(channel=1), by_hand, atol=1e-5)
    share = found["moving"].values
    assert share[0] == pytest.approx(0)
    assert share[2] == 0
    assert share[1] > 0.5 > share[3] > 0


def test_channels_are_chosen_by_how_much_they_differ_whatever_their_scale() -> None:
    features = planted()
    for scale in (1, 1000):
        scaled = features.copy()
        scaled[:, :, :, 3] *= scale
        assert motion_filter(scaled, 1)["channel"].values.tolist() == [1]
        assert motion_filter(scaled, 2)["channel"].values.tolist() == [1, 3]


def test_they_serve_wherever_features_do() -> None:
    clip = tl.datasets.similar(0, frames=4, size=32)
    assert clip.masks is not None
    feats = tl.probe(tl.load_video_model("mini"), clip, tau=600, blocks=["up_1", "up_2"], size=64)
    moving = motion_filter(feats, 8)
    assert isinstance(moving, xr.DataTree)
    assert moving.attrs["motion_filter"] == "less the mean over frames; the 8 channels that move most"
    one = moving["up_2"]["features"]
    assert one.attrs["clip_sha256"] == feats["up_2"]["features"].attrs["clip_sha256"]
    assert one.sizes["channel"] == 8
    labels = tl.propagate(one, clip.masks)
    assert labels.attrs["motion_filter"] == moving.attrs["motion_filter"]
    tl.plots.pca_map(moving, clip)
    tl.analysis.object_features(moving, clip, sides=True)


@pytest.mark.parametrize(
    ("features", "channels", "words"),
    [
        (planted().isel(frame=[0]), None, "one frame, so nothing moves"),
        (planted(), 5, "channels=5 is out of range; choose 1 to 4"),
        (planted(), 0, "channels=0 is out of range"),
        (planted().isel(channel=0), None, "channel is missing"),
        (planted() * np.nan, None, "features"),
    ],
)
def test_refused(features: xr.DataArray, channels: int | None, words: str) -> None:
    with pytest.raises(tl.TedlensError, match=words):
        motion_filter(features, channels)
