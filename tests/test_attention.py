"""Attention maps: the explicit softmax of queries and keys, in every architecture; and what heads do, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import xarray as xr
from adapters import LAYER, SPATIAL, VIDEO, no_hooks, video_models
from planted import Planted

import tedlens as tl
from tedlens.attending.watching import Watch
from tedlens.labels import on_grid
from tedlens.models.base import DiffusionModel
from tedlens.models.registry import ADAPTERS
from tedlens.probing import Draw, Prepared

TAU = 300


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DiffusionModel]:
    return video_models(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def clip() -> tl.Clip:
    made = tl.datasets.similar(1, frames=6, size=32)
    return tl.Clip(made.frames, made.masks, name="six")


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


def projected(model: DiffusionModel, clip: tl.Clip, layer: str, heads: int, **how: Any) -> list[np.ndarray[Any, Any]]:
    """Queries and keys by `probe`: (head, frame, cell, channel)."""
    names = [f"{layer}.to_q", f"{layer}.to_k"]
    tree = tl.probe(model, clip, tau=TAU, blocks=names, **how)
    flat = [tree[name]["features"][0, 0].stack(cell=("y", "x")).transpose("frame", "cell", "channel") for name in names]
    return [each.values.reshape(*each.shape[:2], heads, -1).transpose(2, 0, 1, 3) for each in flat]


def softmax(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("name", VIDEO)
def test_it_is_the_softmax_of_queries_and_keys(models: dict[str, DiffusionModel], name: str, clip: tl.Clip) -> None:
    """AnimateDiff adds embeddings of frames before the projections; so both are seen as attention gets them."""
    model, clip = models[name], clip[:4]
    maps = tl.attention(model, clip, TAU, LAYER[name][1])
    assert maps.dims == ("head", "y", "x", "query_frame", "key_frame")
    assert maps.attrs["kind"] == "temporal"
    query, key = projected(model, clip, LAYER[name][1], maps.sizes["head"])
    scores = np.einsum("hqcd,hkcd->hcqk", query, key) / np.sqrt(query.shape[-1])
    np.testing.assert_allclose(maps.values.reshape(scores.shape), softmax(scores), atol=1e-5)

    maps = tl.attention(model, clip, TAU, SPATIAL[name])
    assert maps.dims == ("head", "frame", "y", "x", "key_y", "key_x")
    assert maps.attrs["kind"] == "spatial"
    query, key = projected(model, clip, SPATIAL[name], maps.sizes["head"])
    scores = np.einsum("hfqd,hfkd->hfqk", query, key) / np.sqrt(query.shape[-1])
    np.testing.assert_allclose(maps.values.reshape(scores.shape), softmax(scores), atol=1e-5)
    assert no_hooks(model)


@pytest.mark.parametrize("name", ["i2vgen_xl", "animatediff"])
def test_to_tokens_of_text(models: dict[str, DiffusionModel], name: str, clip: tl.Clip) -> None:
    model, clip = models[name], clip[:4]
    layer = SPATIAL[name].replace("attn1", "attn2")
    given: list[Any] = []
    attention: Any = dict(model.unet.named_modules())[_path(model, layer)]
    handle = attention.to_k.register_forward_hook(lambda *each: given.append(each[2]))
    maps = tl.attention(model, clip, TAU, layer)
    handle.remove()
    assert maps.dims == ("head", "frame", "y", "x", "token")
    np.testing.assert_allclose(maps.sum("token"), 1, atol=1e-5)
    heads = maps.sizes["head"]
    found = tl.probe(model, clip, tau=TAU, blocks=f"{layer}.to_q")[f"{layer}.to_q"]["features"][0, 0]
    query = found.stack(cell=("y", "x")).transpose("frame", "cell", "channel").values
    query = query.reshape(*query.shape[:2], heads, -1).transpose(2, 0, 1, 3)
    key = given[0].numpy().reshape(4, -1, heads, query.shape[-1]).transpose(2, 0, 1, 3)
    scores = np.einsum("hfqd,hfkd->hfqk", query, key) / np.sqrt(query.shape[-1])
    np.testing.assert_allclose(maps.values.reshape(scores.shape), softmax(scores), atol=1e-5)


def _path(model: DiffusionModel, name: str) -> str:
    from tedlens.interventions.sites import inside

    return inside(model).point(name).path


def test_an_image_model(clip: tl.Clip) -> None:
    model = tl.load_image_model("mini")
    layer = "mid.attentions.0"
    maps = tl.attention(model, clip, TAU, layer)
    assert maps.dims == ("head", "frame", "y", "x", "key_y", "key_x")
    query, key = projected(model, clip, layer, maps.sizes["head"])
    scores = np.einsum("hfqd,hfkd->hfqk", query, key) / np.sqrt(query.shape[-1])
    np.testing.assert_allclose(maps.values.reshape(scores.shape), softmax(scores), atol=1e-5)


def test_a_planted_head_sees_all_frames_alike(planted: Planted, clip: tl.Clip) -> None:
    maps = tl.attention(planted, clip[:4], TAU, "up_0.mix")
    assert maps.attrs["layer"] == "up_0.mix.attn1"
    np.testing.assert_allclose(maps.sel(head=1), 0.25, atol=1e-6)
    assert float(np.abs(maps.sel(head=0) - 0.25).max()) > 0.05
    statistics = tl.head_statistics(planted, clip[:4], TAU, "up_0.mix").squeeze()
    assert float(statistics["entropy"].sel(head=1)) == pytest.approx(1)
    assert float(statistics["entropy"].sel(head=0)) < 0.999
    assert float(statistics["frames_away"].sel(head=1)) == pytest.approx(1.25)  # of 0..3 among themselves


def test_in_windows(planted: Planted, clip: tl.Clip) -> None:
    """Six frames in windows 0..3 and 2..5: a frame looks as in the first that holds it, at frames of that one."""
    maps = tl.attention(planted, clip, TAU, "up_0.mix", overlap=2)
    first = tl.attention(planted, clip[:4], TAU, "up_0.mix")
    np.testing.assert_array_equal(maps.isel(query_frame=slice(4), key_frame=slice(4)), first)
    known = maps.notnull().all(["head", "y", "x"]).values
    expected = np.zeros((6, 6), bool)
    expected[:4, :4] = expected[4:, 2:] = True
    np.testing.assert_array_equal(known, expected)
    assert maps.isnull().any()
    np.testing.assert_allclose(maps.sum("key_frame"), 1, atol=1e-5)


@pytest.mark.parametrize("layer", [LAYER["i2vgen_xl"][1], SPATIAL["i2vgen_xl"], "up_1.attentions.0.**.attn2"])
def test_points_are_rows_of_the_whole(models: dict[str, DiffusionModel], clip: tl.Clip, layer: str) -> None:
    model = models["i2vgen_xl"]
    whole = tl.attention(model, clip, TAU, layer, window=4)
    points = [(5, 3.2, 30.0), (0, 31.0, 0.0), (2, 15.5, 16.4)]
    found = tl.attention(model, clip, TAU, layer, window=4, query=points)
    assert found.sizes["query"] == 3
    for number, (frame, y, x) in enumerate(points):
        cell = whole.sel(y=y, x=x, method="nearest")
        row = cell.sel(**{"query_frame" if "query_frame" in whole.dims else "frame": frame})
        np.testing.assert_allclose(found.isel(query=number), row, atol=1e-6)
        assert (float(found["query_y"][number]), float(found["query_x"][number])) == (y, x)


def test_nothing_that_is_computed_changes(models: dict[str, DiffusionModel], clip: tl.Clip) -> None:
    for name in VIDEO:
        prepared = Prepared(models[name], clip[:4])
        noisy = prepared.noisy(Draw(TAU, 0), 0)
        with torch.no_grad():
            expected = models[name].run(noisy, TAU, prepared.conditions[0])
            with Watch() as seen:
                found = models[name].run(noisy, TAU, prepared.conditions[0])
        assert seen.last is not None
        assert torch.equal(found, expected)


def test_a_forward_a_window_that_ends_after_the_layer(models: dict[str, DiffusionModel], clip: tl.Clip) -> None:
    model = models["i2vgen_xl"]
    ran: list[str] = []
    watched = {"unet": model.unet, "up_1": model.unet.up_blocks[1], "up_2": model.unet.up_blocks[2]}
    handles = [m.register_forward_pre_hook(lambda *_, n=n: ran.append(n)) for n, m in watched.items()]
    tl.attention(model, clip, TAU, LAYER["i2vgen_xl"][1], window=4)
    tl.head_statistics(model, clip[:4], TAU, ["up_1.**", "down_0.**"])
    for handle in handles:
        handle.remove()
    assert ran == ["unet", "up_1"] * 3


def test_of_a_cut_model(models: dict[str, DiffusionModel], clip: tl.Clip) -> None:
    model, layer = models["i2vgen_xl"], LAYER["i2vgen_xl"][1]
    whole = tl.attention(model, clip, TAU, layer)
    cut = tl.attention(tl.ablate(model, "up_0", "zero"), clip, TAU, layer)
    assert "up_0" in cut.attrs["model_interventions"]
    assert float(np.abs(cut - whole).max()) > 1e-5
    # Its own output is taken after its weights.
    np.testing.assert_array_equal(tl.attention(tl.ablate(model, layer), clip, TAU, layer), whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_on_loan(tmp_path: Path, clip: tl.Clip, dtype: torch.dtype) -> None:
    pipeline = tiny.modelscope(tmp_path)
    expected = tl.attention(
        ADAPTERS["video"]["UNet3DConditionModel"](pipeline, name="m", size=32), clip, TAU, LAYER["modelscope"][1]
    )
    half = ADAPTERS["video"]["UNet3DConditionModel"](pipeline.to(dtype), name="m", size=32, offload=True)
    found = tl.attention(half, clip, TAU, LAYER["modelscope"][1])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_statistics_by_hand(models: dict[str, DiffusionModel]) -> None:
    model = models["svd"]
    made = tl.datasets.similar(3, frames=4, size=64, scale=1)
    clip = tl.Clip(made.frames, made.masks)
    layers = [LAYER["svd"][1], SPATIAL["svd"]]
    found = tl.head_statistics(model, clip, TAU, layers, size=64).sel(tau=TAU)
    assert list(found["kind"].values) == ["spatial", "temporal"]  # in the order in which they run
    for layer in layers:
        maps = tl.attention(model, clip, TAU, layer, size=64)
        keys = ["key_frame"] if "key_frame" in maps.dims else ["key_y", "key_x"]
        share = -(maps * np.log(maps)).sum(keys) / np.log(np.prod([maps.sizes[k] for k in keys]))
        here = found.sel(layer=layer)
        np.testing.assert_allclose(here["entropy"], share.mean([d for d in share.dims if d != "head"]), rtol=1e-4)
        if keys == ["key_frame"]:
            away, name = np.abs(maps["query_frame"] - maps["key_frame"]), "frames_away"
        else:
            away, name = np.hypot(maps["y"] - maps["key_y"], maps["x"] - maps["key_x"]), "pixels_away"
        each = (maps * away).sum(keys)
        np.testing.assert_allclose(here[name], each.mean([d for d in each.dims if d != "head"]), rtol=1e-4)
        query, key = projected(model, clip, layer, maps.sizes["head"], size=64)
        grid = (maps.sizes["y"], maps.sizes["x"])
        ids = on_grid(clip.masks, grid).reshape(4, -1)
        hits, blind = [], []
        for frame in range(1, 4):
            for cell in np.flatnonzero((ids[0] > 0) & np.isin(ids[0], ids[frame])):
                best = (key[:, frame] @ query[:, 0, cell, :, None])[..., 0].argmax(-1)
                hits.append(ids[frame][best] == ids[0][cell])
                blind.append((ids[frame] == ids[0][cell]).mean())
        assert len(hits) > 3
        np.testing.assert_allclose(here["accuracy"], np.mean(hits, axis=0), atol=1e-6)
        np.testing.assert_allclose(here["chance"], np.mean(blind), atol=1e-6)


def test_slices_do_not_show(models: dict[str, DiffusionModel], clip: tl.Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models["svd"]
    layers = [LAYER["svd"][1], SPATIAL["svd"]]
    maps = [tl.attention(model, clip, TAU, layer) for layer in layers]
    statistics = tl.head_statistics(model, clip, TAU, layers)
    monkeypatch.setattr("tedlens.attending.watching.SLICE", 70)
    monkeypatch.setattr("tedlens.attending.matching.SLICE", 70)
    for layer, whole in zip(layers, maps, strict=True):
        np.testing.assert_allclose(tl.attention(model, clip, TAU, layer), whole, atol=1e-6)
    xr.testing.assert_allclose(tl.head_statistics(model, clip, TAU, layers), statistics)


def test_masks_in_torch_s_words() -> None:
    """A mask of either type, and causal attention, by torch's own output: weights of one-hot values."""
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    value = torch.eye(5).expand(2, 3, 5, 5)
    attend = torch.nn.functional.scaled_dot_product_attention
    some = torch.rand(2, 1, 5, 5) > 0.4
    some[..., 0] = True
    for how in ({"attn_mask": some}, {"attn_mask": torch.randn(5, 5)}, {"is_causal": True}, {"scale": 0.3}):
        with Watch() as seen:
            expected = attend(query, key, value, **how)
        assert seen.last is not None
        torch.testing.assert_close(seen.last.weights(slice(None), [1, 3]), expected[:, :, [1, 3]])


