"""Features of a diffusion model over noise levels, blocks and seeds."""

from __future__ import annotations

import copy
import re
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import PIL.Image
import torch
import xarray as xr
import zarr
from torch import Tensor, nn
from tqdm.auto import tqdm

from tedlens.clip import Clip, as_clip
from tedlens.errors import TedlensError
from tedlens.models.acting import Act, Intervention, Moment, acting, acting_in_run
from tedlens.models.base import Between, Condition, DiffusionModel, Frames
from tedlens.models.noise import latent_noise
from tedlens.models.points import HookPoint, Outline, first_tensor
from tedlens.models.registry import Model, as_model
from tedlens.models.structure import outline
from tedlens.provenance import clip_provenance, versions
from tedlens.store import check_replaceable, load, marked_root, storable, whole_folder

LOOKED_AT = 10**8  # pixels of input in all from which a probe is measured before it starts
SAID = 10**9  # bytes of a result from which its size is said
FOREIGN = 3  # times the clips that an embedded model was made for, from which a clip is none of its kind
IMAGE_BATCH = 8  # frames that an image model sees at once, where memory allows

Stitch = Literal["first", "mean"]


def probe(
    model: Model,
    clip: Clip | str | Path,
    *,
    tau: int | Sequence[int] | None = None,
    sigma: float | Sequence[float] | None = None,
    log_snr: float | Sequence[float] | None = None,
    blocks: str | Sequence[str] | None = None,
    seed: int | Sequence[int] = 0,
    samples: int = 1,
    overlap: int = 2,
    window: int | None = None,
    stitch: Stitch = "first",
    size: int | tuple[int, int] | None = None,
    store: str | Path | None = None,
) -> xr.DataTree:
    """Features of `clip` in `model`, for each noise level, block and seed.

    Each (tau, seed) costs one forward a window, whatever the number of blocks, and stops after the
    deepest block asked for. Latents and embeddings are computed once.

    Parameters
    ----------
    model
        A loaded model, or what a loader takes: its name, or its arguments, as in
        ``{"name": "i2vgen-xl", "dtype": "bfloat16"}``. A name that both kinds have means the video model.
    clip
        A clip, or the path of one, see `read_clip`.
    tau, sigma, log_snr
        Noise levels, in one of three ways: training timesteps, 0 (clean) to 999 (noise); noise-to-signal
        ratios; or logarithms of the signal-to-noise power ratio, the axis on which models with different
        schedules compare. `sigma` and `log_snr` mean the training timestep nearest to them in log-SNR;
        the result holds the exact values of that one.
    blocks
        Names from ``model.blocks``; by default all ``up`` blocks. Or any submodule, by its dotted path or
        a pattern: ``up_2.temp_attentions.*``, ``up_blocks.2.attentions.1``, and an attention's query and
        key projections, ``up_2.attentions.1.transformer_blocks.0.attn1.to_q``. ``*`` stands for any part
        between two dots, ``**`` for several; ``tedlens info`` lists what there is.
    seed
        Seeds of the noise. A frame's noise depends on the seed and the frame's index alone.
    samples
        Noise samples a seed, over which features are the mean (DIFT: 8 with Stable Diffusion, 4 with
        ADM). Each costs a forward.
    overlap
        Frames that neighbouring windows of a video model share (the paper: 2). The last window is moved back to end
        with the clip, and so may share more (as printed, the paper's algorithm drops the frames after the last whole
        window).
    window
        Frames seen at once; by default as many as the model was trained on.
    stitch
        What a frame in several windows gets: ``"first"``, the features of the first window that holds it (the paper's
        algorithm 1), or the ``"mean"`` over windows.
    size
        Short side, or (height, width), in pixels that frames are resized to; made multiples of what
        the model needs. By default the model's own.
    store
        Path of a Zarr folder that takes each cell as it comes, so that no more than one is in memory; as from
        `save`, whole or not at all. The result is then read from there when it is used.

    Returns
    -------
    DataTree
        One node a block or submodule with ``features`` (tau, seed, frame, channel, y, x), float32 (float16 from a
        float16 model); coordinates ``sigma`` and ``log_snr`` along tau; ``y`` and ``x``, the centre
        of each cell in pixels of the clip (the centre of its first pixel is 0). Where frames share features (a
        model of latents of several frames), ``latent_frame`` along frame is the first of those that do. The attributes
        say how to make it again.

    Raises
    ------
    TedlensError
        For an unknown block, a tau, seed, overlap or window out of range, features that are not finite, a GPU without
        room for one window; before the UNet runs for a result that the memory does not hold, and before any work
        for a `store` that is something else.
    """
    if store is not None:
        check_replaceable(Path(store))
    model, clip = as_model(model), as_clip(clip)
    taus, seeds = noise_levels(model, tau, sigma, log_snr), as_list(seed)
    prepared = Prepared(model, clip, overlap=overlap, window=window, stitch=stitch, size=size)
    names = prepared.names(blocks)
    about = prepared.provenance() | {"taus": taus, "seeds": seeds, "samples": samples}
    cells = prepared.features(taus, seeds, names, samples)

    def labelled(name: str, values: np.ndarray[Any, Any]) -> xr.Dataset:
        features = label_features(values, prepared, taus, seeds)
        # On the array too: it travels alone, through .sel() into fuse and propagate.
        return features.assign_attrs(about | {"block": name}).to_dataset(name="features")

    if store is not None:
        return _on_disk(Path(store), cells, (len(taus), len(seeds)), labelled, about | {"blocks": names})
    _check_memory(prepared, names, len(taus) * len(seeds))
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for number, (_, _, features) in enumerate(cells):
        for name in names:
            values = _storable(features[name]).numpy()
            if name not in arrays:
                arrays[name] = np.empty((len(taus), len(seeds), *values.shape), values.dtype)
            arrays[name][divmod(number, len(seeds))] = values
    tree = xr.DataTree.from_dict({name: labelled(name, values) for name, values in arrays.items()})
    tree.attrs = about | {"blocks": names}
    return tree


