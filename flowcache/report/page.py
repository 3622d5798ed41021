"""`flowcache report`: one HTML page of a run that needs nothing beside itself, not even scripts."""

import base64
import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from flowcache.errors import InputError, Problem, StoreError, masked
from flowcache.records import ChunkRecord
from flowcache.report import words
from flowcache.report.content import Content, Video, content
from flowcache.report.frames import spread_frames, strip
from flowcache.report.stepmap import StepMap, step_maps
from flowcache.storage import layout
from flowcache.storage.commits import read_commits, read_stopped
from flowcache.storage.documents import utc
from flowcache.storage.known import known_markers
from flowcache.storage.media import join
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import read_run

READERS = 8  # videos fetched at once
THUMBNAILS, THUMBNAIL_HEIGHT = 8, 72
LINK_SCHEMES = ("", "http", "https", "file")


@dataclass(frozen=True)
class Limits:
    """What bounds the page: a few dozen MB, however large the run is."""

    cards: int = 100  # videos shown in full: dead ones first, then in the run's order
    rows: int = 10_000  # of the table of all videos; failures and rejected rows are always complete
    chunks: int = 200  # of a video's map and table of chunks
    video_bytes: int = 2 << 20  # embedded of each video
    page_bytes: int = 32 << 20  # embedded of all videos


@dataclass(frozen=True)
class Card:
    """One video in full. strip, source: data URLs; embedded: chunks in `source`; folder: link to its media.

    fault: why there is neither strip nor source, where its media are damaged.
    """

    video: Video
    chunks: list[ChunkRecord]  # those shown, with
    segments: list[int]  # the segment of each
    maps: list[StepMap]
    strip: str | None
    source: str | None
    fault: str | None
    embedded: int
    folder: str | None


def report_page(store: Store, base: str | None, limits: Limits) -> str:
    """The page. base: what links to media begin with (see `link_base`); None: no links."""
    run, finished = read_run(store), store.exists(layout.SUCCESS)  # before the commits: they only grow
    stopped = read_stopped(store)
    found = content(run, read_commits(store, known_markers(store, run)), finished, stopped)
    shown = found.videos[: limits.cards]
    parts = share_out(shown, limits)
    with ThreadPoolExecutor(READERS) as pool:
        cards = list(pool.map(lambda video, count: card(store, video, count, base, limits), shown, parts))
    return render(found, cards, masked(store.url), limits)


def share_out(videos: tuple[Video, ...], limits: Limits) -> list[int]:
    """How many chunks of each video are embedded: from its start on, while the limits last."""
    counts, room = [], limits.page_bytes
    for video in videos:
        left, count = min(limits.video_bytes, room), 0
        for chunk in video.playable:
            if chunk.bytes > left:
                break
            left, room, count = left - chunk.bytes, room - chunk.bytes, count + 1
        counts.append(count)
    return counts


def card(store: Store, video: Video, embedded: int, base: str | None, limits: Limits) -> Card:
    chunks, name = video.chunks[: limits.chunks], video.status.video_id
    picture = source = fault = None
    try:
        picture = thumbnails(store, video)
        source = mp4(store, video, embedded)
    except StoreError as error:
        fault, embedded = str(error), 0
    return Card(
        video=video,
        chunks=chunks,
        segments=[marker.segment for marker in video.markers for _ in marker.chunks][: limits.chunks],
        maps=step_maps(chunks),
        strip=picture,
        source=source,
        fault=fault,
        embedded=embedded,
        folder=None if base is None else f"{base}/{quote(layout.MEDIA)}/{quote(name, safe='')}",
    )


def thumbnails(store: Store, video: Video) -> str | None:
    if not video.playable:
        return None
    buffer = io.BytesIO()
    frames = spread_frames(store, video.status.video_id, video.playable, THUMBNAILS)
    strip(frames, THUMBNAIL_HEIGHT, 2).save(buffer, "JPEG", quality=75)
    return data_url("image/jpeg", buffer.getvalue())


def mp4(store: Store, video: Video, count: int) -> str | None:
    """The first `count` chunks as one plain MP4, whose length browsers know."""
    if not count:
        return None
    init, parts = video.markers[0].init_key, [store.get(chunk.key) for chunk in video.playable[:count]]
    return data_url("video/mp4", join(store.get(init), parts))


def data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def link_base(store: Store, page: Path, given: str | None) -> str | None:
    """What links begin with: `given` (an http, https, file or relative URL), else the way from the page to a local
    output; None for other stores, which browsers can't open. InputError for another scheme, such as javascript."""
    if given is not None:
        if urlsplit(given).scheme not in LINK_SCHEMES:
            accepted = "an http, https or file URL, or a relative one"
            raise InputError([Problem("--base-url", "", f"got {given!r}; accepted: {accepted}")])
        return given.rstrip("/")
    if "://" in store.url:
        return None
    return "./" + quote(os.path.relpath(store.url, page.absolute().parent))


def render(found: Content, cards: list[Card], root: str, limits: Limits) -> str:
    environment = Environment(
        loader=PackageLoader("flowcache.report"),
        autoescape=True,  # prompts, ids and causes are other people's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": words.duration, "size": words.size, "moment": moment, "cut": cut}
    environment.globals |= {"share": words.share}
    page = environment.get_template("report.html")
    return page.render(content=found, cards=cards, root=root, limits=limits, now=time.time())


def cut(text: str, length: int = 2000) -> str:
    return text if len(text) <= length else text[:length] + "…"


def moment(seconds: float | None) -> str:
    return "–" if seconds is None else f"{utc(seconds)} UTC"
