"""What a bug report should say."""

from __future__ import annotations

import platform

import torch

from . import _C


def show_config() -> None:
    """Prints versions, how fastpool was built and what it runs on: for bug reports.

    Example:
        >>> import fastpool
        >>> fastpool.show_config()  # doctest: +ELLIPSIS
        fastpool ...
    """
    info = _C.build_info()
    cuda = info["cuda"]
    kernels = f"for {', '.join(cuda)}" if isinstance(cuda, list) and cuda else "none"
    cards = [torch.cuda.get_device_name(card) for card in range(torch.cuda.device_count())]
    print(f"""\
fastpool {info["version"]}, sources {info["sources"]}, {info["compiler"]}
library: {_C.__file__}
CUDA kernels: {kernels}{", and emulated" if info["emulation"] else ""}
CPU capability: {info["cpu_capability"]}
threads: {torch.get_num_threads()}
torch: {torch.__version__}, {f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"}
cards: {", ".join(cards) or "none"}
Python: {platform.python_version()}
system: {platform.platform()}""")
