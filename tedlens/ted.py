"""TED: fuse motion and appearance features, and propagate the first frame's labels along them.

Tensor functions first (`fuse_features`, `full_size_labels`, `label_clip`), then the labelled ones that
users call (`fuse`, `propagate`, `propagate_fused`). How labels are carried is in `propagation`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

from tedlens.align import check_same_clip, check_whole, common_frames, in_order, listed
from tedlens.clip import VOID, on_grid
from tedlens.errors import TedlensError
from tedlens.media import as_labels, ids_in
from tedlens.propagation import Convention, Radius, check_lams, propagate_fused_labels, propagate_labels, radius_on

Upsample = Literal["dift", "argmax"]


# --- tensors --------------------------------------------------------------------------------------


def unit(features: Tensor) -> Tensor:
    """Features (frame, channel, y, x) of length 1 at each cell."""
    return F.normalize(features.float(), dim=1)


def fuse_features(motion: Tensor, appearance: Tensor, lam: float) -> Tensor:
    """R_f = (lam R_m, (1 - lam) R_a), each of length 1 per cell: (frame, channel_m + channel_a, y, x).

    Where the grids differ, appearance is resampled (bilinear) to motion's before it is normalised.
    Source: TED (NeurIPS 2025), fusion.
    """
    motion, appearance = unit_parts(motion, appearance)
    return torch.cat([lam * motion, (1 - lam) * appearance], dim=1)


def unit_parts(motion: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
    """Both features of length 1 at each cell, on motion's grid."""
    if appearance.shape[-2:] != motion.shape[-2:]:
        appearance = F.interpolate(appearance.float(), motion.shape[-2:], mode="bilinear", antialias=True)
    return unit(motion), unit(appearance)


def one_hot(
    mask: npt.NDArray[np.uint8], grid: tuple[int, int], ids: Sequence[int] | None = None
) -> tuple[Tensor, list[int]]:
    """First-frame mask (H, W) as labels (1 + object, y, x) on the feature grid, and the objects' ids.

    Nearest neighbour, at the cells' centres; channel 0 is the background. Void (255) is in no channel. `ids`: of
    these objects, whether the mask holds them or not.
    """
    found = sorted(ids_in(mask) - {0, VOID}) if ids is None else list(ids)
    small = on_grid(mask, grid)
    return torch.from_numpy(np.stack([small == i for i in [0, *found]])).float(), found


def full_size_labels(
    soft: Tensor, input_size: tuple[int, int], size: tuple[int, int], upsample: Upsample = "dift"
) -> Tensor:
    """Channel of the winning label (frame, H, W), uint8, from soft labels (frame, object, y, x).

    Bilinear to the model's input size, argmax, nearest neighbour to the clip's own size. As DIFT does it
    (``"dift"``), each channel of each frame is min-max normalised before the argmax; with ``"argmax"`` not.
    """
    if upsample not in get_args(Upsample):
        raise TedlensError(f"upsample={upsample!r} is not known; choose 'dift' or 'argmax'.")
    hard = []
    for frame in soft:  # one at a time: full-size soft labels of a long clip are large
        large = F.interpolate(frame[None], input_size, mode="bilinear", align_corners=False)[0]
        if upsample == "dift":
            low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
            # A channel that won nothing anywhere stays as it is: it cannot win.
            large = torch.where(high > 0, (large - low) / (high - low).clamp_min(1e-12), large)
        winner = large.argmax(0)[None, None].float()
        hard.append(F.interpolate(winner, size, mode="nearest-exact")[0, 0].to(torch.uint8))
    return torch.stack(hard)


