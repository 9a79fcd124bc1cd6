"""Explorers for JupyterLab: plots with controls. Those of stored results need no model and no GPU."""

from importlib.util import find_spec

from tedlens.errors import TedlensError

missing = [name for name in ("ipywidgets", "anywidget") if find_spec(name) is None]
if missing:
    raise TedlensError(f"Widgets need {' and '.join(missing)}; install them with: pip install 'tedlens[notebook]'.")

from tedlens.widgets.attention import attention_explorer  # noqa: E402
from tedlens.widgets.decomposition import decomposition_explorer  # noqa: E402
from tedlens.widgets.masks import mask_editor  # noqa: E402
from tedlens.widgets.pca import pca_explorer  # noqa: E402
from tedlens.widgets.predictions import prediction_explorer  # noqa: E402
from tedlens.widgets.tau import tau_explorer  # noqa: E402
from tedlens.widgets.tracks import track_explorer  # noqa: E402

__all__ = [
    "attention_explorer",
    "decomposition_explorer",
    "mask_editor",
    "pca_explorer",
    "prediction_explorer",
    "tau_explorer",
    "track_explorer",
]
