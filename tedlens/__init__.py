"""tedlens: where in a video diffusion model does motion live?

Names load on first use (see `__init__.pyi`), so that importing tedlens is quick: torch and diffusers
are read when the first model is.
"""

import lazy_loader

from tedlens.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
