"""Features of a diffusion model over noise levels, blocks and seeds."""

from tedlens.probing.features import label_features, probe
from tedlens.probing.labelling import as_list, cell_centres, noise_axis, noise_levels, places
from tedlens.probing.prepared import Prepared, check_samples
from tedlens.probing.recording import Draw, Reading, Tap, record
from tedlens.probing.view import (
    Stitch,
    View,
    block_names,
    check_stitch,
    input_size,
    only_one,
    resize,
    usual_size,
    window_length,
    windows,
)

__all__ = [
    "Draw",
    "Prepared",
    "Reading",
    "Stitch",
    "Tap",
    "View",
    "as_list",
    "block_names",
    "cell_centres",
    "check_samples",
    "check_stitch",
    "input_size",
    "label_features",
    "noise_axis",
    "noise_levels",
    "only_one",
    "places",
    "probe",
    "record",
    "resize",
    "usual_size",
    "window_length",
    "windows",
]
