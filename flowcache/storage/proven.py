"""Damage is proven before it is believed: the store has to say the same again, and its listing with it."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from flowcache.errors import ObjectError, StoreError, masked
from flowcache.storage import layout
from flowcache.storage.documents import READERS, Damaged, Unreadable, gives
from flowcache.storage.objects.store import MissingObject, Store, looks

T = TypeVar("T")
LOOKS = 3


class Contradiction(StoreError):
    """The store says of an object now this and now that."""


def read_sound(store: Store, key: str, read: Callable[[bytes], T]) -> T:
    """What `read` makes of the object's bytes; it raises ObjectError where they are not what they should be.

    That error, or MissingObject, comes out once the store has given the same on every look. Contradiction where it
    contradicts itself: the body of another object, half of one, a page of a proxy.
    """
    given: list[bytes | None] = []
    fault = ObjectError(masked(store.uri(key)))
    for _ in islice(looks(), LOOKS):
        given.append(store.find(key))
        try:
            return read(_present(store, key, given[-1]))
        except ObjectError as error:
            fault = error
    listed = {entry.key: entry.size for entry in store.list(key.rpartition("/")[0])}.get(key)
    data = given[-1]
    if len(set(given)) == 1 and listed == (None if data is None else len(data)):
        raise fault
    shown = "no such object" if listed is None else f"{listed} bytes"
    got = ", then ".join("nothing" if one is None else f"{len(one)} bytes" for one in dict.fromkeys(given))
    raise Contradiction(
        f"the store contradicts itself about {masked(store.uri(key))}: it lists {shown} and gives {got}"
    )


def read_proven(
    store: Store, keys: Sequence[str], read: Callable[[str, bytes], T]
) -> Iterator[tuple[str, T | Damaged | MissingObject]]:
    """By key, in order, what `read` makes of each object and its key, or what is wrong with it, by `read_sound`.

    Read in parallel. Unreadable: the store refuses this object and gives another one, or contradicts itself about it.
    """

    def one(key: str) -> T | Damaged | MissingObject:
        try:
            return read_sound(store, key, lambda data: read(key, data))
        except (Damaged, MissingObject) as fault:
            return fault
        except StoreError as fault:
            alone = isinstance(fault, Contradiction) or (fault.of_machine and gives(store, layout.OWNER))
            if not alone:
                raise
            return Unreadable(f"{masked(store.uri(key))} alone can't be read: {fault}")

    with ThreadPoolExecutor(READERS) as pool:
        yield from zip(keys, pool.map(one, keys), strict=True)


def _present(store: Store, key: str, data: bytes | None) -> bytes:
    if data is None:
        raise MissingObject(f"{masked(store.uri(key))} does not exist")
    return data
