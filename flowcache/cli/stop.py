"""`flowcache stop`."""

import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from flowcache.cli.common import Endpoint, Json, err
from flowcache.cli.steer import WAIT, Wait
from flowcache.cli.steer import tell as tell_the_run
from flowcache.errors import FlowcacheError

PROCESSES = Path("/proc")
POLL = 0.2  # seconds


def stop(
    output: Annotated[
        str | None, typer.Argument(help="Stop the driver of the run there, wherever it is; else those on this machine.")
    ] = None,
    linger: Annotated[
        float,
        typer.Option(min=0, max=86_400, help="Wait so many seconds more, for those who ask how the run ended."),
    ] = 0.0,
    wait: Wait = WAIT,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Tell the driver of the run at OUTPUT to stop; without one, every `flowcache render` of yours on this machine, and
    wait until they have.

    As by SIGTERM: segments under way get the job's `grace`, the rest waits for the next run; exit code 5. Without
    OUTPUT this is what a pod that holds a driver does before it ends (cluster/base), and for Linux only.

        flowcache stop s3://bucket/night

        flowcache stop
    """
    if output is not None:
        tell_the_run(output, endpoint_url, wait, as_json, "stop")
        return
    if not PROCESSES.is_dir():
        raise FlowcacheError("flowcache stop needs Linux: send SIGTERM to the process of flowcache render instead")
    told = [process for process in drivers() if tell(process)]
    while any(map(alive, told)):
        time.sleep(POLL)
    err.print(f"{len(told)} stopped" if told else "nothing runs here", highlight=False)
    if told:
        time.sleep(linger)


def drivers() -> list[int]:
    """Processes of this user and container that run `flowcache render`, without those that they forked."""
    found = {int(entry.name): entry for entry in PROCESSES.iterdir() if entry.name.isdecimal() and renders(entry)}
    return sorted(process for process, entry in found.items() if parent(entry) not in found)


def renders(entry: Path) -> bool:
    try:
        if entry.stat().st_uid != os.geteuid() or network(entry) != network(PROCESSES / "self"):
            return False
        words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # it has ended
        return False
    programs = [
        number for number, word in enumerate(words) if word == "flowcache.cli" or Path(word).name == "flowcache"
    ]
    return any(words[number + 1 : number + 2] == ["render"] for number in programs)


def network(entry: Path) -> str:
    """Of the process: what shares it is one pod, even where a machine shows the processes of several."""
    return os.readlink(entry / "ns" / "net")


def parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def alive(process: int) -> bool:
    """Whether it has not ended; one that nobody has fetched the exit code of has."""
    try:
        return (PROCESSES / str(process) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def tell(process: int) -> bool:
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        return False
    return True