def _on_disk(
    store: Path,
    cells: Iterable[tuple[int, int, dict[str, Tensor]]],
    shape: tuple[int, int],
    labelled: Callable[[str, np.ndarray[Any, Any]], xr.Dataset],
    about: dict[str, Any],
) -> xr.DataTree:
    """Features of all cells (tau, seed) in a Zarr folder, each written as it comes; opened."""
    arrays: dict[str, Any] = {}
    with whole_folder(store) as folder:
        marked_root(xr.Dataset(attrs=about)).to_zarr(folder, zarr_format=3, consolidated=False, mode="w")
        for number, (_, _, features) in enumerate(cells):
            for name, value in features.items():
                values = _storable(value).numpy()
                if name not in arrays:
                    whole = np.broadcast_to(np.zeros((), values.dtype), (*shape, *values.shape))
                    arrays[name] = _empty_node(folder / name, storable(labelled(name, whole)))
                arrays[name][divmod(number, shape[1])] = values
    tree: xr.DataTree = load(store)
    return tree


def _empty_node(folder: Path, node: xr.Dataset) -> Any:
    """A node of a result on disk whose features are still to be written, a frame of a cell to a chunk."""
    node.drop_vars("features").to_zarr(folder, zarr_format=3, consolidated=False, mode="w")
    features = node["features"]
    return zarr.open_group(folder, mode="r+").create_array(
        "features",
        shape=features.shape,
        dtype=features.dtype,
        chunks=(1, 1, 1, *features.shape[3:]),
        dimension_names=[str(d) for d in features.dims],
        attributes=features.attrs,
    )


