"""The store of a sweep: killed, damaged, full, read-only, grown, written by two, it never takes half for whole."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import tiny
import xarray as xr

import tedlens as tl
from tedlens.cli import about_store
from tedlens.sweeping import store as store_module
from tedlens.sweeping.encoding import attributes, group_file
from tedlens.sweeping.store import SweepStore

CLIPS, TAUS, SEEDS = 3, [100, 500, 900], [0, 1]
CELLS = CLIPS * len(TAUS) * len(SEEDS)


def make_clip(number: int) -> tl.Clip:
    """Clips that differ in frames and in objects."""
    made = tl.datasets.similar(number, frames=4 + number % 3, size=16, objects=2 + number % 2)
    return tl.Clip(made.frames, made.masks, name=f"clip {number}")


def toy_sweep(store: str | Path | None = None, **changed: Any) -> xr.Dataset:
    how: dict[str, Any] = {
        "clips": [make_clip(number) for number in range(CLIPS)],
        "motion": tiny.Toy(),
        "tau": TAUS,
        "seeds": SEEDS,
        "radius": 2,
        "top_k": [2, 4],
        "progress": False,
    }
    return tl.sweep(store=store, **(how | changed))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that nothing happened to."""
    path = tmp_path_factory.mktemp("straight") / "sweep.zarr"
    toy_sweep(path)
    return path


