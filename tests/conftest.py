import os
from pathlib import Path

import pytest

# All are read when torch and huggingface_hub are first imported, so they are set before anything else.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"
# Threads that wait must not spin: on a busy machine tiny models ran eighty times slower.
os.environ["OMP_WAIT_POLICY"] = "passive"

# Files that take longest begin, so that no process is left alone with one at the end.
LONGEST = [
    "test_wheel",
    "test_benchmark",
    "test_transformers",
    "test_sweep_store",
    "test_widgets_browser",
    "test_notebooks",
    "test_cli",
    "test_sweep_workers",
    "test_figures",
    "test_models",
    "test_structure",
    "test_published",
    "test_ablation",
    "test_training",
    "test_widgets",
    "test_plots",
    "test_sweeping",
]


def pytest_configure(config: pytest.Config) -> None:
    """Tests compare with sums made by hand on the CPU, so on a machine with a GPU they must not find it."""
    if config.option.markexpr != "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares fixtures, a file or a class, is one process's (xdist's loadscope), and goes out in this order."""

    def place(item: pytest.Item) -> int:
        file = Path(item.fspath).stem
        return LONGEST.index(file) if file in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A tiny video model of I2VGen-XL's classes, for the files that need one of no kind in particular."""
    import tiny  # which imports torch: not before the variables above are set

    from tedlens.models.unets.i2vgen_xl import I2VGenXL

    return I2VGenXL(tiny.i2vgen_xl(tmp_path_factory.mktemp("tiny")), name="tiny", size=32)