def given_masks(masks: npt.NDArray[np.uint8]) -> dict[int, npt.NDArray[np.uint8]]:
    """What propagation is given, by frame: the first mask (H, W), and of each object that enters later its first one.

    `masks` are (H, W), the first frame's, or (T, H, W). Of an object that was seen before, nothing more is taken.
    """
    if masks.ndim == 2:
        return {0: masks}
    given, known = {0: masks[0]}, {0, VOID} | ids_in(masks[0])
    for t, mask in enumerate(masks[1:], start=1):
        if new := ids_in(mask) - known:
            given[t] = np.where(np.isin(mask, list(new)), mask, 0).astype(np.uint8)
            known |= new
    return given


def _start(
    masks: npt.NDArray[np.uint8], like: Tensor
) -> tuple[Tensor, dict[int, Tensor], dict[int, npt.NDArray[np.uint8]], list[int]]:
    """Labels of frame 0 and of the frames where objects enter, on the grid; the masks they are of; all ids."""
    given = given_masks(masks)
    ids = sorted(set.union(*(ids_in(mask) for mask in given.values())) - {0, VOID})
    grid = (like.shape[-2], like.shape[-1])
    labels = {t: one_hot(mask, grid, ids)[0].to(like.device) for t, mask in given.items()}
    for t in labels.keys() - {0}:
        labels[t][0] = 0  # of the background nothing new is known
    return labels.pop(0), labels, given, ids


def label_clip(
    feats: Tensor,
    masks: npt.NDArray[np.uint8],
    input_size: tuple[int, int],
    *,
    upsample: Upsample = "dift",
    **settings: Any,
) -> npt.NDArray[np.uint8]:
    """From features (frame, channel, y, x) and masks to masks (frame, H, W).

    Given are the first frame's mask (H, W), or masks (frame, H, W), of which each object's first is taken.
    `settings` are those of `propagate_labels`.
    """
    first, entries, given, ids = _start(masks, feats)
    soft = propagate_labels(feats, first, entries=entries, **settings)
    return _masks(soft, given, ids, input_size, upsample)


def label_clip_fused(
    motion: Tensor,
    appearance: Tensor,
    lams: Sequence[float],
    masks: npt.NDArray[np.uint8],
    input_size: tuple[int, int],
    *,
    upsample: Upsample = "dift",
    **settings: Any,
) -> npt.NDArray[np.uint8]:
    """Masks (lam, frame, H, W) from motion and appearance features (frame, channel, y, x), fused at each lambda.

    Appearance is resampled to motion's grid. `masks` and `settings` are those of `label_clip`.
    """
    parts = unit_parts(motion, appearance)
    first, entries, given, ids = _start(masks, motion)
    soft = propagate_fused_labels(*parts, lams, first, entries=entries, **settings)
    return np.stack([_masks(one, given, ids, input_size, upsample) for one in soft])


def _masks(
    soft: Tensor,
    given: dict[int, npt.NDArray[np.uint8]],
    ids: list[int],
    input_size: tuple[int, int],
    upsample: Upsample,
) -> npt.NDArray[np.uint8]:
    """Masks (frame, H, W) from soft labels (frame, 1 + object, y, x); what was given stays, void left out."""
    height, width = given[0].shape
    winner = full_size_labels(soft, input_size, (height, width), upsample).cpu().numpy()
    labels: npt.NDArray[np.uint8] = np.array([0, *ids], np.uint8)[winner]
    labels[0] = np.where(given[0] == VOID, 0, given[0])
    for t in given.keys() - {0}:
        labels[t] = np.where(given[t] > 0, given[t], labels[t])
    return labels


# --- labelled -------------------------------------------------------------------------------------