@pytest.fixture
def copy(straight: Path, tmp_path: Path) -> Path:
    """A finished store to do harm to."""
    return shutil.copytree(straight, tmp_path / "sweep.zarr")


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cells that were computed and written, as clip, tau and seed."""
    written: list[str] = []
    commit = store_module.SweepStore.commit

    def counted(self: Any, cell: xr.Dataset, *rest: Any) -> None:
        commit(self, cell, *rest)
        written.append(f"{cell['clip'].item()}, {cell['tau'].item()}, {cell['seed'].item()}")

    monkeypatch.setattr(store_module.SweepStore, "commit", counted)
    return written


def content(path: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


# --- what a store is ------------------------------------------------------------------------------


def test_a_store_gives_what_memory_gives(straight: Path, commits: list[str]) -> None:
    scores = toy_sweep(straight)
    xr.testing.assert_identical(scores, toy_sweep())
    assert commits == []  # nothing to do a second time
    assert scores["JF"].notnull().any(["object", "frame"]).all()


def test_any_reader_of_zarr_opens_the_scores(straight: Path) -> None:
    opened = tl.open_sweep(straight)
    plain = xr.open_zarr(straight, group="scores", consolidated=False).load()
    xr.testing.assert_equal(plain.drop_vars("clip"), opened.drop_vars("clip"))
    assert list(plain["clip"].values) == list(opened["clip"].values) == ["clip 0", "clip 1", "clip 2"]
    xr.testing.assert_equal(opened, toy_sweep())
    assert plain.attrs["motion_weights_sha256"] == tiny.Toy().weights_sha256
    assert plain.attrs["overlap"] == 2
    assert opened["top_k"].dims == ("top_k",)
    assert int(opened["radius"]) == 2


def test_three_files_a_cell(straight: Path) -> None:
    names = sorted(name.split("/", 2)[2] for name in content(straight) if name.startswith("cells/clip_0"))
    assert names == sorted(["scores/c." + ".".join("0" * 10), "scores/zarr.json", "zarr.json"] * 6)


def test_stores_by_url(commits: list[str]) -> None:
    url = "memory://runs/sweep.zarr"
    scores = toy_sweep(url, keep="labels")
    assert len(commits) == CELLS
    xr.testing.assert_equal(tl.open_sweep(url), scores)
    xr.testing.assert_identical(toy_sweep(url, keep="labels"), scores)
    assert tl.open_kept(url, clip="clip 1", tau=500)["labels/labels"].sizes["frame"] == 5
    assert len(commits) == CELLS
    fsspec.filesystem("memory").rm("/runs", recursive=True)


def test_an_unfinished_sweep_can_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_off(tmp_path / "sweep.zarr", after=7, monkeypatch=monkeypatch)
    opened = tl.open_sweep(tmp_path / "sweep.zarr")
    assert opened.sizes["clip"] == CLIPS
    done = opened["J"].notnull().any(["block", "top_k", "object", "frame"])
    assert int(done.sum()) == 7
    whole = toy_sweep()
    assert opened["rows"].values.tolist() == [[12], [12], [0]]  # of a clip of which nothing is done
    assert (whole["columns"] == 12).all()
    opened, whole = (each.drop_vars(["rows", "columns", "input_y", "input_x"]) for each in (opened, whole))
    xr.testing.assert_equal(
        opened["F"].where(done, drop=False), whole["F"].sel(object=opened["object"], frame=opened["frame"]).where(done)
    )
    assert toy_sweep(tmp_path / "sweep.zarr", dry_run=True)["J"].notnull().any(["top_k", "object", "frame"]).sum() == 7


def broken_off(path: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that ends with an exception after some cells."""
    commit = store_module.SweepStore.commit
    count = 0

    def failing(self: Any, *arguments: Any) -> None:
        nonlocal count
        if count == after:
            raise KeyboardInterrupt
        count += 1
        commit(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(store_module.SweepStore, "commit", failing)
        with pytest.raises(KeyboardInterrupt):
            toy_sweep(path)


def test_info_shows_how_much_is_done(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    next((copy / "cells").glob("clip_1-*-tau500-seed1-*/zarr.json")).unlink()
    about_store(str(copy))
    said = capsys.readouterr().out
    assert "sweep of 3 clip x 3 tau x 2 seed x 2 top_k" in said
    assert f"done: {CELLS - 1} of {CELLS} cells" in said
    assert "is half written" in said
    assert f"motion_weights_sha256: {tiny.Toy().weights_sha256}" in said


# --- what is kept beside scores -------------------------------------------------------------------


def test_labels_and_features_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, clip = tmp_path / "sweep.zarr", make_clip(1)
    how: dict[str, Any] = {"clips": clip, "tau": 500, "seeds": 1, "keep": ["labels", "features"], "progress": True}
    scores = toy_sweep(path, **how)
    kept = tl.open_kept(path, clip="clip 1", tau=500, seed=1)
    feats = tl.probe(tiny.Toy(), clip, tau=500, seed=1)["up_0"]["features"]
    found = kept["features/up_0"]["features"]
    xr.testing.assert_identical(found.drop_attrs(), feats.astype("float16").drop_attrs())
    for top_k in (2, 4):
        labels = kept["labels"]["labels"].sel(block="up_0", top_k=top_k).squeeze(drop=True)
        np.testing.assert_array_equal(labels, tl.propagate(feats, clip.masks[0], radius=2, top_k=top_k))
        scored = tl.evaluate(labels, clip.masks)["F"]
        np.testing.assert_array_equal(scores["F"].sel(top_k=top_k).squeeze(), scored)
    assert found.encoding["chunks"] == (1, 1, 1, 6, 12, 12)  # a frame
    # 5 frames: two tracks of 16x16 pixels, 6 channels of 12x12 cells at 2 bytes.
    assert f"up to {(2 * 5 * 16 * 16 + 2 * 5 * 6 * 12 * 12) / 1e3:.3g} kB" in capsys.readouterr().out
    before = content(path)
    toy_sweep(path, **how)
    assert content(path) == before


def test_features_are_kept_as_principal_components(tmp_path: Path) -> None:
    """All components give the features again; fewer leave the share of variance that they do not explain."""
    clip = make_clip(1)
    feats = tl.probe(tiny.Toy(), clip, tau=500)["up_0"]["features"]
    for components in (6, 3):
        path = tmp_path / str(components)
        toy_sweep(path, clips=clip, tau=500, seeds=0, keep="features", components=components)
        kept = tl.open_kept(path, clip="clip 1", tau=500)["features/up_0"].to_dataset().astype("float32")
        assert kept["score"].sizes["component"] == components
        again = kept["score"].dot(kept["loading"], dim="component") + kept["mean"]
        left = float(((again - feats) ** 2).sum() / ((feats - kept["mean"]) ** 2).sum())
        assert left == pytest.approx(1 - float(kept["explained"].sum()), abs=1e-3)
        assert (left < 1e-3) == (components == 6)


def test_a_kept_file_that_is_cut_short(tmp_path: Path, commits: list[str]) -> None:
    path = tmp_path / "sweep.zarr"
    toy_sweep(path, tau=500, keep="labels")
    whole = content(path)
    chunks = path.glob("cells/clip_1-*-seed1-*/kept/labels/labels/c/**/0")
    truncate(next(chunk for chunk in chunks if chunk.is_file()))
    with pytest.warns(UserWarning, match=r"bytes of kept/labels/labels/c"):
        toy_sweep(path, tau=500, keep="labels")
    assert commits[6:] == ["clip 1, 500, 1"]
    assert content(path) == whole


def test_what_cannot_be_kept(straight: Path, tmp_path: Path) -> None:
    for wrong, words in (
        ({"keep": "labels", "store": None}, "needs a place to keep it"),
        ({"keep": "pixels"}, "choose from labels, features"),
        ({"keep": "labels", "components": 3}, "components=3"),
        ({"keep": "features", "components": 7}, "components=7 are more than the"),
        ({"keep": "labels", "store": straight}, r"keep=\[\], and now keep=\['labels'\]"),
    ):
        with pytest.raises(tl.TedlensError, match=words):
            toy_sweep(**({"store": tmp_path / "sweep.zarr"} | wrong))
    with pytest.raises(tl.TedlensError, match="keeps nothing of clip 'clip 1'"):
        tl.open_kept(straight, clip="clip 1", tau=500)
    huge = tiny.Toy()
    huge.unet.up_blocks[0].weight.data *= 1e6
    with pytest.raises(tl.TedlensError, match="larger than float16"):
        toy_sweep(tmp_path / "huge.zarr", motion=huge, keep="features")


def test_a_sweep_that_ended_before_its_first_cell_binds_nobody(tmp_path: Path) -> None:
    path, huge = tmp_path / "sweep.zarr", tiny.Toy()
    huge.unet.up_blocks[0].weight.data *= 1e6
    with pytest.raises(tl.TedlensError, match="larger than float16"):
        toy_sweep(path, motion=huge, keep="features")
    assert path.exists()
    scores = toy_sweep(path, overlap=0)
    assert scores["J"].notnull().any()
    assert tl.open_sweep(path).attrs["overlap"] == 0


# --- growth and refusal ---------------------------------------------------------------------------


def test_a_grid_grows_and_only_what_is_new_is_computed(straight: Path, tmp_path: Path, commits: list[str]) -> None:
    path = tmp_path / "sweep.zarr"
    clips = [make_clip(number) for number in range(CLIPS)]
    toy_sweep(path, clips=clips[:2], tau=[900, 100], seeds=1)
    assert len(commits) == 4
    toy_sweep(path, clips=clips[:2], tau=[500, 100])
    assert len(commits) == 4 + 2 * 3  # tau 500 twice, tau 100 with seed 0
    scores = toy_sweep(path, clips=clips[2:], tau=500, seeds=0)
    assert commits[-1] == "clip 2, 500, 0"
    assert scores["J"].sizes["clip"] == 1
    toy_sweep(path)
    assert len(set(commits)) == len(commits) == CELLS
    assert content(path) == content(straight)


def test_more_settings_join_those_that_are_there(tmp_path: Path, commits: list[str]) -> None:
    path = tmp_path / "sweep.zarr"
    few = toy_sweep(path, top_k=2, tau=500)
    many = toy_sweep(path, top_k=[4, 2], tau=500)
    assert len(commits) == 2 * CLIPS * len(SEEDS)
    xr.testing.assert_equal(many.sel(top_k=2), few)
    xr.testing.assert_identical(toy_sweep(path, top_k=[2, 4], tau=500), toy_sweep(top_k=[2, 4], tau=500))
    xr.testing.assert_identical(toy_sweep(path, top_k=4, tau=500), toy_sweep(top_k=4, tau=500))
    assert len(commits) == 2 * CLIPS * len(SEEDS)
    assert list(tl.open_sweep(path)["top_k"]) == [2, 4]


class OtherToy(tiny.Toy):
    def __init__(self) -> None:
        super().__init__()
        self.unet.up_blocks[0].weight.data += 1


class ImageToy(tiny.Toy):
    def __init__(self) -> None:
        super().__init__(window=None)


class RenamedToy(tiny.Toy):
    def __init__(self) -> None:
        super().__init__()
        self.name = "/scratch/job-7/toy"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"overlap": 0}, "overlap=2, and now overlap=0"),
        ({"size": 16}, "size=None, and now size=16"),
        ({"radius_pixels": 4, "radius": "grid"}, "window_in=None, and now window_in='pixels of the clip'"),
        ({"protocol": "all"}, "protocol='davis', and now protocol='all'"),
        ({"motion": OtherToy}, "motion_weights_sha256="),
        ({"appearance": ImageToy, "motion": None}, "appearance_dtype=None, and now"),
        ({"clips": [tl.Clip(make_clip(4).frames, make_clip(4).masks, name="clip 1")]}, "Clip 'clip 1' is not the one"),
    ],
)
def test_results_of_different_kinds_are_not_mixed(straight: Path, changed: dict[str, Any], words: str) -> None:
    before = content(straight)
    made = {key: value() if isinstance(value, type) else value for key, value in changed.items()}
    with pytest.raises(tl.TedlensError, match=words):
        toy_sweep(straight, **made)
    assert content(straight) == before


