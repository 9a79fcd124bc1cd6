"""SAM 2's tracks are what transformers' own session gives for each object, put together; the rest is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import (
    Sam2HieraDetConfig,
    Sam2VideoConfig,
    Sam2VideoInferenceSession,
    Sam2VideoMaskDecoderConfig,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VideoPromptEncoderConfig,
    Sam2VisionConfig,
)

import tedlens as tl
from tedlens.models.base import hash_of_weights
from tedlens.sam2 import TWICE, Sam2, load_sam2, track_sam2

Masks = np.ndarray[Any, np.dtype[np.uint8]]
SIDE, GRID = 64, 4  # of the pictures, and of the features of the lowest resolution
WIDTH = 128  # twice the memory's 64, which transformers counts on
LATE = 2  # the frame where an object enters late


def tiny_network() -> Sam2VideoModel:
    """SAM 2 with random weights under which objects are seen, and not all alike."""
    torch.manual_seed(36)
    backbone = Sam2HieraDetConfig(
        hidden_size=4,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[4, 8, 16, 32],
        num_attention_heads_per_stage=[1, 1, 1, 1],
        window_size_per_stage=[4, 4, 4, 4],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[32, 16, 8, 4],
        backbone_feature_sizes=[[4 * GRID, 4 * GRID], [2 * GRID, 2 * GRID], [GRID, GRID]],
        fpn_hidden_size=WIDTH,
    )
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(hidden_size=WIDTH, image_size=SIDE, mask_input_channels=8),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(
            hidden_size=WIDTH, mlp_dim=16, num_attention_heads=2, iou_head_hidden_dim=16
        ),
        image_size=SIDE,
        num_maskmem=3,
        max_object_pointers_in_encoder=3,
        memory_attention_hidden_size=WIDTH,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=16,
        memory_attention_rope_feat_sizes=[GRID, GRID],
        memory_encoder_hidden_size=WIDTH,
        mask_downsampler_embed_dim=WIDTH,
        memory_fuser_embed_dim=WIDTH,
        memory_fuser_intermediate_dim=16,
    )
    network = Sam2VideoModel(config).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.normal_(std=(2 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.3)
            if name.startswith("memory"):  # what is remembered must tell
                value.mul_(2)
        # An object is in the picture whatever is seen: as transformers makes the model, none ever is.
        network.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(1e4)
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sam2")
    tiny_network().save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def network(folder: Path) -> Any:
    """As transformers itself loads it."""
    return Sam2VideoModel.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> Sam2:
    return load_sam2(folder, device="cpu")


@pytest.fixture(scope="module")
def clip() -> tl.Clip:
    """More frames than the tiny model looks back; height and width differ."""
    clip = tl.datasets.similar(seed=0)[:6]
    assert clip.masks is not None
    return tl.Clip(clip.frames[:, 8:56], clip.masks[:, 8:56], name="six")


def masked(clip: tl.Clip, masks: Masks) -> tl.Clip:
    return tl.Clip(clip.frames, masks, name=clip.name)


def late(clip: tl.Clip) -> tuple[tl.Clip, int]:
    """The clip with its last object annotated from frame 2 on, and that object."""
    assert clip.masks is not None
    masks, number = clip.masks.copy(), clip.object_ids[-1]
    assert (masks[LATE] == number).any()
    masks[:LATE][masks[:LATE] == number] = 0
    return masked(clip, masks), number


def labels_of(clip: tl.Clip, model: Any) -> Masks:
    return np.asarray(track_sam2(clip, model)["labels"])


def logits_of(network: Any, clip: tl.Clip, number: int, start: int) -> np.ndarray[Any, Any]:
    """Logits (frame, H, W) of one object from its first mask on, by transformers' session and processor."""
    assert clip.masks is not None
    small = [PIL.Image.fromarray(f).resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC) for f in clip.frames]
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    pictures = (torch.from_numpy(np.stack([np.asarray(f) for f in small])).float() / 255 - mean) / std
    session = Sam2VideoInferenceSession(pictures.permute(0, 3, 1, 2), clip.height, clip.width, dtype=torch.float32)
    # Of a processor, which torchvision is needed to make, masks need one number.
    Sam2VideoProcessor.process_new_mask_for_video_frame(
        SimpleNamespace(target_size=SIDE), session, start, [number], clip.masks[start] == number
    )
    found = list(network.propagate_in_video_iterator(session, start_frame_idx=start))
    assert [each.frame_idx for each in found] == list(range(start, len(clip)))
    low = torch.cat([each.pred_masks for each in found])
    high = F.interpolate(low, (clip.height, clip.width), mode="bilinear", align_corners=False)
    before = np.full((start, clip.height, clip.width), -np.inf)
    return np.concatenate([before, high[:, 0].numpy()])


