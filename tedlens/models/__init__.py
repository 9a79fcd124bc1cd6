"""Diffusion models behind one small protocol; diffusers loads them."""

from tedlens.models.base import DiffusionModel
from tedlens.models.registry import load_image_model, load_video_model

__all__ = ["DiffusionModel", "load_image_model", "load_video_model"]