def test_a_model_may_have_moved(straight: Path, commits: list[str]) -> None:
    toy_sweep(straight, motion=RenamedToy())
    assert commits == []


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    tl.save(xr.Dataset({"a": ("x", [1, 2])}), tmp_path / "mine.zarr")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/mine.txt").write_text("mine")
    for name in ("mine.zarr", "notes"):
        before = content(tmp_path / name)
        with pytest.raises(tl.TedlensError, match="not the store of a sweep"):
            toy_sweep(tmp_path / name)
        assert content(tmp_path / name) == before
    with pytest.raises(tl.TedlensError, match="There is no sweep"):
        tl.open_sweep(tmp_path / "nowhere")
    with pytest.raises(tl.TedlensError, match="Cannot use the store nonesuch://a"):
        toy_sweep("nonesuch://a")


# --- damage ---------------------------------------------------------------------------------------


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


DAMAGE: list[tuple[str, Callable[[Path], Any], str]] = [
    ("scores/c.*", truncate, "bytes of scores/c"),
    ("scores/c.*", empty, "bytes of scores/c"),
    ("scores/c.*", flip, "damaged scores/c"),
    ("scores/zarr.json", flip, "damaged scores/zarr.json"),
    ("zarr.json", flip, "damaged zarr.json"),
    ("scores/c.*", Path.unlink, "lacks scores/c"),
    ("scores/zarr.json", truncate, "bytes of scores/zarr.json"),
    ("zarr.json", truncate, "damaged zarr.json"),
    ("zarr.json", empty, "damaged zarr.json"),
    ("zarr.json", Path.unlink, "is half written"),
]


