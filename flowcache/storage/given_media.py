"""Pictures and videos that came inside a manifest, kept in the root by content: every worker can open them there."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from flowcache.records import RenderRequest
from flowcache.storage import layout
from flowcache.storage.documents import READERS
from flowcache.storage.objects.store import Store


def kept(store: Store, requests: Iterable[RenderRequest], files: Mapping[str, str]) -> list[RenderRequest]:
    """The requests as they will find those media. files: by the name that tells their content, where they lie now."""
    places = {path: store.uri(layout.given_key(name)) for name, path in files.items()}

    def moved(request: RenderRequest) -> RenderRequest:
        named = {name: getattr(request, name) for name in ("image", "video", "end_image")}
        found = {name: places[place] for name, place in named.items() if place in places}
        return replace(request, **found) if found else request

    return [moved(request) for request in requests]


def put(store: Store, files: Mapping[str, str]) -> None:
    """Write those that are not there yet."""

    def one(name: str) -> None:
        key = layout.given_key(name)
        if not store.exists(key):
            store.put(key, Path(files[name]).read_bytes())

    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(one, files))
