"""Commits what finishing functions made, under the protocol of segments, and checks it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from flowcache.errors import ObjectError
from flowcache.storage import layout
from flowcache.storage.audit import Damage, ObjectCheck
from flowcache.storage.commits import done_marker
from flowcache.storage.committed import Commits
from flowcache.storage.documents import SegmentMarker, sha256, to_json
from flowcache.storage.finish_marker import FinishMarker, finish_at, to_bytes
from flowcache.storage.keys import Named, listed
from flowcache.storage.objects.store import Store
from flowcache.storage.ownership import confirm


def made_of(video_id: str, markers: Sequence[SegmentMarker]) -> str:
    """`FinishMarker.done_sha256` of a finish that is made of these; ObjectError where they are not the whole video."""
    return sha256(to_json(done_marker(video_id, markers)))


def commit_finish(store: Store, marker: FinishMarker, holder: str | None = None) -> FinishMarker:
    """Commit it, unless another attempt did. The winner: `marker` itself, or the other's.

    All its files must be in the store. holder: as of a segment. What is there of other chunks than the video has now,
    or can't be read, gives way: nobody can believe it.
    """
    if holder is not None:
        confirm(store, holder)
    key = layout.finish_key(marker.video_id, marker.finish)
    for _ in range(2):
        if store.create(key, to_bytes(marker)):
            return marker
        if other := committed_finish(store, marker.video_id, marker.finish, marker.done_sha256):
            return other
        store.delete(key)
    raise ObjectError(f"{key} is written by somebody else again and again")


def committed_finish(store: Store, video_id: str, finish: str, done_sha256: str) -> FinishMarker | None:
    """What is committed of it, made of these segments; None where there is nothing that can be believed."""
    key = layout.finish_key(video_id, finish)
    try:
        data = store.find(key)
        found = None if data is None else finish_at(key, data, key)
    except ObjectError:
        return None
    return found if found and found.done_sha256 == done_sha256 else None


def withdraw_finishes(store: Store, video_id: str) -> None:
    """The video changes, so what was made of it counts no more."""
    for key in finish_keys(store, video_id):
        store.delete(key)


def finish_keys(store: Store, video_id: str) -> list[str]:
    return [one.entry.key for one in listed(store, f"{layout.COMMITS}/{video_id}", "finish")]


def files_of(markers: Iterable[FinishMarker]) -> Iterator[ObjectCheck]:
    for marker in markers:
        for file in marker.files:
            yield ObjectCheck(file.key, file.sha256, marker.video_id, None, file.bytes)


def check_finishes(commits: Commits) -> Iterator[Damage]:
    """Each must be made of what is committed of its video now."""
    for video_id, finishes in commits.finishes.items():
        try:
            now = made_of(video_id, commits.all(video_id))
        except ObjectError:
            now = ""
        for one in finishes:
            if one.done_sha256 != now:
                key = layout.finish_key(video_id, one.finish)
                yield Damage(
                    f"its finish by {one.finish} is made of other chunks than are committed", video_id, key=key
                )


def lost_files(made: Iterable[FinishMarker], sizes: Mapping[str, int]) -> dict[tuple[str, str], str]:
    """By video and function, what the store took of a finish and does not show. sizes: of what is listed, by key."""
    return {
        (marker.video_id, marker.finish): f"{bad.key} is not there as it was written; the next run makes it again"
        for marker in made
        if (bad := next((file for file in marker.files if sizes.get(file.key) != file.bytes), None))
    }


def orphans(finishes: Mapping[str, Sequence[FinishMarker]], there: Iterable[Named]) -> Iterator[tuple[Named, bool]]:
    """Files that no finish names, and whether another attempt is committed, so that none ever will."""
    markers = [marker for found in finishes.values() for marker in found]
    named = {file.key for marker in markers for file in marker.files}
    decided = {(marker.video_id, marker.finish) for marker in markers}
    for one in there:
        if one.kind == "finished" and one.entry.key not in named:
            yield one, (one.video_id, one.finish) in decided
