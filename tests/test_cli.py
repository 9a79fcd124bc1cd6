"""The command line, from outside: results, one-sentence errors, exit codes, nothing left behind."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import tiny
import xarray as xr
from rich.console import Console

import tedlens as tl
from tedlens.cli import main, rich_table
from tedlens.demo import run_demo
from tedlens.models.mini.outlines import known_outlines, made_outlines


@dataclass
class Ran:
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Ran]


@pytest.fixture
def tedlens(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command, in this process: a new one would take seconds to import torch each time."""

    def run(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["tedlens", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Ran(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames, their masks, a first mask and a video of one clip."""
    folder = tmp_path_factory.mktemp("clip")
    clip = tl.datasets.similar(4, frames=5, size=(64, 96))
    (folder / "frames").mkdir()
    for i, frame in enumerate(clip.frames):
        PIL.Image.fromarray(frame).save(folder / "frames" / f"{i:05d}.png")
    tl.write_masks(clip.masks, folder / "masks")
    tl.write_video(clip.frames, folder / "clip.mp4", 8)
    return folder


def test_track_without_a_mask_says_how_to_make_one(tedlens: Run, folder: Path, tmp_path: Path) -> None:
    ran = tedlens("track", folder / "frames", "--out", tmp_path / "out")
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"tedlens: Nothing says which objects of {folder}/frames to track; give --mask with a")
    assert "PNG of 64x96 in which the background is 0 and the objects are 1, 2, ..: draw it" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_track_and_evaluate(tedlens: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = tedlens("track", folder / "frames", "--mask", folder / "masks/00000.png", "--out", out, "--radius", "4")
    assert ran.returncode == 0, ran.stderr
    assert "tedlens:" not in ran.stderr  # at most a progress bar
    masks = sorted((out / "masks").glob("*.png"))
    assert len(masks) == 5
    with PIL.Image.open(masks[3]) as image:
        assert (image.mode, image.size) == ("P", (96, 64))
    assert len(tl.read_clip(out / "overlay.mp4")) == 5
    scored = tedlens("evaluate", out / "masks", folder / "masks", "--out", tmp_path / "scores.csv")
    assert scored.returncode == 0, scored.stderr
    assert "J&F" in scored.stdout
    assert (tmp_path / "scores.csv").read_text().startswith("object,frame")


def test_masks_of_a_part_are_named_as_its_frames(tedlens: Run, folder: Path, tmp_path: Path) -> None:
    mask = folder / "masks/00002.png"
    part = ("--start", "2", "--stride", "2", "--radius", "4")
    ran = tedlens("track", folder / "frames", "--mask", mask, "--out", tmp_path / "out", *part)
    assert ran.returncode == 0, ran.stderr
    assert sorted(file.name for file in (tmp_path / "out/masks").iterdir()) == ["00002.png", "00004.png"]
    whole = tl.read_clip(folder / "frames", masks=tmp_path / "out/masks")
    assert np.flatnonzero(whole.annotated).tolist() == [2, 4]


def test_evaluate_of_the_truth_is_perfect(tedlens: Run, folder: Path) -> None:
    scored = tedlens("evaluate", folder / "masks", folder / "masks", "--protocol", "all")
    assert "1.000" in scored.stdout.splitlines()[-3]
    assert scored.stdout.splitlines()[-1] == "Who is who: HOTA 1.000, DetA 1.000, AssA 1.000, IDF1 1.000"


def test_probe_to_zarr(tedlens: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.zarr"
    ran = tedlens("probe", folder / "clip.mp4", "--out", out, "--tau", "100", "--tau", "600", "--block", "up_2")
    assert ran.returncode == 0, ran.stderr
    with xr.open_datatree(out, engine="zarr", consolidated=False) as tree:
        assert tree["up_2"]["features"].sizes == {"tau": 2, "seed": 1, "frame": 5, "channel": 64, "y": 16, "x": 24}
    shown = tedlens("info", out)
    assert "weights_sha256" in shown.stdout or "up_2" in shown.stdout


def test_info(tedlens: Run) -> None:
    assert "i2vgen-xl" in tedlens("info").stdout
    shown = tedlens("info", "mini").stdout
    assert "I2VGenXLUNet" in shown
    assert "UNet2DModel" in shown


def test_info_lists_what_is_inside_a_model(tedlens: Run) -> None:
    shown = tedlens("info", "mini", "--frame", "480x854").stdout
    assert "up_2 = up_blocks.2" in shown
    assert "up_2.temp_attentions.0" in shown
    assert "16x28" in shown  # latents at a quarter of 64x112 pixels
    queries = tedlens("info", "mini", "--inside", "up_2.temp_attentions.*.**.to_q")
    assert queries.returncode == 0
    assert queries.stdout.count("attn1.to_q") == 2
    assert "Model 'mini' has no block" in queries.stdout  # the image model, which has no temporal attention


def test_info_needs_no_weights(tedlens: Run, tmp_path: Path) -> None:
    tiny.sdxl(tmp_path).save_pretrained(tmp_path / "saved")
    for weights in (tmp_path / "saved").rglob("*.safetensors"):
        weights.unlink()
    shown = tedlens("info", tmp_path / "saved")
    assert shown.returncode == 0, shown.stderr
    assert "UNet2DConditionModel" in shown.stdout
    assert "up_1 = up_blocks.1" in shown.stdout


def test_probe_a_submodule_by_log_snr_and_samples(tedlens: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.zarr"
    inside = "up_2.temp_attentions.0.transformer_blocks.0.attn1.to_q"
    ran = tedlens("probe", folder / "clip.mp4", "--out", out, "--log-snr", "0", "--block", inside, "--samples", "2")
    assert ran.returncode == 0, ran.stderr
    with xr.open_datatree(out, engine="zarr", consolidated=False) as tree:
        features = tree[inside]["features"]
        assert abs(float(features["log_snr"][0])) < 0.01
        assert features.sizes["channel"] == 64
        assert tree.attrs["samples"] == 2


WRONG: list[tuple[str, str]] = [
    ("track {0}/nowhere --mask {0}/masks/00000.png", "nowhere does not exist"),
    ("track {0}/frames --mask {0}/nowhere.png", "nowhere.png does not exist"),
    ("track {0}/frames --mask {0}/small.png", "small.png is 10x10"),
    ("track {0}/empty --mask {0}/masks/00000.png", "holds no pictures"),
    ("track {0}/cut.mp4 --mask {0}/masks/00000.png", "cut short or damaged"),
    ("track {0}/frames --mask {0}/blank.png", "no object"),
    ("track {0}/frames --mask {0}/masks/00000.png --motion nonesuch", "no video model 'nonesuch'"),
    ("track {0}/frames --mask {0}/masks/00000.png --tau 1000", "tau=1000"),
    ("track {0}/frames --mask {0}/masks/00000.png --lam 2", "'--lam'"),
    ("track {0}/frames --mask {0}/masks/00000.png --convention vfs", "'--convention'"),
    ("track {0}/frames --mask {0}/masks/00000.png --tau high", "'--tau'"),
    ("probe {0}/frames --block up_9", "no block 'up_9'"),
    ("probe {0}/frames --block up_2.attn", "tedlens info"),
    ("probe {0}/frames --tau 5 --sigma 1", "one of tau, sigma and log_snr"),
    ("track {0}/frames --mask {0}/masks/00000.png --appearance {0}/masks/00000.png", "Cannot load the ADM checkpoint"),
    ("track {0}/frames --mask {0}/masks/00000.png --appearance adm", "give the path of the .pt file"),
    ("track {0}/frames --mask {0}/masks/00000.png --block up_2.temp_attentions.*", "name one of them"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG)
def test_errors_are_one_sentence_and_leave_nothing(
    tedlens: Run, folder: Path, tmp_path: Path, arguments: str, words: str
) -> None:
    (folder / "empty").mkdir(exist_ok=True)
    PIL.Image.fromarray(np.eye(10, dtype=np.uint8)).save(folder / "small.png")
    PIL.Image.fromarray(np.zeros((64, 96), np.uint8)).save(folder / "blank.png")
    whole = (folder / "clip.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    ran = tedlens(*arguments.format(folder).split(), "--out", tmp_path / "out")
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    said = [line for line in ran.stderr.splitlines() if words in line]
    assert len(said) == 1
    assert list(tmp_path.iterdir()) == []


GRID = """
clips:
  - {{path: {0}/frames, masks: {0}/masks}}
  - similar: {{seed: 1, frames: 4, size: 32}}
motion: {{name: mini, size: 32}}
tau: [100, 900]
blocks: up_2
radius: 3
store: {0}/sweep.zarr
"""


def test_sweep_from_a_grid_file(tedlens: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(GRID.format(folder))
    planned = tedlens("sweep", tmp_path / "grid.yaml", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "Sweep of 2 clips x 2 tau: 4 cells." in planned.stdout
    assert "4 UNet windows, 4 tracks" in planned.stdout
    assert not (folder / "sweep.zarr").exists()
    ran = tedlens("sweep", tmp_path / "grid.yaml")
    assert ran.returncode == 0, ran.stderr
    assert "4/4" in ran.stderr  # progress
    scores = tl.open_sweep(folder / "sweep.zarr")
    clips = [tl.read_clip(folder / "frames", masks=folder / "masks"), tl.datasets.similar(1, frames=4, size=32)]
    motion = tl.load_video_model("mini", size=32)
    here = tl.sweep(clips, motion=motion, tau=[100, 900], blocks="up_2", radius=3, progress=False)
    names = sorted(scores["clip"].values)
    xr.testing.assert_equal(scores.sel(clip=names), here.sel(clip=names))
    assert "done: 4 of 4 cells" in tedlens("info", folder / "sweep.zarr").stdout


def test_stores_and_paths_that_cannot_be_read_are_one_sentence(tedlens: Run, tmp_path: Path) -> None:
    (tmp_path / "damaged.zarr").mkdir()
    (tmp_path / "damaged.zarr/zarr.json").write_text('{"zarr')
    numbers = xr.DataArray(np.zeros(3), dims="x", name="numbers")
    array = tl.save(numbers, tmp_path / "whole.zarr") / "numbers"  # one array of a store, not a store
    for arguments, words in (
        (["info", tmp_path / "damaged.zarr"], "cannot be read"),
        (["info", array], "cannot be read"),
        (["evaluate", "a" * 300, tmp_path], "File name too long"),
    ):
        ran = tedlens(*arguments)
        assert ran.returncode == 2
        assert ran.stderr.startswith("tedlens: ")
        assert words in ran.stderr
        assert ran.stderr.count("\n") == 1


WRONG_GRIDS = [
    ("", "does not hold the words of a sweep"),
    ("clips: [", "is not YAML"),
    ("tau: 3", "lacks clips"),
    (GRID + "taus: 3", "says taus, which no sweep knows"),
    (GRID.replace("store", "#"), "names no store"),
    (GRID.replace("similar", "simular"), "an item is like"),
    (GRID.replace("seed", "sead"), "does not take these arguments"),
    (GRID.replace("[100, 900]", "1000"), "tau=1000"),
    (GRID.replace("masks:", "mask:"), "unexpected keyword argument 'mask'"),
    (GRID + "keep:\noverlap: two", "overlap='two' is out of range"),
    (GRID.replace("{0}/frames", "nowhere"), "nowhere does not exist"),
    (GRID.replace("{0}/sweep.zarr", "{0}/frames"), "not the store of a sweep"),
]


@pytest.mark.parametrize(("text", "words"), WRONG_GRIDS)
def test_wrong_grid_files_are_one_sentence(tedlens: Run, folder: Path, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "grid.yaml").write_text(text.format(folder))
    ran = tedlens("sweep", tmp_path / "grid.yaml")
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith("tedlens: ")
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert "Cannot read" in tedlens("sweep", tmp_path / "nowhere.yaml").stderr


def test_output_that_exists_is_left_alone(tedlens: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    frames, mask = folder / "frames", folder / "masks/00000.png"
    for command in (["track", frames, "--mask", mask], ["probe", frames], ["demo"]):
        ran = tedlens(*command, "--out", tmp_path)
        assert ran.returncode == 2
        assert str(tmp_path) in ran.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_the_installed_command_ends_with_a_sentence_and_no_traceback() -> None:
    command = [str(Path(sys.executable).with_name("tedlens")), "track", "nowhere", "--mask", "a.png", "--out", "b"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith("tedlens: nowhere does not exist")
    assert ran.stderr.count("\n") == 1


def test_demo(tmp_path: Path) -> None:
    """Two clips: what it writes can be read, and the finding shows."""
    found = run_demo(tmp_path / "demo", clips=2)
    assert all(path.exists() for path in found.written.values())
    scores = xr.open_dataset(found.written["scores"], engine="zarr", consolidated=False)
    assert scores["J"].dims == ("clip", "features", "tau", "object", "frame")
    assert float(100 * scores["J"].mean(["clip", "object", "frame"]).sel(features="motion", tau=600)) == pytest.approx(
        float(found.table.sel(features="motion", tau=600)), abs=1e-9
    )
    assert len(list(found.written["tracked masks"].glob("*.png"))) == 16
    # At high noise appearance is lost and motion is not; at low noise appearance is there.
    table = found.table
    assert table.sel(features="motion", tau=600) > table.sel(features="appearance", tau=600) + 10
    assert table.sel(features="appearance", tau=100) > table.sel(features="appearance", tau=600) + 10


def test_benchmark_says_what_does_not_fit(tedlens: Run, tmp_path: Path) -> None:
    ran = tedlens("benchmark", "similar", "--clips", "65", "--out", tmp_path / "out")
    assert ran.returncode == 2
    assert ran.stderr == "tedlens: clips=65 does not fit the benchmark; choose 2 to 64.\n"
    (tmp_path / "mine").mkdir()
    ran = tedlens("benchmark", "similar", "--out", tmp_path / "mine")
    assert ran.returncode == 2
    assert "mine exists" in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_version_and_short_help(tedlens: Run) -> None:
    assert tedlens("--version").stdout == f"tedlens {tl.__version__}\n"
    assert "probe" in tedlens("-h").stdout
    assert "--stride" in tedlens("track", "-h").stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--lam", "2"], "Invalid value for '--lam'"),
        (["--tau", "600,900"], "Invalid value for '--tau'"),
        (["--tau", "-1"], "Invalid value for '--tau'"),
    ],
)
def test_mistakes_are_said_before_torch_is_loaded(folder: Path, arguments: list[str], sentence: str) -> None:
    code = (
        "import sys, tedlens.cli\n"
        "sys.argv = ['tedlens', 'track', *sys.argv[1:]]\n"
        "try:\n    tedlens.cli.main()\n"
        "except SystemExit as error:\n    print(error.code, 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, folder / "frames", "--mask", folder / "masks/00000.png", "--out", "x"]
    ran = subprocess.run([*map(str, command), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout == "2 False\n"
    assert sentence in " ".join(ran.stderr.replace("│", " ").split())
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--block", "up_9"], "has no block 'up_9'"),
        (["--tau", "1000"], "tau=1000 is not a training timestep"),
        (["--appearance-block", "up_9"], "has no block 'up_9'"),
        (["--tau", "3", "--sigma", "1"], "as one of tau, sigma and log_snr"),
    ],
)
def test_mistakes_are_said_before_weights_are_read(
    tedlens: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.setattr("tedlens.models.registry._load", lambda *_: pytest.fail("weights were read"))
    out = tmp_path / "out"
    ran = tedlens("track", folder / "frames", "--mask", folder / "masks/00000.png", "--out", out, *arguments)
    assert ran.returncode == 2
    assert sentence in ran.stderr
    assert not out.exists()


def test_a_part_of_a_clip(tedlens: Run, folder: Path, tmp_path: Path) -> None:
    some = ["--start", "1", "--stop", "5", "--stride", "2"]
    out = tmp_path / "out"
    ran = tedlens("track", folder / "frames", "--mask", folder / "masks/00001.png", "--out", out, "--size", "32", *some)
    assert ran.returncode == 0, ran.stderr
    assert len(list((out / "masks").glob("*.png"))) == 2
    ran = tedlens("probe", folder / "clip.mp4", "--out", tmp_path / "f.zarr", "--size", "32", *some)
    assert ran.returncode == 0, ran.stderr
    assert tl.load(tmp_path / "f.zarr")["up_1"]["features"].sizes["frame"] == 2


def test_an_image_model_is_probed(tedlens: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.zarr"
    ran = tedlens("probe", folder / "frames", "--kind", "image", "--out", out, "--size", "32", "--log-snr", "1")
    assert ran.returncode == 0, ran.stderr
    assert tl.load(out).attrs["model_class"] == "UNet2DModel"


def test_info_of_an_embedded_model_needs_no_torch() -> None:
    code = "import sys, tedlens.cli; tedlens.cli.about_model('mini', None, 'up_2'); print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.endswith("False\n")
    assert "CrossAttnUpBlock3D" in ran.stdout


def test_outlines_are_those_of_the_embedded_models() -> None:
    made = made_outlines()
    for name in ("mini", "mini-svd", "mini-dit"):
        assert known_outlines(name) == [named[name] for named in made.values() if name in named]


def test_figures_of_a_wrong_path(tedlens: Run, tmp_path: Path) -> None:
    ran = tedlens("figures", tmp_path / "nowhere.zarr", "--out", tmp_path / "figures")
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"tedlens: There is no sweep at {tmp_path}/nowhere.zarr; give")
    (tmp_path / "file.txt").write_text("x")
    ran = tedlens("figures", tmp_path / "file.txt", "--out", tmp_path / "figures")
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1


def test_a_table_of_scores_is_never_overwritten(tedlens: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("mine")
    ran = tedlens("evaluate", folder / "masks", folder / "masks", "--out", tmp_path / "mine.csv")
    assert ran.returncode == 2
    assert "exists already" in ran.stderr
    assert (tmp_path / "mine.csv").read_text() == "mine"


def test_names_in_a_terminal_are_harmless(tedlens: Run, tmp_path: Path) -> None:
    ran = tedlens("info", "\x1b[31mred\x07/x")
    assert ran.returncode == 2
    assert "\x1b" not in ran.stderr
    assert r"\x1b[31mred\x07/x" in ran.stderr
    shown = Console(width=80, record=True, file=io.StringIO())
    shown.print(rich_table(pd.DataFrame({"[/b]": ["[/x]", "1"]}, index=pd.Index(["\x1b[1m", "[red]"], name="a"))))
    said = shown.export_text()
    assert "[/b]" in said
    assert "[red]" in said
    assert r"\x1b[1m" in said
