"""Tensors out of a baseline's own checkpoint into a network of ours; nothing but tensors is read."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tedlens.errors import TedlensError
from tedlens.models.loading import unpickled

State = Mapping[str, Tensor]
# The name of one of our tensors to the checkpoint's and, where that holds query, key and value, to which of them.
Source = Callable[[str], tuple[str, int | None]]


def read_state(path: Path, held: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their own names, on the CPU.

    Parameters
    ----------
    path
        What ``torch.save`` wrote: the tensors themselves, or a training's state.
    held
        Under which name such a state holds them.

    Raises
    ------
    TedlensError
        For a file that is missing or damaged, that needs code to be read, or has no tensors.
    """
    if not path.is_file():
        raise TedlensError("there is no such file; give the path of the downloaded one.")
    try:
        # Trainings leave their command line's arguments, a plain record, beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = unpickled(path)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            raise TedlensError("it is no file that torch.save wrote, or a damaged one; download it again.") from error
        raise TedlensError(
            f"it holds more than tensors ({refused[1]}), which could run code and is not read; where you trust it, "
            f"read it with torch.load(weights_only=False) and save what its {held!r} holds alone."
        ) from error
    except PermissionError as error:
        raise TedlensError("you may not read the file; ask for the right to.") from error
    except Exception as error:  # damaged files raise errors of many kinds
        raise TedlensError("the file is damaged or cut short; download it again.") from error
    named = found.get(held, found) if isinstance(found, dict) else None
    state = {name: value for name, value in (named or {}).items() if isinstance(value, Tensor)}
    if not state:
        raise TedlensError(f"it holds no tensors by name, neither itself nor under {held!r}; it is another file.")
    return state


def fill(network: nn.Module, state: State, source: Source, what: str) -> None:
    """Give every tensor of a network its value from a checkpoint; what the checkpoint has beside them is left.

    Raises
    ------
    TedlensError
        For tensors that are missing, called by the checkpoint's own names, or of another shape.
    """
    # Batch normalisation counts its batches, and needs the count in training alone.
    ours = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    sources = {name: source(name) for name in ours}
    if missing := [name for name in dict.fromkeys(name for name, _ in sources.values()) if name not in state]:
        raise TedlensError(
            f"it lacks {', '.join(missing[:3])}{f' and {len(missing) - 3} more' if len(missing) > 3 else ''} of "
            f"the {len(ours)} tensors of {what}; the file is not whole, or is of another model."
        )
    weights = {}
    for name, (theirs, part) in sources.items():
        value = state[theirs] if part is None else state[theirs].chunk(3)[part]
        if value.shape != ours[name].shape:
            raise TedlensError(
                f"{theirs} has shape {tuple(state[theirs].shape)}, which does not fit {what}; it is another model's."
            )
        weights[name] = value
    network.load_state_dict(weights, strict=False)
