import pytest
import torch
from backends import supported
from comparison import COUNTS

import fastpool._C as extension
from fastpool import _kinds


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(
        f"comparisons: {COUNTS['bitwise']} bitwise, {COUNTS['tolerance']} by tolerance", bold=True
    )


@pytest.fixture(autouse=True)
def poisoned_memory_and_global_state():
    """In deterministic mode torch fills fresh tensors with NaN, so that an element nobody writes shows."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


@pytest.fixture
def restored_hooks():
    yield
    extension.set_cpu_capability(None)
    extension.set_schedule(None)


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def capability(request, restored_hooks):
    """Each of the CPU's, in use."""
    if not supported(request.param):
        pytest.skip(f"this processor has no {request.param}")
    return request.param


@pytest.fixture
def saves_as_on_cuda(monkeypatch):
    """Where gradients find no moments again."""
    monkeypatch.setattr(_kinds, "POOL_AGAIN", set())
