"""A sweep described in YAML, with the parameter names of `tl.sweep`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tedlens import datasets
from tedlens.clip import Clip, read_clip
from tedlens.errors import TedlensError

DEEPEST = 10  # lists and mappings within each other
EXAMPLE = "clips: [{path: frames/bear, masks: masks/bear}]"


def read_gridfile(path: str | Path) -> dict[str, Any]:
    """The arguments in a grid file; its clips are functions that read them when they are needed.

    Parameters
    ----------
    path
        YAML with the parameters of `tl.sweep` by name. ``clips`` is a list; each item holds the arguments of
        `tl.read_clip` (``{path: frames/bear, masks: masks/bear}``), or names one of `tl.datasets` with its
        arguments (``{similar: {seed: 3}}``). Paths are relative to the working folder.

    Raises
    ------
    TedlensError
        For a file that cannot be read, is no YAML, or has other content.
    """
    words = _words(path)
    missing = [word for word in ("clips", "tau") if word not in words]
    if missing:
        raise TedlensError(f"{path} lacks {' and '.join(missing)}; a grid file says at least clips, tau and a model.")
    return {**words, "clips": _clips_in(words, path)}


def read_clips(path: str | Path) -> list[Callable[[], Clip]]:
    """The clips listed in a YAML file as in a grid file, as functions that read them; other content is ignored.

    Raises
    ------
    TedlensError
        As `read_gridfile`.
    """
    words = _words(path)
    if "clips" not in words:
        raise TedlensError(f"{path} lacks clips; give a YAML file that begins like {EXAMPLE}.")
    return _clips_in(words, path)


def _words(path: str | Path) -> Mapping[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
        _check_plain(text, path)
        words = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise TedlensError(
            f"Cannot read {path}: {getattr(error, 'strerror', None) or error}; give a YAML file."
        ) from error
    except yaml.YAMLError as error:
        raise TedlensError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(words, Mapping):
        raise TedlensError(f"{path} does not hold the words of a sweep; a grid file begins like {EXAMPLE}.")
    return words


def _clips_in(words: Mapping[str, Any], path: str | Path) -> list[Callable[[], Clip]]:
    given = words["clips"] if isinstance(words["clips"], list) else [words["clips"]]
    return [clip for one in given for clip in _clips(one, path)]


def _check_plain(text: str, path: str | Path) -> None:
    """Refuse references and deep nesting in a grid file, which can grow without limit."""
    depth = 0
    for event in yaml.parse(text):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST or isinstance(event, yaml.AliasEvent):
            raise TedlensError(
                f"{path} holds references (*name) or more than {DEEPEST} lists within each other; "
                f"write it out, as in {EXAMPLE}."
            )


def _clips(given: Any, path: str | Path) -> list[Callable[[], Clip]]:
    """Functions that return the clips of one item of ``clips``."""
    if isinstance(given, Mapping) and "path" in given:
        try:
            inspect.signature(read_clip).bind(**given)
        except TypeError as error:
            raise TedlensError(f"{path} has a clip {dict(given)!r} that cannot be read so ({error}).") from error
        return [partial(read_clip, **given)]
    if isinstance(given, Mapping) and len(given) == 1:
        name, arguments = next(iter(given.items()))
        if name in datasets.__all__ and isinstance(arguments, Mapping):
            return _dataset(name, arguments, path)
    raise TedlensError(
        f"{path} has {given!r} among its clips; an item is like {{path: frames/bear, masks: masks/bear}}, or names a "
        f"dataset with its arguments, as in {{similar: {{seed: 3}}}} (datasets: {', '.join(datasets.__all__)})."
    )


def _dataset(name: str, arguments: Mapping[str, Any], path: str | Path) -> list[Callable[[], Clip]]:
    """The clips of a dataset, as functions that read them when they are needed."""
    make = partial(getattr(datasets, name), **arguments)
    try:
        found = make()
    except TypeError as error:
        raise TedlensError(f"{path}: the dataset {name!r} does not take these arguments ({error}).") from error
    if isinstance(found, Clip):
        return [make]
    return [partial(found.__getitem__, number) for number in range(len(found))]
