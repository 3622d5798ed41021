"""What a manifest would do to a root that holds a run already: row by row, before anything is written."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowcache.errors import Problem, masked
from flowcache.inputs.options import NUMERICS
from flowcache.inputs.written import shown
from flowcache.storage.committed import Listing
from flowcache.storage.documents import DeadLetter, RunRecord, canonical
from flowcache.storage.identity import canonical_fields, changed, identity, same

SHOWN = 10  # differences named in a message before the rest is only counted
TOLD = ("labels", "priority")  # fields from which no pixel follows


@dataclass(frozen=True)
class Terms:
    """How a run takes up a root. extend: it may add and correct rows; part: its rows are a selection, and those that
    it does not name are left alone; manifest: as problems name it; rows: by id, its file and row there."""

    extend: bool = False
    part: bool = False
    manifest: str = "requests"
    rows: Mapping[str, tuple[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One field of a video's request: what its video was rendered with, and what is asked for now."""

    video_id: str
    field: str
    was: Any
    now: Any

    def problem(self, terms: Terms) -> Problem:
        message = f"got {brief(self.now)}, but its video is rendered with {brief(self.was)}; accepted: the same, or "
        again = "--extend --as NEW_ID, which renders it anew beside that one"
        file, row = terms.rows.get(self.video_id, (terms.manifest, None))
        return Problem(file, self.field, message + again, row, self.video_id)


@dataclass(frozen=True)
class Growth:
    """Ids by what becomes of them. corrected: asked for otherwise, and nothing of them is to be kept; told: only labels
    or priority differ; left: the root's, which the manifest does not name. refused: what of rendered videos differs."""

    added: tuple[str, ...]
    corrected: tuple[str, ...]
    told: tuple[str, ...]
    unchanged: tuple[str, ...]
    left: tuple[str, ...]
    refused: tuple[Change, ...]
    run: tuple[str, ...]  # what differs of the whole run: weights, numerics

    @property
    def fits(self) -> bool:
        """Whether the root needs no change for it."""
        return not (self.added or self.corrected or self.told or self.refused or self.run)


def compare(root: RunRecord, wanted: RunRecord, listing: Listing) -> Growth:
    """wanted: as `new_run` makes it of the manifest; listing: what is committed of the root."""
    before = {request["id"]: request for request in root.requests}
    found: dict[str, list[str]] = {name: [] for name in ("added", "corrected", "told", "unchanged")}
    refused: list[Change] = []
    lower = {name.lower(): name for name in before}
    for request in wanted.requests:
        name, old = request["id"], before.get(request["id"])
        if old is None:
            alike = lower.get(name.lower())
            refused += [Change(name, "id", alike, name)] if alike else []
            found["added"].append(name)
        elif same(old, request):
            found["unchanged"].append(name)
        elif not (differing := [one for one in changes(old, request) if one.field not in TOLD]):
            found["told"].append(name)
        elif kept(name, listing):
            refused += differing
        else:
            found["corrected"].append(name)
    asked = {request["id"] for request in wanted.requests}
    left = tuple(name for name in before if name not in asked)
    groups = {name: tuple(ids) for name, ids in found.items()}
    return Growth(**groups, left=left, refused=tuple(refused), run=tuple(of_run(root, wanted)))


def kept(name: str, listing: Listing) -> bool:
    """Whether something is rendered of the video that must not change: of one that was given up nothing is kept."""
    return name in listing.done or (name in listing.segments and name not in listing.dead_letters)


def corrected(letters: Mapping[str, DeadLetter], run: RunRecord) -> set[str]:
    """Videos that were given up as their rows stood before an extension. letters: by video."""
    given_up = ((request, letters[request["id"]].request) for request in run.requests if request["id"] in letters)
    return {now["id"] for now, then in given_up if then is not None and not same(then, now)}


def changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    was, now = identity(old), identity(new)
    for name in changed(canonical_fields(was), canonical_fields(now)):
        yield Change(new["id"], name, was.get(name), now.get(name))


def of_run(root: RunRecord, wanted: RunRecord) -> Iterator[str]:
    for name in changed(root.models, wanted.models):
        if name in root.models and name in wanted.models:
            yield f"weights of model {name} changed"
    had, want = NUMERICS | root.numerics, NUMERICS | wanted.numerics
    yield from (f"{name} was {had[name]} and is {want[name]}" for name in changed(had, want))


def faults(url: str, root: RunRecord, wanted: RunRecord, growth: Growth, terms: Terms) -> list[Problem]:
    """Why the root can't be taken up so; [] where it can."""
    if terms.extend and not growth.run:
        return [change.problem(terms) for change in growth.refused]
    names = () if terms.part or wanted.spec_hash == root.spec_hash else growth.left
    found = [*growth.run, *(f"video {name} is new" for name in sorted(growth.added))]
    found += [f"video {name} is missing" for name in sorted(names)]
    old, new = ({request["id"]: request for request in run.requests} for run in (root, wanted))
    differing = {*growth.corrected, *growth.told, *(one.video_id for one in growth.refused if one.video_id in old)}
    for name in sorted(differing):
        fields = (f"{one.field} (was {brief(one.was)}, is {brief(one.now)})" for one in changes(old[name], new[name]))
        found.append(f"video {name} differs in {', '.join(fields)}")
    if not found:
        return []
    begun = time.strftime("%Y-%m-%d %H:%M", time.gmtime(root.created))
    message = f"holds another run ({root.run_id}, begun {begun} UTC): {some_of(found)}. Give another output, "
    message += (
        "or the manifest, model and settings of that run" if growth.run else "the manifest of that run, or --extend"
    )
    return [Problem(masked(url), "output", message)]


def brief(value: Any) -> str:
    """A value of a request in a message."""
    text = value if isinstance(value, str) else None if value is None else canonical(value).decode().strip()
    return "nothing" if text is None else shown(text) if isinstance(value, str) else masked(text)[:80]


def some_of(found: Sequence[str]) -> str:
    """The first SHOWN of them, and how many more there are."""
    more = len(found) - SHOWN
    return "; ".join(found[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