def fuse(motion: xr.DataArray, appearance: xr.DataArray, lam: float = 0.5) -> xr.DataArray:
    """TED's fused features, concat(lam R_m, (1 - lam) R_a), each of unit length per cell.

    Parameters
    ----------
    motion, appearance
        Features (frame, channel, y, x) of the same clip, for example
        ``feats["up_2"]["features"].sel(tau=600, seed=0)``. Appearance is resampled to motion's grid.
    lam
        Weight of motion, 0 (appearance only) to 1 (motion only). The paper: 1 for identical objects,
        about 0.5 on real video.

    Returns
    -------
    DataArray (frame, channel, y, x) with motion's coordinates and the attributes of both.
    """
    check_lams([lam])
    motion, appearance = _same_clip(motion, appearance)
    fused = fuse_features(_tensor(motion), _tensor(appearance), lam)
    part = ["motion"] * motion.sizes["channel"] + ["appearance"] * appearance.sizes["channel"]
    return xr.DataArray(
        fused.numpy(),
        dims=("frame", "channel", "y", "x"),
        coords={"frame": motion["frame"], "part": ("channel", part), "y": motion["y"], "x": motion["x"]},
        attrs=_about(motion, "motion_") | _about(appearance, "appearance_") | {"lam": lam},
    )


def propagate(
    features: xr.DataArray,
    masks: npt.ArrayLike,
    *,
    keys: xr.DataArray | None = None,
    top_k: int = 10,
    radius: Radius = "grid",
    n_last: int = 20,
    temperature: float = 0.1,
    convention: Convention = "dift",
    upsample: Upsample = "dift",
) -> xr.DataArray:
    """Masks of all frames, from features and the first mask of each object.

    Parameters
    ----------
    features
        (frame, channel, y, x): of one model (normalised here per cell) or fused (`fuse`).
    masks
        Whole numbers at the clip's own size: 0 background, 255 void, others objects. (H, W), the first frame's, or
        (frame, H, W), of which each object's first mask is taken: an object that enters later starts there. A frame
        that is not annotated is void throughout.
    keys
        Features of the same clip and shape by which reference frames are compared, where those are not
        `features` itself: with the queries of an attention layer (its ``to_q``) as `features` and its keys
        (``to_k``) here, labels follow query-key matching, all heads together. Normalised per cell, too.
    top_k, radius, n_last, temperature, convention
        See `propagate_labels`; `radius` is in cells of the feature grid, and by default follows it. The attributes of
        the result say the number of cells that was used.
    upsample
        How soft labels on the feature grid become masks at the clip's own size: bilinear to the model's
        input size, argmax, nearest neighbour. ``"dift"`` (DIFT) normalises each label to 0..1 over the
        frame before the argmax, so that a faint object wins where it peaks; ``"argmax"`` does not.

    Returns
    -------
    DataArray (frame, y, x) uint8, the ids of `masks`, at their size.

    Raises
    ------
    TedlensError
        For features with other axes, keys of another shape, a mask that is no (H, W), or settings out of
        range.
    """
    features = _one_clip(features, "features")
    given = _check_masks(masks, features, "features")
    feats = _tensor(features)
    # Fused features carry their weights in their lengths: do not normalise those again.
    feats = feats if "part" in features.coords else unit(feats)
    settings: dict[str, Any] = {
        "top_k": top_k,
        "radius": radius_on(radius, features.sizes["y"]),
        "n_last": n_last,
        "temperature": temperature,
        "convention": convention,
        "upsample": upsample,
    }
    attrs = dict(features.attrs) | settings
    others = None
    if keys is not None:
        keys = _one_clip(keys, "keys")
        check_same_clip(features=features, keys=keys)
        check_whole(keys, "keys")
        if features.sizes["frame"] != keys.sizes["frame"] or not np.array_equal(features["frame"], keys["frame"]):
            raise TedlensError(
                f"The features have frames {listed(features['frame'].values)} and the keys "
                f"{listed(keys['frame'].values)}; give both of the same frames."
            )
        others, attrs["keys"] = unit(_tensor(keys)), keys.attrs.get("block", "")
        if others.shape != feats.shape:
            raise TedlensError(
                f"Keys of shape {tuple(others.shape)} do not fit features of {tuple(feats.shape)}; "
                "give both of the same attention layer and clip."
            )
    labels = label_clip(feats, given, _input_size(features, given), keys=others, **settings)
    return label_masks(labels, features["frame"].values, attrs)