def test_what_is_no_map_is_said(planted: Planted, clip: tl.Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    for how, message in (
        ({"layer": "conv_in"}, "There is no attention in conv_in"),
        ({"layer": "**.mix"}, "means 3 submodules"),
        ({"layer": "up_0", "query": [(6, 0, 0)]}, "is not all in clip 'six'"),
        ({"layer": "up_0", "query": [(0.5, 0, 0)]}, "are no points"),
        ({"layer": "up_0", "tau": 1000}, "tau=1000 is not"),
    ):
        with pytest.raises(tl.TedlensError, match=message):
            tl.attention(planted, clip, **({"tau": TAU} | how))
    monkeypatch.setattr("tedlens.attending.maps.LARGEST", 1000)
    with pytest.raises(tl.TedlensError, match=r"'up_0.mix.attn1' take 0.0 GB \(2 heads, 6 frames of 8x8"):
        tl.attention(planted, clip, TAU, "up_0")
    assert tl.attention(planted, clip, TAU, "up_0", query=[(0, 1, 1)]).shape == (1, 2, 6)
    from diffusers.models.attention_processor import AttnProcessor

    attention: Any = planted.unet.up_blocks[0].mix.attn1  # type: ignore[union-attr, index]
    before = attention.processor
    attention.set_processor(AttnProcessor())
    try:
        with pytest.raises(tl.TedlensError, match="does not go through torch's scaled_dot_product_attention"):
            tl.attention(planted, clip, TAU, "up_0", query=[(0, 1, 1)])
    finally:
        attention.set_processor(before)
