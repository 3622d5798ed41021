"""The soak: many tiny videos over three gangs on a Ray of several nodes, while everything is killed at random.

python -m tests.soak --videos 200 --faults 300 --seed 1

Renders the manifest twice: undisturbed into a folder, then into S3 through a proxy that spoils requests, while gangs,
nodes, the driver and the S3 server are killed, stopped and slowed. Both must hold the same bytes in the end.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import s3fs

from flowcache.errors import StoreError
from flowcache.storage import layout
from flowcache.storage.objects.store import Store
from tests.soak.chaos import ACTIONS, Chaos, NodeHealth
from tests.soak.night import Driver, compare, manifest, poison
from tests.soak.operator import Operator
from tests.soak.proxy import FaultyProxy
from tests.soak.servers import server

PATIENCE = 3600.0  # seconds without a new segment after which the soak gives up


def calm_run(folder: Path, rows: Path, nodes: NodeHealth) -> Store:
    driver = Driver(rows, str(folder / "calm"), nodes.address, nodes.count, PATIENCE, folder / "calm.log")
    try:
        code = driver.process.wait()
    finally:
        driver.kill()
    assert code == 0, (folder / "calm.log").read_text()[-3000:]
    return Store(str(folder / "calm"))


def committed(store: Store) -> int:
    return sum(not entry.key.endswith("DONE.json") for entry in store.list(layout.COMMITS))


def stormy_run(driver: Driver, chaos: Chaos, store: Store, schedule: list[tuple[int, str]], operator: Operator) -> int:
    """Until the driver ends by itself: each action of the schedule when so many segments are committed."""
    left, seen, since = list(schedule), -1, time.monotonic()
    while driver.ended not in (0, 3) or operator.owes():
        chaos.tend()
        operator.tend()
        try:
            done = committed(store)
        except StoreError:
            continue  # the server is down, or comes back
        if done > seen:
            seen, since = done, time.monotonic()
            print(f"{done} segments committed, {len(left)} actions left", file=sys.stderr, flush=True)
        assert time.monotonic() - since < PATIENCE, "no progress"
        while left and left[0][0] <= done:
            chaos.act(left.pop(0)[1])
        if driver.ended not in (None, 0, 3) or (driver.ended is not None and operator.owes()):
            driver.start()
        time.sleep(0.5)
    chaos.heal()
    return driver.ended


def schedule_of(draw: random.Random, actions: int, segments: int) -> list[tuple[int, str]]:
    """(committed segments, action), each kind about as often as it weighs, spread over the run."""
    names = [name for name, weight in ACTIONS.items() for _ in range(max(1, round(weight * actions)))]
    draw.shuffle(names)
    return sorted((draw.randrange(max(1, int(segments * 0.9))), name) for name in names)


def night(options: argparse.Namespace, folder: Path, cleanup: ExitStack) -> dict[str, object]:
    """Both runs and their comparison; what was counted. AssertionError where anything was lost or left behind."""
    rows = folder / "night.jsonl"
    poisoned = manifest(rows, options.videos)
    s3 = server(options.server)
    cleanup.callback(s3.close)
    proxy = FaultyProxy(s3.url, options.seed, options.rate).start()
    cleanup.callback(proxy.shutdown)
    access = {"key": s3.key, "secret": s3.secret}
    # Nodes hand their environment to the actors.
    os.environ |= {"AWS_ENDPOINT_URL": proxy.url, "AWS_ACCESS_KEY_ID": s3.key, "AWS_SECRET_ACCESS_KEY": s3.secret}
    nodes = NodeHealth(options.gangs)
    cleanup.callback(nodes.close)
    calm = calm_run(folder, rows, nodes)
    s3fs.S3FileSystem(endpoint_url=s3.url, **access).mkdir("soak")
    direct = Store("s3://soak/night", endpoint_url=s3.url, **access)
    poison(proxy, poisoned)
    draw = random.Random(options.seed)
    schedule = schedule_of(draw, options.actions, committed(calm))
    driver = Driver(rows, "s3://soak/night", nodes.address, nodes.count, options.stall, folder / "stormy.log")
    cleanup.callback(driver.kill)
    chaos = Chaos(nodes, driver, s3, draw)
    videos = [json.loads(line)["id"] for line in rows.read_text().splitlines()]
    operator = Operator(direct, videos, options.commands, options.every, options.seed)
    cleanup.callback(operator.close)
    code = stormy_run(driver, chaos, direct, schedule, operator)
    given = chaos.given + Counter({f"S3: {kind}": count for kind, count in proxy.given.items()})
    counts = compare(calm, direct, poisoned) | operator.check()
    assert code == (3 if poisoned else 0), code
    assert given.total() >= options.faults, f"only {given.total()} faults"
    left = nodes.leftovers()
    assert not left, f"left behind: {left}"
    run = {"server": s3.name, "faults": dict(sorted(given.items())), "total": given.total()}
    return {**run, "requests": proxy.requests, "driver starts": driver.starts, **counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--gangs", type=int, default=3, help="each on a node of its own")
    parser.add_argument("--actions", type=int, default=60, help="kills, stops and slow-downs of processes")
    parser.add_argument("--rate", type=float, default=0.15, help="share of the requests to S3 that are spoilt")
    parser.add_argument("--commands", type=int, default=100, help="given by somebody who steers the run meanwhile")
    parser.add_argument("--every", type=float, default=12.0, help="seconds between two commands at most")
    parser.add_argument("--faults", type=int, default=300, help="fail with fewer in all")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--stall", type=float, default=120.0, help="seconds after which a silent gang counts as lost")
    parser.add_argument("--server", default="auto", choices=["auto", "ceph", "moto"])
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr, flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, ExitStack() as cleanup:
        try:
            found = night(options, Path(folder), cleanup)
        except AssertionError:
            log = Path(folder, "stormy.log")
            sys.stderr.write(log.read_text()[-6000:] if log.exists() else "")
            raise
    print(json.dumps({"seed": options.seed, **found, "seconds": round(time.monotonic() - begun)}, indent=2))


if __name__ == "__main__":
    main()
