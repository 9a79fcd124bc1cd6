"""TED for users: fuse motion and appearance features, and propagate the first mask of each object along them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor

from tedlens.align import check_finite, check_same_clip, check_whole, common_frames, in_order, listed
from tedlens.errors import TedlensError
from tedlens.labels import as_labels, object_ids, on_grid
from tedlens.provenance import grouped
from tedlens.ted.fusion import fuse_features, unit, unit_parts
from tedlens.ted.masks import given_masks, label_clip, label_clip_fused
from tedlens.ted.points import Locate, carry_points, check_locate, inside
from tedlens.ted.settings import Convention, Propagation, Radius, Upsample, check_lams


def fuse(motion: xr.DataArray, appearance: xr.DataArray, lam: float = 0.5) -> xr.DataArray:
    """TED's fused features, concat(lam R_m, (1 - lam) R_a), each of unit length per cell.

    Parameters
    ----------
    motion, appearance
        Features (frame, channel, y, x) of the same clip, for example
        ``feats["up_2"]["features"].sel(tau=600, seed=0)``. Appearance is resampled to the grid of motion.
    lam
        Weight of motion, 0 (appearance only) to 1 (motion only). The paper: 1 for identical objects,
        about 0.5 on real video.

    Returns
    -------
    DataArray (frame, channel, y, x) with the coordinates of motion and the attributes of both.
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
    radius_pixels: float | None = None,
) -> xr.DataArray:
    """Masks of all frames, from features and the first mask of each object.

    Parameters
    ----------
    features
        (frame, channel, y, x), from one model (normalised here per cell) or fused (`fuse`).
    masks
        Integers at the size of the clip: 0 background, 255 void, all others objects. Either (H, W), the mask of the
        first frame, or (frame, H, W). Then the first mask of each object is used, so an object that enters later
        starts there. A frame without annotation is void everywhere; frames before the first mask become background.
    keys
        Features of the reference frames, of the same clip and shape, if they differ from `features`. With the
        queries of an attention layer (its ``to_q``) as `features` and its keys (``to_k``) here, labels follow
        query-key matching, all heads together. Also normalised per cell.
    top_k, radius, n_last, temperature, convention, upsample, radius_pixels
        See `tedlens.ted.Propagation`; `radius` is in cells of the feature grid, and by default depends on the grid.
        The attributes of the result record the number of cells used.

    Returns
    -------
    DataArray (frame, y, x) uint8 with the ids of `masks`, at the size of `masks`.

    Raises
    ------
    TedlensError
        For features with other axes, keys of another shape, masks that are neither (H, W) nor one per frame, or
        settings out of range.
    """
    features = _one_clip(features, "features")
    given = _check_masks(masks, features, "features")
    feats = _tensor(features)
    # Fused features carry their weights in their lengths: do not normalise those again.
    feats = feats if "part" in features.coords else unit(feats)
    how = Propagation(top_k, radius, n_last, temperature, convention, upsample, radius_pixels)
    how = how.on(features.sizes["y"], given.shape[-2])
    attrs = dict(features.attrs) | how.said()
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
    labels = label_clip(feats, given, _input_size(features, given), how, keys=others)
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
    radius_pixels: float | None = None,
) -> xr.DataArray:
    """Masks of all frames for many lambdas, at a much lower cost than one run per lambda.

    Up to rounding, the result is that of ``propagate(fuse(motion, appearance, lam=l), masks)`` for each l. But since
    A_f = lam^2 A_m + (1 - lam)^2 A_a, the similarities of motion and of appearance are computed only once
    for all lambdas. For the time saved, see ``tests/benchmarks/README.md``.

    Parameters
    ----------
    motion, appearance
        Features (frame, channel, y, x) of the same clip, as for `fuse`.
    masks, top_k, radius, n_last, temperature, convention, upsample, radius_pixels
        See `propagate`.
    lam
        Weights of motion, each 0 (appearance only) to 1 (motion only).

    Returns
    -------
    DataArray (lam, frame, y, x) uint8 with the ids of `masks`, at the size of `masks`.

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
    how = Propagation(top_k, radius, n_last, temperature, convention, upsample, radius_pixels)
    how = how.on(motion.sizes["y"], given.shape[-2])
    labels = label_clip_fused(_tensor(motion), _tensor(appearance), lams, given, _input_size(motion, given), how)
    attrs = _about(motion, "motion_") | _about(appearance, "appearance_") | how.said()
    every = [label_masks(one, motion["frame"].values, attrs) for one in labels]
    return xr.concat(every, xr.Variable("lam", lams), combine_attrs="override")


def propagate_points(
    features: xr.DataArray,
    queries: xr.Dataset,
    *,
    locate: Locate = "peak",
    visible_above: float = 0.5,
    top_k: int = 10,
    radius: Radius = "grid",
    n_last: int = 20,
    temperature: float = 0.1,
    convention: Convention = "dift",
    radius_pixels: float | None = None,
) -> xr.Dataset:
    """Track points through all frames, from features and one known position of each point.

    Each point is propagated as a heat map, in the way of labels. It starts as a Gaussian of half a cell on its own
    frame, and is propagated forwards and backwards from there. Its own frame is always a reference. Points do not
    influence each other.

    Parameters
    ----------
    features
        (frame, channel, y, x), from one model (normalised here per cell) or fused (`fuse`).
    queries
        Over one dimension, which the result keeps: ``x``, ``y`` and ``frame``, as from `point_queries`, or
        ``position`` (.., axis = x, y) and ``frame``, as in ``clip.joints.isel(frame=0)``. Positions are in pixels of
        the clip. 0 is the centre of the first pixel, or its edge if the attribute ``origin`` of ``x`` or ``position``
        says so, as in TAP-Vid. Frame numbers are those of the features: 0 is the first frame of the probed clip. A
        point that is NaN or outside the picture is lost in all frames.
    locate
        How the position is read from a heat map. ``"peak"``: the mean of all cells within 2.5 cells of the strongest
        cell, weighted by their values (a soft argmax). ``"top"``: the same mean of the 5 strongest cells, wherever they
        are. On `similar`, ``"peak"`` is closer: ``tests/benchmarks/README.md``.
    visible_above
        `similarity` from which a point counts as visible. It depends on the model: choose it on clips with known
        points.
    top_k, radius, n_last, temperature, convention, radius_pixels
        See `tedlens.ted.Propagation`; `radius` is in cells of the feature grid, and by default depends on the grid.

    Returns
    -------
    Dataset
        Over the dimension of `queries` and ``frame``: ``position`` (.., axis = x, y) in pixels, with the origin of the
        queries, NaN where a point is lost; ``visible``; and ``similarity`` of the features at that position with those
        of the point on its own frame: 1 means equal, 0 means the median similarity of the cells of that frame. On its
        own frame a point has the position of its query.

    Raises
    ------
    TedlensError
        For features with other axes or without coordinates y and x, queries without positions or with a frame that the
        features lack, or settings out of range.

    Examples
    --------
    >>> points = tl.propagate_points(R_m, tl.point_queries(clip.points))  # doctest: +SKIP
    >>> tl.evaluate_points(points, clip.points)  # doctest: +SKIP
    """
    features = _one_clip(features, "features")
    check_whole(features, "features")
    how = Propagation(top_k, radius, n_last, temperature, convention, radius_pixels=radius_pixels)
    feats = _tensor(features)
    feats = feats if "part" in features.coords else unit(feats)
    return follow(feats, features.coords, queries, how, locate, visible_above, features.attrs)


def follow(
    feats: Tensor,
    coords: Mapping[Any, Any],
    queries: xr.Dataset,
    how: Propagation,
    locate: Locate,
    visible_above: float,
    attrs: Mapping[Any, Any],
) -> xr.Dataset:
    """`propagate_points` for features (frame, channel, y, x) as `propagate_labels` takes them, on any device.

    `coords` hold the coordinates ``frame``, ``y`` and ``x`` of the features.
    """
    check_locate(locate)
    asked = _Queries.of(queries)
    corner, step = _places(coords)
    how = how.on(feats.shape[-2], feats.shape[-2] * step[0])
    names = [int(frame) for frame in np.asarray(coords["frame"])]
    if unknown := sorted(set(asked.frame) - set(names)):
        raise TedlensError(f"The features have frames {listed(names)} and queries are on frame {listed(unknown)}.")
    cells = (asked.position[:, ::-1] - asked.origin - corner) / step  # y before x
    found = np.full((len(cells), len(names), 2), np.nan)
    similarity = np.full(found.shape[:2], np.nan)
    seen = inside(torch.from_numpy(cells), (feats.shape[-2], feats.shape[-1])).numpy()
    for frame in sorted(set(asked.frame)):
        some = np.flatnonzero((asked.frame == frame) & seen)
        start = torch.from_numpy(cells[some]).to(feats.device)
        there, alike = carry_points(feats, start, names.index(frame), how, locate)
        found[some], similarity[some] = there.cpu().numpy(), alike.cpu().numpy()
    position = (found * step + corner)[..., ::-1] + asked.origin
    settings = {key: value for key, value in how.said().items() if key != "upsample"}  # there are no masks to enlarge
    known = {asked.dim: queries[asked.dim]} if asked.dim in queries.coords else {}
    with np.errstate(invalid="ignore"):
        visible = similarity >= visible_above
    return xr.Dataset(
        {
            "position": ((asked.dim, "frame", "axis"), position, asked.attrs),
            "visible": ((asked.dim, "frame"), visible),
            "similarity": ((asked.dim, "frame"), similarity),
        },
        {**known, "frame": names, "axis": ["x", "y"]},
        grouped(dict(attrs) | settings | {"locate": locate, "visible_above": visible_above}),
    )


class _Queries(NamedTuple):
    """Known positions of points, each on one frame."""

    dim: str
    position: npt.NDArray[np.float64]  # (query, axis = x, y)
    frame: npt.NDArray[np.intp]
    origin: float  # coordinate of the centre of the first pixel: 0, or 0.5 if counted from its edge
    attrs: dict[str, Any]  # of positions

    @classmethod
    def of(cls, given: xr.Dataset) -> _Queries:
        places: xr.DataArray | None = None
        if isinstance(given, xr.Dataset) and "frame" in given.variables:
            if {"x", "y"} <= set(given.data_vars):
                places = xr.concat([given["x"], given["y"]], "axis", combine_attrs="override")
            elif "position" in given:
                places = given["position"]
                places = places.sel(axis=["x", "y"]) if "axis" in places.coords else places
        dims = [] if places is None else [str(dim) for dim in places.dims if dim != "axis"]
        if places is None or len(dims) != 1 or not set(given["frame"].dims) <= set(dims):
            raise TedlensError(
                "The queries say no place and frame for each point; give tl.point_queries(clip.points), or "
                "clip.joints.isel(frame=0)."
            )
        position = places.transpose(dims[0], "axis").values.astype(float)
        frame = np.broadcast_to(given["frame"].values, len(position)).astype(int)
        attrs = {str(name): value for name, value in places.attrs.items()}
        return cls(dims[0], position, frame, 0.5 if "edge" in str(attrs.get("origin")) else 0.0, attrs)


def _places(coords: Mapping[Any, Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Centre of the first cell (y, x) in pixels, where 0 is the centre of the first pixel, and pixels per cell."""
    sides = [np.asarray(coords[axis], float) for axis in ("y", "x") if axis in coords]
    if len(sides) < 2 or min(map(len, sides)) < 2:
        raise TedlensError(
            "The features do not say where their cells are (coordinates y and x, of two cells or more); "
            "give them as tl.probe does."
        )
    return np.array([side[0] for side in sides]), np.array([side[1] - side[0] for side in sides])


