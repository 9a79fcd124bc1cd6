"""The command line: what the Python API does, in its words, for what one runs without a notebook."""

from __future__ import annotations

import inspect
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tedlens.errors import TedlensError
from tedlens.escaping import printable
from tedlens.models.mini.outlines import known_outlines
from tedlens.version import __version__

# Heavy imports stand inside the commands: `tedlens --help` should not wait for torch.
if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from tedlens.models import DiffusionModel, HookPoint, Outline

app = typer.Typer(
    name="tedlens",
    help="Where in a video diffusion model does motion live? Probe it, track with it, score it.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ClipPath = Annotated[Path, typer.Argument(help="Video file, folder of frames, or .npz.", show_default=False)]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default CUDA where there is one.")]
Dtype = Annotated[str, typer.Option(help="float32, float16 or bfloat16.")]
Offload = Annotated[
    Literal["encoders", "layers"] | None,
    typer.Option(
        help="What waits on the CPU to save GPU memory: encoders and VAE while the network runs, or every layer.",
        show_default=False,
    ),
]
# As in tedlens.ted and tedlens.models, which would load torch.
Kind = Literal["video", "image"]
Convention = Literal["dift", "crw"]
Upsample = Literal["dift", "argmax"]
Stitch = Literal["first", "mean"]
Seed = Annotated[int, typer.Option(help="Seed of the noise.")]
Overlap = Annotated[int, typer.Option(help="Frames shared by neighbouring windows.")]
Stitching = Annotated[
    Stitch, typer.Option(help="Where windows overlap: features of the first window, or the mean of all.")
]
Start = Annotated[int, typer.Option(min=0, help="First frame of the source, counted from 0.")]
Stop = Annotated[
    int | None, typer.Option(min=1, help="Frame before which to stop; by default the end.", show_default=False)
]
Stride = Annotated[int, typer.Option(min=1, help="Take every n-th frame.")]
Size = Annotated[
    int | None, typer.Option(help="Short side in pixels that frames are resized to; by default the model's.")
]


def show_version(asked: bool) -> None:
    if asked:
        print(f"tedlens {__version__}")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for results and figures.")] = Path("demo"),
    clips: Annotated[int, typer.Option(min=1, help="How many hold-out clips to score.")] = 8,
    seed: Seed = 0,
) -> None:
    """Run TED on two identical balls, at all noise levels."""
    from tedlens.demo import run_demo

    found = run_demo(out, clips=clips, seed=seed)
    table = Table()
    table.add_column("tau", justify="right")
    best = found.table.idxmax("tau")
    kinds = [str(kind) for kind in found.table["features"].values]
    for kind in kinds:
        table.add_column(kind, justify="right")
    for tau in found.table["tau"].values:
        cells = [
            f"{float(found.table.sel(features=kind, tau=tau)):.1f}{' *' if best.sel(features=kind) == tau else '  '}"
            for kind in kinds
        ]
        table.add_row(str(tau), *cells)
    print(f"\nJ_m (%) on {found.clips} hold-out clips of two identical balls that pass one another:")
    Console().print(table)
    print("* best. motion, appearance: features at tau; fused: motion at tau with appearance at tau 51.\n")
    list_paths(found.written)


benchmark_app = typer.Typer(help="Fixed benchmarks, with tables and figures at the end.", no_args_is_help=True)
app.add_typer(benchmark_app, name="benchmark")


# A group of one command needs a callback, or typer would leave the command's name out.
@benchmark_app.callback()
def benchmarks() -> None: ...


@benchmark_app.command("similar")
def benchmark_similar(
    out: Annotated[Path, typer.Option(help="Folder for tables and figures.")] = Path("benchmark"),
    clips: Annotated[int, typer.Option(min=2, help="Test clips in each of the five sets, at most 64.")] = 16,
    seeds: Annotated[int, typer.Option(min=1, help="Noise seeds of test clips.")] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few clips and noise levels, to try it out; --clips has no effect.")
    ] = False,
    motion: Annotated[str, typer.Option(help="Video model: built-in name, hub id or folder.")] = "mini",
    appearance: Annotated[str, typer.Option(help="Image model: built-in name, hub id or folder.")] = "mini",
) -> None:
    """Does motion tell two balls apart? Built-in clips and controls; a stopped run resumes."""
    from tedlens.benchmark import QUICK, Setup, run, write_report
    from tedlens.models import load_image_model, load_video_model
    from tedlens.store import check_free

    check_free(out)
    few = QUICK if quick else {"clips": clips}
    sweeps = out.with_name(f"{out.name}-sweeps")
    setup = Setup(load_video_model(motion), load_image_model(appearance), sweeps=sweeps, seeds=range(seeds), **few)
    report = write_report(run(setup), setup, out)
    for title, table in report.tables.items():
        print(f"\n{title}")
        Console().print(rich_table(table))
    list_paths(report.written | {"sweeps, to go on from": sweeps})


