"""Each figure from sweeps, or one sentence about why it cannot be drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import chain

import plotly.graph_objects as go
import xarray as xr

from tedlens import plots
from tedlens.analysis import decode, decomposition, object_features, references, votes
from tedlens.analysis.decoding import TARGETS
from tedlens.analysis.references import CEILING
from tedlens.analysis.statistics import clip_statistics
from tedlens.clip import Clip
from tedlens.errors import TedlensError
from tedlens.figures.stores import Sweep
from tedlens.plots.against import draw_references, of_these
from tedlens.plots.style import PLAIN_METRICS
from tedlens.sweeping.models import side_by_side
from tedlens.ted.settings import SETTINGS

STRIP_TAUS = (100, 800)  # low noise, where appearance shows, and high, where motion is left
LEAST_DECODED = 6  # clips, so that there are two folds
Drawn = tuple[go.Figure, str]  # with what it shows, in words
Maker = Callable[[], Drawn]
Figures = dict[str, Drawn]  # by name of the file


def draw_all(sweeps: Sequence[Sweep], clips: Mapping[str, Clip], shown: str) -> tuple[Figures, dict[str, list[str]]]:
    """All figures that can be drawn, and by reason those that cannot."""
    made: Figures = {}
    left_out: dict[str, list[str]] = {}
    for name, make in chain(
        *(_of_one(sweep, file_prefix(sweep, sweeps), clips, shown) for sweep in sweeps),
        _of_several(sweeps, clips.get(shown), shown),
    ):
        try:
            made[name] = make()
        except TedlensError as error:
            left_out.setdefault(str(error).rstrip("."), []).append(name)
    return made, left_out


def file_prefix(sweep: Sweep, sweeps: Sequence[Sweep]) -> str:
    """What the files of a store are called besides, where there are several."""
    return f"{sweep.name}_" if len(sweeps) > 1 else ""


def _of_one(sweep: Sweep, prefix: str, clips: Mapping[str, Clip], shown: str) -> Iterator[tuple[str, Maker]]:
    yield f"{prefix}tau_curve", partial(_curve, sweep, plots.tau_curve, "tau", "block")
    yield f"{prefix}tau_block_map", partial(_curve, sweep, plots.tau_block_map, "block", "tau", against=False)
    if sweep.against is not None:
        yield f"{prefix}tau_block_share", partial(_share_of_ceiling, sweep)
    if sweep.kind == "fused":
        yield f"{prefix}lambda_curve", partial(_curve, sweep, plots.lambda_curve, "lam")
    for axis in (axis for axis in SETTINGS if axis in sweep.scores.dims):
        yield f"{prefix}{axis}_bars", partial(_curve, sweep, partial(plots.setting_bars, setting=axis), axis)
    yield f"{prefix}pca_map", partial(_pca_map, sweep, shown, clips.get(shown))
    yield f"{prefix}decoding_curves", partial(_decoding_curves, sweep, clips)


def _of_several(sweeps: Sequence[Sweep], clip: Clip | None, shown: str) -> Iterator[tuple[str, Maker]]:
    if len(sweeps) > 1:
        yield "features_curve", partial(_features_curve, sweeps)
        yield "models_curve", partial(_models_curve, sweeps)
        yield "overlap_bars", partial(_overlap_bars, sweeps)
    weighed = cache(partial(_votes, sweeps, clip, shown))  # for both figures
    yield "decomposition", lambda: (plots.decomposition(weighed(), _frames(clip)), f"{_split(weighed())}, {shown}")
    yield "margin_curves", lambda: (plots.margin_curves(weighed()), f"margins of each object, {_split(weighed())}")


def _curve(sweep: Sweep, draw: Callable[..., go.Figure], *axes: str, against: bool = True) -> Drawn:
    """A figure of scores along the first of some axes, with what they are read `against`, where it is known."""
    figure = draw(sweep.over(*axes), metric=sweep.metric, references=sweep.against if against else None)
    return figure, f"{sweep.words} by {' and '.join(axes)}{sweep.held(*axes)}"


def _share_of_ceiling(sweep: Sweep) -> Drawn:
    figure, caption = _curve(sweep, plots.tau_block_map, "block", "tau")
    return figure, f"{caption}, as a share of what each block's grid can show at best"


def _features_curve(sweeps: Sequence[Sweep]) -> Drawn:
    """Each kind of features against the noise level."""
    several = [sweep for sweep in sweeps if sweep.scores.sizes["tau"] > 1]
    kinds = {sweep.kind: sweep for sweep in several}
    if len(kinds) < max(2, len(several)):
        raise TedlensError("It needs stores of several noise levels that differ in the kind of features")
    scores = [sweep.over("tau").reset_coords(drop=True) for sweep in kinds.values()]  # sigma is each model's own
    joined = xr.concat(_same_clips(scores), xr.Variable("features", list(kinds)), join="outer", combine_attrs="drop")
    held = "; ".join(f"{kind}{sweep.held('tau')}" for kind, sweep in kinds.items())
    metric = sweeps[0].metric
    figure = plots.tau_curve(joined, metric=metric)
    known = [sweep for sweep in kinds.values() if sweep.against is not None]
    if len(known) == len(kinds):  # kinds differ in their grids: the finest's references are the strictest
        finest = max(known, key=_ceiling)
        assert finest.against is not None
        draw_references(figure, finest.against, finest.over("tau"), metric)
        held += f"; dotted: on the grid of {finest.kind}"
    return figure, f"{PLAIN_METRICS[metric]} by tau: {held}"


def _models_curve(sweeps: Sequence[Sweep]) -> Drawn:
    """Models against the log-SNR, which all schedules have in common."""
    several = [sweep for sweep in sweeps if sweep.scores.sizes["tau"] > 1]
    alike = len({sweep.kind for sweep in several}) == 1
    if len(several) < 2 or not alike or all(sweep.made_with == several[0].made_with for sweep in several):
        raise TedlensError("It needs stores of several noise levels and one kind of features that differ in the model")
    over = [sweep.over("tau") for sweep in several]
    bare = [each.reset_coords(drop=True).assign_coords(log_snr=each["log_snr"]) for each in over]
    joined = side_by_side(dict(zip([sweep.name for sweep in several], _same_clips(bare), strict=True)))
    held = "; ".join(f"{sweep.name}{sweep.held('tau')}" for sweep in several)
    metric = sweeps[0].metric
    return plots.tau_curve(joined, metric=metric, x="log_snr"), f"{PLAIN_METRICS[metric]} by log-SNR: {held}"


def _ceiling(sweep: Sweep) -> float:
    """What the grid of a curve over tau can show at best."""
    assert sweep.against is not None
    found = of_these(sweep.against, sweep.over("tau")).sel(features=CEILING)
    return float(clip_statistics(found, sweep.metric)["mean"].max())


def _overlap_bars(sweeps: Sequence[Sweep]) -> Drawn:
    """The overlaps of windows side by side, in the cell that is best over all of them."""
    overlaps = {int(sweep.scores.attrs["overlap"]): sweep for sweep in sweeps}
    if len(overlaps) < len(sweeps) or len({sweep.kind for sweep in sweeps}) > 1:
        raise TedlensError("It needs stores that differ in the overlap of windows alone")
    scores = _same_clips([sweep.scores.reset_coords(drop=True) for sweep in sweeps])
    joined = xr.concat(scores, xr.Variable("overlap", list(overlaps)), join="inner", combine_attrs="drop")
    if not all(joined.sizes.values()):
        raise TedlensError("The stores have no cell in common")
    whole = replace(sweeps[0], scores=joined.assign_attrs(sweeps[0].scores.attrs), against=None)
    return _curve(whole, plots.overlap_bars, "overlap")


def _same_clips(scores: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Only clips that all have, so that a comparison is one of features and not of clips."""
    common = set.intersection(*({str(name) for name in each["clip"].values} for each in scores))
    if not common:
        raise TedlensError("The stores have no clip in common")
    return [each.sel(clip=sorted(common)) for each in scores]


