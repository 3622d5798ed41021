"""Where a process waits for connections, as the kernel says it."""

import os
import socket
import struct
from pathlib import Path

LISTEN = "0A"  # the state's number in /proc/net/tcp


def listening(pid: int) -> set[tuple[str, int]]:
    """(address, port) of each TCP socket on which the process listens."""
    ours = {target for fd in Path(f"/proc/{pid}/fd").iterdir() if (target := _target(fd)).startswith("socket:")}
    found = set()
    for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == LISTEN and f"socket:[{rest[5]}]" in ours:
                host, port = local.split(":")
                found.add((_address(family, host), int(port, 16)))
    return found


def _target(fd: Path) -> str:
    try:
        return os.readlink(fd)
    except FileNotFoundError:
        return ""  # closed meanwhile


def _address(family: int, text: str) -> str:
    """The kernel writes words of four bytes, each in the machine's own order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))
