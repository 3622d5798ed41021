"""What an object is by its key. Whatever has no key of ours was laid into the root by somebody else: it is ignored."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flowcache.storage import layout
from flowcache.storage.objects.backend import Entry
from flowcache.storage.objects.store import Store

FINISH = r"(?P<finish>[A-Za-z_][0-9A-Za-z_.]*-[A-Za-z_][0-9A-Za-z_]*)"  # `layout.in_keys`
FILE = r"[0-9A-Za-z_][0-9A-Za-z_.-]*(?:/[0-9A-Za-z_][0-9A-Za-z_.-]*)*"  # that a finish wrote
VIDEO = r"(?P<video>[0-9A-Za-z][0-9A-Za-z._-]*)"  # as rows may name one
NUMBER = r"(?P<number>\d{5}|[1-9]\d{5,17})"  # as `layout` writes one: of every number one name
PATTERNS = {  # by the first folder, what lies in it
    layout.RUNS: {"run": r"[0-9a-f]{16}\.json", "generation": r"[0-9a-f]{16}/" + NUMBER + r"\.json"},
    layout.COMMITS: {
        "marker": VIDEO + r"/" + NUMBER + r"\.json",
        "done": VIDEO + r"/DONE\.json",
        "finish": VIDEO + r"/finish\." + FINISH + r"\.json",
    },
    layout.DEAD_LETTERS: {"letter": VIDEO + r"\.json"},
    layout.STATES: {"state": VIDEO + r"/" + NUMBER + r"\.(?P<attempt>[0-9A-Za-z]+)\.safetensors"},
    layout.TEXTS: {"text": r"[^/]+/[0-9a-f]{64}\.safetensors"},
    layout.GIVEN: {"given": r"sha256-[0-9a-f]{64}"},
    layout.MEDIA: {
        "media": VIDEO + r"/" + NUMBER + r"\.(?P<attempt>[0-9A-Za-z]+)\.m4s",
        "init": VIDEO + r"/init\.mp4",
        "playlist": VIDEO + r"/index\.m3u8",
        "master": VIDEO + r"/master\.m3u8",
        "finished": VIDEO + "/finish/" + FINISH + r"/(?P<attempt>[0-9A-Za-z]+)/" + FILE,
        "signature": VIDEO + r"/provenance\.c2pa",
    },
    layout.META: {
        "part": r"(?:videos|chunks|commands)/run=[^/]+/part-[^/]+\.parquet",
        "manifest": r"manifests/run=[^/]+/generation-" + NUMBER + r"\.parquet",
        "parts": r"_parts/[0-9A-Za-z]+\.json",
    },
    layout.LINKS: {"link": VIDEO + r"/(?P<number>[1-9]\d{0,17})\.m3u8"},
    layout.WITHDRAWN: {"withdrawal": VIDEO + r"/(?P<attempt>[0-9a-z]+)\.json"},
    layout.HOLDERS: {"holder": r"(?P<attempt>[0-9a-f]{16})\.json"},
    layout.CONTROL: {
        "command": NUMBER + r"\.json",
        "taken": NUMBER + r"\.taken\.json",
        "rows": r"manifests/[0-9a-f]{64}[.a-z]*",
    },
    layout.EVENTS: {"events": r"(?P<attempt>[0-9a-f]{16})/" + NUMBER + r"\.jsonl"},
    layout.SUCCESS: {"success": ""},
    layout.STOPPED: {"stopped": ""},
    layout.OWNER: {"owner": ""},
}
KINDS = {
    folder: [(kind, re.compile(pattern, re.ASCII)) for kind, pattern in kinds.items()]
    for folder, kinds in PATTERNS.items()
}


@dataclass(frozen=True)
class Named:
    """One of our objects. `number`: a marker's or state's segment, a chunk of media, when a link ends; `finish`: the
    function that made it."""

    entry: Entry
    kind: str
    video_id: str = ""
    number: int = 0
    attempt: str = ""
    finish: str = ""


def named(entry: Entry) -> Named | None:
    """What the listed object is; None for somebody else's."""
    folder, _, rest = entry.key.partition("/")
    for kind, pattern in KINDS.get(folder, ()):
        found = pattern.fullmatch(rest)
        if found:
            parts = found.groupdict()
            number, finish = int(parts.get("number", 0)), layout.of_keys(parts.get("finish", ""))
            return Named(entry, kind, parts.get("video", ""), number, parts.get("attempt", ""), finish)
    return None


def listed(store: Store, prefix: str, *kinds: str) -> list[Named]:
    """Our objects below the folder (of these kinds, if any are given), by key."""
    return list(ours(store.list(prefix), *kinds))


def ours(entries: Iterable[Entry], *kinds: str) -> Iterator[Named]:
    found = (named(entry) for entry in entries)
    return (one for one in found if one is not None and (not kinds or one.kind in kinds))


def foreign(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Keys of what is not ours: notes, folders as consoles mark them, files of a desktop."""
    return tuple(entry.key for entry in entries if named(entry) is None)
