"""fastpool: poolings for PyTorch as real operations, forward and backward, on CPU and CUDA."""

import torch  # noqa: F401  # torch's libraries must be loaded before the extension, which uses their symbols

try:
    from . import _C
except ImportError as error:
    raise ImportError(
        f"fastpool's compiled extension cannot be loaded ({error}); "
        "build it for this torch with `pip install --no-build-isolation .` in fastpool's source folder"
    ) from error

from . import _fake, functional, nn  # noqa: F401  # _fake registers shapes for compilers
from ._config import show_config
from ._replace import replace_pooling
from .functional import *  # noqa: F403

__version__: str = str(_C.build_info()["version"])
__all__ = ["functional", "nn", "replace_pooling", "show_config", *functional.__all__]