# --- of features that were kept -------------------------------------------------------------------


def _pca_map(sweep: Sweep, shown: str, clip: Clip | None) -> Drawn:
    block, seed = sweep.best["block"], int(sweep.scores["seed"][0])
    taus = sweep.scores["tau"].values.tolist()
    levels = sorted({min(taus, key=lambda tau: abs(tau - level)) for level in STRIP_TAUS})
    features = xr.concat([sweep.features(shown, tau, seed)[block] for tau in levels], "tau", coords="minimal")
    return plots.pca_map(features, clip), f"principal components of {block}, {shown}"


def _decoding_curves(sweep: Sweep, clips: Mapping[str, Clip]) -> Drawn:
    known = {name: clip for name in sweep.scores["clip"].values if (clip := clips.get(name)) and clip.objects}
    if len(known) < LEAST_DECODED:
        raise TedlensError(
            f"It needs the clips (--clips), at least {LEAST_DECODED} with the truth about their objects, and has "
            f"{len(known)}"
        )
    pooled = [_object_features(sweep, clip) for clip in known.values()]
    several = any(len(clip.object_ids) > 1 for clip in known.values())
    targets = [target for target in TARGETS if several or target != "identity"]
    truths = [clip.objects for clip in known.values() if clip.objects is not None]
    folds = min(5, len(known) // 3)
    decoded = decode(pooled, truths, targets=targets, folds=folds)
    place = decode([_places(clip) for clip in known.values()], truths, targets=targets, folds=folds)
    figure = plots.decoding_curves(decoded, references=place)
    said = (
        f"what linear probes read from {sweep.kind} features, {len(known)} clips; dotted: from an object's place alone"
    )
    told = [target for target in targets if target != "position" and _tells(place, target)]
    if told:
        said += f", which tells {' and '.join(told)} in these clips, so that they do not show that features do"
    return figure, said


def _places(clip: Clip) -> xr.DataArray:
    """Where each object is, as features of a grid of two pixels a cell, pooled like any others."""
    place = references(clip, (max(clip.height // 2, 1), max(clip.width // 2, 1)))["place"]
    pooled = object_features(place.expand_dims(tau=[0], seed=[0]), clip)
    assert isinstance(pooled, xr.DataArray)
    return pooled


def _tells(decoded: xr.Dataset, target: str) -> bool:
    """Whether a target is read half as well as can be, or better."""
    one = decoded.sel(target=target).squeeze()
    return float(one["score"]) > (0.5 if str(one["measure"].item()) == "R2" else 0.75)


def _object_features(sweep: Sweep, clip: Clip) -> xr.DataTree:
    """What was kept of a clip as the mean feature of each object, by block; one noise level in memory at a time."""
    by_block: dict[str, list[xr.DataArray]] = {}
    for tau in sweep.scores["tau"].values.tolist():
        for block, features in sweep.features(clip.name, tau, int(sweep.scores["seed"][0])).items():
            pooled = object_features(features, clip, sides=True)
            assert isinstance(pooled, xr.DataArray)
            by_block.setdefault(block, []).append(pooled)
    blocks = sweep.scores[
        "block"
    ].values.tolist()  # their order, which gives blocks their colours, is one in all figures
    joined = {block: xr.concat(by_block[block], "tau", coords="minimal") for block in blocks}
    return xr.DataTree.from_dict({block: each.to_dataset(name="features") for block, each in joined.items()})


def _votes(sweeps: Sequence[Sweep], clip: Clip | None, shown: str) -> xr.Dataset:
    """Motion against appearance in one clip, each at its best cell."""
    parts = {sweep.kind: sweep for sweep in sweeps if sweep.kind != "fused"}
    if len(parts) < 2:
        raise TedlensError("It needs a store of motion features and one of appearance features")
    masks = _frames(clip).masks
    features = {
        kind: sweep.features(shown, sweep.best["tau"], int(sweep.scores["seed"][0]))[sweep.best["block"]]
        for kind, sweep in parts.items()
    }
    sight = {name: parts["motion"].setting(name) for name in ("radius", "n_last", "convention")}
    assert masks is not None  # no sweep takes a clip without
    lam = next((sweep.best["lam"] for sweep in sweeps if sweep.kind == "fused"), 0.5)
    return votes(decomposition(features["motion"], features["appearance"], masks, **sight), lam)


def _split(weighed: xr.Dataset) -> str:
    return f"motion against appearance at lam {weighed.attrs['lam']:g}"


def _frames(clip: Clip | None) -> Clip:
    if clip is None:
        raise TedlensError("It needs the clip's frames (--clips), which stores do not hold")
    return clip
