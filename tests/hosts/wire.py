"""A slow link between two network interfaces: frames arrive late, one after the other at its rate, and some never.

In user space, since not every kernel has netem. `python wire.py NAME NAME --delay 0.1 --loss 0.01 --rate 10e6` makes
two TAP devices of those names, says "ready" and passes frames between them until it is killed.
"""

import argparse
import fcntl
import heapq
import os
import random
import selectors
import struct
import time
from contextlib import suppress

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
WAITING = 256 << 10  # bytes that wait to be sent before more are dropped, as in a router's buffer


class Way:
    """One direction."""

    def __init__(self, out: int, delay: float, loss: float, rate: float, draw: random.Random):
        self.out, self.delay, self.loss, self.rate, self.draw = out, delay, loss, rate, draw
        self._free = 0.0  # when the last frame has been sent
        self._count = 0
        self._flying: list[tuple[float, int, bytes]] = []  # heap: arrival, number, frame

    def send(self, frame: bytes, now: float) -> None:
        begin = max(now, self._free)
        if self.draw.random() < self.loss or (begin - now) * self.rate > 8 * WAITING:
            return
        self._free = begin + 8 * len(frame) / self.rate
        self._count += 1
        heapq.heappush(self._flying, (self._free + self.delay, self._count, frame))

    def arrive(self, now: float) -> float:
        """Deliver what is due; seconds until the next one."""
        while self._flying and self._flying[0][0] <= now:
            frame = heapq.heappop(self._flying)[2]
            with suppress(OSError):  # that end is not up, or its host's queue is full: lost, as on a wire
                os.write(self.out, frame)
        return self._flying[0][0] - now if self._flying else 1.0


def tap(name: str) -> int:
    """The file of a new TAP device."""
    file = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    os.set_blocking(file, False)
    return file


def pass_on(source: int, way: Way) -> None:
    while True:
        try:
            frame = os.read(source, 65536)
        except BlockingIOError:
            return
        way.send(frame, time.monotonic())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs=2)
    for name, default in (("delay", 0.0), ("loss", 0.0), ("rate", 1e9)):
        parser.add_argument(f"--{name}", type=float, default=default)
    given, draw = parser.parse_args(), random.Random(1)
    files = [tap(name) for name in given.names]
    ways = [Way(out, given.delay, given.loss, given.rate, draw) for out in reversed(files)]
    print("ready", flush=True)  # noqa: T201 (whoever started us waits for it)
    selector = selectors.DefaultSelector()
    for file, way in zip(files, ways, strict=True):
        selector.register(file, selectors.EVENT_READ, way)
    while True:
        pause = min(way.arrive(time.monotonic()) for way in ways)
        for key, _ in selector.select(max(pause, 0.0)):
            pass_on(key.fd, key.data)


if __name__ == "__main__":
    main()
