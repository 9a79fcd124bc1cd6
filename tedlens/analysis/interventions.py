"""What a model does without one of its parts: changes that last for a `with` block and leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tedlens.errors import TedlensError
from tedlens.models.hooks import Hook, hooked

if TYPE_CHECKING:
    from torch import nn

    from tedlens.models.base import DiffusionModel

# diffusers' classes of layers that mix frames, with the argument (their first) that holds what they get from the layers
# within a frame, which is what is left without them. SVD blends the two paths in an AlphaBlender.
TEMPORAL_LAYERS = {
    "TemporalConvLayer": "hidden_states",
    "TransformerTemporalModel": "hidden_states",
    "AnimateDiffTransformer3D": "hidden_states",
    "AlphaBlender": "x_spatial",
}


@contextmanager
def without_temporal_layers(model: DiffusionModel) -> Iterator[None]:
    """Bypass every layer of a video model that mixes frames, for the length of a ``with`` block.

    Each frame then goes through the UNet alone, with no other beside it but the one that the model is
    conditioned on (I2VGen-XL spreads it over all frames before its first block): what features still hold
    is not motion seen. Temporal convolutions, temporal transformers and motion modules hand on what they
    get; where SVD blends a spatial with a temporal path, the spatial one is taken. Results say so
    (``model_without``), so that a sweep's store never takes them for those of the whole model. Other threads
    that use the model wait until the block ends.

    Raises
    ------
    TedlensError
        For a model without such layers.
    """
    layers = [module for module in model.unet.modules() if type(module).__name__ in TEMPORAL_LAYERS]
    if not layers:
        raise TedlensError(
            f"Model {model.name!r} has no temporal layers to bypass ({', '.join(TEMPORAL_LAYERS)}); give a video model."
        )
    with model.without("temporal layers"), hooked([(layer, _bypass()) for layer in layers], with_kwargs=True):
        yield


def _bypass() -> Hook:
    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        name = TEMPORAL_LAYERS[type(layer).__name__]
        within_frames = kwargs[name] if name in kwargs else args[0]
        return (within_frames,) if isinstance(output, tuple) else within_frames

    return hook
