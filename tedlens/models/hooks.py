"""Hooks on modules for the length of a `with` block; whatever ends it, none stays behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Hook = Callable[..., Any]


@contextmanager
def hooked(hooks: Iterable[tuple[nn.Module, Hook]], *, with_kwargs: bool = False) -> Iterator[None]:
    """Forward hooks, each on its module. Give every one a function of its own, by which it is found again."""
    placed = list(hooks)
    try:
        for module, hook in placed:
            module.register_forward_hook(hook, with_kwargs=with_kwargs)
        yield
    finally:
        # Looked up, not by torch's handles: an interrupt may come between a hook and its handle.
        for module, hook in placed:
            for key in [key for key, known in module._forward_hooks.items() if known is hook]:
                module._forward_hooks.pop(key, None)
                module._forward_hooks_with_kwargs.pop(key, None)
