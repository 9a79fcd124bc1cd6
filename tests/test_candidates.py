"""Candidates for a Youtube-Similar: by category and motion, measured on masks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

import tedlens as tl
from tedlens.cli import app

SIDE = 6  # of the square objects, in pixels


def squares(places: dict[int, tuple[int, int]]) -> np.ndarray[Any, Any]:
    mask = np.zeros((40, 60), np.uint8)
    for number, (y, x) in places.items():
        mask[y : y + SIDE, x : x + SIDE] = number
    return mask


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("ytvos")
    clips: dict[str, tuple[dict[int, str], list[dict[int, tuple[int, int]]]]] = {
        # Two fish: one goes 3 and 9 pixels, one stands; beside a boat that goes far.
        "fish": (
            {1: "fish", 2: "boat", 3: "fish"},
            [{1: (0, 0), 2: (30, 0), 3: (0, 20)}, {1: (0, 3), 2: (30, 30), 3: (0, 20)}, {1: (0, 12), 3: (0, 20)}],
        ),
        "still": ({1: "deer", 2: "deer"}, [{1: (0, 0), 2: (20, 30)}, {1: (0, 0), 2: (20, 30)}]),
        # The second enters late, and the first is gone in between.
        "late": ({1: "cat", 2: "cat"}, [{1: (0, 0)}, {2: (20, 0)}, {1: (0, 12), 2: (20, 12)}]),
        "single": ({1: "dog", 2: "cat"}, [{1: (0, 0), 2: (20, 0)}]),
    }
    videos = {}
    for name, (categories, frames) in clips.items():
        for kind in ("JPEGImages", "Annotations"):
            (root / "train" / kind / name).mkdir(parents=True)
        for t, places in enumerate(frames):
            PIL.Image.fromarray(squares(places)).save(root / "train" / "Annotations" / name / f"{5 * t:05d}.png")
        videos[name] = {"objects": {str(n): {"category": c, "frames": []} for n, c in categories.items()}}
    (root / "train" / "meta.json").write_text(json.dumps({"videos": videos}))
    return root


def test_clips_of_one_category_are_measured_on_their_masks(root: Path) -> None:
    found = tl.datasets.similar_candidates(root)
    assert found["clip"].values.tolist() == ["late", "fish", "still"]  # those that move most first
    fish, late, still = (found.sel(clip=name) for name in ("fish", "late", "still"))
    assert (fish["category"].item(), int(fish["objects"]), int(fish["frames"])) == ("fish", 2, 3)
    assert float(fish["motion"]) == pytest.approx(((3 + 9) / 2 / SIDE + 0) / 2)
    assert float(fish["closest"]) == pytest.approx((20 - 12) / SIDE)
    assert (int(late["together"]), float(late["motion"])) == (1, pytest.approx(12 / SIDE))
    assert (int(still["together"]), float(still["motion"]), float(still["overlap"])) == (2, 0, 1)
    assert fish["ids"].item() == "1, 3"
    assert float(fish["size"]) == pytest.approx(SIDE / np.hypot(40, 60))
    # Steps of 3 and 9 of 6 pixels, and twice one that stands.
    assert float(fish["overlap"]) == pytest.approx(np.median([3 / 9, 0, 1, 1]))


def test_what_moves_less_can_be_left_out(root: Path) -> None:
    assert "still" not in tl.datasets.similar_candidates(root, least_motion=0.1)["clip"]
    assert tl.datasets.similar_candidates(root, least_motion=100).sizes["clip"] == 0


def test_unknown_motion_comes_last_and_is_not_left_out(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "data")
    for file in sorted((tmp_path / "data" / "train" / "Annotations" / "fish").iterdir())[1:]:
        file.unlink()
    found = tl.datasets.similar_candidates(tmp_path / "data")
    assert found["clip"].values.tolist() == ["late", "still", "fish"]
    assert np.isnan(found["motion"][-1])
    assert "fish" not in tl.datasets.similar_candidates(tmp_path / "data", least_motion=0.1)["clip"]


def test_names_written_are_names_read(root: Path, tmp_path: Path) -> None:
    words = ["candidates", root, "--least-motion", 0.1, "--out", tmp_path / "names.txt"]
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    assert outcome.exit_code == 0, outcome.output
    assert "fish" in outcome.output
    assert tl.datasets.youtube_vos(root, "train", names=tmp_path / "names.txt").names == ("late", "fish")


def test_a_split_that_shows_neither_is_said(root: Path, tmp_path: Path) -> None:
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / "valid" / kind / "one").mkdir(parents=True)
    PIL.Image.fromarray(squares({1: (0, 0), 2: (9, 9)})).save(tmp_path / "valid" / "Annotations" / "one" / "00000.png")
    for about, said in (({}, "tells no category"), ({"category": "cat"}, "no object on two annotated frames in a row")):
        videos = {"one": {"objects": {"1": about, "2": about}}}
        (tmp_path / "valid" / "meta.json").write_text(json.dumps({"videos": videos}))
        with pytest.raises(tl.TedlensError, match=said):
            tl.datasets.similar_candidates(tmp_path, "valid")