def _check_memory(prepared: Prepared, names: Sequence[str], cells: int) -> None:
    """See that the features of so many cells fit into memory, and say how large they are where that is much."""
    frames = len(prepared.clip)
    if cells * frames * prod(prepared.input_size) < LOOKED_AT:
        return
    points = [prepared.point(name) for name in names]
    size = 4 * cells * frames * sum(point.channels * prod(point.grid) for point in points)
    free = _free_memory()
    if free is not None and size > free:
        raise TedlensError(
            f"These features take {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free; give store= to "
            "write them to disk as they come, or fewer noise levels, blocks or frames."
        )
    if size > SAID:
        print(f"Features of {size / 1e9:.1f} GB.")


def _free_memory() -> int | None:
    """Bytes that can be had; None where the system does not say."""
    try:
        said = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"MemAvailable:\s*(\d+) kB", said)
    return 1024 * int(found.group(1)) if found else None


class Tap(NamedTuple):
    """Where a feature is taken: a module, and how to read its output as (frame, channel, y, x)."""

    module: nn.Module
    read: Callable[[Any], Tensor]


class Draw(NamedTuple):
    """Of the noise: level, seed, and number of the sample."""

    tau: int
    seed: int
    sample: int = 0


class Reading(NamedTuple):
    """What is read from each forward, which ends after the deepest; and what is told of each that is done."""

    taps: Mapping[str, Tap]
    deepest: str
    step: Callable[[], Any]


