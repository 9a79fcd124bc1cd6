"""SAM 2 as a reference, on a tiny model of random weights: what it is asked, not how well it answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Sam2HieraDetConfig,
    Sam2VideoConfig,
    Sam2VideoMaskDecoderConfig,
    Sam2VideoModel,
    Sam2VideoPromptEncoderConfig,
    Sam2VisionConfig,
)
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

import tedlens as tl

SIDE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    hiera = Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 24, 32],
        num_attention_heads_per_stage=[1, 1, 1, 1],
        window_size_per_stage=[4, 4, 2, 2],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
        num_query_pool_stages=3,
    )
    vision = Sam2VisionConfig(
        backbone_config=hiera,
        backbone_channel_list=[32, 24, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=128,
    )
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(
            hidden_size=128, image_size=SIDE, patch_size=16, mask_input_channels=4
        ),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(
            hidden_size=128, mlp_dim=16, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16
        ),
        image_size=SIDE,
        num_maskmem=3,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=16,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128,
        memory_fuser_num_layers=1,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=16,
    )
    place: Path = tmp_path_factory.mktemp("models") / "sam2"
    Sam2VideoModel(config).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def sam(folder: Path) -> tl.sam2.Sam2:
    return tl.load_sam2(folder)


@pytest.fixture(scope="module")
def clip() -> tl.Clip:
    return tl.datasets.similar(seed=0, frames=5, size=(48, 70))


def late(clip: tl.Clip, entry: int) -> tl.Clip:
    """The clip with object 2 from a frame on only."""
    assert clip.masks is not None
    masks = clip.masks.copy()
    masks[:entry][masks[:entry] == 2] = 0
    return replace(clip, masks=masks)


def logits_alone(model: Any, clip: tl.Clip, number: int, start: int) -> Any:
    """By transformers' own calls, one object in a session of its own: (frame, H, W) from its first frame on."""
    assert clip.masks is not None
    pictures = [
        np.asarray(PIL.Image.fromarray(frame).resize((SIDE, SIDE), PIL.Image.Resampling.BILINEAR))
        for frame in clip.frames
    ]
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    video = torch.from_numpy(((np.stack(pictures) / 255 - mean) / deviation).transpose(0, 3, 1, 2)).float()
    session = Sam2VideoInferenceSession(video, clip.height, clip.width, dtype=torch.float32)
    mask = torch.from_numpy(clip.masks[start] == number).float()[None, None]
    small = F.interpolate(mask, (SIDE, SIDE), mode="bilinear", antialias=True) >= 0.5
    session.add_mask_inputs(session.obj_id_to_idx(5), start, small.float())
    session.obj_with_new_inputs = [5]
    frames = [model(session, frame_idx=t).pred_masks for t in range(start, len(clip))]
    return F.interpolate(torch.cat(frames), (clip.height, clip.width), mode="bilinear")[:, 0].numpy()


def test_it_is_transformers_own_tracking_object_by_object(sam: tl.sam2.Sam2, clip: tl.Clip) -> None:
    entering = late(clip, 2)
    found = tl.track_sam2(entering, sam)["labels"]
    assert found.dtype == np.uint8
    assert found.shape == (5, 48, 70)
    one = logits_alone(sam.model, entering, 1, 0)
    two = np.concatenate([np.full((2, 48, 70), -np.inf), logits_alone(sam.model, entering, 2, 2)])
    wanted = np.where(np.maximum(one, two) <= 0, 0, np.where(two > one, 2, 1))
    assert entering.masks is not None
    for t in (1, 3, 4):
        np.testing.assert_array_equal(found[t], wanted[t])
    np.testing.assert_array_equal(found[0], entering.masks[0])
    np.testing.assert_array_equal(found[2], np.where(entering.masks[2] == 2, 2, wanted[2]))


def test_an_object_changes_nothing_before_it_enters(sam: tl.sam2.Sam2, clip: tl.Clip) -> None:
    without, entering = (tl.track_sam2(late(clip, entry), sam)["labels"] for entry in (5, 3))
    np.testing.assert_array_equal(entering[:3], without[:3])
    assert (without != 2).all()


def test_before_the_first_mask_all_is_background(sam: tl.sam2.Sam2, clip: tl.Clip) -> None:
    assert clip.masks is not None
    masks = clip.masks.copy()
    masks[:2] = 255
    masks[2, :4] = 255
    labels = tl.track_sam2(replace(clip, masks=masks), sam)["labels"]
    assert (labels[:2] == 0).all()
    np.testing.assert_array_equal(labels[2], np.where(masks[2] == 255, 0, masks[2]))


def test_result_says_how_it_came_to_be(folder: Path, sam: tl.sam2.Sam2, clip: tl.Clip) -> None:
    one, again = tl.track_sam2(clip, sam), tl.track_sam2(clip, folder)
    xr.testing.assert_identical(one, again)
    assert one.attrs["model"] == str(folder)
    assert len(one.attrs["weights_sha256"]) == 64
    assert one.attrs["clip_shape"] == [5, 48, 70]


def test_it_runs_in_bfloat16(folder: Path, clip: tl.Clip) -> None:
    labels = tl.track_sam2(clip[:3], folder, dtype="bfloat16")["labels"]
    assert set(np.unique(labels)) <= {0, 1, 2}


def test_what_cannot_be_is_said(folder: Path, clip: tl.Clip, tmp_path: Path) -> None:
    Dinov2Model(Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)).save_pretrained(
        tmp_path / "dino"
    )
    for model, said in (
        (tmp_path / "nowhere", "There is no SAM 2"),
        ("facebook/no-such-sam2", "Cannot load facebook/no-such-sam2"),
        (tmp_path / "dino", "model of type 'dinov2', which is no SAM 2"),
    ):
        with pytest.raises(tl.TedlensError, match=said) as caught:
            tl.track_sam2(clip, model)
        assert "\n" not in str(caught.value)
    with pytest.raises(tl.TedlensError, match="nothing to track"):
        tl.track_sam2(tl.Clip(clip.frames), folder)
    with pytest.raises(tl.TedlensError, match="is not one that models run in"):
        tl.load_sam2(folder, dtype="int8")
