"""SAM 2 (Ravi et al. 2024) on a clip: a reference that was trained on masks, to stand beside TED, which was not."""

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
# The one matrix of SAM 2's prompt encoder, which transformers' model has twice and files of transformers 4 once.
TWICE = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")


@dataclass(frozen=True, eq=False)
class Sam2:
    """SAM 2 for video, loaded once for many clips: `load_sam2` makes it.

    Attributes
    ----------
    model
        transformers' `Sam2VideoModel`, on its device.
    name
        As it was loaded: a hub id or folder.
    revision
        The hub's commit, where it is known.
    """

    model: Any
    name: str
    revision: str | None = None

    @property
    def side(self) -> int:
        """Height and width of the pictures that it sees, in pixels."""
        return int(self.model.config.image_size)

    @property
    def reach(self) -> int:
        """How many frames back the memory of a frame is read at most."""
        config = self.model.config
        return max(int(config.num_maskmem), int(config.max_object_pointers_in_encoder))

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the names and hashes of all weights, as other models have it."""
        return hash_of_weights([self.model])

    def provenance(self) -> dict[str, Any]:
        """How to get this model again, for the attributes of results."""
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
        Of a hub id: its branch, tag or commit.
    device, dtype
        See `load_video_model`.

    Raises
    ------
    TedlensError
        For a name that is neither hub id nor folder, a folder or hub id that cannot be read or is another model's,
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

    Each object's first mask is its prompt, as in SAM 2's evaluation on video object segmentation
    (``tools/vos_inference.py``). Each object is tracked on its own from there on, and in each pixel the one of the
    highest logit above 0 wins, or else the background. That is what SAM 2's script does where objects enter late
    (``--track_object_appearing_later_in_video``); where none does, it gives the same as all together, because SAM 2
    has a memory for each object and none of the others. In one session of transformers it would not: a frame without a
    prompt of its own would count as a prompt of an object that enters later, and a prompt would change how the others
    of its frame are remembered. Holes are not filled, as in that evaluation.

    The network and its memory are transformers', which differ from SAM 2's own code at least here: the first pointer to
    an object is that of the best of three masks, not of SAM 2's single one. Frames are made ready as SAM 2's evaluation
    does it (Pillow's bicubic), because transformers' processor needs torchvision. Whether published accuracy is reached
    has not been checked: no trained weights were at hand.

    Parameters
    ----------
    clip
        With masks, of which each object's first is its start; the others are not looked at. Tracking goes forward:
        what is before an object's first mask is not that object. Or a path of such a clip.
    model
        One that `load_sam2` loaded, or what it loads: a hub id or folder.
    revision, device, dtype
        See `load_sam2`; of a model that is not loaded yet.

    Returns
    -------
    Dataset with ``labels`` (frame, y, x) uint8 at the clip's own size: the ids of the masks. What was given stays,
    void left out. Attributes say the clip, the model with the hash of its weights, ``input_size`` (height and width of
    SAM 2's pictures, in pixels) and the versions.

    Raises
    ------
    TedlensError
        For a clip without an object in its masks, a model that is loaded and said how to load, and as `load_sam2`.

    Notes
    -----
    Memory does not grow with the length of the clip: a frame is made ready when its turn comes (12 MB at 1024x1024),
    seen once by the picture encoder for all objects, and of each object the last 16 frames are kept on the device
    (about 6 MB each).

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
    """transformers' model."""
    network = transformers_model(folder, "Sam2VideoModel", dtype, {}, may_lack=TWICE[1:])
    network.prompt_encoder.shared_embedding = network.shared_image_embedding
    return network


class _Pictures:
    """Frames as SAM 2 sees them, each made when it is asked for: together they would be 12 MB a frame."""

    def __init__(self, frames: Frames, side: int, dtype: torch.dtype) -> None:
        self.frames, self.side, self.dtype = frames, side, dtype

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, frame: int) -> Tensor:
        picture: Tensor = LOOK(resize(self.frames[frame : frame + 1], (self.side, self.side)))[0]
        return picture.to(self.dtype)


def _follow(sam2: Sam2, frames: Frames, given: Mapping[int, Labels]) -> Labels:
    """Masks (frame, H, W) from those that are given by frame, each object's first."""
    labels = np.zeros(frames.shape[:3], np.uint8)
    pictures = _Pictures(frames, sam2.side, sam2.model.dtype)
    # All sessions find the features of a frame here, so that it is encoded once.
    cache = _session(sam2).cache
    sessions: dict[int, Any] = {}
    for frame in range(min(given), len(frames)):
        # Of what is given on this frame nothing is predicted: its mask is known, all around it, too.
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
    """What is remembered of one object, on the device."""
    place = sam2.model.device
    return transformers.Sam2VideoInferenceSession(
        inference_device=place, inference_state_device=place, dtype=sam2.model.dtype
    )


def _prompt(sam2: Sam2, session: Any, frame: int, mask: npt.NDArray[np.bool_]) -> None:
    """Give a session its object: at the network's size, as SAM 2 and transformers' processor (of torchvision) do it."""
    whole = torch.from_numpy(mask)[None, None].float()
    sized = F.interpolate(whole, (sam2.side, sam2.side), mode="bilinear", align_corners=False, antialias=True)
    session.add_mask_inputs(session.obj_id_to_idx(1), frame, (sized >= 0.5).float())
    session.obj_with_new_inputs = [1]


def _step(sam2: Sam2, session: Any, frame: int) -> Tensor:
    """Logits (1, 1, y, x) of a session's object on its next frame, at SAM 2's low resolution."""
    found = sam2.model(session, frame_idx=frame).pred_masks
    for remembered in session.output_dict_per_obj.values():
        remembered["non_cond_frame_outputs"].pop(frame + 1 - sam2.reach, None)
    logits: Tensor = found.float()
    return logits


def _strongest(logits: Mapping[int, Tensor], size: tuple[int, ...]) -> Labels:
    """In each pixel of a frame (H, W) the object of the highest logit above 0, or else the background."""
    if not logits:
        return np.zeros(size, np.uint8)
    ids = sorted(logits)
    low = torch.cat([logits[each] for each in ids])
    highest, which = F.interpolate(low, size, mode="bilinear", align_corners=False)[:, 0].max(0)
    winner: Labels = np.array([0, *ids], np.uint8)[((which + 1) * (highest > 0)).cpu().numpy()]
    return winner
