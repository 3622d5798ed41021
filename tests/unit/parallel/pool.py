"""Ranks for tests that ask for many gangs: processes that stay, and form a gloo group of any size for each call."""

import multiprocessing
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

TIMEOUT = timedelta(seconds=60)
# Imported once, by the process that ranks are forked from: seconds for each rank otherwise.
PRELOADED = [
    __name__,
    "flowcache.worker.renderer",
    "diffusers.models.autoencoders.autoencoder_kl_wan",
    "torch._dynamo.testing",
    "hypothesis.strategies",
]


def forkserver() -> BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def start_ranks(main: Callable[..., None], size: int, *arguments: Any) -> None:
    """main(rank, *arguments) on each rank, to its end: for those that fail, or die, or form groups of their own."""
    forkserver()
    start_processes(main, args=arguments, nprocs=size, start_method="forkserver")


class Pool:
    """pool(size, function, *arguments) -> what function(group, *arguments) returned on each rank of a gang of `size`.

    Functions and arguments are pickled; results are plain data or numpy, no tensors.
    """

    def __init__(self):
        self._context, self._ranks, self._calls = forkserver(), [], 0
        self._stack = ExitStack()
        self._folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="gangs-"))

    def __call__(self, size: int, function: Callable, *arguments: Any) -> list[Any]:
        while len(self._ranks) < size:
            self._ranks.append(self._start(len(self._ranks)))
        self._calls += 1
        for rank in self._ranks[:size]:
            rank.send((size, f"file://{self._folder}/{self._calls}", function, arguments))
        results = [rank.recv() for rank in self._ranks[:size]]
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def _start(self, rank: int) -> Connection:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs, rank), daemon=True)
        process.start()
        theirs.close()
        self._stack.callback(process.join)
        self._stack.callback(ours.close)
        return ours

    def close(self) -> None:
        self._stack.close()


def serve(calls: Connection, rank: int) -> None:
    """Until the other end is closed."""
    torch.set_num_threads(1)
    while True:
        try:
            size, place, function, arguments = calls.recv()
        except EOFError:
            return
        dist.init_process_group("gloo", init_method=place, rank=rank, world_size=size, timeout=TIMEOUT)
        try:
            calls.send(function(dist.group.WORLD, *arguments))
        except (ValueError, RuntimeError, TypeError) as error:
            calls.send(error)
        finally:
            dist.destroy_process_group()
