"""Adapters of video transformers."""
