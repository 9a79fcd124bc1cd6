"""The same on a GPU as on the CPU: run by ``make test-cuda`` where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from adapters import no_hooks
from test_transformers import MADE, SIZES

import tedlens as tl
from tedlens.interventions.sites import inside
from tedlens.models.base import DiffusionModel

DEVICE = "cuda"
EMBEDDED = ["mini", "mini-svd", "mini-dit"]
TAU = 300

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in float32 and not in TensorFloat-32, whose ten bits are no ground to compare on."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DiffusionModel]:
    @cache
    def folder(name: str) -> Path:
        place = tmp_path_factory.mktemp(name)
        MADE[name](place).save_pretrained(place / "saved")
        return place / "saved"

    def loaded(name: str, device: str, offload: Literal["layers"] | bool = False) -> DiffusionModel:
        if name in EMBEDDED:
            return tl.load_video_model(name, device=device, offload=offload)
        return tl.load_video_model(folder(name), size=min(SIZES[name][-1]), device=device, offload=offload)

    return loaded


def clip_for(name: str) -> tl.Clip:
    return tl.datasets.similar(3, frames=9, size=SIZES.get(name, [(64, 64)])[-1])


def found_by(model: DiffusionModel, clip: tl.Clip) -> dict[str, Any]:
    """What each call gives, as arrays."""
    block = model.blocks[1]
    layer = next(name for name, point in inside(model).points.items() if name.endswith((".attn1", ".attn")))
    how: dict[str, Any] = {"window": 6, "overlap": 2}
    return {
        "probe": tl.probe(model, clip, tau=TAU, blocks=block, **how)[block]["features"].values,
        "predict": tl.predict(model, clip, tau=TAU, **how).frames.astype(np.float32),
        # NaN from and to frames that no window shows together.
        "attention": tl.attention(model, clip, TAU, layer, query=[(0, 20, 20)], **how).fillna(-1).values,
        "ablate": tl.probe(tl.ablate(model, layer), clip, tau=TAU, blocks=block, **how)[block]["features"].values,
        "track": tl.track(clip, motion=model, tau=TAU, block=block, lam=1, overlap=2)["labels"].values,
    }


def assert_alike(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, values in expected.items():
        if name == "track":
            assert (found[name] == values).mean() > 0.99, name
        else:
            off = np.linalg.norm(found[name] - values) / np.linalg.norm(values)
            assert off < (5e-3 if name == "predict" else 1e-3), (name, off)


@pytest.mark.parametrize("name", [*EMBEDDED, *MADE])
def test_every_call_gives_what_it_gives_on_the_cpu(load: Callable[..., DiffusionModel], name: str) -> None:
    clip = clip_for(name)
    model = load(name, DEVICE)
    assert model.device.type == DEVICE
    assert_alike(found_by(model, clip), found_by(load(name, "cpu"), clip))
    assert no_hooks(model)


def test_image_model_and_the_whole_method() -> None:
    clip = tl.datasets.similar(0, size=64)
    tracked = [
        tl.track(
            clip,
            motion=tl.load_video_model("mini", device=device),
            appearance=tl.load_image_model("mini", device=device),
            tau=600,
            lam=0.5,
        )["labels"]
        for device in (DEVICE, "cpu")
    ]
    assert float((tracked[0] == tracked[1]).mean()) > 0.99


@pytest.mark.parametrize("offload", [True, "layers"])
@pytest.mark.parametrize("name", ["mini", *MADE])
def test_what_waits_on_the_cpu_changes_nothing(
    load: Callable[..., DiffusionModel], name: str, offload: Literal["layers"] | bool
) -> None:
    clip = clip_for(name)
    model = load(name, DEVICE, offload)
    for _ in range(2):  # also after a forward that ended early
        assert_alike(found_by(model, clip), found_by(load(name, DEVICE), clip))
        kept = [part for part in model.pipeline.components.values() if isinstance(part, torch.nn.Module)]
        waiting = [part for part in kept if part is not model.denoiser or offload == "layers"]
        where = {value.device.type for part in waiting for value in part.parameters()}
        assert "cpu" in where
        if offload is True:
            assert where == {"cpu"}


@pytest.fixture
def small_card() -> Iterator[None]:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(3e-4)  # 42 MB of 140 GB
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("small_card")
def test_no_room_is_one_sentence(load: Callable[..., DiffusionModel]) -> None:
    with pytest.raises(tl.TedlensError, match=r"no room .*offload='layers'"):
        [tl.load_video_model("mini", device=DEVICE) for _ in range(20)]