def benchmark_published(
    context: typer.Context,
    root: Annotated[Path, typer.Argument(help="The data set's folder (TAP-Vid: its .pkl).", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for tables and figures; by default the benchmark's name.", show_default=False),
    ] = None,
    motion: Annotated[
        list[str] | None,
        typer.Option(help="Video model; repeat for table 3. By default the preset's.", show_default=False),
    ] = None,
    appearance: Annotated[
        list[str] | None,
        typer.Option(
            help="Image model, as NAME or NAME=CHECKPOINT; repeat for table 3. By default the preset's.",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(help="Baseline, as NAME or NAME=CHECKPOINT; repeat for several.", show_default=False),
    ] = None,
    sam2: Annotated[
        str | None, typer.Option(help="SAM 2 as a supervised reference: hub id or folder.", show_default=False)
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Settings; by default the paper's for this benchmark.", show_default=False)
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="main (tables 1, 6, 7), cost (5), blocks (2), models (3), noise, weight, overlap (figures 6 to 8) or "
            "all; repeat for several. By default main and cost.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the data set.", show_default=False)] = None,
    names: Annotated[
        Path | None, typer.Option(help="Text file with the clips to use, one name per line.", show_default=False)
    ] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help="Use only the first N clips, to try it out.", show_default=False)
    ] = None,
    tau: Annotated[
        int | None, typer.Option(min=0, help="Noise level; replaces the preset's, as do the options below.")
    ] = None,
    block: Annotated[str | None, typer.Option(show_default=False)] = None,
    samples: Annotated[int | None, typer.Option(min=1, show_default=False)] = None,
    lam: Annotated[float | None, typer.Option(min=0, max=1, show_default=False)] = None,
    appearance_tau: Annotated[int | None, typer.Option(min=0, show_default=False)] = None,
    appearance_block: Annotated[str | None, typer.Option(show_default=False)] = None,
    appearance_samples: Annotated[int | None, typer.Option(min=1, show_default=False)] = None,
    radius: Annotated[int | None, typer.Option(min=1, show_default=False)] = None,
    size: Annotated[int | None, typer.Option(min=1, show_default=False)] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes of one thread that share the work (needs tedlens[distributed]).")
    ] = 0,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask cluster, instead of --workers.", show_default=False)
    ] = None,
    device: Device = None,
    dtype: Dtype = "float32",
    offload: Offload = None,
) -> None:
    """The paper's tables and figures, beside the published ones; a stopped run resumes."""
    from tedlens.benchmark.field.suite import benchmark_named, clips_of
    from tedlens.store import check_free

    name = str(context.info_name)
    benchmark = benchmark_named(name)
    out = out or Path(name)
    check_free(out)
    found = clips_of(benchmark, root, split, names, clips)  # before torch loads: data may not be there
    from tedlens.benchmark.field import PARTS, Asked, run, write
    from tedlens.benchmark.field.workers import cluster
    from tedlens.presets import preset_named

    own = preset_named(preset or benchmark.preset)
    where = where_to_run(device, dtype, offload)
    only_others = bool(encoder or sam2) and not (motion or appearance)
    motions, appearances = (
        [model_given(one) | where for one in given or ([default] if default and not only_others else [])]
        for given, default in ((motion, own.motion), (appearance, own.appearance))
    )
    settings = {word: value for word, value in said(context, but=()).items() if word in OF_TRACK}
    wanted = part or ["main", "cost"]
    if "all" in wanted:
        wanted = [one for one in PARTS if benchmark.task == "masks" or one in ("main", "cost")]
    with cluster(workers, scheduler) as client:
        asked = Asked(
            benchmark,
            found,
            motions,
            appearances,
            [model_given(one) | {"device": device, "dtype": dtype} for one in encoder or ()],
            sam2,
            preset or benchmark.preset,
            settings,
            wanted,
            out.with_name(f"{out.name}-sweeps"),
            client,
        )
        written = write(run(asked), out)
    for title, table in written.tables.items():
        print(f"\n{title}")
        Console().print(rich_table(table, turn=False))
    list_paths(written.files | {"sweeps, to go on from": asked.sweeps})


