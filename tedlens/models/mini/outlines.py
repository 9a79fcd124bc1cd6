"""Outlines of the embedded models, so that `tedlens info` says at once what is inside them.

    python -m tedlens.models.mini.outlines

writes them anew from the models; a test sees that they agree.
"""

from __future__ import annotations

import json
from pathlib import Path

from tedlens.models.points import Outline

FILE = Path(__file__).with_name("outlines.json")


def known_outlines(name: str) -> list[Outline]:
    """Outlines, for square frames of its own size, of each kind of the embedded model of a name; none of others."""
    said = json.loads(FILE.read_text(encoding="utf-8"))
    return [Outline.of(models[name]) for models in said.values() if name in models]


def made_outlines() -> dict[str, dict[str, Outline]]:
    """The same from the models: kind, name, outline."""
    from tedlens.models.registry import EMBEDDED, outline_model
    from tedlens.models.structure import outline

    models = {kind: {name: outline_model(name, kind) for name in names} for kind, names in EMBEDDED.items()}
    return {
        kind: {name: outline(model, (model.size, model.size)) for name, model in named.items()}
        for kind, named in models.items()
    }


def main() -> None:
    said = {kind: {name: each.said() for name, each in named.items()} for kind, named in made_outlines().items()}
    FILE.write_text(json.dumps(said, separators=(",", ":"), allow_nan=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
