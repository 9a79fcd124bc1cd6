"""SAM 2 (Ravi et al. 2024) on a clip: a reference that was trained on masks, to compare with TED, which was not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import transformers
import xarray as xr
from torch import Tensor

from tedlens.clip import Clip, as_clip
from tedlens.errors import TedlensError
from tedlens.labels import VOID, Labels, object_ids
from tedlens.models.base import Frames, hash_of_weights
from tedlens.models.encoders import Look
from tedlens.models.loading import (
    device_named,
    dtype_named,
    read_config,
    revision_of,
    transformers_folder,
    transformers_model,
)
from tedlens.probing import resize
from tedlens.provenance import clip_provenance, versions
from tedlens.ted import given_masks, label_masks
from tedlens.ted.tracking import start_masks

TINY = "facebook/sam2.1-hiera-tiny"
FLOAT32 = "float32"
LOOK = Look()  # ImageNet's mean and deviation, as in all of SAM 2's configurations
# A matrix of SAM 2's prompt encoder: transformers' model holds it twice, files of transformers 4 hold it once.
TWICE = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")


@dataclass(frozen=True, eq=False)
class Sam2:
    """SAM 2 for video, loaded once for many clips with `load_sam2`.

    Attributes
    ----------
    model
        transformers' `Sam2VideoModel`, on its device.
    name
        The hub id or folder that it was loaded from.
    revision
        The commit on the hub, if known.
    """

    model: Any
    name: str
    revision: str | None = None

    @property
    def side(self) -> int:
        """Height and width, in pixels, of the pictures that the model sees."""
        return int(self.model.config.image_size)

    @property
    def reach(self) -> int:
        """Maximum number of frames back that the model reads its memory."""
        config = self.model.config
        return max(int(config.num_maskmem), int(config.max_object_pointers_in_encoder))

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the names and hashes of all weights, as for the other models."""
        return hash_of_weights([self.model])

    def provenance(self) -> dict[str, Any]:
        """What is needed to load this model again, for the attributes of results."""
        return {
            "model": self.name,
            "model_class": type(self.model).__name__,
            "model_revision": self.revision or "",
            "weights_sha256": self.weights_sha256,
            "dtype": str(self.model.dtype).removeprefix("torch."),
        }


def load_sam2(
    name: str | Path = TINY, *, revision: str | None = None, device: str | None = None, dtype: str = FLOAT32
) -> Sam2:
    """Load SAM 2 for `track_sam2`, once for many clips.

    Parameters
    ----------
    name
        Hub id (``"facebook/sam2.1-hiera-tiny"``, ``-small``, ``-base-plus``, ``-large``, or ``sam2`` for the first
        release), or a folder that transformers' ``save_pretrained`` wrote. Weights are read from safetensors only.
    revision
        Branch, tag or commit of a hub id.
    device, dtype
        See `load_video_model`.

    Raises
    ------
    TedlensError
        For a name that is neither hub id nor folder, a folder or hub id that cannot be read or holds another model,
        weights that are missing or damaged, an unknown device or dtype.
    """
    place, number_type = device_named(device), dtype_named(dtype)
    folder = transformers_folder(str(name), revision, f"There is no SAM 2 {str(name)!r}; give ")
    kind = read_config(folder / "config.json").get("model_type")
    if kind != "sam2_video":
        raise TedlensError(
            f"{name} is a model of type {kind!r}, which is no SAM 2 for video ('sam2_video'); give the hub id of one, "
            f"as {TINY!r}, or its folder."
        )
    return Sam2(_network(folder, number_type).to(place), str(name), revision_of(folder))


def track_sam2(
    clip: Clip | str | Path,
    model: Sam2 | str | Path = TINY,
    *,
    revision: str | None = None,
    device: str | None = None,
    dtype: str = FLOAT32,
) -> xr.Dataset:
    """Track the objects of the first mask through the clip with SAM 2: a supervised reference, not a rival, of `track`.

    The first mask of each object is its prompt, as in SAM 2's evaluation on video object segmentation
    (``tools/vos_inference.py``). From there on each object is tracked separately. In each pixel the object with the
    highest logit above 0 wins, or else the background. SAM 2's script does the same where objects enter late
    (``--track_object_appearing_later_in_video``). Where none does, tracking all objects together gives the same
    result, because SAM 2 keeps a separate memory for each object. In one session of transformers the result would
    differ: a frame without a prompt for an object that enters later would count as a prompt of that object, and a
    prompt would change how the other objects of the frame are remembered. Holes are not filled, as in that evaluation.

    The network and its memory are those of transformers. They differ from SAM 2's own code at least in this: the first
    pointer to an object comes from the best of three masks, not from SAM 2's single mask. Frames are prepared as in
    SAM 2's evaluation (Pillow's bicubic), because transformers' processor needs torchvision. It has not been checked
    whether this reaches the published accuracy: no trained weights were available.

    Parameters
    ----------
    clip
        A clip with masks, or the path of one. Each object starts at its first mask; later masks are not used.
        Tracking goes forward in time; an object has no label before its first mask.
    model
        A model from `load_sam2`, or the hub id or folder to load.
    revision, device, dtype
        See `load_sam2`; only for a model that is not loaded yet.

    Returns
    -------
    Dataset with ``labels`` (frame, y, x) uint8 at the size of the clip: the ids of the masks. The given masks are
    kept, except for void. The attributes record the clip, the model with the hash of its weights, ``input_size``
    (height and width of SAM 2's pictures, in pixels) and the versions.

    Raises
    ------
    TedlensError
        For a clip without an object in its masks, loading arguments together with a loaded model, and as `load_sam2`.

    Notes
    -----
    Memory does not grow with the length of the clip: each frame is prepared when it is needed (12 MB at 1024x1024)
    and encoded once for all objects. For each object the last 16 frames are kept on the device (about 6 MB each).

    References
    ----------
    N. Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, arXiv:2408.00714.
    """
    clip = as_clip(clip)
    masks = start_masks(clip)
    sam2 = _as_sam2(model, revision, device, dtype)
    labels = _follow(sam2, clip.frames, given_masks(masks))
    about = {**sam2.provenance(), **clip_provenance(clip), "input_size": [sam2.side, sam2.side]}
    attrs = versions() | {"version_transformers": version("transformers")} | about
    return label_masks(labels, np.arange(len(clip)), attrs).to_dataset(name="labels", promote_attrs=True)


