"""The version of tedlens, where both the package and what it writes read it."""

__version__ = "0.2.0"
