"""Options of the whole test suite."""

from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption(
        "--golden", type=Path, default=GOLDEN, metavar="DIR", help="folder of golden vectors for tests/parity"
    )