def _as_sam2(model: Sam2 | str | Path, revision: str | None, device: str | None, dtype: str) -> Sam2:
    if isinstance(model, str | Path):
        return load_sam2(model, revision=revision, device=device, dtype=dtype)
    if not isinstance(model, Sam2):
        raise TedlensError(
            f"A {type(model).__name__} is no SAM 2; give a hub id, as {TINY!r}, a folder, or what tl.load_sam2 loaded."
        )
    if (revision, device, dtype) != (None, None, FLOAT32):
        raise TedlensError(
            f"{model.name!r} is loaded already, so revision=, device= and dtype= mean nothing; give them to "
            "tl.load_sam2."
        )
    return model


def _network(folder: Path, dtype: torch.dtype) -> Any:
    """The model of transformers."""
    network = transformers_model(folder, "Sam2VideoModel", dtype, {}, may_lack=TWICE[1:])
    network.prompt_encoder.shared_embedding = network.shared_image_embedding
    return network


class _Pictures:
    """Frames as SAM 2 sees them, each computed when it is needed: stored, they would take 12 MB per frame."""

    def __init__(self, frames: Frames, side: int, dtype: torch.dtype) -> None:
        self.frames, self.side, self.dtype = frames, side, dtype

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, frame: int) -> Tensor:
        picture: Tensor = LOOK(resize(self.frames[frame : frame + 1], (self.side, self.side)))[0]
        return picture.to(self.dtype)


def _follow(sam2: Sam2, frames: Frames, given: Mapping[int, Labels]) -> Labels:
    """Masks (frame, H, W) from `given`: by frame, the first masks of the objects."""
    labels = np.zeros(frames.shape[:3], np.uint8)
    pictures = _Pictures(frames, sam2.side, sam2.model.dtype)
    # All sessions share the features of a frame here, so that it is encoded only once.
    cache = _session(sam2).cache
    sessions: dict[int, Any] = {}
    for frame in range(min(given), len(frames)):
        # Objects given on this frame are not predicted: their whole mask is known, also where it is background.
        logits = {each: _step(sam2, session, frame) for each, session in sessions.items()}
        labels[frame] = _strongest(logits, labels.shape[1:])
        if frame not in given:
            continue
        mask = given[frame]
        for each in object_ids(mask):
            sessions[each] = _session(sam2)
            sessions[each].processed_frames, sessions[each].cache = pictures, cache
            _prompt(sam2, sessions[each], frame, mask == each)
            _step(sam2, sessions[each], frame)  # so that it is remembered
        known = (mask > 0) & (mask != VOID)
        labels[frame][known] = mask[known]
    return labels


def _session(sam2: Sam2) -> Any:
    """The memory of one object, on the device."""
    place = sam2.model.device
    return transformers.Sam2VideoInferenceSession(
        inference_device=place, inference_state_device=place, dtype=sam2.model.dtype
    )


def _prompt(sam2: Sam2, session: Any, frame: int, mask: npt.NDArray[np.bool_]) -> None:
    """Give a session the mask of its object, resized as SAM 2 and transformers' processor (of torchvision) do it."""
    whole = torch.from_numpy(mask)[None, None].float()
    sized = F.interpolate(whole, (sam2.side, sam2.side), mode="bilinear", align_corners=False, antialias=True)
    session.add_mask_inputs(session.obj_id_to_idx(1), frame, (sized >= 0.5).float())
    session.obj_with_new_inputs = [1]


def _step(sam2: Sam2, session: Any, frame: int) -> Tensor:
    """Logits (1, 1, y, x) of the object of a session on its next frame, at SAM 2's low resolution."""
    found = sam2.model(session, frame_idx=frame).pred_masks
    for remembered in session.output_dict_per_obj.values():
        remembered["non_cond_frame_outputs"].pop(frame + 1 - sam2.reach, None)
    logits: Tensor = found.float()
    return logits


def _strongest(logits: Mapping[int, Tensor], size: tuple[int, ...]) -> Labels:
    """For each pixel of a frame (H, W) the object with the highest logit above 0, or else the background."""
    if not logits:
        return np.zeros(size, np.uint8)
    ids = sorted(logits)
    low = torch.cat([logits[each] for each in ids])
    highest, which = F.interpolate(low, size, mode="bilinear", align_corners=False)[:, 0].max(0)
    winner: Labels = np.array([0, *ids], np.uint8)[((which + 1) * (highest > 0)).cpu().numpy()]
    return winner
