"""Features of a diffusion model over noise levels, blocks and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import PIL.Image
import torch
import xarray as xr
from torch import Tensor, nn
from tqdm.auto import tqdm

from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.models.base import Condition, DiffusionModel, Frames
from tedlens.models.noise import frame_noise
from tedlens.provenance import clip_provenance, versions

IMAGE_BATCH = 8  # frames that an image model sees at once


def probe(
    model: DiffusionModel,
    clip: Clip,
    *,
    tau: int | Sequence[int],
    blocks: str | Sequence[str] | None = None,
    seed: int | Sequence[int] = 0,
    overlap: int = 2,
    window: int | None = None,
    size: int | tuple[int, int] | None = None,
) -> xr.DataTree:
    """Features of `clip` in `model`, for each noise level, block and seed.

    Each (tau, seed) costs one forward a window, whatever the number of blocks, and stops after the
    deepest block asked for. Latents and embeddings are computed once.

    Parameters
    ----------
    tau
        Training timesteps, 0 (clean) to 999 (noise); see the model's `sigma` and `log_snr`.
    blocks
        Names from ``model.blocks``; by default all ``up`` blocks.
    seed
        Seeds of the noise. A frame's noise depends on the seed and the frame's index alone.
    overlap
        Frames that neighbouring windows of a video model share (the paper: 2); there, features are
        the mean of the windows'. The last window is moved back to end with the clip.
    window
        Frames seen at once; by default as many as the model was trained on.
    size
        Short side, or (height, width), in pixels that frames are resized to; made multiples of what
        the model needs. By default the model's own.

    Returns
    -------
    DataTree
        One node a block with ``features`` (tau, seed, frame, channel, y, x), float32 (float16 from a
        float16 model); coordinates ``sigma`` and ``log_snr`` along tau; ``y`` and ``x``, the centre
        of each cell in pixels of the clip (the centre of its first pixel is 0). The attributes say
        how to make it again.

    Raises
    ------
    TedlensError
        For an unknown block, a tau, seed, overlap or window out of range.
    """
    taus, seeds, names = as_list(tau), as_list(seed), chosen_blocks(model, blocks)
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    prepared = Prepared(model, clip, overlap=overlap, window=window, size=size)
    for _, _, features in prepared.features(taus, seeds, names):
        for name in names:
            found[name].append(_storable(features[name]))
    about = prepared.provenance() | {"taus": taus, "seeds": seeds}
    nodes = {}
    for name in names:
        stacked = torch.stack(found[name]).unflatten(0, (len(taus), len(seeds)))
        labelled = label_features(stacked.numpy(), model, clip, taus, seeds)
        # On the array too: it travels alone, through .sel() into fuse and propagate.
        nodes[name] = labelled.assign_attrs(about | {"block": name}).to_dataset(name="features")
    tree = xr.DataTree.from_dict(nodes)
    tree.attrs = about | {"blocks": names}
    return tree


class Prepared:
    """A clip made ready for a model: resized, encoded and conditioned once, then run at any tau and seed."""

    def __init__(
        self,
        model: DiffusionModel,
        clip: Clip,
        *,
        overlap: int = 2,
        window: int | None = None,
        size: int | tuple[int, int] | None = None,
        progress: bool = True,
    ) -> None:
        self.model = model
        self.progress = progress
        self.input_size = input_size((clip.height, clip.width), model.size if size is None else size, model.multiple)
        self.windows = windows(len(clip), model.window if window is None else window, overlap)
        frames = resize(clip.frames, self.input_size)
        with torch.inference_mode():
            self.clean = model.encode(frames)
            self.conditions: list[Condition] = [model.condition(frames, self.clean, w) for w in self.windows]
        self._about = {
            **model.provenance(),
            **clip_provenance(clip),
            "overlap": overlap,
            "window": max(len(w) for w in self.windows),
            "input_size": list(self.input_size),
        }

    def provenance(self) -> dict[str, Any]:
        """Model, clip and settings, for the attributes of results."""
        return versions() | self._about

    def features(
        self, taus: Sequence[int], seeds: Sequence[int], blocks: Sequence[str]
    ) -> Iterator[tuple[int, int, dict[str, Tensor]]]:
        """For each tau and seed, in that order: features of the whole clip by block, on the device.

        Each is (frame, channel, y, x); where windows overlap, the mean of theirs.
        """
        taus = [self.model.check_tau(t) for t in taus]
        modules = {name: self.model.module(name) for name in blocks}
        deepest = max(blocks, key=self.model.blocks.index)
        # Only what takes over two seconds shows a bar.
        bar = tqdm(
            total=len(taus) * len(seeds) * len(self.windows),
            desc="probing",
            unit="window",
            delay=2,
            leave=False,
            disable=not self.progress,
        )
        with bar, torch.inference_mode():
            for tau in taus:
                for seed in seeds:
                    noise = frame_noise(seed, range(len(self.clean)), tuple(self.clean.shape[1:]))
                    noisy = self.model.add_noise(self.clean, noise.to(self.clean), tau)
                    yield tau, seed, self._run(noisy, tau, modules, deepest, bar)

    def _run(
        self, noisy: Tensor, tau: int, modules: Mapping[str, nn.Module], deepest: str, bar: Any
    ) -> dict[str, Tensor]:
        total: dict[str, Tensor] = {}
        count = torch.zeros(len(noisy), 1, 1, 1, device=noisy.device)
        for window, condition in zip(self.windows, self.conditions, strict=True):
            part = slice(window.start, window.stop)
            count[part] += 1
            with record(modules, deepest) as features:
                self.model.run(noisy[part], tau, condition)
            for name, value in features.items():
                if name not in total:
                    total[name] = torch.zeros(len(noisy), *value.shape[1:], device=value.device)
                total[name][part] += value
            bar.update()
        return {name: (value / count).to(noisy.dtype) for name, value in total.items()}


class _Reached(Exception):
    """Raised by a hook to end a forward once the deepest block has run."""


@contextmanager
def record(modules: Mapping[str, nn.Module], deepest: str) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs (frame, channel, y, x) of `modules` during a forward, which ends after `deepest`."""
    features: dict[str, Tensor] = {}
    handles = []

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            # Down blocks return their output with the residuals for the way up.
            features[name] = output[0] if isinstance(output, tuple) else output
            if name == deepest:
                raise _Reached

        return hook

    try:
        handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
        yield features
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()


