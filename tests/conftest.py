"""Options of the whole test suite."""

import os
from pathlib import Path

# One torch thread in every process of the tests: several processes with two each starve each other on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import settings

from tests.time_limit import within

# The same examples every time, so that a failure is the change's; --hypothesis-profile=explore looks further.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=500)
settings.load_profile("repeatable")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption(
        "--golden", type=Path, default=GOLDEN, metavar="DIR", help="folder of golden vectors for tests/parity"
    )


def pytest_configure(config):
    folder = config.getoption("--golden")
    if not folder.is_dir():
        raise pytest.UsageError(f"--golden {folder}: no such folder")


@pytest.fixture(autouse=True)
def memory():
    """What a test leaves in memory:// goes: every listing there walks through all that earlier tests wrote."""
    before = set(MemoryFileSystem.store)
    yield
    for path in MemoryFileSystem.store.keys() - before:
        del MemoryFileSystem.store[path]


@pytest.fixture(scope="session")
def cluster():
    """A Ray of our own that outlives the drivers that we kill. Yields its address."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield made.address
    made.shutdown()


@pytest.fixture
def impatient():
    """What takes 5 seconds has stopped for good."""
    with within(5):
        yield
