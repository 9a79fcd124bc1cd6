"""Grid files that nobody writes by hand: one short sentence, at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

import tedlens as tl
from tedlens.gridfile import read_gridfile


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [x, x]\nclips: [*a]\ntau: 1\n", "references"),
        ("clips: " + "[" * 10_000, "within each other"),
        ("clips: " + "{a: " * 5_000, "within each other"),
    ],
)
def test_references_and_deep_nests_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(tl.TedlensError, match=words) as caught:
        read_gridfile(tmp_path / "grid.yaml")
    assert len(str(caught.value)) < 500


def test_letters_beyond_ascii_are_read_in_any_locale(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_bytes("clips: [{path: Vögel/bär.mp4}]\ntau: 600\n".encode())
    assert read_gridfile(tmp_path / "grid.yaml")["tau"] == 600


def test_what_is_no_number_and_what_cannot_be_scored_is_refused_before_any_work() -> None:
    clip = tl.datasets.similar(0, frames=4, size=16)
    assert clip.masks is not None
    first_only = tl.Clip(clip.frames, clip.masks[0])
    with pytest.raises(tl.TedlensError, match="tau=nan is not a number"):
        tl.sweep(clip, motion=tiny.Toy(), tau=[float("nan")], progress=False)  # type: ignore[list-item]
    with pytest.raises(tl.TedlensError, match="mask of its first frame only"):
        tl.sweep(first_only, motion=tiny.Toy(), tau=[100], progress=False)
    labels = tl.track(first_only, motion=tiny.Toy(), tau=100, lam=1)["labels"]
    assert np.isin(labels, [0, 1, 2]).all()
