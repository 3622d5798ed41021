"""What the store holds of a run as a driver begins: what can be gone on with, what is taken back, who gets another
chance."""

from collections.abc import Callable, Collection, Set
from dataclasses import replace

from flowcache.errors import StoreError
from flowcache.inputs.segments import plan
from flowcache.records import ModelSpec, RenderRequest, Segment
from flowcache.scheduler.queue import Video
from flowcache.storage.chain import check_markers
from flowcache.storage.commits import Listing, clear_dead_letter, done_key, list_commits, read_markers, withdraw_success
from flowcache.storage.documents import Damaged, Newer, RunRecord, SegmentMarker, Unreadable
from flowcache.storage.finishes import withdraw_finishes
from flowcache.storage.growth import corrected
from flowcache.storage.objects.store import Store
from flowcache.storage.ownership import Hold
from flowcache.storage.repair import mend_video

Markers = dict[str, dict[int, SegmentMarker]]  # by video and segment


class Stock:
    """Read from the store when it is made. listing: what is committed; changed: the store may hold something else by
    now. note: tells the operator; finish: the function that is to finish each video, if any."""

    def __init__(
        self, store: Store, record: RunRecord, hold: Hold, note: Callable[[str], None], finish: str | None = None
    ):
        self.store, self.record, self.hold, self.note, self.finish = store, record, hold, note, finish
        self.listing, self.changed = self._listed()
        self.dead: Set[str] = self.listing.dead_letters.keys()  # given up

    def _listed(self) -> tuple[Listing, bool]:
        """What is committed, and whether something was taken back: a DONE without its segments says nothing."""
        listing, planned = list_commits(self.store), self.record.plan["videos"]
        untrue = {
            name
            for name in listing.done & planned.keys()
            if listing.segments.get(name) != list(range(planned[name]["segments"]))
        }
        if untrue:
            withdraw_success(self.store)
        for name in untrue:
            withdraw_finishes(self.store, name)
            self.store.delete(done_key(name))
        return replace(listing, done=listing.done - untrue), bool(untrue)

    def usable(self, names: list[str]) -> tuple[Markers, dict[str, str]]:
        """The markers of these videos, and by video what can't be gone on with. What is damaged was withdrawn before,
        with what was continued from it; not what a newer version wrote or the store refuses to give."""
        markers, faults = self._read(names)
        dead = self.dead
        lasting = {name for name, why in faults.items() if isinstance(why, Newer | Unreadable)}
        mendable = sorted(faults.keys() - dead - lasting)
        if mendable:
            withdraw_success(self.store)
            self.changed = True
        for name in mendable:
            self.hold.check()
            self.note(f"video {name}: {faults[name]}; what is damaged was withdrawn, and is rendered again")
            mend_video(self.store, self.record, name, set(), [str(faults.pop(name))])
        if mendable:
            self.listing = list_commits(self.store)
            again, left = self._read(mendable)
            markers, faults = markers | again, faults | left
        return markers, {name: str(why) for name, why in faults.items() if name not in dead}

    def _read(self, names: Collection[str]) -> tuple[Markers, dict[str, StoreError]]:
        markers, faults = read_markers(self.store, self.listing, names)
        for name in markers.keys() - faults.keys():
            wrong = next(check_markers(self.record, [markers[name][n] for n in sorted(markers[name])]), None)
            if wrong:
                faults[name] = Damaged(str(wrong))
        return markers, faults

    def revive(self, outside: Collection[str], retry_failed: bool) -> None:
        """Give another chance to videos that were given up for what was damaged; if asked to, to all that failed.
        A finish that failed is forgotten where another one is asked for now, or none. outside: those that the run is
        not asked for."""
        kinds = {"damaged"} | ({"work", "infra", "finish"} if retry_failed else set())
        left = self.listing.withheld.keys() | outside
        letters = {name: one for name, one in self.listing.dead_letters.items() if name not in left}
        failed = {name for name, one in letters.items() if one.kind in kinds} | corrected(letters, self.record)
        failed |= {name for name, one in letters.items() if one.kind == "finish" and one.finish != self.finish}
        if failed:
            self.changed = True
            withdraw_success(self.store)
        for name in failed:
            clear_dead_letter(self.store, name)
        self.dead = self.dead - failed

    def video(self, request: RenderRequest, spec: ModelSpec) -> Video:
        return video_of(request, spec, self.listing, self.dead, self.finish)


def video_of(
    request: RenderRequest, spec: ModelSpec, listing: Listing, dead: Collection[str], finish: str | None = None
) -> Video:
    """dead: videos that are given up; finish: the function that is to finish it, if any."""
    segments = plan(request, spec)
    done, letter = request.id in listing.done, listing.dead_letters.get(request.id)
    committed = list(range(len(segments)) if done else listing.segments.get(request.id, ()))
    unit = finishing(request, segments) if finish else None
    if unit and len(committed) == len(segments) and finish in listing.finished.get(request.id, ()):
        committed.append(unit.index)
    of_finish = letter is not None and letter.kind == "finish"
    given_up = request.id in dead and of_finish == done
    return Video(request, segments, committed, given_up, unit)


def finishing(request: RenderRequest, segments: tuple[Segment, ...]) -> Segment:
    """The unit of work that comes after the last segment."""
    chunks = sum(segment.chunks for segment in segments)
    return Segment(request.id, len(segments), len(request.shots) - 1, chunks, 0, request.frames, 0)