# --- what is tracked ------------------------------------------------------------------------------


def test_labels_have_the_size_and_ids_of_the_clip(clip: tl.Clip, model: Sam2):
    tracked = track_sam2(clip, model)
    labels = tracked["labels"]
    assert labels.dtype == np.uint8
    assert labels.dims == ("frame", "y", "x")
    assert labels.shape == (6, 48, 128)
    # Every object and the background are seen to the end, so that what follows is of something.
    assert set(np.unique(labels[-1])) == {0, *clip.object_ids}
    assert np.isfinite(float(tl.evaluate(labels, clip.masks)["J"].mean()))


def test_attributes_say_what_made_it(clip: tl.Clip, model: Sam2, folder: Path) -> None:
    attrs = track_sam2(clip, model)["labels"].attrs
    weights = hash_of_weights([model.model])
    assert attrs["model"] == str(folder)
    assert attrs["model_class"] == "Sam2VideoModel"
    assert attrs["model_revision"] == ""
    assert attrs["weights_sha256"] == weights
    assert attrs["dtype"] == "float32"
    assert attrs["input_size"] == [SIDE, SIDE]
    assert attrs["clip"] == "six"
    assert len(attrs["clip_sha256"]) == 64
    assert {"version_tedlens", "version_torch", "version_transformers"} <= attrs.keys()


def test_one_object_is_what_transformers_gives(clip: tl.Clip, model: Sam2, network: Any):
    assert clip.masks is not None
    number = clip.object_ids[0]
    alone = masked(clip, np.where(clip.masks == number, number, 0).astype(np.uint8))
    expected = np.where(logits_of(network, alone, number, 0) > 0, number, 0)
    expected[0] = alone.masks[0]  # type: ignore[index]
    assert 0 < (expected[-1] > 0).mean() < 1
    np.testing.assert_array_equal(labels_of(alone, model), expected)


@pytest.mark.parametrize("enters_late", [False, True])
def test_of_several_the_highest_logit_wins(enters_late: bool, clip: tl.Clip, model: Sam2, network: Any):
    number = clip.object_ids[-1]
    if enters_late:
        clip, number = late(clip)
    starts = {each: LATE if enters_late and each == number else 0 for each in clip.object_ids}
    logits = {each: logits_of(network, clip, each, start) for each, start in starts.items()}
    if enters_late:
        logits[number][LATE] = -np.inf  # given there, inside and around
    together = np.stack(list(logits.values()))
    expected = np.where(together.max(0) > 0, np.array(list(logits))[together.argmax(0)], 0)
    for each, start in starts.items():
        assert clip.masks is not None
        expected[start] = np.where(clip.masks[start] == each, each, expected[start]) if start else clip.masks[0]
    np.testing.assert_array_equal(labels_of(clip, model), expected)


def test_what_is_given_stays(clip: tl.Clip, model: Sam2):
    entering, number = late(clip)
    assert entering.masks is not None
    labels = labels_of(entering, model)
    np.testing.assert_array_equal(labels[0], entering.masks[0])
    np.testing.assert_array_equal(labels[LATE] == number, entering.masks[LATE] == number)


def test_a_late_object_changes_nothing_before_and_nothing_but_itself_after(clip: tl.Clip, model: Sam2):
    entering, number = late(clip)
    assert entering.masks is not None
    without = masked(clip, np.where(entering.masks == number, 0, entering.masks).astype(np.uint8))
    labels, others = labels_of(entering, model), labels_of(without, model)
    assert not (labels[:LATE] == number).any()
    assert (labels[LATE + 1 :] == number).any()
    np.testing.assert_array_equal(labels[:LATE], others[:LATE])
    kept = labels != number
    np.testing.assert_array_equal(labels[kept], others[kept])


def test_void_is_no_object_and_frames_before_the_first_mask_are_background(clip: tl.Clip, model: Sam2):
    assert clip.masks is not None
    masks = clip.masks.copy()
    masks[0] = 255
    masks[1, :5] = 255
    labels = labels_of(masked(clip, masks), model)
    assert not labels[0].any()
    np.testing.assert_array_equal(labels[1], np.where(masks[1] == 255, 0, masks[1]))
    assert set(np.unique(labels)) <= {0, *clip.object_ids}
    # Frames before the first mask are not looked at, and their number is that of frames all the same.
    frames = clip.frames.copy()
    frames[0] = 0
    np.testing.assert_array_equal(labels_of(tl.Clip(frames, masks), model), labels)


