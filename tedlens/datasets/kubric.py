"""Scenes of Kubric, with exact masks, flow, depth, camera and instances."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tedlens.clip import DEFAULT_FPS, Clip
from tedlens.datasets.layout import Clips, read_ids, read_json
from tedlens.errors import TedlensError
from tedlens.labels import VOID, Labels
from tedlens.media.files import files_in
from tedlens.media.pictures import picture_file, size_of, upright_picture

if TYPE_CHECKING:
    import xarray as xr

Array = npt.NDArray[Any]
Table = dict[str, Any]

MOST = 65535  # the largest 16-bit number; it stands for the upper end of a range
FLOWS = ("forward", "backward")
# Values of an instance per frame: their names here, and their axes.
TRACKS = {
    "positions": ("world_position", "xyz"),
    "quaternions": ("quaternion", "wxyz"),
    "velocities": ("world_velocity", "xyz"),
    "angular_velocities": ("angular_velocity", "xyz"),
    "visibility": ("pixels", None),
}
AXES = {"axis": ["y", "x"], "xyz": ["x", "y", "z"], "wxyz": ["w", "x", "y", "z"], "rgb": ["r", "g", "b"]}
HOW_TO = (
    "render scenes with Kubric (https://github.com/google-research/kubric, such as challenges/movi/movi_ab_worker.py) "
    "and give the folder that holds a folder for each, with rgba_00000.png, segmentation_00000.png and metadata.json"
)


def kubric(root: str | Path) -> Clips:
    """Scenes that Kubric rendered, clip by clip.

    Parameters
    ----------
    root
        The folder that holds the scenes, each a folder with ``metadata.json`` and, for every frame,
        ``rgba_00000.png``, ``segmentation_00000.png`` and perhaps ``forward_flow_00000.png``,
        ``backward_flow_00000.png`` (16 bits, with ``data_ranges.json``) and ``depth_00000.tiff``.

    Returns
    -------
    A sequence of clips in natural order of the folders' names, each read only when used.

    - ``masks``: the palette index of each pixel of the PNG. Instance k of the list in ``metadata.json``, counted from
      0, is object k + 1, or has its ``segmentation_id``.
    - `Clip.objects`, along ``object`` and ``frame``: ``centre`` (axis = y, x) in pixels, where the centre of the first
      pixel is 0, as in `similar`; ``velocity`` in pixels per frame, to the next frame's centre (the last frame repeats
      the velocity of the frame before; a single frame has none); ``depth``, the distance from the camera; ``pixels``,
      the number of visible pixels. In the world: ``world_position``, ``world_velocity`` (per second),
      ``angular_velocity`` (xyz), ``quaternion`` (wxyz). Along ``object``: ``colour``, and all plain numbers and words
      that every instance has (``mass``, ..). For the camera: ``camera_position``, ``camera_quaternion``, and
      ``focal_length`` and similar values as attributes.
    - `Clip.flow`, if there are such files: ``forward`` and ``backward`` (frame, y, x, axis = y, x) float32 in pixels,
      and ``depth`` (frame, y, x) float32, the distance from the camera. Flow describes the surface seen at a pixel,
      whether or not it is hidden in the other frame. It was stored in 16 bits, rounded down: it is too low by up to
      1/65535 of its range. The sign of ``backward`` is as stored: position in the previous frame minus position now.

    Raises
    ------
    TedlensError
        If there is no scene, or a scene is incomplete.
    """
    from natsort import natsorted

    root = Path(root).expanduser()
    found = [path.parent.name for path in root.glob("*/metadata.json")]
    if not found:
        raise TedlensError(f"{root} holds no scene; {HOW_TO}.")
    return Clips("kubric", root, natsorted(found), partial(_read, root))


def _read(root: Path, name: str) -> Clip:
    folder = root / name
    pictures = _layer(folder, "rgba", ".png")
    if not pictures:
        raise TedlensError(f"{folder} holds no rgba_00000.png; {HOW_TO}.")
    about = read_json(folder / "metadata.json", HOW_TO)
    frames = _stack([_picture(file) for file in pictures.values()], folder)
    masks = _whole(folder, "segmentation", ".png", pictures)
    if not masks:
        raise TedlensError(f"{folder} holds no segmentation_00000.png; {HOW_TO}.")
    return Clip(
        frames,
        masks=_stack([_mask(file) for file in masks], folder),
        fps=_rate(about),
        name=name,
        objects=_objects(about, folder / "metadata.json", *frames.shape[:3]),
        flow=_flow(folder, pictures, frames.shape[1:3]),
        frame_names=tuple(pictures),
    )


# --- layers of a scene, one file a frame ----------------------------------------------------------


def _layer(folder: Path, layer: str, suffix: str) -> dict[str, Path]:
    """The files of a layer by the number in their names."""
    found = {re.fullmatch(rf"{layer}_([0-9]+)", file.stem): file for file in files_in(folder, (suffix,))}
    return {match.group(1): file for match, file in found.items() if match}


def _whole(folder: Path, layer: str, suffix: str, pictures: dict[str, Path]) -> list[Path]:
    """The files of a layer, one per picture and in the order of the pictures, or an empty list."""
    files = _layer(folder, layer, suffix)
    if files and files.keys() != pictures.keys():
        raise TedlensError(
            f"{folder} has {layer} of {len(files)} frames and {len(pictures)} pictures, not of the same numbers; "
            f"{HOW_TO}."
        )
    return [files[number] for number in pictures] if files else []


def _stack(layer: Sequence[Array], folder: Path) -> Array:
    sizes = {picture.shape for picture in layer}
    if len(sizes) > 1:
        raise TedlensError(f"{folder} has files of several sizes in one layer ({sorted(sizes)}); {HOW_TO}.")
    return np.stack(layer)


def _picture(file: Path) -> Array:
    with picture_file(file) as image:
        return upright_picture(image, "RGB")


def _mask(file: Path) -> Labels:
    ids = read_ids(file)
    if (ids == VOID).any():
        raise TedlensError(f"{file} has an instance {VOID}, which means void here; give scenes of up to 254 instances.")
    return ids


def _depth(file: Path) -> Array:
    with picture_file(file) as image:
        if image.mode != "F":
            raise TedlensError(f"{file} is a picture of kind {image.mode}, no depth in 32-bit floats; {HOW_TO}.")
        return upright_picture(image).astype(np.float32)


def _stored(file: Path) -> npt.NDArray[np.uint16]:
    """The values (y, x, channel) of a 16-bit RGB PNG. Pillow would drop the lower half of the bits."""
    import av

    try:
        with av.open(str(file.absolute()), format="png_pipe", options={"protocol_whitelist": "file"}) as container:
            frame = next(container.decode(video=0))
            kind = frame.format.name
            values = frame.to_ndarray() if kind == "rgb48be" else None
    except (av.error.FFmpegError, StopIteration, IndexError):
        raise TedlensError(f"{file} is cut short, damaged or no PNG; get a whole copy of it.") from None
    if values is None:
        raise TedlensError(f"{file} is a PNG of kind {kind}, not of RGB with 16 bits a channel; {HOW_TO}.")
    return values.astype(np.uint16)


def _flow(folder: Path, pictures: dict[str, Path], size: tuple[int, ...]) -> xr.Dataset | None:
    import xarray as xr

    layers: dict[str, tuple[tuple[str, ...], Array, dict[str, str]]] = {}
    for name in FLOWS:
        if files := _whole(folder, f"{name}_flow", ".png", pictures):
            low, high = _range(folder / "data_ranges.json", f"{name}_flow")
            decoded = [(_stored(file)[..., :2] / MOST * (high - low) + low).astype(np.float32) for file in files]
            layers[name] = (("frame", "y", "x", "axis"), _stack(decoded, folder), {"units": "pixel"})
    if files := _whole(folder, "depth", ".tiff", pictures):
        layers["depth"] = (("frame", "y", "x"), _stack([_depth(file) for file in files], folder), {})
    for name, (_, values, _) in layers.items():
        if values.shape[1:3] != size:
            raise TedlensError(
                f"{folder} has {name} of {size_of(values[0])} pixels and pictures of {size[0]}x{size[1]}; {HOW_TO}."
            )
    coords = {"frame": np.arange(len(pictures))} | ({"axis": AXES["axis"]} if set(FLOWS) & set(layers) else {})
    return xr.Dataset(layers, coords, {"dataset": "kubric"}) if layers else None


def _range(file: Path, layer: str) -> tuple[float, float]:
    given = read_json(file, HOW_TO).get(layer)
    try:
        low, high = float(given["min"]), float(given["max"])  # type: ignore[index]
    except (TypeError, KeyError, ValueError):
        low, high = np.nan, np.nan
    if not -np.inf < low <= high < np.inf:
        raise TedlensError(f"{file} gives {layer} the range {given}, not a min and a max; {HOW_TO}.")
    return low, high


# --- metadata.json --------------------------------------------------------------------------------


def _rate(about: Table) -> float:
    for part in ("metadata", "flags"):
        rate = about[part].get("frame_rate") if isinstance(about.get(part), dict) else None
        if isinstance(rate, int | float) and 0 < rate < np.inf:
            return float(rate)
    return DEFAULT_FPS


def _objects(about: Table, file: Path, frames: int, height: int, width: int) -> xr.Dataset:
    """The truth about the instances and the camera."""
    import xarray as xr

    given, camera = about.get("instances"), about.get("camera")
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given) or not isinstance(camera, dict):
        raise TedlensError(f"{file} has no list of instances and no camera; {HOW_TO}.")
    instances: list[Table] = given
    ids = [each.get("segmentation_id", number) for number, each in enumerate(instances, start=1)]
    if len(set(map(str, ids))) < len(ids) or not all(isinstance(number, int) and 0 < number < VOID for number in ids):
        raise TedlensError(f"{file} gives its instances the ids {ids}, not different ones from 1 to 254; {HOW_TO}.")
    common = set.intersection(*(set(each) for each in instances)) if instances else set()

    found: dict[str, tuple[Any, ...]] = {}
    for key, (name, axis) in TRACKS.items():
        if key in common:
            values = np.stack([_track(each, key, frames, axis, file) for each in instances])
            found[name] = (("object", "frame", axis) if axis else ("object", "frame"), values)
    if "image_positions" in common:
        shares = np.stack([_track(each, "image_positions", frames, "axis", file) for each in instances])
        centre = shares[..., ::-1] * [height, width] - 0.5  # shares: x first, and 0 is the first pixel's edge
        found["centre"] = (("object", "frame", "axis"), centre, {"units": "pixel"})
        if frames > 1:
            steps = np.diff(centre, axis=1)
            steps = np.concatenate([steps, steps[:, -1:]], axis=1)
            found["velocity"] = (("object", "frame", "axis"), steps, {"units": "pixel / frame"})
    for key, name, axis in (("positions", "camera_position", "xyz"), ("quaternions", "camera_quaternion", "wxyz")):
        if key in camera:
            found[name] = (("frame", axis), _track(camera, key, frames, axis, file))
    if "world_position" in found and "camera_position" in found:
        away = found["world_position"][1] - found["camera_position"][1]
        found["depth"] = (("object", "frame"), np.sqrt((away**2).sum(-1)))
    found |= _plain(instances, common - set(found))
    axes = {axis: names for axis, names in AXES.items() if any(axis in each[0] for each in found.values())}
    attrs = {"dataset": "kubric"} | {key: value for key, value in camera.items() if isinstance(value, int | float)}
    return xr.Dataset(found, {"object": np.array(ids, int), "frame": np.arange(frames), **axes}, attrs)


def _track(holder: Table, key: str, frames: int, axis: str | None, file: Path) -> Array:
    """Values of an instance or the camera in each frame: whole numbers (frame,), or (frame, axis)."""
    shape = (frames,) if axis is None else (frames, len(AXES[axis]))
    try:
        values = np.asarray(holder[key], np.float64)
    except (ValueError, TypeError):
        values = np.empty(0)
    if values.shape != shape or not np.isfinite(values).all():
        raise TedlensError(
            f"{file} has {key} that are no numbers of shape {shape}, {frames} being the frames; {HOW_TO}."
        )
    return values.astype(np.int64) if axis is None else values


def _plain(instances: list[Table], keys: set[str]) -> dict[str, tuple[Any, ...]]:
    """Properties that each instance has as one word, number or colour."""
    found: dict[str, tuple[Any, ...]] = {}
    for key in sorted(keys):
        values = [each[key] for each in instances]
        if key == "color" and all(isinstance(colour, list) and len(colour) == 3 for colour in values):
            found["colour"] = (("object", "rgb"), np.asarray(values, np.float64))
        elif any(all(isinstance(value, kind) for value in values) for kind in (str, bool, int | float)):
            found[key] = ("object", np.asarray(values))
    return found
