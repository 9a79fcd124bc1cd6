"""The benchmarks of the field that TED is measured on: their data, task, settings and metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tedlens import datasets
from tedlens.clip import Clip
from tedlens.datasets.layout import Clips
from tedlens.errors import TedlensError
from tedlens.metrics import Protocol
from tedlens.sweeping.clips import ClipSequence

Task = Literal["masks", "parts", "joints", "points"]
Read = Callable[[Path, str | None, Path | None], Clips]


@dataclass(frozen=True)
class Benchmark:
    """A data set with the way in which the field scores it.

    Attributes
    ----------
    title
        In the paper's tables.
    task
        What is tracked: masks of objects, parts of a body, joints, points.
    preset
        The paper's settings for it. It prints those of three data sets; the others have those of DAVIS here, which is
        real video, too.
    read
        From the root folder, a split and a file of names to clips.
    split
        The one that is scored by default; None where there are none.
    protocol
        Of `evaluate`, where masks are scored.
    words
        What holds besides the preset, by the names of `track`.
    note
        What a reader of the table should know.
    """

    title: str
    task: Task
    preset: str
    read: Read = field(repr=False)
    split: str | None = None
    protocol: Protocol = "davis"
    words: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def _davis(root: Path, split: str | None, names: Path | None) -> Clips:
    return datasets.davis(root, subset=split or "val")


def _youtube_vos(root: Path, split: str | None, names: Path | None) -> Clips:
    return datasets.youtube_vos(root, split=split or "train", names=names)


def _youtube_similar(root: Path, split: str | None, names: Path | None) -> Clips:
    if names is None:
        raise TedlensError(
            "Youtube-Similar is a list of clips of YouTube-VOS that its authors did not publish; give one with --names "
            "(a text file, a name a line), as `tedlens candidates` proposes."
        )
    return _youtube_vos(root, split, names)


def _mose(root: Path, split: str | None, names: Path | None) -> Clips:
    return datasets.mose(root, split=split or "train")


def _kubric(root: Path, split: str | None, names: Path | None) -> Clips:
    return datasets.kubric(root)


def _jhmdb(root: Path, split: str | None, names: Path | None) -> Clips:
    return datasets.jhmdb(root, split=int(split) if split and split.isdigit() else split or 1)  # type: ignore[arg-type]


def _vip(root: Path, split: str | None, names: Path | None) -> Clips:
    return datasets.vip(root, split=split or "val")


def _tapvid(root: Path, split: str | None, names: Path | None) -> Clips:
    return datasets.tapvid(root)


SERVER = (
    "Masks of the valid split are with the server of the challenge, so the train split is scored here: figures are not "
    "those of the same clips as the published ones."
)
BENCHMARKS = {
    "davis": Benchmark("DAVIS", "masks", "ted-davis", _davis, "val"),
    "youtube-similar": Benchmark(
        "Youtube-Similar",
        "masks",
        "ted-youtube-similar",
        _youtube_similar,
        "train",
        "youtube-vos",
        note="The paper's list of clips is not public; these are others, chosen by its words.",
    ),
    "kubric-similar": Benchmark(
        "Kubric-Similar",
        "masks",
        "ted-kubric-similar",
        _kubric,
        note="The paper's scenes are not public; these are others, made by its words (such as by "
        "tedlens/datasets/recipes/kubric_similar.py).",
    ),
    "youtube-vos": Benchmark("YouTube-VOS", "masks", "ted-davis", _youtube_vos, "train", "youtube-vos", note=SERVER),
    "mose": Benchmark("MOSE", "masks", "ted-davis", _mose, "train", "youtube-vos", note=SERVER),
    "jhmdb": Benchmark(
        "JHMDB",
        "joints",
        "ted-davis",
        _jhmdb,
        "1",
        words={"size": 320},
        note="The field sees JHMDB at 320 pixels; the paper does not print its size.",
    ),
    "vip": Benchmark(
        "VIP",
        "parts",
        "ted-davis",
        _vip,
        "val",
        words={"size": 560},
        note="The field sees VIP at 560 pixels; the paper does not print its size.",
    ),
    "tapvid": Benchmark("TAP-Vid", "points", "ted-davis", _tapvid, note="The paper has no figures of points."),
}


def benchmark_named(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises
    ------
    TedlensError
        For a name that none has.
    """
    if name not in BENCHMARKS:
        raise TedlensError(f"There is no benchmark {name!r}; choose from {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]


def clips_of(
    benchmark: Benchmark, root: Path, split: str | None = None, names: Path | None = None, most: int | None = None
) -> ClipSequence:
    """The clips of a benchmark in a folder, unread; at `most` so many, the first."""
    if split is not None and benchmark.split is None:
        raise TedlensError(f"{benchmark.title} has no splits, so --split {split} means nothing; leave it out.")
    if names is not None and benchmark.read not in (_youtube_vos, _youtube_similar):
        raise TedlensError(f"{benchmark.title} takes no list of names; leave --names out.")
    clips = benchmark.read(root, split, names)
    return clips if most is None else clips[:most]


def given_of(benchmark: Benchmark, clip: Clip) -> Clip:
    """What a tracker is given of a clip: of a body's parts the first frame, of objects each one's first mask."""
    if benchmark.task != "parts" or clip.masks is None:
        return clip
    from dataclasses import replace

    return replace(clip, masks=clip.masks[0])