@pytest.mark.parametrize(("pattern", "harm", "words"), DAMAGE)
def test_a_damaged_cell_is_named_and_computed_anew(
    straight: Path, copy: Path, commits: list[str], pattern: str, harm: Callable[[Path], Any], words: str
) -> None:
    cell = next((copy / "cells").glob("clip_1-*-tau500-seed1-*"))
    harm(next(cell.glob(pattern)))
    with pytest.warns(UserWarning, match=f"{cell.name}.*{words}"):
        toy_sweep(copy)
    assert commits == ["clip 1, 500, 1"]
    assert content(copy) == content(straight)


@pytest.mark.parametrize("cell_lost", [False, True])
@pytest.mark.parametrize("harm", [truncate, empty, flip, Path.unlink])
@pytest.mark.parametrize(
    "name", ["zarr.json", "scores/zarr.json", "scores/J/zarr.json", "scores/tau/c/0", "scores/J/c"]
)
def test_damage_beside_the_cells_is_mended(
    straight: Path, copy: Path, commits: list[str], name: str, harm: Callable[[Path], Any], cell_lost: bool
) -> None:
    """By the same call, whether it has anything to compute or not."""
    harm(next(path for path in [copy / name, *(copy / name).rglob("*")] if path.is_file()))
    if cell_lost:
        next((copy / "cells").glob("clip_1-*-tau500-seed1-*/zarr.json")).unlink()
        with pytest.warns(UserWarning, match="half written"):
            toy_sweep(copy)
    else:
        toy_sweep(copy)
    assert commits == ["clip 1, 500, 1"] * cell_lost
    assert content(copy) == content(straight)


