"""Frame encoders: networks without a noise level, the field's baselines, usable wherever an image model is."""

from tedlens.models.encoders.encoder import FrameEncoder, Look, Network
from tedlens.models.encoders.loading import encoder_names, is_encoder, load_encoder

__all__ = ["FrameEncoder", "Look", "Network", "encoder_names", "is_encoder", "load_encoder"]
