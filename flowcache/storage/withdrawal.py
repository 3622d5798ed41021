"""Taking markers back. They are kept aside in one document, whose creation is the moment from which they don't count;
deleting them is only the rest, which whoever comes next does too."""

import time
from collections.abc import Iterable

from flowcache.errors import masked
from flowcache.storage import layout
from flowcache.storage.commits import new_attempt
from flowcache.storage.documents import Damaged, Withdrawal, parse, read_each, to_json
from flowcache.storage.keys import listed
from flowcache.storage.objects.store import MissingObject, Store


def withdraw(store: Store, video_id: str, keys: Iterable[str], why: list[str]) -> None:
    """Take these markers (and DONE, and the dead letter) of the video back, in one step."""
    objects = {key: data.decode("latin-1") for key, data in read_each(store, list(keys)) if isinstance(data, bytes)}
    if objects:
        withdrawal = Withdrawal(video_id, time.time(), why, objects)
        store.put(layout.withdrawn_key(video_id, new_attempt()), to_json(withdrawal))
        remove(store, withdrawal)


def finish_withdrawals(store: Store) -> None:
    """Remove what was taken back by somebody who did not live to do it. A video's new markers are other bytes."""
    keys = [found.entry.key for found in listed(store, layout.WITHDRAWN)]
    for key, data in read_each(store, keys):
        if isinstance(data, MissingObject):
            continue
        try:
            remove(store, parse(Withdrawal, data, masked(store.uri(key))))
        except Damaged:
            continue  # what it took back is named by `verify` again, if it is still there


def remove(store: Store, withdrawal: Withdrawal) -> None:
    """DONE first, then the markers from the last one on: a reader in between sees a video that is under way."""
    for key in sorted(withdrawal.objects, reverse=True):
        if store.find(key) == withdrawal.objects[key].encode("latin-1"):
            store.delete(key)