def model_given(text: str) -> dict[str, Any]:
    """Arguments of a loader from ``NAME`` or ``NAME=CHECKPOINT``; a path is a name, whatever is in it."""
    name, equals, checkpoint = text.partition("=")
    return {"name": name, "checkpoint": checkpoint} if equals and not Path(text).exists() else {"name": text}


def where_to_run(device: str | None, dtype: str, offload: str | None) -> dict[str, Any]:
    """Arguments of a loader."""
    return {"device": device, "dtype": dtype, "offload": True if offload == "encoders" else offload or False}


# Options that are settings of `track`.
OF_TRACK = (
    *("tau", "block", "samples", "lam", "appearance_tau", "appearance_block", "appearance_samples"),
    *("radius", "size"),
)
PUBLISHED = {  # by their titles; what they are stands in tedlens.benchmark.field.suite
    "davis": "DAVIS 2017",
    "youtube-vos": "YouTube-VOS",
    "youtube-similar": "Youtube-Similar",
    "kubric-similar": "Kubric-Similar",
    "mose": "MOSE",
    "jhmdb": "JHMDB (joints)",
    "vip": "VIP (parts)",
    "tapvid": "TAP-Vid (points)",
}
for _name, _title in PUBLISHED.items():
    _help = (
        f"The paper's benchmark on {_title}. Your tables and figures beside the published ones; a stopped run resumes."
    )
    benchmark_app.command(_name, help=_help)(benchmark_published)


@app.command()
def probe(
    clip: ClipPath,
    out: Annotated[Path, typer.Option(help="Zarr folder for the features.")],
    model: Annotated[
        str,
        typer.Option(help="Video or image model or encoder: name, NAME=CHECKPOINT, hub id, folder, ADM checkpoint."),
    ] = "mini",
    kind: Annotated[
        Kind | None,
        typer.Option(help="Which model, if the name means two (mini); video by default.", show_default=False),
    ] = None,
    tau: Annotated[
        list[int] | None, typer.Option(help="Noise level; repeat for several. 600 by default.", show_default=False)
    ] = None,
    sigma: Annotated[
        list[float] | None, typer.Option(help="Instead of tau: noise-to-signal ratio; repeat for several.")
    ] = None,
    log_snr: Annotated[
        list[float] | None, typer.Option(help="Instead of tau: log signal-to-noise power; repeat for several.")
    ] = None,
    block: Annotated[
        list[str] | None,
        typer.Option(
            help="Block, or submodule as `tedlens info` lists it; repeat for several. By default all up blocks."
        ),
    ] = None,
    seed: Annotated[list[int], typer.Option(help="Seed of the noise; repeat for several.")] = [0],  # noqa: B006
    samples: Annotated[int, typer.Option(help="Noise draws to average, for each seed.")] = 1,
    overlap: Overlap = 2,
    stitch: Stitching = "first",
    size: Size = None,
    start: Start = 0,
    stop: Stop = None,
    stride: Stride = 1,
    device: Device = None,
    dtype: Dtype = "float32",
    offload: Offload = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace features that tedlens saved there.")] = False,
) -> None:
    """Save features of a clip. A Zarr folder over noise levels, blocks and seeds."""
    from tedlens.clip import read_clip
    from tedlens.store import check_free, check_replaceable

    levels: dict[str, Any] = {"tau": tau or None, "sigma": sigma or None, "log_snr": log_snr or None}
    if not any(levels.values()):
        levels["tau"] = 600
    (check_replaceable if overwrite else check_free)(out)
    frames = read_clip(clip, start=start, stop=stop, stride=stride)
    # torch and diffusers only now: a wrong path should not have to wait for them.
    from tedlens.models.registry import as_model, model_kind
    from tedlens.probing import probe as run

    given = model_given(model)
    kind = kind or ("image" if "checkpoint" in given else model_kind(model))
    check_outline(given["name"], kind, levels, block)
    feats = run(
        as_model(given | where_to_run(device, dtype, offload), kind),
        frames,
        **levels,
        blocks=block,
        seed=seed,
        samples=samples,
        overlap=overlap,
        stitch=stitch,
        size=size,
        store=out,
    )
    for name, node in feats.children.items():
        print(f"{name}: {dict(node['features'].sizes)}")
    list_paths({"features": out})


