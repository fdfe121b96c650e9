import pytest
import torch
from comparison import COUNTS


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(
        f"comparisons: {COUNTS['bitwise']} bitwise, {COUNTS['tolerance']} by tolerance", bold=True
    )


@pytest.fixture(autouse=True)
def keep_global_state():
    """A test that fails half way must not leave its threads, seed or dtype to the next one."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)
