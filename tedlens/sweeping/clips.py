"""Clips of a sweep: read when their turn comes, and known by their name and content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

from tedlens import metrics
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.ted.tracking import start_masks

Source = Callable[[], Clip]


@runtime_checkable
class ClipSequence(Protocol):
    """Anything with a length that has, or reads, its clips by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Clip | Source: ...


# A clip, several, or functions that read one.
Clips = Clip | ClipSequence | Iterable[Clip | Source]


def clip_sources(clips: Clips) -> list[Source]:
    """For each clip a function that gives it. Of a lazy sequence, a dataset, no clip is read before its turn."""
    if isinstance(clips, Clip):
        clips = [clips]
    if isinstance(clips, ClipSequence) and not isinstance(clips, list | tuple):
        return [partial(_item, clips, number) for number in range(len(clips))]
    return [partial(_given, one) for one in clips]


def _item(clips: ClipSequence, number: int) -> Clip:
    return _given(clips[number])


def _given(clip: Clip | Source) -> Clip:
    return clip if isinstance(clip, Clip) else clip()


@dataclass(frozen=True)
class ClipFacts:
    """What is known of a clip without holding it."""

    name: str
    frames: int
    height: int
    width: int
    objects: tuple[int, ...]  # ids in the masks
    sha256: str  # of frames and masks

    def scored(self, protocol: metrics.Protocol) -> range:
        """Frames that the protocol scores."""
        kept = metrics.scored_frames(self.frames, protocol)
        return range(int(kept[0]), int(kept[-1]) + 1)


@dataclass(frozen=True)
class SweptClip:
    """A clip that is read when its turn comes, and what is known of it before."""

    source: Source
    facts: ClipFacts


def survey(sources: Sequence[Source], protocol: metrics.Protocol) -> list[SweptClip]:
    """Look at every clip once, one in memory at a time, and refuse those that cannot be tracked and scored."""
    found: dict[str, SweptClip] = {}
    for source in sources:
        facts = _facts(source(), protocol)
        if facts.name in found:
            raise TedlensError(
                f"Two clips are named {facts.name!r}, and results tell clips apart by name; give each its own, "
                "as in tl.read_clip(..., name=...)."
            )
        found[facts.name] = SweptClip(source, facts)
    if not found:
        raise TedlensError("There is no clip to sweep; give at least one.")
    return list(found.values())


def _facts(clip: Clip, protocol: metrics.Protocol) -> ClipFacts:
    masks = start_masks(clip)
    try:
        objects = tuple(metrics.check_truth(masks, protocol).tolist())
    except TedlensError as error:
        raise TedlensError(f"Clip {clip.name!r}: {error}") from error
    if not clip.annotated[1:].any():
        raise TedlensError(
            f"Clip {clip.name!r} has a mask of its first frame only, so it can be tracked (tl.track) but not scored; "
            "give masks of more frames."
        )
    return ClipFacts(clip.name, len(clip), clip.height, clip.width, objects, clip_sha256(clip))


def clip_sha256(clip: Clip) -> str:
    """Hash of a clip's frames and masks."""
    digest = hashlib.sha256(clip.frames.tobytes())
    if clip.masks is not None:
        digest.update(clip.masks.tobytes())
    return digest.hexdigest()
