"""Who can get at what the ranks of a gang tell one another."""

import ipaddress
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from flowcache.parallel.mesh import PeerLost, arrange, exchanging, world
from flowcache.parallel.rendezvous import open_rendezvous, rendezvous_at
from tests.listening import listening
from tests.unit.parallel.pool import start_ranks

TIMEOUT = timedelta(seconds=20)
NOBODY = 65534


def seen(path: Path) -> str:
    """What another process has written there, once it has."""
    deadline = time.monotonic() + 20
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.01)
    return path.read_text()


def join(rank: int, size: int, folder: Path) -> str:
    """As the ranks of a gang do."""
    if rank == 0:
        (folder / "path").write_text(open_rendezvous())
    path = seen(folder / "path")
    dist.init_process_group("gloo", store=rendezvous_at(path, TIMEOUT), rank=rank, world_size=size, timeout=TIMEOUT)
    return path


def as_nobody(path: str) -> str:
    """What another user's process gets to read of a file, or why it gets nothing."""
    code = f"import os; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); print(open({path!r}, 'rb').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout or done.stderr


def looked_at(rank: int, folder: Path) -> None:
    path = join(rank, 2, folder)
    arrange(world(), 1, TIMEOUT)
    (folder / f"ports-{rank}").write_text(json.dumps(sorted(listening(os.getpid()))))
    dist.barrier()
    if rank == 0:
        (folder / "keys").write_text(str(len(Path(path).read_bytes())))
        if os.getuid() == 0:
            (folder / "nobody").write_text(as_nobody(path))


def test_a_gang_listens_on_loopback_alone_and_its_keys_are_no_other_users(tmp_path):
    start_ranks(looked_at, 2, tmp_path)
    for rank in range(2):
        found = json.loads((tmp_path / f"ports-{rank}").read_text())
        assert found and all(ipaddress.ip_address(address).is_loopback for address, _ in found), found
    path = (tmp_path / "path").read_text()
    assert int((tmp_path / "keys").read_text()) > 0 and not os.path.exists(path)  # gone with rank 0
    if os.getuid():
        pytest.skip("only root can try it as another user")
    assert "PermissionError" in (tmp_path / "nobody").read_text()


def pester(stop: threading.Event, given: list[int]) -> None:
    """Connects to all that this process listens on, and sends what might be taken for a peer."""
    draw = random.Random(1)
    while not stop.is_set():
        for address in listening(os.getpid()):
            with socket.socket() as stranger:
                stranger.settimeout(0.5)
                if stranger.connect_ex(address) == 0:
                    number = draw.choice([draw.randrange(40), draw.getrandbits(63)]).to_bytes(8, "little")
                    stranger.send(number + draw.randbytes(draw.randrange(200)))
                    given.append(address[1])


def disturbed(rank: int, folder: Path) -> None:
    join(rank, 2, folder)
    stop, given = threading.Event(), []
    stranger = threading.Thread(target=pester, args=(stop, given), daemon=True)
    stranger.start()
    right = 0
    try:
        for number in range(40):
            with exchanging():
                group = dist.new_group([0, 1], timeout=timedelta(seconds=3))
                value = torch.full((5,), float(rank + number))
                dist.all_reduce(value, group=group)
            assert value.tolist() == [2.0 * number + 1] * 5
            right += 1
    except PeerLost as error:
        (folder / f"lost-{rank}").write_text(str(error))
    stop.set()
    stranger.join(5)
    (folder / f"right-{rank}").write_text(f"{right} {len(given)}")


def test_a_stranger_at_a_gangs_ports_changes_no_number(tmp_path):
    """It can at most break a connection that is being made, which the ranks notice."""
    start_ranks(disturbed, 2, tmp_path)
    for rank in range(2):
        right, given = map(int, (tmp_path / f"right-{rank}").read_text().split())
        assert given > 10 and (right == 40 or (tmp_path / f"lost-{rank}").exists())
