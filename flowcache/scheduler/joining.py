"""Rows that come to a run while it goes on, by the rules of `render --extend`."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace

from flowcache.errors import InputError, Problem
from flowcache.progress.events import VideosJoined
from flowcache.records import ModelSpec, RenderRequest
from flowcache.scheduler.ledger import Ledger
from flowcache.scheduler.stock import Markers, video_of
from flowcache.scheduler.telling import begun
from flowcache.storage.commits import Listing, list_commits, read_markers
from flowcache.storage.control import Command, Taken
from flowcache.storage.documents import RunRecord
from flowcache.storage.extend import extend
from flowcache.storage.growth import TOLD, Change, Terms, changes


@dataclass(frozen=True)
class Rows:
    """What a manifest asks for. record: as `new_run` makes it; specs: by model."""

    record: RunRecord
    requests: list[RenderRequest]
    specs: dict[str, ModelSpec]
    terms: Terms


PlanRows = Callable[[Command], Rows]  # reads and checks the manifest of `add`; InputError with every fault


@dataclass(frozen=True)
class Extended:
    """What the store holds once the rows are a part of it."""

    record: RunRecord
    listing: Listing
    markers: Markers  # of videos that this driver did not have
    told: list[str]


class Joining:
    """One manifest at a time: it is read and written down in the background, only the queue changes in the driver."""

    def __init__(self, ledger: Ledger, plan_rows: PlanRows | None):
        self.ledger, self.plan_rows = ledger, plan_rows
        self.under_way: tuple[Command, Taken | None] | None = None
        self._planned: Future[Rows] | None = None
        self._extended: Future[Extended] | None = None
        self._corrected: set[str] = set()

    def begin(self, command: Command, taken: Taken | None) -> None:
        """taken: what became of it before; where all its videos are here, or done and finished, there is nothing to do
        again."""
        finish, listing = self.ledger.options.finish, self.ledger.listing
        over = {name for name in listing.done if not finish or finish in listing.finished.get(name, ())}
        known = self.ledger.queue.videos.keys() | over
        plan_rows = self.plan_rows
        if plan_rows is None or (taken and known >= set(taken.videos)):
            return
        self.under_way = command, taken
        self._planned = self.ledger.writer.later(lambda: plan_rows(command))

    def wait(self) -> None:
        """Until there is something to settle."""
        for future in (self._planned, self._extended):
            if future is not None:
                future.exception()

    def settle(self) -> tuple[str, list[str]] | None:
        """What came of it, and the ids that the manifest names; None while it goes on. InputError where it is refused,
        after which nothing has changed."""
        try:
            ended = self._settle()
        except BaseException:
            self._end()
            raise
        if ended is not None:
            self._end()
        return ended

    def _settle(self) -> tuple[str, list[str]] | None:
        planned, extended = self._planned, self._extended
        if planned is None or not planned.done():
            return None
        rows = planned.result()
        if extended is None:
            self._hold(rows)
            self._extended = self.ledger.writer.later(lambda: self._extend(rows))
            return None
        if not extended.done():
            return None
        found = extended.result()
        self._join(rows, found)
        rejected = f"; {len(rows.record.rejected)} rows rejected" if rows.record.rejected else ""
        return ("; ".join(found.told) or "all its rows are there") + rejected, [one.id for one in rows.requests]

    def _end(self) -> None:
        for name in self._corrected:
            if self.ledger.queue.videos[name].paused:
                self.ledger.queue.withdraw(name, ())
        self.under_way = self._planned = self._extended = None
        self._corrected = set()

    def _hold(self, rows: Rows) -> None:
        """Nothing is started of videos whose rows are corrected; InputError where something of one is under way."""
        queue, refused = self.ledger.queue, list[Problem]()
        for request in rows.requests:
            video = queue.videos.get(request.id)
            differing = differences(video.request, request) if video else []
            if not video or not differing:
                continue
            if video.running or (video.committed and not video.dead):
                refused += [change.problem(rows.terms) for change in differing]
            elif not video.paused:
                self._corrected.add(request.id)
        if refused:
            self._corrected = set()
            raise InputError(refused)
        for name in self._corrected:
            queue.pause(name)

    def _extend(self, rows: Rows) -> Extended:
        """In the background."""
        ledger, told = self.ledger, list[str]()
        with ledger.mending:
            ledger.hold.look()
            record = extend(ledger.store, ledger.record, rows.record, replace(rows.terms, extend=True), told.append)
        listing = list_commits(ledger.store)
        ids = [one.id for one in rows.requests if one.id not in ledger.queue.videos]
        markers, faults = read_markers(ledger.store, listing, ids)
        for name, fault in faults.items():
            told.append(f"video {name} is left to the next render: {fault}")
        sound = {name: found for name, found in markers.items() if name not in faults}
        return Extended(record, listing, sound, told)

    def _join(self, rows: Rows, found: Extended) -> None:
        """The queue has the rows from now on."""
        ledger, queue, came = self.ledger, self.ledger.queue, list[str]()
        ledger.record, ledger.changed = found.record, True
        for request in rows.requests:
            video, name = queue.videos.get(request.id), request.id
            if name in self._corrected or (video is None and name in found.markers):
                ledger.markers[name] = found.markers.get(name, {})
                spec, letters = rows.specs[request.model], found.listing.dead_letters
                queue.add(video_of(request, spec, found.listing, letters, ledger.options.finish))
                came.append(name)
            elif video is not None and video.request.priority != request.priority:
                queue.prioritise(name, request.priority)
                video.request = request
            elif video is not None:
                video.request = request
        self._corrected -= set(came)
        ledger.outside -= set(came)
        ledger.tell(VideosJoined(tuple(begun(queue.videos[name]) for name in came)))
        for name in came:
            if one := found.listing.withheld.get(name):
                queue.withhold(name, one.how)
            ledger.settle(name, found.listing)


def differences(was: RenderRequest, now: RenderRequest) -> list[Change]:
    """What would change pixels."""
    return [change for change in changes(was.to_dict(), now.to_dict()) if change.field not in TOLD]
