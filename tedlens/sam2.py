"""SAM 2 (Ravi et al. 2024) as a supervised reference: what a tracker that was trained on masks makes of a clip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

from tedlens.clip import Clip, as_clip
from tedlens.errors import TedlensError
from tedlens.labels import VOID, ids_in
from tedlens.models.base import hash_of_weights
from tedlens.models.loading import (
    device_named,
    dtype_named,
    read_config,
    revision_of,
    transformers_folder,
    transformers_model,
)
from tedlens.provenance import clip_provenance, versions
from tedlens.ted import given_masks, label_masks
from tedlens.ted.tracking import start_masks

TINY = "facebook/sam2.1-hiera-tiny"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of its pictures


@dataclass(frozen=True, eq=False)
class Sam2:
    """A loaded SAM 2, for many clips. `load_sam2` makes it."""

    model: Any  # transformers' Sam2VideoModel
    name: str
    revision: str | None

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """How to get this model again, for the attributes of results."""
        return {
            "model": self.name,
            "model_class": type(self.model).__name__,
            "model_revision": self.revision or "",
            "weights_sha256": hash_of_weights([self.model]),
            "dtype": str(self.model.dtype).removeprefix("torch."),
        }


def load_sam2(
    name: str | Path = TINY, *, revision: str | None = None, device: str | None = None, dtype: str = "float32"
) -> Sam2:
    """Load a SAM 2 of transformers.

    Parameters
    ----------
    name
        Hub id (``"facebook/sam2.1-hiera-tiny"``, ``-small``, ``-base-plus``, ``-large``) or folder. Weights are read
        from safetensors only.
    revision
        Of a hub id: its branch, tag or commit.
    device, dtype
        See `load_video_model`.

    Raises
    ------
    TedlensError
        For a folder or hub id that cannot be read, or of another model; an unknown device or dtype.
    """
    place, number_type = device_named(device), dtype_named(dtype)
    folder = transformers_folder(str(name), revision, f"There is no SAM 2 {str(name)!r}; give ")
    kind = read_config(folder / "config.json").get("model_type")
    if kind != "sam2_video":
        raise TedlensError(
            f"{name} is a model of type {kind!r}, which is no SAM 2 for video; give its hub id, as {TINY!r}, or the "
            "folder of one."
        )
    model = transformers_model(folder, "Sam2VideoModel", number_type, {}).to(place).eval().requires_grad_(False)
    return Sam2(model, str(name), revision or revision_of(folder))


def track_sam2(
    clip: Clip | str | Path,
    model: Sam2 | str | Path = TINY,
    *,
    device: str | None = None,
    dtype: str = "float32",
) -> xr.Dataset:
    """Track the objects of the first mask with SAM 2, which was trained on masks: a reference, not a baseline.

    Each object's first mask is its prompt, as in the benchmarks of video object segmentation. SAM 2 follows objects
    one by one, and has no notion of one that is not there yet: objects that enter together share a pass, which begins
    on the frame where they enter (as its own script for such data sets does); the passes share nothing. In each pixel
    the object of the greatest logit wins, or the background where none is above 0. What was given stays.

    Parameters
    ----------
    clip
        With masks, of which each object's first is its start; the others are not looked at. Or a path of such a clip.
        Its frames are resized to the model's square input, and wait in the memory of the CPU.
    model
        A loaded one (`load_sam2`), or its hub id or folder.
    device, dtype
        Of a model that is not loaded yet, see `load_video_model`.

    Returns
    -------
    Dataset with ``labels`` (frame, y, x) uint8 at the clip's own size, as from `track`.

    Raises
    ------
    TedlensError
        For a clip without masks, and as `load_sam2`.
    """
    clip = as_clip(clip)
    masks = start_masks(clip)
    sam = model if isinstance(model, Sam2) else load_sam2(model, device=device, dtype=dtype)
    given = given_masks(masks)
    video = _pictures(clip.frames, sam.model.config.image_size)
    best = np.zeros(masks.shape, np.float32)  # the greatest logit so far, at least 0
    labels = np.zeros(masks.shape, np.uint8)
    for start, mask in given.items():
        ids = sorted(ids_in(mask) - {0, VOID})
        for frame, logits in _followed(sam.model, video, start, [mask == number for number in ids]):
            for number, each in zip(ids, logits, strict=True):
                wins = each > best[frame]
                best[frame][wins], labels[frame][wins] = each[wins], number
    first = min(given)
    for start, mask in given.items():
        known = mask != VOID if start == first else mask > 0  # of what enters later, the background is not told
        labels[start] = np.where(known, mask, 0 if start == first else labels[start])
    attrs = versions() | sam.provenance | clip_provenance(clip)
    return label_masks(labels, np.arange(len(clip)), attrs).to_dataset(name="labels").assign_attrs(attrs)


def _pictures(frames: npt.NDArray[np.uint8], side: int) -> Tensor:
    """Frames (frame, 3, side, side) as SAM 2 sees them: bilinear, less the mean, in units of the deviation."""
    # transformers' own processor needs torchvision.
    resized = [PIL.Image.fromarray(frame).resize((side, side), PIL.Image.Resampling.BILINEAR) for frame in frames]
    pictures = torch.from_numpy(np.stack([np.asarray(picture) for picture in resized])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (MEAN, STD))
    return (pictures - mean) / std


def _followed(
    model: Any, video: Tensor, start: int, masks: list[npt.NDArray[np.bool_]]
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """For each frame from `start` on, its number and logits (object, H, W) of the objects that enter there."""
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    if not masks:  # a first mask without an object
        return
    height, width = masks[0].shape
    session = Sam2VideoInferenceSession(
        video,
        height,
        width,
        inference_device=model.device,
        inference_state_device=model.device,
        video_storage_device="cpu",
        dtype=model.dtype,
    )
    side = model.config.image_size
    for number, mask in enumerate(masks):
        whole = torch.from_numpy(mask)[None, None].float()
        small = F.interpolate(whole, (side, side), mode="bilinear", align_corners=False, antialias=True)
        session.add_mask_inputs(session.obj_id_to_idx(number), start, (small >= 0.5).float())
    session.obj_with_new_inputs = list(range(len(masks)))
    for out in model.propagate_in_video_iterator(session, start_frame_idx=start):
        logits = F.interpolate(out.pred_masks.float(), (height, width), mode="bilinear", align_corners=False)
        yield out.frame_idx, logits[:, 0].cpu().numpy()