@app.command()
def track(
    context: typer.Context,
    clip: ClipPath,
    out: Annotated[Path, typer.Option(help="Folder for the masks and the overlay video.")],
    mask: Annotated[
        Path | None,
        typer.Option(
            help="First frame's mask, a palette or grey PNG, or a folder of masks. Only an .npz may hold its own.",
            show_default=False,
        ),
    ] = None,
    motion: Annotated[str, typer.Option(help="Video model: built-in name, hub id or folder.")] = "mini",
    appearance: Annotated[
        str,
        typer.Option(help="Image model or encoder: name, NAME=CHECKPOINT, hub id, folder, or an ADM checkpoint."),
    ] = "mini",
    preset: Annotated[
        str | None,
        typer.Option(
            help="Published models and settings; `tedlens info --presets` lists them. Other options override it.",
            show_default=False,
        ),
    ] = None,
    tau: Annotated[
        int | None, typer.Option(min=0, help="Noise level of the motion features; 600 by default.", show_default=False)
    ] = None,
    sigma: Annotated[float | None, typer.Option(help="Instead of tau: noise-to-signal ratio.")] = None,
    log_snr: Annotated[float | None, typer.Option(help="Instead of tau: log signal-to-noise power.")] = None,
    block: Annotated[str | None, typer.Option(help="Block of the motion features; by default the model's.")] = None,
    samples: Annotated[int, typer.Option(help="Noise draws to average motion features over.")] = 1,
    lam: Annotated[float, typer.Option(min=0, max=1, help="Weight of motion, 0 to 1.")] = 0.5,
    appearance_tau: Annotated[
        int | None, typer.Option(help="Noise level of the appearance features; 51 by default.", show_default=False)
    ] = None,
    appearance_block: Annotated[
        str | None, typer.Option(help="Block of the appearance features; by default the model's.")
    ] = None,
    appearance_samples: Annotated[int, typer.Option(help="Noise draws to average appearance features over.")] = 1,
    top_k: Annotated[int, typer.Option(min=1, help="Most similar cells whose labels are averaged.")] = 10,
    radius: Annotated[
        int | None, typer.Option(min=1, help="Search radius in cells; by default a quarter of the grid's height.")
    ] = None,
    radius_pixels: Annotated[
        float | None, typer.Option(help="Search radius in pixels of the clip, instead of --radius.", show_default=False)
    ] = None,
    n_last: Annotated[int, typer.Option(min=1, help="Number of last frames used as references.")] = 20,
    temperature: Annotated[float, typer.Option(help="Temperature of the softmax over similarities.")] = 0.1,
    convention: Annotated[
        Convention, typer.Option(help="Shape of the window and choice of references: as in DIFT, or as in CRW.")
    ] = "dift",
    upsample: Annotated[
        Upsample, typer.Option(help="From soft labels to masks: as in DIFT, or a plain argmax.")
    ] = "dift",
    seed: Seed = 0,
    overlap: Overlap = 2,
    stitch: Stitching = "first",
    size: Size = None,
    start: Start = 0,
    stop: Stop = None,
    stride: Stride = 1,
    device: Device = None,
    dtype: Dtype = "float32",
    offload: Offload = None,
) -> None:
    """Track objects from their first mask. Writes DAVIS-style PNGs, named as the frames are, and an overlay video."""
    from tedlens.clip import read_clip
    from tedlens.media import overlay, write_masks, write_video
    from tedlens.presets import preset_named, track_words
    from tedlens.store import check_free, whole_folder

    # Taken from the context rather than one by one, for a preset fills in those options that were not given.
    named = None if preset is None else preset_named(preset)
    words = said(context, but=("clip", "mask", "out", "start", "stop", "stride", "device", "dtype", "offload"))
    full = words if preset is None else track_words(preset, words)
    lam, block, appearance_tau = full.get("lam", lam), full.get("block"), full.get("appearance_tau")
    motion, appearance = (
        words.get(role) or getattr(named, role, None) or given
        for role, given in (("motion", motion), ("appearance", appearance))
    )

    check_free(out)
    frames = read_clip(clip, masks=mask, start=start, stop=stop, stride=stride)
    if frames.masks is None:
        raise TedlensError(
            f"Nothing says which objects of {clip} to track; give --mask with a PNG of {frames.height}x{frames.width} "
            "in which the background is 0 and the objects are 1, 2, ..: draw it in a notebook, with "
            f"tl.widgets.mask_editor({str(clip)!r}), or in any program that saves grey or palette PNGs."
        )
    # torch and diffusers only now: a wrong path should not have to wait for them.
    from tedlens.ted.tracking import track as run

    where = where_to_run(device, dtype, offload)
    levels = {name: full[name] for name in ("tau", "sigma", "log_snr") if full.get(name) is not None}
    if lam > 0:
        check_outline(motion, "video", levels, block)
    if lam < 1:
        check_outline(
            model_given(appearance)["name"],
            "image",
            {} if appearance_tau is None else {"tau": appearance_tau},
            full.get("appearance_block"),
        )
    models = {
        "motion": {"name": motion, **where} if lam > 0 else None,
        "appearance": {**model_given(appearance), **where} if lam < 1 else None,
    }
    labels = run(frames, **(words | models))["labels"].values
    with whole_folder(out) as folder:
        write_masks(labels, folder / "masks", frames.frame_names)
        write_video(overlay(frames.frames, labels), folder / "overlay.mp4", frames.fps)
    list_paths({f"{len(labels)} masks": out / "masks", "overlay, video": out / "overlay.mp4"})