def windows(frames: int, window: int | None, overlap: int) -> list[range]:
    """Frames of each window. An image model (window None) sees each frame alone: plain batches.

    >>> windows(20, 8, 2)
    [range(0, 8), range(6, 14), range(12, 20)]
    """
    if window is None:
        return [range(i, min(i + IMAGE_BATCH, frames)) for i in range(0, frames, IMAGE_BATCH)]
    if window < 1 or not 0 <= overlap < window:
        raise TedlensError(
            f"overlap={overlap} does not fit windows of {window} frames; choose 0 to {max(window - 1, 0)}."
        )
    if frames <= window:
        return [range(frames)]
    starts = [*range(0, frames - window, window - overlap), frames - window]
    return [range(start, start + window) for start in starts]


def input_size(clip: tuple[int, int], size: int | tuple[int, int], multiple: int) -> tuple[int, int]:
    """Height and width that frames are resized to: short side `size`, both multiples of `multiple`."""
    if isinstance(size, int):
        scale = size / min(clip)
        wanted = (clip[0] * scale, clip[1] * scale)
    else:
        wanted = size
    if min(wanted) < 1:
        raise TedlensError(f"size={size} is too small for a picture; give the short side in pixels.")
    height, width = (max(1, round(side / multiple)) * multiple for side in wanted)
    return height, width


def resize(frames: Frames, size: tuple[int, int]) -> Frames:
    """Frames (T, H, W, 3) at another height and width."""
    if frames.shape[1:3] == size:
        return frames
    resized = [PIL.Image.fromarray(f).resize((size[1], size[0]), PIL.Image.Resampling.BICUBIC) for f in frames]
    return np.stack([np.asarray(f) for f in resized])


def chosen_blocks(model: DiffusionModel, blocks: str | Sequence[str] | None) -> list[str]:
    """Names of blocks as a list, each known to the model."""
    if blocks is None:
        return [name for name in model.blocks if name.startswith("up")]
    names = [blocks] if isinstance(blocks, str) else list(blocks)
    if not names:
        raise TedlensError(f"No block was asked for; choose from {', '.join(model.blocks)}.")
    for name in names:
        model.module(name)
    return names


def as_list(value: int | Sequence[int]) -> list[int]:
    """One number or several, as a list of distinct ones in the order given."""
    values = [value] if isinstance(value, int | np.integer) else list(value)
    if not values:
        raise TedlensError("An empty list of taus or seeds was given; give at least one.")
    return [int(v) if int(v) == v else v for v in dict.fromkeys(values)]


def label_features(
    values: np.ndarray[Any, Any], model: DiffusionModel, clip: Clip, taus: Sequence[int], seeds: Sequence[int]
) -> xr.DataArray:
    """Name the axes of (tau, seed, frame, channel, y, x)."""
    height, width = values.shape[-2:]
    return xr.DataArray(
        values,
        dims=("tau", "seed", "frame", "channel", "y", "x"),
        coords={
            "tau": ("tau", list(taus), {"long_name": "training timestep"}),
            "sigma": ("tau", [model.sigma(t) for t in taus], {"long_name": "noise-to-signal ratio"}),
            "log_snr": ("tau", [model.log_snr(t) for t in taus], {"long_name": "log signal-to-noise power ratio"}),
            "seed": list(seeds),
            "frame": np.arange(len(clip)),
            "y": ("y", cell_centres(height, clip.height), {"units": "pixel"}),
            "x": ("x", cell_centres(width, clip.width), {"units": "pixel"}),
        },
    )


def cell_centres(cells: int, pixels: int) -> np.ndarray[Any, np.dtype[np.floating]]:
    """Centres of `cells` equal cells over `pixels` pixels; the first pixel's centre is 0."""
    return (np.arange(cells) + 0.5) * (pixels / cells) - 0.5


def _storable(value: Tensor) -> Tensor:
    """On the CPU, in a type that numpy has."""
    return (value.float() if value.dtype == torch.bfloat16 else value).cpu()