def test_a_first_mask_without_objects(clip: tl.Clip, model: Sam2):
    assert clip.masks is not None
    masks = clip.masks.copy()
    masks[:2] = 0
    labels = labels_of(masked(clip, masks), model)
    assert not labels[:2].any()
    np.testing.assert_array_equal(labels[2], masks[2])


def test_it_repeats_exactly_and_later_masks_are_not_looked_at(clip: tl.Clip, folder: Path, model: Sam2):
    assert clip.masks is not None
    first = labels_of(clip, model)
    only = masked(clip, np.where(np.arange(6)[:, None, None] == 0, clip.masks, 255).astype(np.uint8))
    for again in (labels_of(clip, model), labels_of(clip, folder), labels_of(only, str(folder))):
        np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_types_of_number(dtype: str, clip: tl.Clip, folder: Path):
    tracked = track_sam2(clip, folder, dtype=dtype)
    assert tracked.attrs["dtype"] == dtype
    assert set(np.unique(tracked["labels"][1:])) == {0, *clip.object_ids}


def test_a_frame_is_encoded_once_and_memory_does_not_grow(clip: tl.Clip, model: Sam2, monkeypatch: pytest.MonkeyPatch):
    assert clip.masks is not None
    held: list[int] = []
    encoded: list[Any] = []
    step, encode = model.model.forward, model.model.get_image_features

    def counting(session: Any, **words: Any) -> Any:
        found = step(session, **words)
        held.append(len(session.output_dict_per_obj[0]["non_cond_frame_outputs"]))
        return found

    monkeypatch.setattr(model.model, "forward", counting)
    monkeypatch.setattr(model.model, "get_image_features", lambda *a, **w: encoded.append(a) or encode(*a, **w))
    track_sam2(tl.Clip(np.concatenate([clip.frames] * 3), clip.masks[0]), model)
    assert len(held) == 18 * 2
    assert max(held) == model.reach == 3
    assert len(encoded) == 18


# --- what is loaded -------------------------------------------------------------------------------


def test_files_of_transformers_4_load_the_same(folder: Path, model: Sam2, tmp_path: Path):
    copied(folder, tmp_path, lambda weights: weights.pop(TWICE[1]))
    assert load_sam2(tmp_path, device="cpu").weights_sha256 == model.weights_sha256


def copied(folder: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """A model's folder with other weights."""
    (target / "config.json").write_bytes((folder / "config.json").read_bytes())
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, target / "model.safetensors", {"format": "pt"})


def refused(call: Callable[[], Any], *words: str) -> None:
    with pytest.raises(tl.TedlensError) as caught:
        call()
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith((".", ")."))
    for word in words:
        assert word in said


def test_a_clip_without_objects_is_refused(clip: tl.Clip, model: Sam2):
    refused(lambda: track_sam2(tl.Clip(clip.frames), model), "no object", "masks")
    nothing = np.zeros(clip.frames.shape[:3], np.uint8)
    refused(lambda: track_sam2(masked(clip, nothing), model), "no object")


def test_names_that_cannot_be_loaded_are_refused(clip: tl.Clip, folder: Path, model: Sam2, tmp_path: Path):
    refused(lambda: track_sam2(clip, tmp_path / "nothing"), "no SAM 2", "owner/name", "folder")
    refused(lambda: track_sam2(clip, tmp_path), "config.json", "save_pretrained")
    refused(lambda: track_sam2(clip), "facebook/sam2.1-hiera-tiny", "network")
    refused(lambda: track_sam2(clip, folder, revision="main"), "hub id", "leave it out")
    refused(lambda: track_sam2(clip, folder, device="abacus"), "abacus")
    refused(lambda: track_sam2(clip, folder, dtype="int4"), "int4")
    refused(lambda: track_sam2(clip, 3), "int is no SAM 2", "load_sam2")  # type: ignore[arg-type]
    refused(lambda: track_sam2(clip, model, dtype="bfloat16"), "loaded already", "load_sam2")


def test_a_folder_of_another_model_is_refused(clip: tl.Clip, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    refused(lambda: track_sam2(clip, tmp_path), "'vit'", "sam2_video")


def test_weights_that_are_not_whole_are_refused(clip: tl.Clip, folder: Path, tmp_path: Path):
    copied(folder, tmp_path, lambda weights: weights.pop("no_memory_embedding"))
    refused(lambda: track_sam2(clip, tmp_path), "1 of the", "no_memory_embedding", "not whole")
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    refused(lambda: track_sam2(clip, tmp_path), "Cannot load")
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    refused(lambda: track_sam2(clip, tmp_path), "Cannot load", "safetensors")
