"""Diffusion models behind one small protocol; diffusers loads them.

Names load on first use (see `__init__.pyi`): what is known of the embedded models needs no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