def test_what_tedlens_did_not_write_is_never_removed(straight: Path, tmp_path: Path) -> None:
    """A person's own folder, whatever the names in it; and what they laid into a store of ours."""
    theirs = {
        "results": ["scores/mine.csv"],
        "tissue": ["cells/slide_1/zarr.json", "cells/slide_1/c/0"],
        "both": ["scores/zarr.json", "cells/clip-tau1/notes.txt"],
        "other tool": ["zarr.json"],
    }
    for folder, files in theirs.items():
        for name in files:
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_text('{"attributes": {}, "node_type": "group"}')
        before = content(tmp_path / folder)
        with pytest.raises(tl.TedlensError, match="left alone"):
            toy_sweep(tmp_path / folder)
        with pytest.raises(tl.TedlensError, match="left alone"):
            tl.open_sweep(tmp_path / folder)
        assert content(tmp_path / folder) == before
    shutil.copytree(straight, tmp_path / "ours")
    (tmp_path / "ours/scores/mine.csv").write_text("1,2")
    with pytest.raises(tl.TedlensError, match=r"mine\.csv"):
        toy_sweep(tmp_path / "ours", seeds=[0, 1, 2])
    assert (tmp_path / "ours/scores/mine.csv").read_text() == "1,2"


def test_a_store_that_is_removed_while_its_sweep_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = SweepStore.held

    def remove_then_look(self: SweepStore, *asked: Any) -> Any:
        if (tmp_path / "gone.zarr/cells").exists():
            shutil.rmtree(tmp_path / "gone.zarr")
        return held(self, *asked)

    monkeypatch.setattr(SweepStore, "held", remove_then_look)
    with pytest.raises(tl.TedlensError, match="are not in"):
        toy_sweep(tmp_path / "gone.zarr", tau=[100], seeds=0)


def test_cells_of_other_settings_are_not_taken(straight: Path, copy: Path, tmp_path: Path, commits: list[str]) -> None:
    """Should two sweeps that differ have begun one store in the same instant."""
    toy_sweep(tmp_path / "other.zarr", overlap=0, clips=make_clip(1), tau=500, seeds=1)
    strange = next((tmp_path / "other.zarr/cells").glob("clip_1-*"))
    shutil.copytree(strange, copy / "cells" / strange.name, dirs_exist_ok=True)
    commits.clear()
    with pytest.warns(UserWarning, match="other settings"):
        toy_sweep(copy)
    assert commits == ["clip 1, 500, 1"]
    assert content(copy) == content(straight)


# --- a disk that is full, a store that cannot be written ------------------------------------------

