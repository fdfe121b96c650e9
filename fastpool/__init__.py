"""fastpool: poolings for PyTorch as real operations, forward and backward, on CPU and CUDA."""

import torch  # noqa: F401  # torch's libraries must be loaded before the extension, which uses their symbols

try:
    from ._C import build_info
except ImportError as error:
    import sys
    from pathlib import Path

    here = Path(__file__).resolve().parent
    folders = [here, *((Path(entry) / "fastpool").resolve() for entry in sys.path)]
    built = [folder for folder in folders if any(folder.glob("*.so"))]
    advice = "build it for this torch with `pip install .` in fastpool's source folder"
    if built and here not in built:
        advice = (
            f"{here} holds the sources, which hide the package installed in {built[0]} from a Python that is started "
            "beside them; start it in another folder"
        )
    raise ImportError(f"fastpool's compiled extension cannot be loaded ({error}); {advice}") from error

from . import _fake, functional, nn  # noqa: F401  # _fake registers shapes for compilers
from ._config import show_config
from ._replace import replace_pooling
from .functional import *  # noqa: F403

__version__: str = str(build_info()["version"])
__all__ = ["functional", "nn", "replace_pooling", "show_config", *functional.__all__]
