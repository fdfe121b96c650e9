"""Some seconds of every kind of kernel, compared with the CPU: the first thing to run on a card, and what the
sanitizers watch.

    python tests/smoke.py [DEVICE]      cuda by default
"""

import sys
import time
from itertools import product
from pathlib import Path

import torch

# Last, so that an installed fastpool comes before an unbuilt source folder.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import fastpool.functional as F  # noqa: E402

SHAPES = ((2, 5, 9, 10), (1, 20, 70, 70), (3, 64, 14, 14), (5, 32, 32, 32))
DTYPES = (torch.float32, torch.float16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
# Whether the bits are promised, and the call.
POOLS = {
    "max": (True, lambda x, alpha: F.max_pool2d(x, 3, 2, 1)),
    "avg": (False, lambda x, alpha: F.avg_pool2d(x, 2)),
    "max_avg": (False, lambda x, alpha: F.max_avg_pool2d(x, 2)),
    "mixed": (False, lambda x, alpha: F.mixed_pool2d(x, 2, alpha=alpha)),
    "stochastic": (True, lambda x, alpha: F.stochastic_pool2d(x, 2, seed=1)),
    "stochastic softmax": (True, lambda x, alpha: F.stochastic_pool2d(x, 3, distribution="softmax", seed=1)),
    "expectation": (False, lambda x, alpha: F.stochastic_pool2d(x, 2, training=False, distribution="softmax")),
    "adaptive max": (True, lambda x, alpha: F.adaptive_max_pool2d(x, 3)),
    "global avg": (False, lambda x, alpha: F.global_avg_pool(x)),
    "global max": (True, lambda x, alpha: F.global_max_pool(x)),
    "global stochastic": (True, lambda x, alpha: F.global_stochastic_pool(x, seed=2)),
    "pyramid max": (True, lambda x, alpha: F.spatial_pyramid_pool2d(x)),
    "pyramid max_avg": (False, lambda x, alpha: F.spatial_pyramid_pool2d(x, mode="max_avg")),
}


def results(pool, x, alpha):
    """Outputs and gradients, on the CPU."""
    x, alpha = x.detach().requires_grad_(), alpha.detach().requires_grad_()
    outputs = pool(x, alpha)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    gradients = torch.autograd.grad(outputs, (x, alpha), [torch.ones_like(y) for y in outputs], allow_unused=True)
    return [y.detach().cpu() for y in (*outputs, *gradients) if y is not None]


def main() -> int:
    device, start, wrong = (sys.argv[1:] or ["cuda"])[0], time.time(), []
    for shape, dtype, layout in product(SHAPES, DTYPES, LAYOUTS):
        # Integers: sums of them are exact, products with alpha are rounded once.
        x = torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(0)).to(dtype).to(memory_format=layout)
        alpha = torch.linspace(0, 1, shape[1], dtype=dtype)
        for name, (bitwise, pool) in POOLS.items():
            label = f"{name} {tuple(shape)} {dtype} {layout}"
            try:
                pairs = zip(results(pool, x.to(device), alpha.to(device)), results(pool, x, alpha), strict=True)
                # A sum over a batch's gradients of alpha may be rounded in another order.
                alike = (torch.equal(a, e) if bitwise else torch.allclose(a, e, 1e-2, 1e-2) for a, e in pairs)
                if not all(alike):
                    wrong.append(f"{label}: differs from the CPU")
            except RuntimeError as error:
                wrong.append(f"{label}: {str(error).splitlines()[0]}")
    count = len(SHAPES) * len(DTYPES) * len(LAYOUTS) * len(POOLS)
    print(*wrong, f"smoke test on {device}: {count} calls, {len(wrong)} wrong, {time.time() - start:.1f} s", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