def propagate_fused(
    motion: xr.DataArray,
    appearance: xr.DataArray,
    masks: npt.ArrayLike,
    *,
    lam: float | Sequence[float],
    top_k: int = 10,
    radius: Radius = "grid",
    n_last: int = 20,
    temperature: float = 0.1,
    convention: Convention = "dift",
    upsample: Upsample = "dift",
) -> xr.DataArray:
    """Masks of all frames for many lambdas, for far less than a run of each.

    The same as ``propagate(fuse(motion, appearance, lam=l), masks)`` for each l, to rounding. But
    A_f = lam^2 A_m + (1 - lam)^2 A_a, so that the similarities of motion and of appearance are computed
    once for all lambdas. What that saves: ``tests/benchmarks/README.md``.

    Parameters
    ----------
    motion, appearance
        Features (frame, channel, y, x) of the same clip, as for `fuse`.
    masks, top_k, radius, n_last, temperature, convention, upsample
        See `propagate`.
    lam
        Weights of motion, each 0 (appearance only) to 1 (motion only).

    Returns
    -------
    DataArray (lam, frame, y, x) uint8, the ids of `masks`, at their size.

    Raises
    ------
    TedlensError
        As `fuse` and `propagate`.

    Examples
    --------
    >>> labels = tl.propagate_fused(R_m, R_a, clip.masks[0], lam=[0, 0.25, 0.5, 0.75, 1])  # doctest: +SKIP
    >>> tl.evaluate(labels.sel(lam=0.5), clip.masks)  # doctest: +SKIP
    """
    lams = [float(value) for value in np.atleast_1d(lam)]
    motion, appearance = _same_clip(motion, appearance)
    given = _check_masks(masks, motion, "motion features")
    settings: dict[str, Any] = {
        "top_k": top_k,
        "radius": radius_on(radius, motion.sizes["y"]),
        "n_last": n_last,
        "temperature": temperature,
        "convention": convention,
        "upsample": upsample,
    }
    labels = label_clip_fused(_tensor(motion), _tensor(appearance), lams, given, _input_size(motion, given), **settings)
    attrs = _about(motion, "motion_") | _about(appearance, "appearance_") | settings
    every = [label_masks(one, motion["frame"].values, attrs) for one in labels]
    return xr.concat(every, xr.Variable("lam", lams), combine_attrs="override")


def comparable(
    motion: xr.DataArray, appearance: xr.DataArray
) -> tuple[tuple[Tensor, Tensor], xr.DataArray, dict[str, Any]]:
    """Both features as tensors (frame, channel, y, x), of length 1 on motion's grid; motion's that are left of both
    ones' frames, and both one's attributes.
    """
    motion, appearance = _same_clip(motion, appearance)
    about = _about(motion, "motion_") | _about(appearance, "appearance_")
    return unit_parts(_tensor(motion), _tensor(appearance)), motion, about


def label_masks(labels: npt.NDArray[np.uint8], frames: npt.ArrayLike, attrs: dict[str, Any]) -> xr.DataArray:
    """Name the axes of masks (frame, H, W)."""
    return xr.DataArray(
        labels,
        dims=("frame", "y", "x"),
        coords={
            "frame": frames,
            "y": ("y", np.arange(labels.shape[1]), {"units": "pixel"}),
            "x": ("x", np.arange(labels.shape[2]), {"units": "pixel"}),
        },
        attrs=attrs,
        name="labels",
    )