class Prepared:
    """A clip made ready for a model: resized, encoded and conditioned once, then run at any tau and seed."""

    def __init__(
        self,
        model: DiffusionModel,
        clip: Clip,
        *,
        overlap: int = 2,
        window: int | None = None,
        stitch: Stitch = "first",
        size: int | tuple[int, int] | None = None,
        progress: bool = True,
    ) -> None:
        check_stitch(stitch)
        self.model = model
        self.clip = clip
        self.stitch = stitch
        self.progress = progress
        wanted = (model.fixed_size or model.size) if size is None else size
        self.input_size = input_size((clip.height, clip.width), wanted, model.multiple)
        self.windows = windows(len(clip), window_length(model, window), overlap)
        if model.made_for is not None and min(clip.height, clip.width) > FOREIGN * model.made_for:
            warnings.warn(
                f"{model.name!r} has only ever seen drawn balls of {model.made_for} pixels a frame "
                f"(tl.datasets.similar), so its features of {clip.name!r} ({clip.height}x{clip.width}) say little; "
                "load a full-size model, as tl.load_video_model('i2vgen-xl').",
                stacklevel=3,
            )
        frames = resize(clip.frames, self.input_size)
        with model.lock, torch.no_grad(), model.encoders():
            # A VAE that makes one latent of several frames depends on where a window begins.
            parts = [range(len(clip))] if model.latents == "frame" else self.windows
            self._cleans = [model.encode(frames[part.start : part.stop]) for part in parts]
            for clean in self._cleans:
                self.check_finite(clean, "what its encoder gives")
            # An image model sees each frame alone, and is told the same of all.
            conditioned = self.windows if model.kind == "video" else [range(len(clip))]
            of_each = self._cleans if model.latents == "video" else self._cleans * len(conditioned)
            self.conditions: list[Condition] = [
                model.condition(frames, clean, window) for clean, window in zip(of_each, conditioned, strict=True)
            ]
            # As it is now, and said so: a scope that begins or ends later changes nothing.
            done = model.interventions
        self._about = {
            **clip_provenance(clip),
            "overlap": overlap,
            "window": max(len(w) for w in self.windows),
            "stitch": stitch,
            "input_size": list(self.input_size),
        }
        self._intervene(done)

    def _intervene(self, interventions: tuple[Intervention, ...]) -> None:
        self.model = self.model.with_interventions(interventions)
        self._interventions = [(each, each.prepare(self, interventions[:i])) for i, each in enumerate(interventions)]

    def intervened(self, interventions: tuple[Intervention, ...]) -> Prepared:
        """The same clip for the same model with other interventions; nothing is encoded again."""
        other = copy.copy(self)
        other._intervene(interventions)
        return other

    def beside(self, clip: Clip, interventions: tuple[Intervention, ...]) -> Prepared:
        """Another clip, at least as long, for the same model in the same windows at the same size."""
        window = self._about["window"] if self.model.kind == "video" else None
        model = self.model.with_interventions(interventions)
        how: dict[str, Any] = {"overlap": self._about["overlap"], "window": window, "size": self.input_size}
        return Prepared(model, clip[: len(self.clip)], **how, progress=False)

    def check_finite(self, values: Tensor, what: str) -> None:
        """See that what a model gives are numbers; else say whether its weights or its type of number are at fault."""
        if torch.isfinite(values).all():
            return
        self.model.check_weights()
        dtype = str(self.model.dtype).removeprefix("torch.")
        raise TedlensError(
            f"Model {self.model.name!r} in {dtype} gives NaN or infinite values ({what}); "
            "load it with dtype='bfloat16' or 'float32', which do not overflow as float16 does."
        )

    def provenance(self) -> dict[str, Any]:
        """Model, clip and settings, for the attributes of results."""
        return versions() | self.model.provenance() | self._about

    @cached_property
    def _outline(self) -> Outline:
        return outline(self.model, self.input_size)

    def names(self, blocks: str | Sequence[str] | None) -> list[str]:
        """Names of the blocks and submodules that `blocks` means; by default all ``up`` blocks."""
        return block_names(self.model, blocks, lambda: self._outline)

    def point(self, name: str) -> HookPoint:
        """Shape of the features of a block or submodule."""
        return self._outline.point(name)

    def reading(self, names: Sequence[str], step: Callable[[], Any] = lambda: None) -> Reading:
        """What it takes to read blocks and submodules by their names, as `names` gives them, in each forward."""
        return Reading(*self._taps(names), step)

    def _taps(self, names: Sequence[str]) -> tuple[dict[str, Tap], str]:
        """Where each feature is taken, and the name of the one that runs last."""
        if set(names) <= set(self.model.blocks) and self.model.token_grid(self.input_size) is None:
            # Blocks give maps and run in their order: no need to look inside the model.
            taps = {name: Tap(self.model.module(name), first_tensor) for name in names}
            return taps, max(names, key=self.model.blocks.index)
        points = {name: self._outline.point(name) for name in names}
        order = list(self._outline.points)
        deepest = max(names, key=lambda name: order.index(points[name].path))
        modules = {name: self.model.denoiser.get_submodule(point.path) for name, point in points.items()}
        return {name: Tap(modules[name], points[name].read) for name in names}, deepest

    def features(
        self, taus: Sequence[int], seeds: Sequence[int], blocks: Sequence[str], samples: int = 1
    ) -> Iterator[tuple[int, int, dict[str, Tensor]]]:
        """For each tau and seed, in that order: features of the whole clip by block, on the device.

        Each is (frame, channel, y, x): the mean over noise samples and, where windows overlap, what `stitch` says.
        `blocks` are names as `names` gives them.
        """
        taus = [self.model.check_tau(t) for t in taus]
        check_samples(samples)
        # Only what takes over two seconds shows a bar.
        bar = tqdm(
            total=len(taus) * len(seeds) * samples * len(self.windows),
            desc="probing",
            unit="window",
            delay=2,
            leave=False,
            disable=not self.progress,
        )
        with bar:
            reading = self.reading(blocks, bar.update)
            for tau in taus:
                for seed in seeds:
                    yield tau, seed, self._mean_over_samples(tau, seed, samples, reading)

    # Around one cell and not around `features`: a generator would leave its caller without gradients at each yield.
    @torch.no_grad()
    def _mean_over_samples(self, tau: int, seed: int, samples: int, reading: Reading) -> dict[str, Tensor]:
        mean: dict[str, Tensor] = {}
        for sample in range(samples):
            draw = Draw(tau, seed, sample)
            window = partial(self._window_by_frames, reading=reading)
            found = self._where_it_fits(partial(self._stitched, draw, window, reading.step))
            for name, value in found.items():
                mean[name] = mean.get(name, 0) + value / samples
        features = {name: value.to(self._cleans[0].dtype) for name, value in mean.items()}
        for name, value in features.items():
            self.check_finite(value, f"features of {name} at tau={tau}")
        return features

    @property
    def clean(self) -> Tensor:
        """Latents (frame, channel, y, x) of the clip, each frame alone."""
        if self.model.latents == "video":
            raise TedlensError(f"Latents of {self.model.name!r} hold several frames, so each window has its own.")
        return self._cleans[0]

    def moment(self, number: int, draw: Draw) -> Moment:
        """Of the forward of a window, by its number."""
        window = self.windows[number]
        return Moment(number, window, *draw, covered=tuple(self.model.covered(window)))

    def noisy(self, draw: Draw, number: int, seen: Sequence[int] | None = None) -> Tensor:
        """A window of the clip at a noise level, as the model takes it: (latent, channel, y, x).

        `seen` are the frames whose content stands there, where it is not their own; the noise is that of the window's.
        """
        latents = self.model.latent_frames(self.windows[number])
        clean = self._clean(number, latents) if seen is None else self.clean[list(seen)]
        if self.model.levels == 1:  # an encoder, for which noise would be drawn in vain
            return clean
        noise = latent_noise(draw.seed, latents, tuple(clean.shape[1:]), sample=draw.sample)
        return self.model.add_noise(clean, noise.to(clean), draw.tau)

    def _clean(self, number: int, latents: Sequence[range]) -> Tensor:
        """Latents of a window without noise; what fills up is the first, again."""
        if self.model.latents == "frame":
            return self.clean[[held.start for held in latents]]
        own = self._cleans[number]
        return torch.cat([own[:1]] * (len(latents) - len(own)) + [own])

    def shown_frames(self) -> list[int]:
        """Frames of the clip that stand for those which the model's layers have, in any window."""
        return sorted({held.start for window in self.windows for held in self.model.covered(window)})

    def latent_frames(self) -> list[int] | None:
        """Of each frame of the clip the first frame of those that share its features; None where each has its own."""
        found: dict[int, int] = {}
        for window in self.windows:
            for held in self.model.covered(window):
                found |= {frame: held.start for frame in held if frame not in found}
        return None if all(frame == first for frame, first in found.items()) else [found[i] for i in sorted(found)]

    def window(self, noisy: Tensor, moment: Moment, reading: Reading) -> dict[str, Tensor]:
        """Features (frame, channel, y, x) from one forward of `noisy`, frames of a window, with all interventions."""
        with self.in_forward(moment), record(reading.taps, reading.deepest) as features:
            self.model.run(noisy, moment.tau, self._condition(moment))
        return features

    def _window_by_frames(self, noisy: Tensor, moment: Moment, reading: Reading) -> dict[str, Tensor]:
        """Features of a window by the clip's frames, whatever number of frames the model's layers have."""
        found = self.window(noisy, moment, reading)
        return {name: by_frames(value, moment, self.model.between) for name, value in found.items()}

    @torch.no_grad()
    def pictures(self, draw: Draw | None = None, *, noisy: bool = False) -> Tensor:
        """What the model takes the clip to be, or is given (`noisy`), or without noise what its encoder keeps, as the
        VAE decodes it: (frame, 3, y, x) float32.
        """
        of_latents = self._given if noisy else self._predicted
        if self.model.latents == "frame":
            if draw is None:
                return self._decoded(self.clean)
            return self._decoded(self.given(draw) if noisy else self.prediction(draw))

        def of_window(given: Tensor, moment: Moment) -> dict[str, Tensor]:
            clean = self._cleans[moment.number] if draw is None else of_latents(given, moment)["clean"]
            return {"pictures": self._decoded(clean[-len(self._cleans[moment.number]) :])[: len(moment.window)]}

        return self._where_it_fits(partial(self._stitched, draw or Draw(0, 0), of_window))["pictures"]

    def given(self, draw: Draw) -> Tensor:
        """Noisy latents that the model is given, window by window: (frame, channel, y, x) float32."""
        return self._where_it_fits(partial(self._stitched, draw, self._given))["clean"]

    def _given(self, noisy: Tensor, moment: Moment) -> dict[str, Tensor]:
        return {"clean": noisy[-len(moment.window) :] if self.model.latents == "frame" else noisy}

    def _decoded(self, clean: Tensor) -> Tensor:
        with self.model.lock, self.model.encoders():
            pictures = self.model.decode(clean)
        self.check_finite(pictures, "what its VAE decodes")
        return pictures

    def prediction(self, draw: Draw) -> Tensor:
        """The clean sample that the model's outputs say, window by window: (frame, channel, y, x) float32."""
        clean = self._where_it_fits(partial(self._stitched, draw, self._predicted))["clean"]
        self.check_finite(clean, f"its prediction at tau={draw.tau}")
        return clean

    def _predicted(self, noisy: Tensor, moment: Moment) -> dict[str, Tensor]:
        with self.in_forward(moment):
            output = self.model.run(noisy, moment.tau, self._condition(moment))
        if output is None:
            raise TedlensError(
                f"The adapter of {self.model.name!r} does not return the output of its UNet from run, so nothing is "
                "predicted; return it as (frame, channel, y, x), see tedlens/models/README.md."
            )
        clean = self.model.clean_from(noisy, output, moment.tau)
        # Without what only fills up.
        return {"clean": clean[-len(moment.window) :] if self.model.latents == "frame" else clean}

    @contextmanager
    def in_forward(self, moment: Moment) -> Iterator[None]:
        """Around one forward: the model is nobody else's, and all interventions are in place."""
        with self.model.lock, ExitStack() as around:
            # All are made before any is in place: one may run the model itself for what it puts in.
            acts = [act for each, ready in self._interventions for act in each.acts(self.model, moment, ready)]
            for each, ready in self._interventions:
                around.enter_context(each.around(self.model, moment, ready))
            with acting_in_run(acts):
                yield

    def _condition(self, moment: Moment) -> Condition:
        return self.conditions[moment.number if self.model.kind == "video" else 0]

    def _where_it_fits(self, run: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """A run of all windows; where GPU memory runs out, again with half as many frames at once, from then on."""
        while True:
            try:
                return run()
            except torch.OutOfMemoryError as error:
                traceback.clear_frames(error.__traceback__)  # they hold what the forward had made so far
                longest = max(len(w) for w in self.windows)
                if self.model.kind == "video" or longest == 1:
                    height, width = self.input_size
                    raise TedlensError(
                        f"The GPU has no room for {longest} frame(s) of {height}x{width} pixels in "
                        f"{self.model.name!r}; give a smaller size or window, dtype='bfloat16', "
                        "or load the model with offload=True."
                    ) from error
            self.windows = windows(len(self.clip), None, 0, batch=longest // 2)
            torch.cuda.empty_cache()
            warnings.warn(f"GPU memory ran out; probing goes on with {longest // 2} frames at once.", stacklevel=2)

    def _stitched(
        self, draw: Draw, run: Callable[[Tensor, Moment], dict[str, Tensor]], step: Callable[[], Any] = lambda: None
    ) -> dict[str, Tensor]:
        """What each window gives, (frame, channel, y, x), as of the whole clip."""
        total: dict[str, Tensor] = {}
        count = torch.zeros(len(self.clip), 1, 1, 1, device=self._cleans[0].device)
        done = 0  # frames that a window before has seen: windows go forward
        for number, window in enumerate(self.windows):
            part = slice(window.start, window.stop)
            new = slice(max(done, window.start), window.stop) if self.stitch == "first" else part
            done = window.stop
            count[new] += 1
            for name, value in run(self.noisy(draw, number), self.moment(number, draw)).items():
                if name not in total:
                    total[name] = torch.zeros(len(count), *value.shape[1:], device=value.device)
                total[name][new] += value[new.start - window.start :]
            step()
        return {name: value / count for name, value in total.items()}


def by_frames(value: Tensor, moment: Moment, between: Between) -> Tensor:
    """Features (frame of the model, ..) of a window as (frame of the clip, ..): repeated, or interpolated in time."""
    held = moment.covered
    if all(len(each) == 1 for each in held):
        return value
    if between == "repeat":
        return value[[number for number, each in enumerate(held) for _ in each]]
    centres = np.array([(each.start + each.stop - 1) / 2 for each in held])
    place = np.interp(list(moment.window), centres, np.arange(len(held)))
    before = np.floor(place).astype(int)
    share = torch.from_numpy(place - before).to(value).view(-1, *[1] * (value.ndim - 1))
    return torch.lerp(value[before], value[np.minimum(before + 1, len(held) - 1)], share)


class _Reached(Exception):
    """Raised by a hook to end a forward once the deepest block has run."""


@contextmanager
def record(taps: Mapping[str, Tap], deepest: str) -> Iterator[dict[str, Tensor]]:
    """Collect features (frame, channel, y, x) at `taps` during a forward, which ends after `deepest`."""
    features: dict[str, Tensor] = {}

    def keep(name: str) -> Act:
        def act(given: Tensor, output: Tensor) -> None:
            features[name] = taps[name].read(output)
            if name == deepest:
                raise _Reached

        return act

    try:
        with acting([(tap.module, keep(name)) for name, tap in taps.items()]):
            yield features
    except _Reached as reached:
        # The frames of the broken-off forward hold its activations: on an H100 some 35 GB stayed allocated for a while
        # after forwards that had ended.
        traceback.clear_frames(reached.__traceback__)


def block_names(model: DiffusionModel, blocks: str | Sequence[str] | None, inside: Callable[[], Outline]) -> list[str]:
    """Names of the blocks and submodules that `blocks` means; the model is looked `inside` only where it needs that."""
    if blocks is None:
        up = [name for name in model.blocks if name.startswith(("up", "out"))]
        return up or list(model.blocks)
    wanted = [blocks] if isinstance(blocks, str) else list(blocks)
    if not wanted:
        raise TedlensError(f"No block was asked for; choose from {', '.join(model.blocks)}.")
    names: list[str] = []
    for name in wanted:
        names += [name] if name in model.blocks else [found for found, _ in inside().matching(name)]
    return list(dict.fromkeys(names))


def check_samples(samples: int) -> None:
    if int(samples) != samples or samples < 1:
        raise TedlensError(f"samples={samples} is out of range; choose a whole number of at least 1.")


def check_stitch(stitch: str) -> None:
    if stitch not in get_args(Stitch):
        raise TedlensError(f"stitch={stitch!r} is not known; choose {' or '.join(map(repr, get_args(Stitch)))}.")


def only_one(names: Sequence[str], block: str) -> str:
    """The one name that a pattern means where several make no sense."""
    if len(names) != 1:
        raise TedlensError(f"{block!r} means {len(names)} submodules; name one of them, for example {names[0]!r}.")
    return names[0]


def window_length(model: DiffusionModel, window: int | None) -> int | None:
    """Frames a window: as asked, by default as the model was trained; None for an image model."""
    if window is not None and model.longest_window is not None and window > model.longest_window:
        raise TedlensError(
            f"window={window} is longer than {model.name!r} can count frames; choose 1 to {model.longest_window}."
        )
    return model.window if window is None else window


def windows(frames: int, window: int | None, overlap: int, *, batch: int = IMAGE_BATCH) -> list[range]:
    """Frames of each window. An image model (window None) sees each frame alone: plain batches.

    >>> windows(20, 8, 2)
    [range(0, 8), range(6, 14), range(12, 20)]
    """
    if window is None:
        return [range(i, min(i + batch, frames)) for i in range(0, frames, batch)]
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


def usual_size(model: DiffusionModel) -> tuple[int, int]:
    """Height and width at which a model is looked into where no clip says another: square, if it takes that."""
    return input_size((model.size, model.size), model.fixed_size or model.size, model.multiple)


def resize(frames: Frames, size: tuple[int, int]) -> Frames:
    """Frames (T, H, W, 3) at another height and width."""
    if frames.shape[1:3] == size:
        return frames
    resized = [PIL.Image.fromarray(f).resize((size[1], size[0]), PIL.Image.Resampling.BICUBIC) for f in frames]
    return np.stack([np.asarray(f) for f in resized])


def noise_levels(
    model: DiffusionModel,
    tau: int | Sequence[int] | None,
    sigma: float | Sequence[float] | None,
    log_snr: float | Sequence[float] | None,
) -> list[int]:
    """Training timesteps, from whichever of the three was given."""
    if (tau is not None) + (sigma is not None) + (log_snr is not None) != 1:
        raise TedlensError("Give the noise levels as one of tau, sigma and log_snr.")
    if tau is not None:
        return as_list(tau)
    given = np.atleast_1d(np.asarray(log_snr if sigma is None else sigma, float))
    if sigma is not None:
        if (given < 0).any():
            raise TedlensError(f"sigma={given.min():.4g} is negative; choose noise-to-signal ratios of 0 or more.")
        with np.errstate(divide="ignore"):
            given = -2 * np.log(given)
    return as_list([model.nearest_tau(log_snr=float(value)) for value in given])


def as_list(value: int | Sequence[int]) -> list[int]:
    """One number or several, as a list of distinct ones in the order given."""
    values = [value] if isinstance(value, int | np.integer) else list(value)
    if not values:
        raise TedlensError("An empty list of taus or seeds was given; give at least one.")
    return [int(v) if int(v) == v else v for v in dict.fromkeys(values)]


def label_features(
    values: np.ndarray[Any, Any], prepared: Prepared, taus: Sequence[int], seeds: Sequence[int]
) -> xr.DataArray:
    """Name the axes of (tau, seed, frame, channel, y, x)."""
    height, width = values.shape[-2:]
    shared = prepared.latent_frames()
    first = {} if shared is None else {"latent_frame": ("frame", shared, {"long_name": "first frame of its latent"})}
    return xr.DataArray(
        values,
        dims=("tau", "seed", "frame", "channel", "y", "x"),
        coords={
            **noise_axis(prepared.model, taus),
            "seed": list(seeds),
            **places(prepared.clip, (height, width)),
            **first,
        },
    )


def noise_axis(model: DiffusionModel, taus: Sequence[int]) -> dict[str, Any]:
    """Coordinates of noise levels: tau, and the other ways to say it."""
    return {
        "tau": ("tau", list(taus), {"long_name": "training timestep"}),
        "sigma": ("tau", [model.sigma(t) for t in taus], {"long_name": "noise-to-signal ratio"}),
        "log_snr": ("tau", [model.log_snr(t) for t in taus], {"long_name": "log signal-to-noise power ratio"}),
    }


def places(clip: Clip, grid: tuple[int, int]) -> dict[str, Any]:
    """Coordinates of features (.., frame, .., y, x) of a clip on a grid (y, x)."""
    return {
        "frame": np.arange(len(clip)),
        "y": ("y", cell_centres(grid[0], clip.height), {"units": "pixel"}),
        "x": ("x", cell_centres(grid[1], clip.width), {"units": "pixel"}),
    }


def cell_centres(cells: int, pixels: int) -> np.ndarray[Any, np.dtype[np.floating]]:
    """Centres of `cells` equal cells over `pixels` pixels; the first pixel's centre is 0."""
    return (np.arange(cells) + 0.5) * (pixels / cells) - 0.5


def _storable(value: Tensor) -> Tensor:
    """On the CPU, in a type that numpy has."""
    return (value.float() if value.dtype == torch.bfloat16 else value).cpu()
