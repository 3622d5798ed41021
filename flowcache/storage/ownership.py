"""Who may work on a root: of all that ever began, the one that `_OWNER` names. Whoever comes later takes it over by
writing its own name there; the earlier one finds that out before it commits anything more, and stops.

Nothing here compares clocks of two machines: who is alive shows by its beats, which others watch for a while.
"""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from flowcache.errors import AtWork, InputError, Problem, StoreError, masked
from flowcache.storage import layout
from flowcache.storage.documents import Damaged, Holder, RunRecord, Work, canonical, parse, to_json
from flowcache.storage.keys import listed
from flowcache.storage.objects.store import Store
from flowcache.storage.turn import DONE, Job, first_deadline, of_another_job

BEAT = 5.0  # seconds between two signs of life
SILENT = 30.0  # seconds without one after which nobody is at work
NAME = re.compile(r"[0-9a-f]{16}")  # of runs and holders
BEFORE = 10  # holders without a job that are looked behind for the last one that had one
LOOKS = 5  # at an `_OWNER` that nobody can read, a beat apart: whose it is writes it anew


class Superseded(AtWork):
    """Somebody else is at work on the root now."""


@dataclass(frozen=True)
class Owner:
    """What `_OWNER` says. holder: who is at work, "" before anybody was."""

    run_id: str
    holder: str = ""


def read_owner(store: Store) -> Owner | None:
    """None where it is missing or damaged."""
    try:
        fields = json.loads(store.find(layout.OWNER) or b"")
        owner = Owner(**fields)
    except (ValueError, TypeError, RecursionError):
        return None
    names = (owner.run_id, *([owner.holder] if owner.holder else []))
    sound = all(isinstance(name, str) and NAME.fullmatch(name) for name in names)
    return owner if sound else None


def whose(store: Store) -> str | None:
    """The run that the root is for: by `_OWNER`, if its holder was ever here; else by all who were, if they agree."""
    owner = read_owner(store)
    if owner and (not owner.holder or read_holder(store, owner.holder)):
        return owner.run_id
    holders = (read_holder(store, one.attempt) for one in listed(store, layout.HOLDERS))
    runs = {holder.run_id for holder in holders if holder and NAME.fullmatch(holder.run_id)}
    return runs.pop() if len(runs) == 1 else owner and owner.run_id


def held_by_another(store: Store, holder: str) -> str | None:
    """Who else holds the root, in words. "" where nobody can tell: `_OWNER` is missing or damaged, or names one that
    never was."""
    owner = read_owner(store)
    if owner is None or owner.holder == holder:
        return None if owner else ""
    other = read_holder(store, owner.holder) if owner.holder else None
    return str(other) if other else ""


def read_holder(store: Store, name: str) -> Holder | None:
    """None where it is missing or damaged."""
    key = layout.holder_key(name)
    try:
        data = store.find(key)
        return None if data is None else parse(Holder, data, masked(store.uri(key)))
    except Damaged:
        return None


def confirm(store: Store, holder: str) -> None:
    """Superseded unless the root is still held by the one of that name: to be called right before each commit."""
    for look in range(LOOKS):
        other = held_by_another(store, holder)
        if other is None:
            return
        if other:
            raise Superseded(f"{masked(store.url)} is held by {other} now")
        if look < LOOKS - 1:
            time.sleep(BEAT)
    name = masked(store.uri(layout.OWNER))
    raise StoreError(f"{name} is missing or damaged, and no driver has written it anew", passing=True)