HERE = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_sweep_store as t
"""


def run_apart(code: str, *command: str, **how: Any) -> subprocess.CompletedProcess[str]:
    lines = [*command, sys.executable, "-c", HERE + textwrap.dedent(code)]
    return subprocess.run(lines, capture_output=True, text=True, timeout=300, check=False, **how)


@pytest.mark.release
def test_a_full_disk(straight: Path, tmp_path: Path) -> None:
    """A limit on the size of a file, set by the kernel, breaks off a write in its midst, as a full disk does."""
    path = tmp_path / "sweep.zarr"
    ran = run_apart(
        f"""
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
        try:
            t.toy_sweep({str(path)!r})
        except t.tl.TedlensError as error:
            print(error)
        """
    )
    assert ran.returncode == 0, ran.stderr
    assert "Cannot write the store" in ran.stdout
    assert "File too large" in ran.stdout
    assert ran.stdout.count("\n") == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        toy_sweep(path)
    assert content(path) == content(straight)


def tmpfs_can_be_mounted() -> bool:
    try:
        done = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "t", "/mnt"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


@pytest.mark.release
@pytest.mark.skipif(not tmpfs_can_be_mounted(), reason="needs the right to mount a tmpfs")
def test_a_small_tmpfs_that_fills_and_is_given_room(tmp_path: Path) -> None:
    ran = run_apart(
        f"""
        import subprocess, warnings
        disk = Path({str(tmp_path)!r})
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "t", disk], check=True)
        store = disk / "sweep.zarr"
        try:
            t.toy_sweep(store)
        except t.tl.TedlensError as error:
            print(error)
        done = int(t.tl.open_sweep(store)["J"].notnull().any(["block", "top_k", "object", "frame"]).sum())
        assert 0 < done < t.CELLS, done
        subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            after = t.toy_sweep(store)
        t.xr.testing.assert_identical(after, t.toy_sweep())
        print("equal")
        """,
        "unshare",
        "-rm",
    )
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout.splitlines()
    assert "No space left on device" in said[0]
    assert said[1:] == ["equal"]


def test_a_store_that_cannot_be_written(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is finished is read, and what is asked for beyond it ends in one sentence."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(30, "Read-only file system")

    filesystem = type(fsspec.filesystem("file"))
    for name in ("pipe_file", "rm_file", "makedirs", "mkdir"):
        monkeypatch.setattr(filesystem, name, refuse)
    xr.testing.assert_identical(toy_sweep(copy), toy_sweep())
    with pytest.raises(tl.TedlensError, match=r"Cannot write the store .*Read-only file system; what is whole"):
        toy_sweep(copy, seeds=[0, 1, 2])
    with pytest.raises(tl.TedlensError, match="Cannot write the store"):
        toy_sweep(copy.parent / "new.zarr")


def test_a_second_writer_s_clips_are_not_lost(copy: Path, commits: list[str]) -> None:
    """Two that began at once with other clips: the one's note of what is asked for may replace the other's."""
    said = json.loads((copy / "zarr.json").read_text())
    said["attributes"]["asked"]["clip"] = ["clip 0"]
    (copy / "zarr.json").write_text(json.dumps(said))
    toy_sweep(copy, clips=make_clip(0))
    assert commits == []
    assert list(xr.open_zarr(copy, group="scores", consolidated=False)["clip"].values) == ["clip 0", "clip 1", "clip 2"]


# --- several writers, and killed ones -------------------------------------------------------------


@pytest.mark.release
def test_two_writers_at_once(straight: Path, tmp_path: Path) -> None:
    """Both end well, with the store that one alone makes."""
    path = tmp_path / "sweep.zarr"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tedlens.sweeping", "tiny"])
    writers = [context.Process(target=sweep_apart, args=(path,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert content(path) == content(straight)


@pytest.mark.parametrize("always", [False, True])
def test_a_cell_that_another_writer_made_absent(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, always: bool
) -> None:
    """One that begins takes a cell half written for a broken one: it is computed again, but not for ever."""
    path, commit, removed = tmp_path / "sweep.zarr", SweepStore.commit, []

    def commit_and_lose(store: SweepStore, *cell: Any) -> None:
        commit(store, *cell)
        if always or not removed:
            removed.append(min((path / "cells").glob("*/zarr.json")))
            removed[-1].unlink()

    monkeypatch.setattr(SweepStore, "commit", commit_and_lose)
    if always:
        with pytest.raises(tl.TedlensError, match="cells that were written are not in"):
            toy_sweep(path)
    else:
        toy_sweep(path)
        assert content(path) == content(straight)


def sweep_apart(path: Path, ready: Connection | None = None) -> None:
    """A sweep in a process of its own, which says when it begins."""
    warnings.simplefilter("ignore")
    if ready is not None:
        ready.send(True)
    toy_sweep(path)


KILLS = 50  # about 40 seconds


@pytest.mark.release
def test_killed_at_any_instant_a_sweep_ends_as_a_straight_one(straight: Path, tmp_path: Path) -> None:
    """SIGKILL after random times; each store is resumed until it is finished, then compared file by file."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tedlens.sweeping", "tiny"])
    begun = time.perf_counter()
    toy_sweep(tmp_path / "timed.zarr")
    whole = time.perf_counter() - begun
    chance = random.Random(0)
    kills = stores = 0
    while kills < KILLS:
        path = tmp_path / f"{stores}.zarr"
        while True:
            ready, child_end = context.Pipe(duplex=False)
            child = context.Process(target=sweep_apart, args=(path, child_end))
            child.start()
            assert ready.recv()
            child.join(chance.uniform(0, 0.7 * whole))
            if not child.is_alive():
                break
            child.kill()
            child.join()
            kills += 1
        assert child.exitcode == 0
        assert content(path) == content(straight)
        stores += 1
    assert stores > 1


