"""What `render` would do to an output, told before it does anything."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from flowcache.errors import InputError, Problem, masked
from flowcache.inputs.schema import ACCEPTS, usable_id
from flowcache.inputs.written import shown
from flowcache.records import RenderRequest, Segment
from flowcache.storage.claims import abandoned
from flowcache.storage.commits import Listing, list_commits
from flowcache.storage.documents import RunRecord
from flowcache.storage.growth import TOLD, Growth, Terms, changes, compare, faults
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import root_run, without_credentials

# new: not in the output yet; corrected: its row differs from one of which nothing is kept; labelled: only labels or
# priority differ; refused: its row differs from what is rendered; dead: given up before, and not tried again.
State = Literal["new", "corrected", "labelled", "waiting", "begun", "done", "dead", "refused"]


@dataclass(frozen=True)
class Expected:
    """One row. segments, chunks, frames: that would be rendered."""

    video_id: str
    state: State
    segments: int
    chunks: int
    frames: int


@dataclass(frozen=True)
class Outlook:
    """run_id: the output's, None where it holds none yet. replaces: a run of which nothing is committed, and which
    would give way. left: ids of the output that the manifest does not name. refused: why it would be refused."""

    output: str
    run_id: str | None
    generation: int  # of which the run would be then
    replaces: str | None
    rows: tuple[Expected, ...]
    left: tuple[str, ...]
    refused: tuple[Problem, ...]
    rejected: tuple[Problem, ...]

    def of(self, state: State) -> list[str]:
        return [row.video_id for row in self.rows if row.state == state]

    def total(self, field: str) -> int:
        return sum(getattr(row, field) for row in self.rows)


def outlook(
    store: Store, record: RunRecord, segments: Sequence[Segment], terms: Terms, retry_failed: bool = False
) -> Outlook:
    """What rendering `record` would do. segments: of all its requests."""
    root, listing = root_run(store), list_commits(store)
    growth = compare(root, record, listing) if root else None
    refused = faults(store.url, root, record, growth, terms) if root and growth else []
    replaces = None
    if root and refused and abandoned(store):
        replaces, root, growth, refused = root.run_id, None, None, []
    grows = bool(root and growth and terms.extend and (growth.added or growth.corrected or growth.told))
    states = states_of(record, growth, listing if root else Listing({}, frozenset(), {}), retry_failed)
    return Outlook(
        output=masked(store.url),
        run_id=root.run_id if root else None,
        generation=(len(root.grown) or 1) + grows if root else 1,
        replaces=replaces,
        rows=tuple(expected(states, segments, listing if root else None)),
        left=growth.left if growth and not terms.part else (),
        refused=tuple(refused),
        rejected=tuple(Problem(**one) for one in record.rejected),
    )


def states_of(record: RunRecord, growth: Growth | None, listing: Listing, retry_failed: bool) -> dict[str, State]:
    """By video, in the manifest's order."""
    states: dict[str, State] = {}
    for request in record.requests:
        name = request["id"]
        dead = name in listing.dead_letters and not retry_failed and listing.dead_letters[name].kind != "damaged"
        begun: State = "dead" if dead else "begun" if name in listing.segments else "waiting"
        states[name] = "done" if name in listing.done else begun
    if growth is None:
        for name in states:
            states[name] = "new"
        return states
    groups: list[tuple[State, Iterable[str]]] = [
        ("new", growth.added),
        ("corrected", growth.corrected),
        ("labelled", [name for name in growth.told if states[name] != "done"]),
        ("refused", [change.video_id for change in growth.refused]),
    ]
    for state, names in groups:
        for name in names:
            states[name] = state
    return states


def expected(states: dict[str, State], segments: Sequence[Segment], listing: Listing | None) -> list[Expected]:
    """What is left of each video. listing: of the output, where it holds the run."""
    left: dict[str, list[Segment]] = {name: [] for name in states}
    for segment in segments:
        state = states[segment.video_id]
        there = listing.segments.get(segment.video_id, ()) if listing and state not in ("new", "corrected") else ()
        if state not in ("done", "dead", "refused") and segment.index not in there:
            left[segment.video_id].append(segment)
    return [
        Expected(name, state, len(todo), sum(one.chunks for one in todo), sum(one.frames for one in todo))
        for (name, state), todo in zip(states.items(), left.values(), strict=True)
    ]


def renamed(store: Store, requests: Sequence[RenderRequest], record: RunRecord, name: str) -> list[RenderRequest]:
    """The requests, those under another id that differ from what is rendered; [] where none does.

    name: the id, or one for each row with `{id}` in it. InputError where that names no row of its own.
    """
    root = root_run(store)
    growth = compare(root, record, list_commits(store)) if root else None
    differing = {change.video_id for change in growth.refused} if growth else set()
    if len(differing) > 1 and "{id}" not in name:
        some = f"{len(differing)} rows differ from what is rendered"
        raise InputError([Problem("--as", "", f"got {shown(name)}, but {some}; accepted: an id with {{id}} in it")])
    taken, found = {request.id for request in requests} - differing, list[RenderRequest]()
    there = {request["id"]: request for request in root.requests} if root else {}
    for request in requests:
        new = name.replace("{id}", request.id) if request.id in differing else request.id
        if request.id in differing and (usable_id(new) is None or new in taken):
            why = f"{shown(new)} is the id of another row" if new in taken else f"got {shown(new)}"
            raise InputError([Problem("--as", "", f"{why}; accepted: {ACCEPTS['id']}")])
        found.append(replace(request, id=new))
        if request.id in differing and new in there and others(there[new], found[-1]):
            why = f"{shown(new)} is the id of another video there; accepted: one that is new"
            raise InputError([Problem("--as", "", why)])
    return found if differing else []


def others(there: dict[str, Any], request: RenderRequest) -> bool:
    """Whether the request asks for other pixels than that of the root."""
    return any(change.field not in TOLD for change in changes(there, without_credentials(request)))
