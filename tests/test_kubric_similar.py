"""The recipe for a Kubric-Similar, as far as it goes without Kubric: what is drawn, and how it is called."""

from __future__ import annotations

import ast
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tedlens.datasets.recipes import kubric_similar as recipe


@pytest.mark.parametrize("seed", range(30))
def test_two_balls_pass_one_another_and_stay(seed: int) -> None:
    drawn = recipe.draw_scene(seed)
    assert drawn == recipe.draw_scene(seed)
    times = [frame / recipe.RATE for frame in range(recipe.FRAMES)]
    places = [(drawn.at(0, t), drawn.at(1, t)) for t in times]
    assert all(math.hypot(*place) < recipe.REACH + drawn.radius for pair in places for place in pair)
    distances = [math.dist(*pair) for pair in places]
    nearest = distances.index(min(distances))
    assert 2 < nearest < 13  # about the middle
    assert 2 * drawn.radius < min(distances) < 5 * drawn.radius  # near, without a touch
    assert min(distances[0], distances[-1]) > 1.5 * min(distances)


def test_scenes_differ() -> None:
    scenes = [recipe.draw_scene(seed) for seed in range(10)]
    assert len({scene.colour for scene in scenes}) == len({scene.radius for scene in scenes}) == 10


def test_it_runs_where_tedlens_is_not(tmp_path: Path) -> None:
    source = Path(recipe.__file__).read_text(encoding="utf-8")
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
    }
    assert imported - set(sys.stdlib_module_names) == {"kubric", "numpy"}
    words = [sys.executable, recipe.__file__, "--out", str(tmp_path / "scenes"), "--scenes", "1"]
    outcome = subprocess.run(words, capture_output=True, text=True, check=False)
    assert outcome.returncode == 1
    assert "No module named 'kubric'" in outcome.stderr
    assert "Scene 0 was not rendered" in outcome.stderr
    assert not list((tmp_path / "scenes").iterdir())
