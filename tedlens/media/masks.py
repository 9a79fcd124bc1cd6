"""Masks in files: find the object ids that are meant, and the frame of each mask."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tedlens.errors import TedlensError
from tedlens.labels import VOID, Labels, as_labels, check_size, from_first, ids_in, on_grid
from tedlens.media.drawing import palette
from tedlens.media.files import ARRAY_SUFFIXES, aside, files_in, load_arrays, number_of, swap_in, target_of
from tedlens.media.footage import Footage, numbered
from tedlens.media.pictures import picture_file, upright_picture

if TYPE_CHECKING:
    pass

MOST_IDS = 64  # different values in one mask; with more it is a photograph or has soft edges


def read_masks(masks: str | os.PathLike[str] | npt.ArrayLike, footage: Footage, what: str = "masks") -> Labels:
    """Masks (T, H, W) for the frames of `footage`; see `tedlens.read_clip` for what `masks` can be."""
    if not isinstance(masks, (str, os.PathLike)):
        return _cut(as_labels(masks, what), what, footage)
    path = Path(masks).expanduser()
    if not path.exists():
        raise TedlensError(f"masks={path} does not exist; give a PNG, a folder of PNGs, an .npz or an .npy.")
    if path.is_dir():
        files = files_in(path, (".png",))
        if not files:
            raise TedlensError(f"masks={path} holds no PNG; give a folder with a PNG for each frame that has a mask.")
        return _read_mask_files(path, _place(path, files, footage), footage)
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return _cut(as_labels(load_arrays(path, "masks")["masks"], str(path)), str(path), footage)
    if path.suffix.lower() == ".png":
        return _read_mask_files(path, {_frame_named(path.stem, footage): path}, footage)
    raise TedlensError(f"masks={path} is no mask; give a PNG, a folder of PNGs, an .npz or an .npy.")


def mask_footage(folder: str | os.PathLike[str]) -> Footage:
    """Information about the frames of a folder of masks: their number, size and stems."""
    path = Path(folder).expanduser()
    files = files_in(path, (".png",)) if path.is_dir() else []
    if not files:
        raise TedlensError(f"{path} is no folder with PNGs in it; give a folder of masks.")
    height, width = _read_mask(files[0]).ids.shape
    blank = np.broadcast_to(np.zeros((), np.uint8), (len(files), height, width, 3))
    return Footage(blank, 0, 1, (height, width), len(files), tuple(file.stem for file in files))


def _cut(labels: Labels, what: str, footage: Footage) -> Labels:
    """Reduce labels of the whole source, or of the first frame read, to the frames that were read."""
    count = len(footage.frames)
    check_size(labels, *footage.size, what)
    if labels.ndim == 2:
        return _fitted(from_first(labels, count, what), footage)
    end = footage.numbers[-1] + 1
    if len(labels) != footage.total and (footage.total is not None or len(labels) < end):
        raise TedlensError(
            f"{what} has {len(labels)} masks for {footage.total or end} frames; give as many masks as the source has "
            "frames (255 where there is none), or one of shape (H, W) for the first."
        )
    if ids_in(labels) == {0, VOID} and any(len(ids_in(mask)) == 2 for mask in labels):
        raise TedlensError(
            f"{what} holds only 0 and 255, and 255 means void; give binary masks as bool, such as `masks > 0`."
        )
    return _fitted(labels[footage.start : end : footage.stride], footage)


def _fitted(masks: Labels, footage: Footage) -> Labels:
    """Masks (T, H, W) at the size of the frames: nearest neighbour."""
    grid = footage.frames.shape[1:3]
    return masks if masks.shape[1:] == grid else on_grid(masks, (grid[0], grid[1]))


def _frame_named(stem: str, footage: Footage) -> int:
    """Index of the frame of the source with this name; the first frame read if there is none."""
    if footage.stems is not None:
        return footage.stems.index(stem) if stem in footage.stems else footage.start
    number = number_of(stem)
    if number is None or numbered([number]) != (stem,) or (footage.total is not None and number >= footage.total):
        return footage.start
    return number


def _place(folder: Path, files: list[Path], footage: Footage) -> dict[int, Path]:
    """Masks by frame: matched by stem, else by number, else by position."""
    stems = footage.stems or ()
    _refuse_counted_anew(folder, files, footage)
    keys: Sequence[str | int | None] = [file.stem for file in files]
    table: dict[Any, int] = {stem: i for i, stem in enumerate(stems)}
    if not any(key in table for key in keys):
        _refuse_frame_and_object(folder, files, stems)
        keys = [number_of(file.stem) for file in files]
        table = {n: i for i, stem in enumerate(stems) if (n := number_of(stem)) is not None}
        if len(table) < len(stems) or not all(key in table for key in keys):
            end = footage.total  # not known: all that follows is out of what was read anyway
            table = {i: i for i in (range(end) if end is not None else [k for k in keys if isinstance(k, int)])}
            if end is None:
                _refuse_counted_from_1(folder, list(table), footage)
    placed: dict[int, Path] = {}
    for file, key in zip(files, keys, strict=True):
        if key not in table:
            raise TedlensError(
                f"masks={folder} holds {file.name}, which belongs to no frame; "
                "name a mask as its frame is named, or by the frame's number counted from 0."
            )
        if table[key] in placed:
            raise TedlensError(
                f"masks={folder} holds {placed[table[key]].name} and {file.name} for the same frame; keep one of them."
            )
        placed[table[key]] = file
    return placed


def _refuse_counted_anew(folder: Path, files: list[Path], footage: Footage) -> None:
    """Refuse masks 00000, 00001, .. that could belong to the part read or to the first frames of the source."""
    count = len(footage.frames)
    if footage.numbers != range(count) and {file.stem for file in files} == set(numbered(range(count))):
        raise TedlensError(
            f"masks={folder} holds masks 0 to {count - 1}, and {count} frames are read that are not the first of the "
            "source, so the masks could be of either; if they are of the frames that are read, save them with "
            "tl.write_masks(masks, folder, clip.frame_names), else read all frames and cut the clip."
        )


def _refuse_counted_from_1(folder: Path, numbers: list[int], footage: Footage) -> None:
    """Refuse masks 1, 2, .. beyond the part read of a video, whose number of frames is then unknown."""
    if len(numbers) > 1 and sorted(numbers) == list(range(1, len(numbers) + 1)) and len(numbers) > footage.numbers[-1]:
        raise TedlensError(
            f"masks={folder} holds masks 1 to {len(numbers)} and none for frame 0, so they seem to be counted from 1; "
            "count them from 0, or read all of the video, whose end then tells."
        )


def _refuse_frame_and_object(folder: Path, files: list[Path], stems: Sequence[str]) -> None:
    """Refuse names by frame and object, as 00000_1.png, 00000_2.png: their last number is no frame number."""
    parts = [re.fullmatch(r"(.*[0-9].*?)[_.-]+[A-Za-z]*[0-9]+", file.stem) for file in files]
    begins = [part.group(1) for part in parts if part]
    if len(begins) == len(files) and (set(begins) <= set(stems) or len(set(begins)) < len(begins)):
        raise TedlensError(
            f"masks={folder} holds {files[0].name}, which seems to be named by frame and object; "
            "give one PNG a frame, named as the frame, whose values are the objects' ids."
        )


def _read_mask_files(given: Path, files: dict[int, Path], footage: Footage) -> Labels:
    """Masks (T, H, W) from PNGs for some frames; the other frames are void."""
    count = len(footage.frames)
    masks = np.full((count, *footage.size), VOID, np.uint8)
    inside = {k: files[i] for k, i in enumerate(footage.numbers) if i in files}
    if not inside:
        raise TedlensError(
            f"masks={given} has, by its name, no mask for frames {footage.start} to {footage.numbers[-1]}; "
            "choose frames that have one, name masks as their frames are named, or leave masks out."
        )
    read = {index: _read_mask(file) for index, file in inside.items()}
    for index, mask in read.items():
        check_size(mask.ids, *footage.size, str(inside[index]))
    ids = _ids_by_colour(given, read)
    for index, labels in ids.items():
        masks[index] = labels
    grey = all(mask.colours is None for mask in read.values())
    if grey and all(map(_is_binary, ids.values())) and all(_is_binary(_read_mask(f).ids) for f in files.values()):
        for index in inside:
            masks[index] //= VOID
    return _fitted(masks, footage)


@dataclass(frozen=True)
class _Mask:
    """Content of a PNG: values (H, W) and, for a palette PNG, the colour (rgb) of each value that occurs."""

    ids: Labels
    colours: dict[int, tuple[int, ...]] | None


def _read_mask(path: Path) -> _Mask:
    with picture_file(path) as image:
        mode = image.mode
        if mode not in ("P", "L", "1") and not mode.startswith("I"):
            raise TedlensError(
                f"{path} is a colour picture ({mode}), from which object ids cannot be told; "
                "save it as a palette or grey PNG whose values are the ids."
            )
        ids = as_labels(upright_picture(image, "L" if mode == "1" else None), str(path))
        shades = np.array(image.getpalette("RGB") or [], int).reshape(-1, 3) if mode == "P" else None
    if mode == "L":  # Pillow spreads grey values of 2 and 4 bits over 0..255
        ids = ids // (VOID // (2 ** grey_bits(path) - 1))
    values = ids_in(ids)
    if len(values) > MOST_IDS:
        raise TedlensError(
            f"{path} holds {len(values)} different values, too many to be object ids; "
            "give a mask with hard edges in which 0 is background and 1, 2, .. are objects."
        )
    if mode == "L" and _has_soft_edges(ids):
        raise TedlensError(
            f"{path} has soft edges: between 0 and 255 it holds {len(values - {0, VOID})} values that fill no "
            "area; save it without smoothing, or resize it with nearest neighbour."
        )
    colours = None if shades is None else {i: tuple(shades[i].tolist()) for i in values if i < len(shades)}
    return _Mask(ids, colours)


def grey_bits(path: Path) -> int:
    """Bits per value of a grey PNG, from its header (at most 8); 8 for other files."""
    with path.open("rb") as file:
        head = file.read(26)
    is_grey = head[:8] == b"\x89PNG\r\n\x1a\n" and head[25] == 0
    return min(head[24], 8) if is_grey else 8


def _has_soft_edges(mask: Labels) -> bool:
    """Whether a mask is a smoothed binary mask: only 255 and perhaps 0 fill areas, other values lie along edges."""
    between = ids_in(mask) - {0, VOID}
    if not between or VOID not in ids_in(mask):
        return False
    # Squares of 3 x 3 pixels of one value.
    filled = np.ones((max(mask.shape[0] - 2, 0), max(mask.shape[1] - 2, 0)), np.bool_)
    middle = mask[1:-1, 1:-1]
    for dy in range(3):
        for dx in range(3):
            filled &= mask[dy : dy + filled.shape[0], dx : dx + filled.shape[1]] == middle
    areas = set(np.unique(middle[filled]).tolist())
    return VOID in areas and not areas & between


def _ids_by_colour(given: Path, masks: dict[int, _Mask]) -> dict[int, Labels]:
    """Ids of each mask: its values, or the ids of its colours if the palettes were reordered.

    Programs that compress PNGs may reorder the palette differently in each file. Then the ids are looked up in the
    DAVIS palette by colour. Other colours must have the same value in all files, and black only the value 0.
    """
    tied = [mask.colours for mask in masks.values() if mask.colours is not None]
    seen = {pair for colours in tied for pair in colours.items()}
    known = {colour: i for i, colour in reversed(list(enumerate(map(tuple, palette().tolist()))))}
    different = all(len(set(colours.values())) == len(colours) for colours in tied)
    if not (different and all(colour in known for _, colour in seen)):
        misplaced = different and any(value != 0 and colour == (0, 0, 0) for value, colour in seen)
        if misplaced or len({value for value, _ in seen}) < len(seen):
            raise TedlensError(
                f"masks={given}: palettes disagree on which value is which colour, or have black elsewhere than at 0, "
                "and their colours are not those of DAVIS; save all masks with one palette, black as 0."
            )
        return {index: mask.ids for index, mask in masks.items()}
    tables = {index: np.arange(256, dtype=np.uint8) for index in masks}
    for index, mask in masks.items():
        for value, colour in (mask.colours or {}).items():
            tables[index][value] = known[colour]
    return {index: tables[index][mask.ids] for index, mask in masks.items()}


def _is_binary(mask: Labels) -> bool:
    return ids_in(mask) <= {0, VOID}


def write_masks(masks: npt.ArrayLike, folder: str | os.PathLike[str], names: Sequence[str] | None = None) -> None:
    """Write masks as in DAVIS: a folder with one palette PNG per frame.

    Parameters
    ----------
    masks
        (T, H, W) integers: 0 background, 1..254 objects, 255 void.
    folder
        Written completely or not at all. If it exists, it may contain only palette PNGs that this call
        replaces.
    names
        T file names without ``.png``; by default 00000, 00001, .., which fits a clip with all frames of its source.
        For a part of a source, or frames with their own names, give ``clip.frame_names``.

    Raises
    ------
    TedlensError
        For masks or names of the wrong type or shape, or a folder with other content or that cannot be written.
    """
    from PIL import Image

    labels = as_labels(masks)
    if labels.ndim != 3 or labels.size == 0:
        raise TedlensError(f"masks has shape {labels.shape}; give (T, H, W), with at least one frame.")
    stems = list(numbered(range(len(labels)))) if names is None else [str(n) for n in names]
    if len(stems) != len(labels) or len(set(stems)) != len(stems) or any(not s or Path(s).name != s for s in stems):
        raise TedlensError(f"names={stems} does not fit; give {len(labels)} different file names without .png.")
    # Through links, so that the folder is replaced where it lies.
    given = target_of(folder)
    target = given.resolve()
    _check_replaceable(given, target, {f"{s}.png" for s in stems})
    colours = palette().tobytes()
    with aside(target, given) as part:
        part.mkdir()
        for stem, label in zip(stems, labels, strict=True):
            image = Image.fromarray(np.ascontiguousarray(label))
            image.putpalette(colours)
            image.save(part / f"{stem}.png")
        swap_in(part, target)


def _check_replaceable(given: Path, target: Path, files: set[str]) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise TedlensError(f"{given} is a file; give the name of a folder for the masks.")
    for entry in sorted(target.iterdir()):
        ours = entry.name in files and entry.is_file()
        if ours:
            with picture_file(entry) as image:
                ours = image.mode == "P"  # a frame called 00000.png is not ours to replace
        if not ours:
            raise TedlensError(
                f"{given} holds {entry.name}, which is none of the masks to be written; choose a new folder."
            )
