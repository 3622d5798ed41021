"""Taking markers back. They are kept aside in one document, whose creation is the moment from which they don't count;
deleting them is only the rest, which whoever comes next does too."""

import time
from collections.abc import Iterable

from flowcache.errors import masked
from flowcache.storage import layout
from flowcache.storage.commits import new_attempt
from flowcache.storage.documents import Damaged, Withdrawal, parse, read_each, to_json
from flowcache.storage.finishes import finish_keys
from flowcache.storage.keys import listed, named
from flowcache.storage.objects.backend import Entry
from flowcache.storage.objects.store import Store


def withdraw(store: Store, video_id: str, keys: Iterable[str], why: list[str]) -> None:
    """Take these markers of the video back, in one step, with its DONE, dead letter and finishes."""
    keys = [*keys, *finish_keys(store, video_id), layout.done_key(video_id), layout.dead_letter_key(video_id)]
    objects = {key: data.decode("latin-1") for key, data in read_each(store, keys) if isinstance(data, bytes)}
    withdrawal = Withdrawal(video_id, time.time(), why, objects)
    store.put(layout.withdrawn_key(video_id, new_attempt()), to_json(withdrawal))
    remove(store, withdrawal)


def finish_withdrawals(store: Store) -> None:
    """Remove what was taken back by somebody who did not live to do it. A video's new markers are other bytes."""
    keys = {found.entry.key: found.video_id for found in listed(store, layout.WITHDRAWN)}
    for key, data in read_each(store, list(keys)):
        if not isinstance(data, bytes):
            continue
        try:
            withdrawal = parse(Withdrawal, data, masked(store.uri(key)))
            if withdrawal.video_id == keys[key]:
                remove(store, withdrawal)
        except Damaged:
            continue  # what it took back is named by `verify` again, if it is still there


def remove(store: Store, withdrawal: Withdrawal) -> None:
    """The dead letter, finishes, DONE, then the markers from the last one on: a reader in between sees a video under
    way.

    Once the markers are gone there is nothing more to do: letter and DONE that come later may be the same bytes.
    """
    video = withdrawal.video_id
    taken = [layout.done_key(video), layout.dead_letter_key(video)]
    objects = {
        key: text.encode("latin-1", "replace")
        for key, text in withdrawal.objects.items()
        if key in taken or key.startswith(f"{layout.COMMITS}/{video}/")
    }
    markers = [key for key in objects if (one := named(Entry(key, 0))) and one.kind == "marker"]
    if any(store.find(key) == objects[key] for key in markers):
        for key in sorted(objects, reverse=True):
            if store.find(key) == objects[key]:
                store.delete(key)
