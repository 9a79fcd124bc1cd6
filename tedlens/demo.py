"""The main task with the embedded models: TED on clips of two identical balls, not seen in training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from tedlens.analysis.statistics import clip_statistics
from tedlens.clip import Clip
from tedlens.datasets import similar
from tedlens.media import overlay, write_masks, write_video
from tedlens.models import load_image_model, load_video_model
from tedlens.models.mini import recipe
from tedlens.plots.curves import curve_traces, tau_curve
from tedlens.plots.export import save_figures
from tedlens.plots.pictures import add_pictures, chosen_frames, pca_colours, pca_map
from tedlens.plots.style import METRICS, styled
from tedlens.probing import probe
from tedlens.store import check_replaceable, save, whole_folder
from tedlens.sweeping import sweep
from tedlens.ted.tracking import track

TAUS = [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]
PCA_TAUS = [100, 800]  # little noise and much
LAM = 0.5
APPEARANCE_BLOCK = "up_1"  # best image model block in the benchmark's validation, not its default


@dataclass(frozen=True)
class Demo:
    """The results of the demo, and the files that it wrote."""

    table: xr.DataArray  # J_m in percent (tau, features)
    clips: int
    written: dict[str, Path]


def run_demo(out: Path, *, clips: int = 8, seed: int = 0) -> Demo:
    """Track `clips` hold-out clips at each tau with motion, appearance and fused features; write it all to `out`."""
    check_replaceable(out, "an earlier demo")
    motion, appearance = load_video_model("mini"), load_image_model("mini")
    made = [hold_out_clip(number) for number in range(clips)]
    how: dict[str, Any] = {"tau": TAUS, "seeds": seed}
    still: dict[str, Any] = {"appearance": appearance, "appearance_block": APPEARANCE_BLOCK}
    fused = sweep(made, motion=motion, **still, blocks=motion.block, lam=[1, LAM], **how)
    alone = sweep(made, appearance=appearance, blocks=APPEARANCE_BLOCK, **how)
    scores = by_features(fused, alone)
    curve = clip_statistics(scores, "J")["mean"]
    best = {kind: int(curve.sel(features=kind).idxmax("tau")) for kind in curve["features"].values}
    clip = made[typical_clip(scores, best)]
    tracked = {
        "appearance": track(clip, **still, lam=0, appearance_tau=best["appearance"], seed=seed),
        "motion": track(clip, motion=motion, lam=1, tau=best["motion"], seed=seed),
    }
    feats = probe(motion, clip, tau=TAUS, blocks=motion.block, seed=seed)
    with whole_folder(out, marked=True) as folder:
        written = write_demo(folder, clip, {kind: each["labels"] for kind, each in tracked.items()}, feats, scores)
    placed = {what: out / path.relative_to(folder) for what, path in written.items()}
    return Demo((100 * curve).transpose("tau", "features"), clips, placed)


def hold_out_clip(number: int) -> Clip:
    """A clip of two identical balls that pass each other, from the test seeds, which training never sees."""
    view = "perspective" if number % 2 == 0 else "top"
    return similar(recipe.TEST_SEEDS[number], view=view, frames=recipe.FRAMES, size=recipe.SIZE)  # type: ignore[arg-type]


def by_features(fused: xr.Dataset, alone: xr.Dataset) -> xr.Dataset:
    """Scores (clip, features, tau, object, frame) of motion and of appearance at tau, and of fused features.

    Fused: motion at tau with appearance at DIFT's tau, the default of `sweep`.
    """
    kinds = {"motion": fused.sel(lam=1), "appearance": alone, "fused": fused.sel(lam=LAM)}
    each = [
        scores.isel(block=0, seed=0).reset_coords(drop=True).expand_dims(features=[kind])
        for kind, scores in kinds.items()
    ]
    scores = xr.concat(each, "features", combine_attrs="drop_conflicts")
    return scores.transpose("clip", "features", "tau", "object", "frame")


def typical_clip(scores: xr.Dataset, best: dict[str, int]) -> int:
    """Index of the clip with the median lead of motion over appearance, each at its best tau."""
    j = scores["J"].mean(["object", "frame"])
    gain = j.sel(features="motion", tau=best["motion"]) - j.sel(features="appearance", tau=best["appearance"])
    return int(np.argsort(gain.values, kind="stable")[(len(gain) - 1) // 2])


def write_demo(
    out: Path, clip: Clip, tracked: dict[str, xr.DataArray], feats: xr.DataTree, scores: xr.Dataset
) -> dict[str, Path]:
    """Write features, scores, masks, overlays and figures; return their paths."""
    write_masks(tracked["motion"].values, out / "masks", clip.frame_names)
    write_video(overlay(clip.frames, tracked["motion"].values), out / "overlay.mp4", clip.fps)
    PIL.Image.fromarray(overlay_strip(clip, tracked)).save(out / "overlay.png")
    figures = save_figures(
        {
            "story": story(clip, tracked, feats, scores),
            "tau_curve": tau_curve(scores, metric="J"),
            "pca_map": pca_map(feats, clip, tau=PCA_TAUS),
        },
        out / "figures",
    )
    scores_frame = (100 * clip_statistics(scores, "J")["mean"]).rename("J_m").to_dataframe()["J_m"].unstack("features")
    scores_frame.round(2).to_csv(out / "scores.csv")
    return {
        "features": save(feats, out / "features.zarr"),
        "scores": save(scores, out / "scores.zarr"),
        "scores, table": out / "scores.csv",
        "tracked masks": out / "masks",
        "overlay, video": out / "overlay.mp4",
        "overlay, picture": out / "overlay.png",
        "figures": figures[0].parent,
    }


def overlay_strip(clip: Clip, tracked: dict[str, xr.DataArray]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """One picture with truth, appearance and motion in rows, and frames in columns. It needs no browser."""
    assert clip.masks is not None
    chosen = chosen_frames(len(clip), None)
    rows = [clip.masks, *(masks.values for masks in tracked.values())]
    pictures = [np.concatenate(list(overlay(clip.frames, row)[chosen]), axis=1) for row in rows]
    return np.concatenate(pictures).repeat(3, axis=0).repeat(3, axis=1)


def story(clip: Clip, tracked: dict[str, xr.DataArray], feats: xr.DataTree, scores: xr.Dataset) -> go.Figure:
    """The result in one figure: tracks of each model, motion features in colour, and the curve over tau."""
    assert clip.masks is not None
    chosen = chosen_frames(len(clip), None)
    features = feats[feats.attrs["blocks"][-1]].to_dataset()["features"].isel(seed=0)
    rows = [("truth", overlay(clip.frames, clip.masks)[chosen])]
    rows += [
        (f"tracked by<br>{kind}, τ = {masks.attrs[f'{kind}_tau']}", overlay(clip.frames, masks.values)[chosen])
        for kind, masks in tracked.items()
    ]
    rows += [(f"motion features<br>τ = {level}", pca_colours(features.sel(tau=level))[chosen]) for level in PCA_TAUS]
    curve_rows = 3
    figure = make_subplots(
        rows=len(rows) + curve_rows,
        cols=len(chosen),
        specs=[[{}] * len(chosen) for _ in rows]
        + [[{"colspan": len(chosen), "rowspan": curve_rows}, *[None] * (len(chosen) - 1)]]
        + [[None] * len(chosen)] * (curve_rows - 1),
        column_titles=[f"frame {f}" for f in chosen],
        horizontal_spacing=0.01,
        vertical_spacing=0.02,
    )
    for row, (name, images) in enumerate(rows, start=1):
        add_pictures(figure, row, name, images, (clip.height, clip.width))
    for trace in curve_traces(scores, "J"):
        figure.add_trace(trace, row=len(rows) + 1, col=1)
    figure.update_xaxes(title="noise level τ", row=len(rows) + 1, col=1)
    figure.update_yaxes(title=METRICS["J"], rangemode="tozero", row=len(rows) + 1, col=1)
    styled(figure, width=860, height=120 * (len(rows) + curve_rows) + 60)
    figure.update_layout(margin={"l": 160, "t": 30}, legend={"y": 0.01, "x": 0.02, "yanchor": "bottom"})
    return figure