@app.command()
def evaluate(
    labels: Annotated[Path, typer.Argument(help="Folder of predicted masks (PNG).", show_default=False)],
    truth: Annotated[Path, typer.Argument(help="Folder of true masks (PNG).", show_default=False)],
    protocol: Annotated[
        str,
        typer.Option(help="davis (first and last frame left out), youtube-vos or all (lvos: by tl.evaluate alone)."),
    ] = "davis",
    out: Annotated[Path | None, typer.Option(help="CSV file for the scores per object and frame.")] = None,
) -> None:
    """Score masks by J and F, as DAVIS 2017 does."""
    from tedlens.media import mask_footage, read_masks
    from tedlens.metrics import evaluate as run
    from tedlens.metrics import summarize
    from tedlens.store import check_free

    if out is not None:
        check_free(out)
    footage = mask_footage(labels)
    scores = run(read_masks(labels, footage), read_masks(truth, footage), protocol=protocol)  # type: ignore[arg-type]
    if out is not None:
        write_csv(scores, out)
    table = Table()
    for column in ("object", "J mean", "J recall", "J decay", "F mean", "F recall", "F decay", "J&F"):
        table.add_column(column, justify="right")
    rows = {str(i): scores.sel(object=[i]) for i in scores["object"].values} | {"mean": scores}
    for name, part in rows.items():
        summary = summarize(part)
        keys = ("J_mean", "J_recall", "J_decay", "F_mean", "F_recall", "F_decay", "JF_mean")
        table.add_row(name, *[f"{float(summary[key]):.3f}" for key in keys], end_section=name != "mean")
    Console().print(table)
    print("Who is who: " + ", ".join(f"{name} {float(scores[name]):.3f}" for name in ("HOTA", "DetA", "AssA", "IDF1")))


@app.command()
def sweep(
    grid: Annotated[Path, typer.Argument(help="YAML file with the arguments of tl.sweep.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its cost; compute nothing.")] = False,
) -> None:
    """Track and score clips over a grid. Noise levels, blocks, lambdas, seeds; a stopped sweep resumes."""
    from tedlens.gridfile import read_gridfile

    words = read_gridfile(grid)
    store = words.get("store")
    if store is None and not dry_run:
        raise TedlensError(f"{grid} names no store, so nothing would be kept; add a line like store: runs/sweep.zarr.")
    # torch and diffusers only now: a mistake in the file should not have to wait for them.
    from tedlens.sweeping import sweep as run

    known = [word for word in inspect.signature(run).parameters if word not in ("client", "dry_run", "progress")]
    unknown = [word for word in words if word not in known]
    if unknown:
        raise TedlensError(
            f"{grid} says {', '.join(map(str, unknown))}, which no sweep knows; its words are {', '.join(known)}."
        )
    run(**words, dry_run=dry_run)
    if not dry_run:
        print(f"Done. Open it with tl.open_sweep({str(store)!r}); tedlens info {store} says how it was made.")


