"""A clip prepared for a model: encoded once, then run at any noise level and seed."""

from __future__ import annotations

import copy
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.models.acting import Intervention, Moment, acting_in_run
from tedlens.models.base import Condition, DiffusionModel
from tedlens.models.noise import latent_noise
from tedlens.models.points import first_tensor
from tedlens.probing.recording import Draw, Reading, Tap, by_frames, record
from tedlens.probing.view import Stitch, View, resize, windows

FOREIGN = 3  # a clip this many times larger than those an embedded model was made for is foreign to it


class Prepared(View):
    """A clip prepared for a model: resized, encoded and conditioned once, then run at any tau and seed."""

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
        super().__init__(model, clip, overlap=overlap, window=window, stitch=stitch, size=size)
        self.progress = progress
        if model.made_for is not None and min(clip.height, clip.width) > FOREIGN * model.made_for:
            warnings.warn(
                f"{model.name!r} has only ever seen drawn balls of {model.made_for} pixels a frame "
                f"(tl.datasets.similar), so its features of {clip.name!r} ({clip.height}x{clip.width}) say little; "
                "load a full-size model, as tl.load_video_model('i2vgen-xl').",
                stacklevel=3,
            )
        frames = resize(clip.frames, self.input_size)
        with model.lock, torch.no_grad(), model.encoders():
            # If the VAE encodes several frames as one latent, the latents depend on where a window begins.
            parts = [range(len(clip))] if model.latents == "frame" else self.windows
            self._cleans = [model.encode(frames[part.start : part.stop]) for part in parts]
            for clean in self._cleans:
                self.check_finite(clean, "what its encoder gives")
            # An image model sees each frame alone, and gets the same condition for all.
            conditioned = self.windows if model.kind == "video" else [range(len(clip))]
            of_each = self._cleans if model.latents == "video" else self._cleans * len(conditioned)
            self.conditions: list[Condition] = [
                model.condition(frames, clean, window) for clean, window in zip(of_each, conditioned, strict=True)
            ]
            # The interventions active now are kept: a scope that begins or ends later changes nothing.
            done = model.interventions
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
        """Prepare another clip, at least as long, for the same model with the same windows and size."""
        window = self._about["window"] if self.model.kind == "video" else None
        model = self.model.with_interventions(interventions)
        how: dict[str, Any] = {"overlap": self._about["overlap"], "window": window, "size": self.input_size}
        return Prepared(model, clip[: len(self.clip)], **how, progress=False)

    def check_finite(self, values: Tensor, what: str) -> None:
        """Check that model outputs are finite; if not, report whether its weights or its dtype is the cause."""
        if torch.isfinite(values).all():
            return
        self.model.check_weights()
        dtype = str(self.model.dtype).removeprefix("torch.")
        raise TedlensError(
            f"Model {self.model.name!r} in {dtype} gives NaN or infinite values ({what}); "
            "load it with dtype='bfloat16' or 'float32', which do not overflow as float16 does."
        )

    def reading(self, names: Sequence[str], step: Callable[[], Any] = lambda: None) -> Reading:
        """How to read blocks and submodules in each forward pass, by their names as `names` returns them."""
        return Reading(*self._taps(names), step)

    def _taps(self, names: Sequence[str]) -> tuple[dict[str, Tap], str]:
        """The tap of each feature, and the name of the feature whose module runs last."""
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

        Each is (frame, channel, y, x): the mean over noise draws; where windows overlap, `stitch` applies.
        `blocks` are names as `names` returns them.
        """
        taus = [self.model.check_tau(t) for t in taus]
        check_samples(samples)
        # The progress bar shows only after two seconds.
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

    # Not on `features`, which is a generator: it would switch off gradients for its caller at each yield.
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
        """Latents (frame, channel, y, x) of the clip, each frame encoded separately."""
        if self.model.latents == "video":
            raise TedlensError(f"Latents of {self.model.name!r} hold several frames, so each window has its own.")
        return self._cleans[0]

    def moment(self, number: int, draw: Draw) -> Moment:
        """The `Moment` of the forward pass of a window, by the number of the window."""
        window = self.windows[number]
        return Moment(number, window, *draw, covered=tuple(self.model.covered(window)))

    def noisy(self, draw: Draw, number: int, seen: Sequence[int] | None = None) -> Tensor:
        """A window of the clip at a noise level, as the model takes it: (latent, channel, y, x).

        `seen`: the frames whose content is used, if not those of the window; the noise is still that of the window.
        """
        latents = self.model.latent_frames(self.windows[number])
        clean = self._clean(number, latents) if seen is None else self.clean[list(seen)]
        if self.model.levels == 1:  # an encoder, which takes no noise
            return clean
        noise = latent_noise(draw.seed, latents, tuple(clean.shape[1:]), sample=draw.sample)
        return self.model.add_noise(clean, noise.to(clean), draw.tau)

    def _clean(self, number: int, latents: Sequence[range]) -> Tensor:
        """Latents of a window without noise; missing latents are filled with copies of the first."""
        if self.model.latents == "frame":
            return self.clean[[held.start for held in latents]]
        own = self._cleans[number]
        return torch.cat([own[:1]] * (len(latents) - len(own)) + [own])

    def window(self, noisy: Tensor, moment: Moment, reading: Reading) -> dict[str, Tensor]:
        """Features (frame, channel, y, x) from one forward pass of `noisy`, one window, with all interventions."""
        with self.in_forward(moment), record(reading.taps, reading.deepest) as features:
            self.model.run(noisy, moment.tau, self._condition(moment))
        return features

    def _window_by_frames(self, noisy: Tensor, moment: Moment, reading: Reading) -> dict[str, Tensor]:
        """Features of a window for each frame of the clip, whatever number of frames the layers of the model have."""
        found = self.window(noisy, moment, reading)
        return {name: by_frames(value, moment, self.model.between) for name, value in found.items()}

    @torch.no_grad()
    def pictures(self, draw: Draw | None = None, *, noisy: bool = False) -> Tensor:
        """Pictures (frame, 3, y, x) float32 that the VAE decodes.

        They show the clean clip that the model predicts at `draw`; with `noisy`, its noisy input; without `draw`, the
        encoded clip without noise.
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
        """Noisy latents that the model receives, window by window: (frame, channel, y, x) float32."""
        return self._where_it_fits(partial(self._stitched, draw, self._given))["clean"]

    def _given(self, noisy: Tensor, moment: Moment) -> dict[str, Tensor]:
        return {"clean": noisy[-len(moment.window) :] if self.model.latents == "frame" else noisy}

    def _decoded(self, clean: Tensor) -> Tensor:
        with self.model.lock, self.model.encoders():
            pictures = self.model.decode(clean)
        self.check_finite(pictures, "what its VAE decodes")
        return pictures

    def prediction(self, draw: Draw) -> Tensor:
        """The clean sample computed from the outputs of the model, window by window: (frame, channel, y, x) float32."""
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
        # Without the latents that were only filled in.
        return {"clean": clean[-len(moment.window) :] if self.model.latents == "frame" else clean}

    @contextmanager
    def in_forward(self, moment: Moment) -> Iterator[None]:
        """Context of one forward pass: the model is locked, and all interventions are active."""
        with self.model.lock, ExitStack() as around:
            # All acts are created before any is active, because an act may run the model itself.
            acts = [act for each, ready in self._interventions for act in each.acts(self.model, moment, ready)]
            for each, ready in self._interventions:
                around.enter_context(each.around(self.model, moment, ready))
            with acting_in_run(acts):
                yield

    def _condition(self, moment: Moment) -> Condition:
        return self.conditions[moment.number if self.model.kind == "video" else 0]

    def _where_it_fits(self, run: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Run all windows. If GPU memory runs out, an image model runs again with half as many frames at once."""
        while True:
            try:
                return run()
            except torch.OutOfMemoryError as error:
                traceback.clear_frames(error.__traceback__)  # they hold the activations of the forward pass
                longest = max(len(w) for w in self.windows)
                if self.model.kind == "video" or longest == 1:
                    height, width = self.input_size
                    raise TedlensError(
                        f"The GPU has no room for {longest} frame(s) of {height}x{width} pixels in "
                        f"{self.model.name!r}; give a smaller size or window, dtype='bfloat16', "
                        "or load the model with offload=True (encoders wait on the CPU) or 'layers' (all does)."
                    ) from error
            self.windows = windows(len(self.clip), None, 0, batch=longest // 2)
            torch.cuda.empty_cache()
            warnings.warn(f"GPU memory ran out; probing goes on with {longest // 2} frames at once.", stacklevel=2)

    def _stitched(
        self, draw: Draw, run: Callable[[Tensor, Moment], dict[str, Tensor]], step: Callable[[], Any] = lambda: None
    ) -> dict[str, Tensor]:
        """Combine the outputs (frame, channel, y, x) of all windows to those of the whole clip."""
        total: dict[str, Tensor] = {}
        count = torch.zeros(len(self.clip), 1, 1, 1, device=self._cleans[0].device)
        done = 0  # number of frames covered by earlier windows: windows go forward
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


def check_samples(samples: int) -> None:
    if int(samples) != samples or samples < 1:
        raise TedlensError(f"samples={samples} is out of range; choose a whole number of at least 1.")