# --- opened by what is there, and guarded by it ---------------------------------------------------


def test_a_finished_sweep_is_opened_from_its_joined_scores(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tl.open_sweep(copy)
    with monkeypatch.context() as patch:
        patch.setattr(store_module.SweepStore, "cells", lambda *_, **__: pytest.fail("every cell was read"))
        xr.testing.assert_identical(tl.open_sweep(copy), expected)
    next(f for f in (copy / "scores").rglob("J/c/**/*") if f.is_file()).write_bytes(b"garbled")
    xr.testing.assert_identical(tl.open_sweep(copy), expected)  # from the cells


def test_a_kept_cell_is_opened_from_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_sweep(tmp_path / "sweep.zarr", keep="labels")
    monkeypatch.setattr(store_module.SweepStore, "cells", lambda *_, **__: pytest.fail("every cell was read"))
    kept = tl.open_kept(tmp_path / "sweep.zarr", clip="clip 1", tau=500)
    assert kept["labels/labels"].sizes["frame"] == 5


def test_a_flipped_bit_in_what_is_kept_is_noticed_and_mended(tmp_path: Path, commits: list[str]) -> None:
    store = tmp_path / "sweep.zarr"
    toy_sweep(store, keep="labels")
    before, done = content(store), len(commits)
    for pattern in ("kept/labels/labels/c/**/0", "kept/labels/zarr.json"):
        file = next(f for f in sorted(store.glob(f"cells/clip_1-*-tau500-seed0-*/{pattern}")) if f.is_file())
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        with pytest.raises(tl.TedlensError, match=r"has a damaged kept/labels.*computes it anew"):
            tl.open_kept(store, clip="clip 1", tau=500)
        with pytest.warns(UserWarning, match="Not whole"):
            toy_sweep(store, keep="labels")
        done += 1
        assert len(commits) == done
        assert content(store) == before


@pytest.mark.parametrize("name", ["a[1].zarr", "[a-z].zarr", "b*?.zarr", "c d.zarr"])
def test_names_that_mean_more_to_a_shell(tmp_path: Path, name: str) -> None:
    scores = toy_sweep(tmp_path / name, keep="labels")
    xr.testing.assert_equal(tl.open_sweep(tmp_path / name), scores)
    xr.testing.assert_equal(toy_sweep(tmp_path / name, keep="labels"), scores)
    assert tl.open_kept(tmp_path / name, clip="clip 1", tau=500)["labels/labels"].sizes["frame"] == 5
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_names_that_mean_chained_file_systems(tmp_path: Path, commits: list[str]) -> None:
    for call in (lambda path: toy_sweep(path), lambda path: tl.save(xr.Dataset({"a": 1}), path)):
        with pytest.raises(tl.TedlensError, match="has '::' in its name"):
            call(tmp_path / "a::b.zarr")
    assert commits == []
    assert not any(tmp_path.iterdir())


def test_a_store_that_would_fill_the_memory(tmp_path: Path, copy: Path) -> None:
    store = tmp_path / "s.zarr"
    tl.save(xr.Dataset({"a": ("x", np.zeros(3))}, {"x": [1, 2, 3]}), store)
    said = json.loads((store / "x" / "zarr.json").read_text())
    for claim in ({"shape": [10**15]}, {"shape": "x"}, {"codecs": [{"name": "numcodecs.pickle"}]}):
        (store / "x" / "zarr.json").write_text(json.dumps(said | claim))
        with pytest.raises(tl.TedlensError, match=r"says that it has 1000000000000000 values|cannot be read"):
            tl.load(store)
        with pytest.raises(tl.TedlensError):
            about_store(str(store))
    shutil.rmtree(copy / "scores")
    about = attributes((copy / "zarr.json").read_bytes())
    assert about is not None
    about["asked"]["top_k"] = about["asked"]["radius"] = list(range(10**5))
    (copy / "zarr.json").write_bytes(group_file(about)["zarr.json"])
    with pytest.raises(tl.TedlensError, match="made to fill the memory"):
        tl.open_sweep(copy)