@app.command()
def figures(
    stores: Annotated[list[str], typer.Argument(help="Stores of sweeps.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for tables and figures.")] = Path("figures"),
    metric: Annotated[str, typer.Option(help="J, F, JF (their mean), identity, HOTA, DetA, AssA or IDF1.")] = "JF",
    clips: Annotated[
        Path | None,
        typer.Option(help="The sweep's grid file, for its clips' frames: stores do not hold them.", show_default=False),
    ] = None,
    clip: Annotated[
        str | None, typer.Option(help="Name of the clip to show; by default the first.", show_default=False)
    ] = None,
    width: Annotated[
        str | None,
        typer.Option(
            help="Width for print: column (82.55 mm), text (139.7 mm), or millimetres. By default that of the screen.",
            show_default=False,
        ),
    ] = None,
    font_size: Annotated[
        float | None, typer.Option(help="Size of text for print, in points: 8 by default.", show_default=False)
    ] = None,
) -> None:
    """Draw figures and tables from sweeps."""
    from tedlens.gridfile import read_gridfile
    from tedlens.store import check_free

    check_free(out)
    sources = read_gridfile(clips)["clips"] if clips else ()
    # torch only now: a wrong path should not have to wait for it.
    from tedlens.figures import write_figures

    made = write_figures(stores, out, clips=sources, clip=clip, metric=metric, width=width, font_size=font_size)
    for title, table in made.tables.items():
        print(f"\n{title}")
        Console().print(rich_table(table))
    list_paths(made.written)
    for why, names in made.left_out.items():
        print(f"Left out {', '.join(names)}: {why}.")


@app.command()
def candidates(
    root: Annotated[Path, typer.Argument(help="The folder of YouTube-VOS.", show_default=False)],
    split: Annotated[str, typer.Option(help="Its split; only train has masks of all frames.")] = "train",
    least_motion: Annotated[
        float, typer.Option(min=0, help="Leave out what moves less: steps of an object as a share of its size.")
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option(help="Text file for the names, as `benchmark youtube-similar --names` takes it.")
    ] = None,
) -> None:
    """Propose clips for Youtube-Similar. Clips with two or more objects of one category, those that move most first."""
    from tedlens.datasets import similar_candidates
    from tedlens.store import check_free

    if out is not None:
        check_free(out)
    found = similar_candidates(root, split, least_motion=least_motion)
    table = found.to_dataframe()[["category", "objects", "together", "motion", "overlap", "closest"]]
    for column in ("motion", "overlap", "closest"):
        table[column] = table[column].map("{:.2f}".format)
    Console().print(rich_table(table.astype(str), turn=False))
    print(
        "motion: an object's step from one annotated frame to the next, as a share of its size; overlap: of its masks"
    )
    print("on both; together: frames on which two show; closest: how near two come, in their size.")
    if out is not None:
        try:
            out.write_text("".join(f"{name}\n" for name in table.index), encoding="utf-8")
        except OSError as error:
            raise TedlensError(f"Cannot write {out}: {error.strerror or error}; choose another --out.") from error
        list_paths({f"{len(table)} names": out})


@app.command()
def compare(
    models: Annotated[list[str], typer.Argument(help="Video or image models: names, hub ids, folders.")],
    out: Annotated[Path, typer.Option(help="Folder for numbers and figure.")],
    clips: Annotated[
        str,
        typer.Option(
            help="How many built-in clips of identical objects (five or more for velocity), or a YAML file that lists "
            "clips with masks of all frames, as grid files do."
        ),
    ] = "8",
    log_snr: Annotated[
        list[float] | None, typer.Option(help="Noise as log signal-to-noise power; repeat for several.")
    ] = None,
    block: Annotated[
        list[str] | None, typer.Option(help="Block of each model, in their order; by default each model's own.")
    ] = None,
    seed: Seed = 0,
    overlap: Overlap = 2,
    size: Size = None,
    device: Device = None,
    dtype: Dtype = "float32",
    offload: Offload = None,
) -> None:
    """Compare models at equal noise. J&F, AssA, matching by queries and keys, and decoded velocity over log-SNR."""
    from tedlens.store import check_free, whole_folder

    check_free(out)
    from tedlens.comparing import LOG_SNR, write_comparison
    from tedlens.comparing import compare as run
    from tedlens.datasets import similar
    from tedlens.gridfile import read_clips

    made = [partial(similar, number) for number in range(int(clips))] if clips.isdecimal() else read_clips(clips)
    where = where_to_run(device, dtype, offload)
    found = run(
        [{"name": model, **where} for model in models],
        [make() for make in made],
        log_snr=log_snr or LOG_SNR,
        blocks=block or None,
        seed=seed,
        overlap=overlap,
        size=size,
    )
    with whole_folder(out) as folder:
        write_comparison(found, folder)
    names = ("numbers", "comparison.csv"), ("results", "comparison.zarr"), ("figure", "comparison.html")
    list_paths({what: out / name for what, name in names})


