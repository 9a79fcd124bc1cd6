"""The one error type for users."""

from __future__ import annotations


class TedlensError(ValueError):
    """An input of tedlens cannot be used.

    The message is one readable sentence: what was given, what is allowed, what to do.
    """
