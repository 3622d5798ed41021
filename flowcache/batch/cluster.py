"""Ray itself: a local one started for the run, or a cluster that is joined."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from flowcache.batch.gang import GangShape
from flowcache.batch.options import RunOptions
from flowcache.errors import InputError, Problem


@contextmanager
def joined(options: RunOptions) -> Iterator[None]:
    """Ray for the time of the run. A local one is ours and ends with us; a joined one is left as it was."""
    address = options.address or os.environ.get("RAY_ADDRESS")  # Ray sets it for submitted jobs
    common = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "flowcache"}
    ours = not ray.is_initialized()
    if ours and address:
        try:
            ray.init(address=address, **common)
        except ConnectionError as error:
            raise InputError([Problem("--address", "", f"no Ray cluster answers at {address}: {error}")]) from None
    elif ours:
        wanted = options.gang * options.threads * (options.gangs or 1)
        ray.init(address="local", num_cpus=max(os.cpu_count() or 1, wanted), include_dashboard=False, **common)
    if threading.current_thread() is threading.main_thread():
        # A polite kill ends a run like Ctrl-C. Set after ray.init, which would abort on SIGTERM.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def shape_of(options: RunOptions) -> GangShape:
    gpus = ray.cluster_resources().get("GPU", 0)
    if options.device == "cuda" and not gpus:
        raise InputError([Problem("--device", "", "the Ray cluster has no GPU: take cpu or auto")])
    return GangShape(options.gang, options.threads, gpu=bool(gpus) and options.device != "cpu")


def gang_count(options: RunOptions, shape: GangShape, waiting: int) -> int:
    """As many gangs as asked for, else as the cluster holds; never more than there are segments to start."""
    resources = ray.cluster_resources()
    room = shape.fits(resources)
    if not room and not options.address and "RAY_ADDRESS" not in os.environ:
        need = ", ".join(f"{amount * shape.ranks:g} {name}" for name, amount in shape.bundle.items())
        raise InputError([Problem("--gang", "", f"a gang of {shape.ranks} needs {need}; this machine has {resources}")])
    return max(1, min(options.gangs or room, waiting))
