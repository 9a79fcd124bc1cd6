"""What others install: the wheel holds all that the folder does, and its demo runs where there is nothing else."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# That a demo is finished: what it computes, tracks, scores and draws.
RESULTS = ["features.zarr/zarr.json", "scores.zarr/zarr.json", "scores.csv", "masks/00000.png", "overlay.mp4"]
RESULTS += [f"figures/{name}.{suffix}" for name in ("story", "tau_curve", "pca_map") for suffix in ("html", "png")]

pytestmark = pytest.mark.release


def ran(*command: object, cwd: Path) -> str:
    """What a command says. It sees no more of this checkout than it is given."""
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as `make wheel` builds it: from the source archive, so that this is complete, too."""
    folder = tmp_path_factory.mktemp("dist")
    # Not `ran`: build may lie anywhere on the path of the tests.
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name.split("-")[0] for path in folder.glob("*.tar.gz")] == ["tedlens"]
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_the_package_and_no_more(wheel: Path) -> None:
    source = [path for path in (ROOT / "tedlens").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == {path.relative_to(ROOT).as_posix() for path in source}
    needed = ["py.typed", "__init__.pyi", "models/mini/outlines.json", "benchmark/field/ted_paper.json"]
    needed += [f"models/mini/{model}/model_index.json" for model in ("video", "image", "svd", "dit")]
    needed += [f"models/mini/{model}/unet/diffusion_pytorch_model.safetensors" for model in ("video", "image", "svd")]
    needed += ["models/mini/dit/transformer/diffusion_pytorch_model.safetensors"]
    assert {f"tedlens/{name}" for name in needed} - held == set()


def test_demo_of_the_wheel_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    ran(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    programs = tmp_path / "venv" / "bin"
    python = programs / "python"
    ran(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    where = ran(python, "-c", "import tedlens; print(tedlens.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path / "venv")
    # Without the extra for notebooks, and without what develops tedlens.
    extra = "from importlib.util import find_spec; print(*filter(find_spec, ['ipywidgets', 'anywidget', 'pytest']))"
    assert ran(python, "-c", extra, cwd=tmp_path).strip() == ""
    ran(programs / "tedlens", "demo", "--out", tmp_path / "demo", cwd=tmp_path)
    assert [name for name in RESULTS if not (tmp_path / "demo" / name).is_file()] == []
