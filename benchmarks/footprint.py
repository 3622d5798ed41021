"""Wall time and peak memory of a command with all that it starts: python -m benchmarks.footprint make demo

Memory is the sum of the processes' proportional set sizes (shared pages counted once), sampled twice a
second over every process of the command's session and of the sessions that its Ray starts.
"""

import subprocess
import sys
import time
from pathlib import Path

INTERVAL = 0.5  # seconds


def descendants(root: int, known: set[int]) -> set[int]:
    """Live processes that stem from `root` or from a process already known (Ray's are handed to init)."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
    found = {root} | (known & parents.keys())
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found & parents.keys()


def memory(pids: set[int]) -> int:
    """Bytes in use by these processes together."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def main() -> None:
    begin, known, peak = time.monotonic(), set(), 0
    process = subprocess.Popen(sys.argv[1:])
    while process.poll() is None:
        known |= descendants(process.pid, known)
        peak = max(peak, memory(known))
        time.sleep(INTERVAL)
    seconds = time.monotonic() - begin
    print(f"{seconds:.1f} s, peak {peak / 2**30:.2f} GiB, {len(known)} processes, exit code {process.returncode}")


if __name__ == "__main__":
    main()
