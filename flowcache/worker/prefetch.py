"""Denoising goes on while what came before is decoded, encoded and uploaded."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch

T = TypeVar("T")


class Abandoned(Exception):
    """Nobody waits any more for what is being made."""


@contextmanager
def prefetch(items: Iterator[T], abandon: Callable[[], None]) -> Iterator[Iterator[T]]:
    """`items`, each made in one other thread while the caller uses the one before; only one waits at a time.

    What making raises comes in the place of the item that it broke. abandon: called when the block is left, to cut
    short what is still being made; the block ends when the thread has.
    """
    with ThreadPoolExecutor(1, "prefetch") as maker:
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


def side_stream(device: torch.device) -> AbstractContextManager:
    """Enter it for each thing to be computed beside denoising: on CUDA, which runs one stream in order, in another.

    The new stream begins where the current one is now. On CPUs threads are enough.
    """
    if device.type != "cuda":
        return nullcontext()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return torch.cuda.stream(stream)
