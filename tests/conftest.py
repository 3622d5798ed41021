"""Options of the whole test suite."""

from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption(
        "--golden", type=Path, default=GOLDEN, metavar="DIR", help="folder of golden vectors for tests/parity"
    )


def pytest_configure(config):
    folder = config.getoption("--golden")
    if not folder.is_dir():
        raise pytest.UsageError(f"--golden {folder}: no such folder")