def comparable(
    motion: xr.DataArray, appearance: xr.DataArray
) -> tuple[tuple[Tensor, Tensor], xr.DataArray, dict[str, Any]]:
    """Both features as tensors (frame, channel, y, x) on the frames that both have, of length 1 on the grid of motion.

    Also returns the motion features on these frames, and the attributes of both.
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
        attrs=grouped(attrs),
        name="labels",
    )


def _check_masks(given: npt.ArrayLike, features: xr.DataArray, what: str) -> npt.NDArray[np.uint8]:
    """The given masks as labels: (H, W) for the first frame, or one mask for each frame of the features."""
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
    """Warn of objects that cover no cell centre, and so cannot be tracked on this grid."""
    for lost in sorted(set(object_ids(mask)) - set(object_ids(on_grid(mask, grid)))):
        rows, columns = np.nonzero(mask == lost)
        warnings.warn(
            f"Object {lost} ({np.ptp(rows) + 1}x{np.ptp(columns) + 1} pixels) lies on the centre of no cell "
            f"({mask.shape[0] / grid[0]:.0f}x{mask.shape[1] / grid[1]:.0f} pixels), so nothing of it is tracked; "
            "take a block with a finer grid, or a larger size.",
            stacklevel=4,
        )


def _input_size(features: xr.DataArray, masks: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Size (H, W) of the frames that the model saw; the size of the masks if the features do not record it."""
    height, width = features.attrs.get("input_size", features.attrs.get("motion_input_size", masks.shape[-2:]))
    return int(height), int(width)


def _same_clip(motion: xr.DataArray, appearance: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Both reduced to (frame, channel, y, x) and checked: same clip, same frames, whole picture."""
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
    for frame, values in enumerate(one.values):
        check_finite(values, attrs, f"{what} of frame {frame}")
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
