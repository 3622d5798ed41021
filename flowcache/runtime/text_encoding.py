"""Encodes a run's texts in tasks of their own, before any gang has a model: they end, and their GPUs are free."""

import math
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.exceptions import RayError

from flowcache.errors import first_line
from flowcache.families.registry import load_texts, precision
from flowcache.inputs.options import RunOptions
from flowcache.runtime.ranks import GangShape, elsewhere
from flowcache.scheduler.protocols import GangWork
from flowcache.worker.text_cache import TextCache, texts_of

BATCH = 64  # texts encoded between two signs of life
LEAST = 256  # texts for which loading the encoder once more is worth it
UPLOADS = 16  # at a time
FEW = 32  # texts that are not worth a process where there is no GPU to be cleared for the transformer


@dataclass(frozen=True)
class EncodingPlan:
    """Where and how texts are encoded. slots: how many tasks of one rank's resources fit side by side; avoided: nodes
    that get none.

    Of the options: `dtype`, `infra_retries` of a task whose process is lost, and `segment_timeout`, here the seconds
    without a finished batch before going on without.
    """

    shape: GangShape
    slots: int
    options: RunOptions
    avoided: Collection[str] = ()


def encode_ahead(work: GangWork, plan: EncodingPlan) -> None:
    """Put every distinct text of the requests that wait into the store, encoded, but for those that are there.

    What is not encoded here (a few texts on CPUs; where tasks fail, which is noted) is encoded by the rank that needs
    it first. The driver sees texts and counts, no embeddings.
    """
    number = str(precision(plan.options.dtype, plan.shape.device)).removeprefix("torch.")
    for model, texts in texts_of(work.waiting).items():
        embeddings = TextCache(work.store, work.digests[model], number)
        waiting = embeddings.missing(texts)
        if len(waiting) > (0 if plan.shape.gpu else FEW):
            work.note(f"encoding {len(waiting)} texts for {model}")
            tasks = _start(embeddings, work.settings.models[model], waiting, plan)
            _follow(tasks, plan.options.segment_timeout, work.note)


def _start(embeddings: TextCache, path: str, texts: list[str], plan: EncodingPlan) -> list[ray.ObjectRefGenerator]:
    """One task for each share of the texts. path: of the checkpoint, or a bundled model's name."""
    share = max(math.ceil(len(texts) / plan.slots), LEAST)
    task = ray.remote(encode_share).options(
        num_cpus=plan.shape.cpus,
        num_gpus=int(plan.shape.gpu),
        num_returns="streaming",
        max_retries=plan.options.infra_retries,
        label_selector=elsewhere(plan.avoided),
    )
    return [
        task.remote(
            embeddings, path, plan.shape.device, plan.options.dtype, plan.shape.cpus, texts[start : start + share]
        )
        for start in range(0, len(texts), share)
    ]


def _follow(streams: list[ray.ObjectRefGenerator], patience: float, note: Callable[[str], None]) -> None:
    """Until every task has ended, or none gives a sign of life any more."""
    while streams:
        ready, _ = ray.wait(streams, num_returns=1, timeout=patience)
        if not ready:
            note(f"no text was encoded for {patience:.0f} s; going on, ranks encode what is missing")
            for stream in streams:
                ray.cancel(stream, force=True)
            return
        stream: Any = ready[0]  # a generator, where Ray's type says a reference
        try:
            ray.get(next(stream))
        except StopIteration:
            streams.remove(stream)
        except RayError as error:
            cause = getattr(error, "cause", None) or error
            note(f"texts could not be encoded ahead ({type(cause).__name__}: {first_line(cause)})")
            streams.remove(stream)


def encode_share(
    embeddings: TextCache, model: str, device: str, dtype: str, threads: int, texts: list[str]
) -> Iterator[int]:
    """Encodes and stores those of the texts that are not stored yet; yields how many after each batch."""
    torch.set_num_threads(threads)
    encoder = load_texts(model, device, dtype, keep=True)
    waiting = embeddings.missing(texts)  # less than was asked for, where an earlier attempt was lost
    with ThreadPoolExecutor(UPLOADS) as pool:
        for start in range(0, len(waiting), BATCH):
            batch = waiting[start : start + BATCH]
            encoder.prepare(batch)
            list(pool.map(embeddings.put, batch, [encoder.words.pop(text) for text in batch]))
            yield len(batch)