@app.command()
def info(
    what: Annotated[
        str | None, typer.Argument(help="A model (name, hub id, folder, ADM checkpoint) or a Zarr store.")
    ] = None,
    frame: Annotated[
        str | None, typer.Option(help="Size of a frame, as in 480x854 (height x width), for the shapes inside a model.")
    ] = None,
    inside: Annotated[
        str | None, typer.Option(help="Which submodules of a model to list, as in 'up_2.**' or '**.to_q'.")
    ] = None,
    presets: Annotated[bool, typer.Option("--presets", help="List published settings, for --preset.")] = False,
) -> None:
    """Show versions, models, layers and stores. What can be probed in a model, or how a store was made."""
    if presets:
        about_presets()
    elif what is None:
        about_installation()
    elif "://" in what or (Path(what) / "zarr.json").is_file():
        about_store(what)
    else:
        about_model(what, frame, inside)


def check_outline(name: str, kind: Kind, levels: dict[str, Any], blocks: str | list[str] | None) -> None:
    """What a model's configuration alone tells to be wrong, before its weights are read."""
    from tedlens.models.encoders import is_encoder
    from tedlens.models.registry import outline_model
    from tedlens.probing import block_names, noise_levels

    if name == "adm" or Path(name).is_file() or is_encoder(name):
        return  # a checkpoint has no configuration but its weights
    outline = outline_model(name, kind)
    if levels:
        for tau in noise_levels(outline, **({"tau": None, "sigma": None, "log_snr": None} | levels)):
            outline.check_tau(tau)
    block_names(outline, blocks, lambda: outline_for(outline, None))


def said(context: typer.Context, but: Sequence[str]) -> dict[str, Any]:
    """Options that were given, by name, without those named and those left at their defaults."""
    sources = {name: context.get_parameter_source(name) for name in context.params if name not in but}
    given = [name for name, source in sources.items() if source is not None and source.name != "DEFAULT"]
    return {name: context.params[name] for name in given}


def about_presets() -> None:
    from tedlens.presets import PRESETS

    for name, preset in PRESETS.items():
        models = ", ".join(f"{role} {of}" for role in ("motion", "appearance") if (of := getattr(preset, role)))
        print(f"{name}: {preset.title} ({models})")
        print("  " + ", ".join(f"{word}={value}" for word, value in preset.words.items()))
        if preset.note:
            print(f"  {preset.note}")


def about_installation() -> None:
    import torch

    from tedlens.models.encoders import encoder_names
    from tedlens.models.registry import ADAPTERS, model_names
    from tedlens.provenance import versions

    for name, installed in versions().items():
        print(f"{name.removeprefix('version_')} {installed}")
    print(f"device: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'}")
    for kind, adapters in ADAPTERS.items():
        print(f"{kind} models: {', '.join(model_names(kind))}; any with {', '.join(adapters)}")
    print(f"encoders: {', '.join(encoder_names())}; any ViT, DINOv2, DINOv3, V-JEPA 2 or ResNet of transformers")


def about_store(store: str) -> None:
    from tedlens.store import open_tree
    from tedlens.sweeping import describe_sweep

    said = describe_sweep(store) or str(open_tree(store))
    print("\n".join(map(printable, said.splitlines())))


def about_model(name: str, frame: str | None, inside: str | None) -> None:
    """What can be probed, from the configuration alone: no weights are read, nothing is run."""
    size = frame_size(frame) if frame else None
    if size is None and (known := known_outlines(name)):  # at once: neither torch nor diffusers is loaded
        show_outlines(known, inside)
        return
    from tedlens.models.registry import load_image_model, model_kinds, outline_model

    if Path(name).is_file():
        models = [load_image_model(name)]  # a checkpoint has no configuration but its shapes
    else:
        models = [outline_model(name, kind) for kind in model_kinds(name)]
    show_outlines([outline_for(model, size) for model in models], inside)


def outline_for(model: DiffusionModel, frame: tuple[int, int] | None) -> Outline:
    """Outline of a model for frames of a size; by default square ones."""
    from tedlens.models.structure import outline
    from tedlens.probing import input_size, usual_size

    return outline(model, usual_size(model) if frame is None else input_size(frame, model.size, model.multiple))


