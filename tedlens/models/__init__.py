"""Diffusion models behind one small protocol; diffusers loads them."""

from tedlens.models.base import DiffusionModel, VariancePreserving, pictures
from tedlens.models.latent import LatentModel
from tedlens.models.registry import load_image_model, load_video_model, outline_model, register_adapter
from tedlens.models.structure import HookPoint, hook_points

__all__ = [
    "DiffusionModel",
    "HookPoint",
    "LatentModel",
    "VariancePreserving",
    "hook_points",
    "load_image_model",
    "load_video_model",
    "outline_model",
    "pictures",
    "register_adapter",
]