def _check_masks(given: npt.ArrayLike, features: xr.DataArray, what: str) -> npt.NDArray[np.uint8]:
    """The first frame's mask (H, W), or a mask for each frame of the features, of the whole picture."""
    masks = as_labels(given, "masks")
    if masks.ndim == 3 and "frame" in features.coords and len(masks) != features.sizes["frame"]:
        frames = features["frame"].values
        whole = next((features.attrs[n][0] for n in ("clip_shape", "motion_clip_shape") if n in features.attrs), None)
        if len(masks) == whole:
            masks = masks[frames]
    if masks.ndim not in (2, 3) or (masks.ndim == 3 and len(masks) != features.sizes["frame"]):
        raise TedlensError(
            f"The masks have shape {masks.shape}; give (H, W), for example clip.masks[0], or a mask for each of the "
            f"{features.sizes['frame']} frames."
        )
    check_whole(features, what, (masks.shape[-2], masks.shape[-1]))
    for mask in given_masks(masks).values():
        _warn_of_small_objects(mask, (features.sizes["y"], features.sizes["x"]))
    return masks


def _warn_of_small_objects(mask: npt.NDArray[np.uint8], grid: tuple[int, int]) -> None:
    """Say which objects lie on no cell's centre, and so cannot be tracked on this grid."""
    for lost in sorted(ids_in(mask) - ids_in(on_grid(mask, grid)) - {0, VOID}):
        rows, columns = np.nonzero(mask == lost)
        warnings.warn(
            f"Object {lost} ({np.ptp(rows) + 1}x{np.ptp(columns) + 1} pixels) lies on the centre of no cell "
            f"({mask.shape[0] / grid[0]:.0f}x{mask.shape[1] / grid[1]:.0f} pixels), so nothing of it is tracked; "
            "take a block with a finer grid, or a larger size.",
            stacklevel=4,
        )


def _input_size(features: xr.DataArray, masks: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Size (H, W) of the frames that the model saw; the mask's, where the features do not say."""
    height, width = features.attrs.get("input_size", features.attrs.get("motion_input_size", masks.shape[-2:]))
    return int(height), int(width)


def _same_clip(motion: xr.DataArray, appearance: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Both reduced to (frame, channel, y, x), of the same clip, frames and part of the picture."""
    names = ("motion features", "appearance features")
    motion, appearance = _one_clip(motion, "motion"), _one_clip(appearance, "appearance")
    check_same_clip(**{names[0]: motion, names[1]: appearance})
    for features, name in zip((motion, appearance), names, strict=True):
        check_whole(features, name)
    return common_frames(motion, appearance, names)


def _one_clip(features: xr.DataArray, what: str) -> xr.DataArray:
    """Features reduced to (frame, channel, y, x); other axes must be of length 1."""
    axes = ("frame", "channel", "y", "x")
    missing = [d for d in axes if d not in features.dims]
    spare = [d for d in features.dims if d not in axes]
    many = [str(d) for d in spare if features.sizes[d] > 1]
    if missing or many:
        raise TedlensError(
            f"The {what} have axes {dict(features.sizes)}; give (frame, channel, y, x), "
            f"choosing one of each other axis with .sel({', '.join(f'{d}=...' for d in many) or 'tau=...'})."
        )
    attrs = _inherited(features)
    one = in_order(features.isel(dict.fromkeys(spare, 0), drop=False)).transpose(*axes)
    finite = np.isfinite(one.values).all(axis=(1, 2, 3))
    if not finite.all():
        said = ", ".join(f"{name} {attrs[name]}" for name in ("model", "block", "tau", "dtype") if name in attrs)
        raise TedlensError(
            f"The {what} of frame {int(finite.argmin())} hold NaN or infinite values{f' ({said})' if said else ''}; "
            "probe again with dtype='bfloat16' or 'float32', which do not overflow as float16 does."
        )
    return one.assign_attrs(attrs)


def _inherited(features: xr.DataArray) -> dict[str, Any]:
    chosen = {
        str(name): features[name].item()
        for name in ("tau", "seed")
        if name in features.coords and features[name].size == 1
    }
    return dict(features.attrs) | chosen


def _about(features: xr.DataArray, prefix: str) -> dict[str, Any]:
    return {prefix + str(key): value for key, value in features.attrs.items()}


def _tensor(features: xr.DataArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(features.values))