def show_outlines(outlines: list[Outline], inside: str | None) -> None:
    for outline in outlines:
        try:
            show_outline(outline, inside)
        except TedlensError as error:
            if len(outlines) == 1:
                raise
            print(f"{error}\n")  # what `inside` names may be in one of the two only


def show_outline(outline: Outline, inside: str | None) -> None:
    height, width = outline.input_size
    print(f"{printable(outline.name)}: {outline.unet_class}, {outline.parameters / 1e6:.1f} M parameters")
    print(f"  blocks: {', '.join(outline.blocks)} (default: {outline.block})")
    print(f"  window: {f'{outline.window} frames' if outline.window else 'each frame alone'}")
    print(f"  input: {height}x{width} pixels, in multiples of {outline.multiple}")
    first, last = outline.log_snr
    print(f"  log SNR: {first:.2f} at tau 0 to {last:.2f} at {outline.levels - 1}")
    table = Table()
    for column in ("block or submodule", "class"):
        table.add_column(column, overflow="fold")
    table.add_column("channels", justify="right")
    table.add_column("grid", justify="right")
    rows = outline.matching(inside) if inside else block_rows(outline)
    for label, point in rows:
        table.add_row(label, point.module_class, str(point.channels), "{}x{}".format(*point.grid))
    # Into a file or a pipe, paths stay whole whatever the width of the terminal.
    Console(width=None if sys.stdout.isatty() else 250).print(table)
    if not inside:
        print("More inside: --inside 'up_2.**', --inside '**.to_q'; * is one name, ** any number of them.\n")


def block_rows(outline: Outline) -> Iterator[tuple[str, HookPoint]]:
    """Label and hook point of each block and, below it, the layers that it is made of."""
    for block, path in outline.blocks.items():
        yield f"[bold]{block} = {path}[/bold]", outline.points[path]
        for inner, point in outline.points.items():
            if inner.startswith(f"{path}.") and inner.count(".") == path.count(".") + 2:
                yield f"  {block}{inner.removeprefix(path)}", point


def frame_size(text: str) -> tuple[int, int]:
    """Height and width from '480x854'."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise TedlensError(f"--frame {text!r} is no size; give height x width in pixels, as in 480x854.")
    return int(height), int(width)


def write_csv(scores: xr.Dataset, out: Path) -> None:
    from tedlens.plots.tables import spreadsheet_table

    try:
        spreadsheet_table(scores[["J", "F", "JF", "identity"]].to_dataframe()).to_csv(out, encoding="utf-8")
    except OSError as error:
        raise TedlensError(f"Cannot write {out}: {error.strerror or error}; choose another --out.") from error


def rich_table(table: pd.DataFrame, *, turn: bool = True) -> Table:
    """A table of texts; `turn`: with the longer of its axes downwards, as a terminal is narrow."""
    if turn and len(table.columns) > len(table):
        table = table.T
    shown = Table()
    shown.add_column(Text(", ".join(str(name) for name in table.index.names if name is not None)), overflow="fold")
    for column in table.columns:
        shown.add_column(Text(printable(column)), justify="right", overflow="fold")
    for name, cells in table.iterrows():
        # As Text: a name such as "[/x]" is no markup.
        title = ", ".join(map(str, name)) if isinstance(name, tuple) else name
        shown.add_row(Text(printable(title)), *(Text(printable(cell)) for cell in cells))
    return shown


def list_paths(written: dict[str, Path]) -> None:
    width = max(map(len, written))
    for what, path in written.items():
        print(f"{what:<{width}}  {path}")


def main() -> None:
    """Run the command line; what the user got wrong ends in one sentence and exit code 2."""
    # Of no use to a person at a terminal: diffusers' and transformers' notes on torchvision and deprecation.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    logging.captureWarnings(False)
    warnings.showwarning = lambda message, *_: print(f"tedlens: {printable(message)}", file=sys.stderr)
    try:
        app()
    except TedlensError as error:
        sys.exit(failed(str(error)))
    except OSError as error:
        if error.filename is None:  # not about a path that the user gave
            raise
        sys.exit(failed(f"{error.filename}: {error.strerror}."))


def failed(sentence: str) -> int:
    """Say what went wrong; the exit code for it."""
    print(f"tedlens: {printable(sentence)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
