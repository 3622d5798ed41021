"""Whose an empty root is, and when it is empty: a run claims it with its first commit, not with a start that failed."""

from concurrent.futures import ThreadPoolExecutor

from flowcache.storage import layout
from flowcache.storage.documents import READERS, canonical
from flowcache.storage.keys import listed
from flowcache.storage.objects.store import Store
from flowcache.storage.ownership import Owner, signs, whose

# What a run that committed nothing leaves and another one would take for its own; init segments and playlists, too.
# Chunks and states stay for `gc`: if a listing hid commits, nothing of them is lost. Encoded texts are anybody's.
LEFTOVERS = (layout.DEAD_LETTERS, layout.META, layout.LINKS, layout.CONTROL)


def claim(store: Store, run_id: str) -> str | None:
    """Make the root this run's, by one exclusive key: of drivers that find it empty together one run's go on.

    The run that it belongs to, where that is another one: it may not have come to write its record.
    """
    ours = canonical(Owner(run_id))
    if store.create(layout.OWNER, ours):
        return None
    owner = whose(store)
    if owner == run_id:
        return None
    if owner is None and store.exists(layout.run_key(run_id)):  # written after its claim, which is damaged
        store.put(layout.OWNER, ours)
        return None
    return owner or ""


def abandoned(store: Store) -> bool:
    """Whether nothing was ever committed there, and everybody who held it said that he ended. Who is silent may only be
    slow: his run keeps the root."""
    if listed(store, layout.COMMITS) or listed(store, layout.WITHDRAWN):
        return False
    seen = signs(store)
    return bool(seen) and all(holder is not None and holder.ended for holder in seen.values())


def replace(store: Store, old: str, run_id: str) -> None:
    """Make the root this run's in place of an abandoned one, and remove what that left. `_OWNER` first: of two who do
    so the later one goes on, and each removes nothing of the other's."""
    store.put(layout.OWNER, canonical(Owner(run_id)))
    leftovers = [one.entry.key for prefix in LEFTOVERS for one in listed(store, prefix)]
    leftovers += [one.entry.key for one in listed(store, layout.MEDIA, "init", "playlist", "master")]
    records = [one.entry.key for one in listed(store, layout.RUNS) if old and old in one.entry.key]
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(store.delete, [*leftovers, *records, layout.SUCCESS, layout.STOPPED]))
