"""How much memory this process and a child come to need."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def memory(pid: int | str = "self", field: str = "VmRSS") -> int:
    """Bytes that the process has in memory now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def peak(pid: int | str = "self") -> int:
    """Bytes: the most that the process has had in memory since it began, or since `growing_by_less_than` began."""
    return memory(pid, "VmHWM")


@contextmanager
def growing_by_less_than(size: int) -> Iterator[None]:
    """This process, within."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    before = peak()
    yield
    assert peak() - before < size, f"grew by {peak() - before:,} bytes"
