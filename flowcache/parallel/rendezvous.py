"""How the ranks of a gang find one another: all are processes of one user on one node, and nobody else is let in.

torch's TCPStore listens on all interfaces and asks nobody for anything: whoever reaches it can read and write a gang's
keys. Here they are memory of rank 0, which the system lets no other user open and which is gone with its process. The
connections that gloo and NCCL then make stay on the loopback interface.
"""

import os
from datetime import timedelta

from torch.distributed import FileStore, Store  # pyright: ignore[reportPrivateImportUsage]: torch documents them here

LOOPBACK = "lo"
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")  # where gloo and NCCL are told what to listen on


def open_rendezvous() -> str:
    """Rank 0: the path by which all ranks get to the keys, for as long as this process lives."""
    return f"/proc/{os.getpid()}/fd/{os.memfd_create('flowcache-rendezvous')}"


def rendezvous_at(path: str | None, timeout: timedelta) -> Store:
    """Every rank: the gang's keys. timeout: of waiting for one."""
    if path is None:
        raise ValueError("the ranks of a gang must be told where its keys are")
    for name in INTERFACES:
        os.environ.setdefault(name, LOOPBACK)
    store = FileStore(path)
    store.set_timeout(timeout)
    return store
