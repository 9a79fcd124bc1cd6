"""The one error that users meet."""

from __future__ import annotations


class TedlensError(ValueError):
    """Something given to tedlens cannot be used.

    Its message is one sentence for a person: what was given, what is allowed, what to do.
    """
