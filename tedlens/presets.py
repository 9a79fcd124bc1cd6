"""Published settings by name: what `preset=` means in `track`, `sweep`, grid files and on the command line."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from tedlens.errors import TedlensError

P = ParamSpec("P")
R = TypeVar("R")

NOISE = ("tau", "sigma", "log_snr")  # three ways to say one thing
OF_MOTION = {"tau": "tau", "block": "blocks", "samples": "samples", "lam": "lam"}  # their names in a sweep
# Parameters of the appearance features, and their names in a sweep of appearance alone.
ALONE = {"appearance_tau": "tau", "appearance_block": "blocks", "appearance_samples": "samples"}


@dataclass(frozen=True)
class Preset:
    """Published settings.

    Attributes
    ----------
    title
        Method and data set of the settings.
    words
        The settings, by the parameter names of `track`.
    motion, appearance
        Names of the models that they were published with.
    note
        What the source does not specify, and what is used here instead.
    """

    title: str
    words: Mapping[str, Any] = field(repr=False)
    motion: str | None = None
    appearance: str | None = None
    note: str = ""


# Table 4, and "From the paper's full text" of TED (arXiv 2512.02339). The paper does not give the number of references
# (28) and of noise draws (4, as with ADM); they come from the protocol of DIFT, whose models and propagation TED uses.
TED_NOTE = (
    "The paper prints neither the number of last frames nor of noise draws; here they are DIFT's, 28 and 4. "
    "Its 'efficient' variant is samples=1, appearance_samples=1."
)


def _ted(title: str, tau: int, lam: float, temperature: float) -> Preset:
    words = {
        "tau": tau,
        "block": "up_2",
        "lam": lam,
        "samples": 4,
        "appearance_tau": 51,
        "appearance_block": "out_7",
        "appearance_samples": 4,
        "overlap": 2,
        "stitch": "first",
        "top_k": 10,
        "radius": 15,
        "n_last": 28,
        "temperature": temperature,
        "convention": "dift",
        "upsample": "dift",
    }
    return Preset(f"TED (NeurIPS 2025, table 4), {title}", words, "i2vgen-xl", "adm", TED_NOTE)


def _dift(title: str, model: str, block: str, samples: int, top_k: int, temperature: float) -> Preset:
    words = {
        "lam": 0.0,
        "appearance_tau": 51,
        "appearance_block": block,
        "appearance_samples": samples,
        "top_k": top_k,
        "radius": 15,
        "n_last": 28,
        "temperature": temperature,
        "convention": "dift",
        "upsample": "dift",
    }
    return Preset(title, words, appearance=model)


def _encoder(title: str, model: str, top_k: int, radius: int, temperature: float, n_last: int, **more: Any) -> Preset:
    note = more.pop("note", "")
    words = {
        "lam": 0.0,
        "top_k": top_k,
        "radius": radius,
        "n_last": n_last,
        "temperature": temperature,
        "convention": "crw",
        "upsample": "argmax",
    }
    return Preset(title, words | more, appearance=model, note=note)


SQUARE: dict[str, Any] = {"convention": "dift", "upsample": "argmax"}
PRESETS: dict[str, Preset] = {
    "ted-davis": _ted("DAVIS", 300, 0.4, 0.2),
    "ted-youtube-similar": _ted("Youtube-Similar", 600, 0.6, 0.1),
    "ted-kubric-similar": _ted("Kubric-Similar", 900, 1.0, 0.1),
    "dift-sd": _dift("DIFT with Stable Diffusion 2.1, DAVIS", "sd-2.1", "up_2", 8, 15, 0.2),
    "dift-adm": _dift("DIFT with ADM, DAVIS", "adm", "out_7", 4, 10, 0.1),
    "crw": _encoder("CRW, DAVIS", "crw", 10, 12, 0.05, 20),
    "moco": _encoder("MoCo v1, evaluated as SFC", "moco", 15, 15, 0.1, 20),
    "sfc": _encoder("SFC, DAVIS", "sfc", 15, 15, 0.1, 20),
    "spa-then-temp": _encoder("Spa-then-Temp, DAVIS", "spa-then-temp", 10, 35, 0.07, 20, **SQUARE),
    "smtc": _encoder(
        "SMTC, DAVIS",
        "smtc",
        7,
        7,
        0.2,
        20,
        note="Its released weights give less than the paper's table, as its own README says.",
    ),
    "dino": _encoder("DINO ViT-S/8, DAVIS", "dino", 5, 12, 0.1, 7, convention="dift", upsample="dift"),
    "dinov3": _encoder(
        "DINOv3, DAVIS",
        "dinov3",
        5,
        12,
        0.2,
        7,
        size=960,
        note="Its window is a disc on every reference; here, as in CRW, the first frame is not restricted to it.",
    ),
}


def preset_named(name: str) -> Preset:
    """The preset with this name.

    Raises
    ------
    TedlensError
        For an unknown name.
    """
    if name not in PRESETS:
        raise TedlensError(f"preset={name!r} is not known; choose from {', '.join(PRESETS)}.")
    return PRESETS[name]


def track_words(preset: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `track`: those of the preset, overridden by the arguments `said` that the caller gives."""
    words = dict(preset_named(preset).words)
    if any(said.get(name) is not None for name in NOISE):
        words.pop("tau", None)
    if said.get("radius_pixels") is not None:
        words.pop("radius", None)
    return words | dict(said)


def sweep_words(preset: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `sweep`, in the same way; without the settings of a model that is not given."""
    given = {role: said.get(role) is not None for role in ("motion", "appearance")}
    words = as_sweep(track_words(preset, {}), **given)
    if any(said.get(name) is not None for name in NOISE):
        words.pop("tau", None)
    if said.get("radius_pixels") is not None:
        words.pop("radius", None)
    return words | dict(said)


def as_sweep(words: Mapping[str, Any], *, motion: bool, appearance: bool) -> dict[str, Any]:
    """Convert arguments of `track` to arguments of `sweep`, for the models that are given.

    If only appearance is given, its noise level, block and samples become the swept ones.
    """
    words = dict(words)
    of_appearance = {name: words.pop(name) for name in ALONE if name in words}
    of_motion = {new: words.pop(name) for name, new in OF_MOTION.items() if name in words}
    if "seed" in words:
        words["seeds"] = words.pop("seed")
    if motion:
        words |= {name: value for name, value in of_motion.items() if appearance or name != "lam"}
        words |= of_appearance if appearance else {}
    else:
        words |= {ALONE[name]: value for name, value in of_appearance.items()}
        words.setdefault("tau", 0)  # an encoder, which has no noise
    return words


def takes_preset(
    fill: Callable[[str, Mapping[str, Any]], dict[str, Any]],
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that `preset=` fills in the keywords that the caller does not give."""

    def around(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def filled(*arguments: P.args, **said: P.kwargs) -> R:
            name = said.get("preset")
            if name is None:
                return function(*arguments, **said)
            words: Any = fill(str(name), said)
            return function(*arguments, **words)

        return filled

    return around
