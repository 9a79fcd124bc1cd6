"""Models without a part of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import xarray as xr

import tedlens as tl
from tedlens.analysis import without_temporal_layers
from tedlens.models.base import DiffusionModel
from tedlens.models.registry import ADAPTERS


def video_model(name: str, folder: Path) -> DiffusionModel:
    if name == "svd":
        pipeline = tiny.svd()
    else:
        pipeline = {"i2vgen_xl": tiny.i2vgen_xl, "modelscope": tiny.modelscope, "animatediff": tiny.animatediff}[name](
            folder
        )
    return ADAPTERS["video"][type(pipeline.unet).__name__](pipeline, name=name, size=32)


@pytest.mark.parametrize("name", ["i2vgen_xl", "svd", "modelscope", "animatediff"])
def test_without_temporal_layers_a_frame_does_not_see_another(name: str, tmp_path: Path) -> None:
    model = video_model(name, tmp_path)
    clip = tl.datasets.similar(1, frames=4, size=32)
    frames = clip.frames.copy()
    frames[2] = 255 - frames[2]
    other = tl.Clip(frames)

    def last_block(clip: tl.Clip) -> xr.DataArray:
        features = tl.probe(model, clip, tau=200, blocks=model.blocks[-1], window=4)
        return features[model.blocks[-1]]["features"].isel(tau=0, seed=0)

    whole = last_block(clip)
    # All frames see the one that changed; with AnimateDiff's untrained adapter by little.
    assert not np.allclose(whole.sel(frame=1), last_block(other).sel(frame=1), rtol=0, atol=1e-6)
    with without_temporal_layers(model):
        alone, changed = last_block(clip), last_block(other)
    for frame in (0, 1, 3):
        np.testing.assert_allclose(alone.sel(frame=frame), changed.sel(frame=frame), rtol=0, atol=1e-6)
    assert not np.allclose(alone.sel(frame=2), changed.sel(frame=2), rtol=0, atol=1e-3)
    # Nothing is left behind.
    xr.testing.assert_identical(last_block(clip), whole)


def test_an_image_model_has_none(tmp_path: Path) -> None:
    model = tl.load_image_model("mini")
    with pytest.raises(tl.TedlensError, match="no temporal layers"), without_temporal_layers(model):
        pass
