"""Gives a command to the run of a root, where it makes sense, and waits for what becomes of it."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from flowcache.errors import InputError, Problem, masked
from flowcache.inputs.strangers import strangers
from flowcache.inputs.written import shown
from flowcache.storage import layout
from flowcache.storage.control import Command, Taken, Verb, caller, give, read_taken
from flowcache.storage.documents import Holder, RunRecord, sha256
from flowcache.storage.objects.store import Store
from flowcache.storage.ownership import last, signs
from flowcache.storage.runs import read_run

LARGEST = 100 << 20  # bytes of a manifest that is sent along
LOOK = 0.5  # seconds between two looks for what became of a command


def order(
    store: Store, verb: Verb, videos: Sequence[str] = (), priority: int | None = None, manifest: str | None = None
) -> Command:
    """Write the command. NoRun where the root holds none; InputError where it is finished, or has no such video.

    manifest: of add, a file here, which is sent along, or a URL that the driver can read.
    """
    run = read_run(store)
    if store.exists(layout.SUCCESS):
        ways = "; `flowcache render --extend` adds rows to it" if verb == "add" else ""
        raise refusal(store, f"holds a finished run ({run.run_id}): all its {len(run.requests)} videos are done{ways}")
    if problems := faults(run, verb, videos):
        raise InputError(problems)
    if verb == "stop" and (ended := at_work(store)) and ended.ended:
        raise refusal(store, f"has no driver at work: {ended} has ended ({ended.ended})")
    name, key = sent(store, manifest) if manifest is not None else (None, None)
    return give(store, Command(0, verb, caller(), time.time(), list(dict.fromkeys(videos)), priority, key, name))


def refusal(store: Store, why: str) -> InputError:
    return InputError([Problem(masked(store.url), "", why)])


def faults(run: RunRecord, verb: str, videos: Sequence[str]) -> list[Problem]:
    """Of ids that are not the run's."""
    return strangers(videos, [request["id"] for request in run.requests], f"run {run.run_id}", verb, "id")


def sent(store: Store, manifest: str) -> tuple[str, str]:
    """The manifest as problems name it, and where the driver finds it: in the store, or at its URL."""
    if "://" in manifest:
        if masked(manifest) != manifest:
            why = f"{masked(manifest)} holds credentials, which would lie in the store; accepted: a URL without any"
            raise InputError([Problem("add", "manifest", why)])
        return manifest, manifest
    path = Path(os.path.expanduser(manifest)).absolute()
    accepted = f"accepted: a file of at most {LARGEST >> 20} MiB, or a URL"
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise InputError([Problem("add", "manifest", f"{manifest} has {size:,} bytes; {accepted}")])
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: names that no system takes
        said = getattr(error, "strerror", None) or str(error)
        why = f"{shown(manifest)} can't be read ({said.lower()}); {accepted}"
        raise InputError([Problem("add", "manifest", why)]) from error
    if not data:
        raise InputError([Problem("add", "manifest", f"{manifest} is empty; accepted: at least one row")])
    ending = "".join(path.suffixes[-2:]).lower()
    key = layout.rows_key(sha256(data), ending if re.fullmatch("[.a-z]*", ending) else "")
    store.create(key, data)
    return str(path), key


@contextmanager
def manifest_of(store: Store, command: Command) -> Iterator[str]:
    """Where the manifest of an `add` can be read: at its URL, or in a file for the time of the block."""
    place = command.manifest or ""
    if "://" in place:
        yield place
        return
    with TemporaryDirectory(prefix="flowcache-add-") as folder:
        path = Path(folder, Path(command.name or "").name or "manifest.jsonl")
        path.write_bytes(store.get(place))
        yield str(path)


def at_work(store: Store) -> Holder | None:
    """The last one that held the root, as it said last."""
    return last(signs(store))


def became(store: Store, command: Command, seconds: float) -> Taken | None:
    """What became of the command within so many seconds; None where nobody has taken it by then. Who is known not to
    be there is not waited for."""
    until = time.monotonic() + seconds
    while True:
        taken = read_taken(store, command.number)
        holder = at_work(store) if taken is None else None
        if taken or holder is None or holder.ended or time.monotonic() >= until:
            return taken or read_taken(store, command.number)
        time.sleep(LOOK)
