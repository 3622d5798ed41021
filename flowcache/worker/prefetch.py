"""Denoising goes on while what came before is decoded, encoded and uploaded."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch

from flowcache.errors import FlowcacheError

T = TypeVar("T")


class Abandoned(FlowcacheError):
    """Nobody waits any more for what is being made."""


class Beside:
    """Where a worker computes two things at once: a thread that denoises ahead, and a CUDA stream that does not.

    For all its segments: torch keeps the memory that a stream has freed for this stream alone, gigabytes for each.
    """

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, "denoise")
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def stream(self, device: torch.device) -> AbstractContextManager:
        """Enter it for each thing to be computed beside denoising: on CUDA, which runs one stream in order, in another.

        It goes on where the current one is now. On CPUs threads are enough.
        """
        if device.type != "cuda":
            return nullcontext()
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        self._streams[device].wait_stream(torch.cuda.current_stream(device))
        return torch.cuda.stream(self._streams[device])


@contextmanager
def prefetch(items: Iterator[T], abandon: Callable[[], None], thread: Executor | None = None) -> Iterator[Iterator[T]]:
    """`items`, each made in one other thread while the caller uses the one before; only one waits at a time.

    What making raises comes in the place of the item that it broke. abandon: called when the block is left, to cut
    short what is still being made; the block ends when that has. thread: None for one that ends with the block.
    """
    with nullcontext(thread) if thread else ThreadPoolExecutor(1, "prefetch") as maker:
        coming = maker.submit(next, items, None)

        def made() -> Iterator[T]:
            nonlocal coming
            while (item := coming.result()) is not None:
                coming = maker.submit(next, items, None)
                yield item

        try:
            yield made()
        finally:
            abandon()
            wait([coming])