class Hold:
    """The root is ours until somebody takes it over. Gives signs of life in a thread of its own until it is left."""

    def __init__(self, store: Store, run: RunRecord, holder: Holder):
        self.store, self.holder = store, holder
        self.owner = Owner(run.run_id, holder.name)
        self.how = DONE  # it ends, where it does so without an error
        self._lost: str | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, name="holds the root", daemon=True)

    @property
    def name(self) -> str:
        return self.holder.name

    def __enter__(self) -> "Hold":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Say how it ended, so that nobody need watch for signs of life. Who was killed could not."""
        self._over.set()
        self._thread.join()
        how = self.how if error is None else f"{type(error).__name__}: {masked(str(error))}"[:1000]
        self.holder = replace(self.holder, ended=how)
        try:
            self._sign()
        except StoreError:
            return  # as if it had been killed

    def check(self) -> None:
        """Superseded where the last look showed somebody else."""
        if self._lost:
            raise Superseded(self._lost)

    def look(self) -> None:
        """Superseded where somebody else is at work by now. What is missing or damaged is written anew."""
        other = held_by_another(self.store, self.name)
        if other == "":
            self._restore()
        elif other:
            self._lost = f"{other} took {masked(self.store.url)} over; it goes on from what is committed"
        self.check()

    def _restore(self) -> None:
        """An `_OWNER` that is gone is created, so that nobody's is replaced; one that can't be read is."""
        if self.store.find(layout.OWNER) is None:
            self.store.create(layout.OWNER, canonical(self.owner))
        else:
            self.store.put(layout.OWNER, canonical(self.owner))

    def _sign(self) -> None:
        self.holder = replace(self.holder, beats=self.holder.beats + 1, seen=time.time())
        self.store.put(layout.holder_key(self.name), to_json(self.holder))

    def _live(self) -> None:
        while not self._over.wait(BEAT) and self._lost is None:
            try:
                self._sign()
                self.look()
            except (StoreError, Superseded):
                continue  # the store is down for a while, or `check` tells


def take(
    store: Store,
    run: RunRecord,
    work: Work,
    note: Callable[[str], None] = lambda message: None,
    job: Job | None = None,
) -> Hold:
    """Take the root over; `_OWNER` must be the run's already (`runs.begin_run`).

    A driver does so at once from another driver, dead or not, and waits for a repair as long as that lives; of a job it
    leaves the root to another job's that lives: AtWork. A repair takes nothing from who lives: InputError naming it.
    note: tells the operator.
    """
    before = waited_for(store, work, note, job)
    name, now = layout.new_attempt(), time.time()
    holder = Holder(name, run.run_id, work, socket.gethostname(), os.getpid(), now, before and before.name, seen=now)
    if job:
        until = first_deadline(last_of_a_job(store, before), job, note)
        holder = replace(holder, job=job.name, until=until)
    hold = Hold(store, run, holder)
    store.put(layout.holder_key(name), to_json(holder))
    store.put(layout.OWNER, canonical(hold.owner))
    if before and before.ended is None:
        note(f"took over from {before}, which did not say that it ended")
    hold.look()
    return hold


def last_of_a_job(store: Store, holder: Holder | None) -> Holder | None:
    """The last one that a job started, behind repairs and what a person did between two tries."""
    for _ in range(BEFORE):
        if holder is None or holder.job or holder.after is None or not NAME.fullmatch(holder.after):
            break
        holder = read_holder(store, holder.after)
    return holder


def waited_for(store: Store, work: Work, note: Callable[[str], None], job: Job | None = None) -> Holder | None:
    """The last one that held the root, once it need not be waited for."""
    before = last(signs(store))
    while work == "repair" or (before and (before.work == "repair" or of_another_job(before, job))):
        alive = living(store, note)
        if alive and job and of_another_job(alive, job):
            raise AtWork(f"job {alive.job} is at work on {masked(store.url)}: {job.name} leaves it to that one")
        if alive is None or (work, alive.work) == ("render", "render"):
            return alive or before
        if work == "repair":
            message = f"{alive} is at work there. Wait for its end, or stop it"
            raise InputError([Problem(masked(store.url), "output", message)])
        note(f"waiting for {alive} to end")
        before = alive
    return before


def living(store: Store, note: Callable[[str], None]) -> Holder | None:
    """Who holds the root and gives a sign of life within SILENT seconds. At once None where the last one said that it
    ended, or nobody ever was."""
    seen = signs(store)
    if all(holder is not None and holder.ended for holder in seen.values()):
        return None
    note(f"looking for {SILENT:.0f} s whether {last(seen) or 'the last driver'} is still alive")
    until = time.monotonic() + SILENT
    while time.monotonic() < until:
        time.sleep(SILENT / 30)
        now = signs(store)
        if now != seen:
            found = {name: holder for name, holder in now.items() if now.keys() != seen.keys() or holder != seen[name]}
            holder = last(found)
            return None if holder is None or holder.ended else holder
    return None


def signs(store: Store) -> dict[str, Holder | None]:
    """By name, who holds the root by its `_OWNER`; everybody who ever did, where that can't be read."""
    owner = read_owner(store)
    every = [owner.holder] if owner and owner.holder else [one.attempt for one in listed(store, layout.HOLDERS)]
    return {name: read_holder(store, name) for name in every}


def last(holders: dict[str, Holder | None]) -> Holder | None:
    """The one that began last, first of all of those that did not say that they ended."""
    known = sorted((holder for holder in holders.values() if holder), key=lambda one: (one.ended is None, one.name))
    return known[-1] if known else None
