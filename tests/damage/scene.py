"""A night of four videos, one poisoned, by the real driver over simulated gangs; how it is damaged and cured."""

import random

from benchmarks.scale import CountingBackend, Memory
from flowcache.errors import FlowcacheError, StoreError
from flowcache.report.page import Limits, report_page
from flowcache.report.sheet import contact_sheet
from flowcache.scheduler.protocols import GangFailure
from flowcache.storage import layout
from flowcache.storage.commits import list_commits, read_commits
from flowcache.storage.gc import collect
from flowcache.storage.joined import join_video
from flowcache.storage.keys import listed
from flowcache.storage.links import links
from flowcache.storage.objects.store import Store
from flowcache.storage.repair import repair
from flowcache.storage.status import status
from flowcache.storage.verify import verify
from tests.unit.scheduler.studio import ONE_SEGMENT, Studio, request

LONG = 3 * 48 + 9  # frames: three segments
REQUESTS = (request("long", LONG), request("other", LONG), request("short", ONE_SEGMENT), request("bad", ONE_SEGMENT))
KINDS = (
    "marker",
    "done",
    "letter",
    "state",
    "init",
    "media",
    "playlist",
    "master",
    "part",
    "parts",
    "success",
    "run",
    "owner",
)


def poisoned(task):
    if task.request.id == "bad":
        raise GangFailure(0, "work", "ValueError: poisoned", usable=True)


def render(store: Store, **options):
    return Studio(*REQUESTS, store=store).run(retries=0, fault=poisoned, **options)


def night(upto: int | None = None) -> Store:
    """A finished run, or one whose last segments are not there yet, with its dead letter."""
    store = Memory(CountingBackend(0.0))
    summary = render(store)
    assert (summary.exit_code, len(summary.done), list(summary.failed)) == (3, 3, ["bad"])
    if upto is not None:
        for video in ("long", "other"):
            store.delete(layout.done_key(video))
            for number in range(upto, 3):
                store.delete(layout.marker_key(video, number))
    return store


def outcome(store: Store) -> dict:
    commits = read_commits(store)
    media = {
        name: [(c.chunk, c.start_frame, c.frames, store.get(c.key)) for m in found for c in m.chunks]
        for name, found in commits.markers.items()
    }
    return {"media": media, "done": commits.done, "dead": sorted(commits.dead_letters), "gaps": commits.beyond}


def hurt(store: Store, key: str, how: str, chance: random.Random) -> None:
    data = store.get(key)
    if how == "removed":
        store.delete(key)
    elif how == "cut":
        store.put(key, data[: chance.randrange(1, len(data))] if len(data) > 1 else b"")
    elif how == "newer":
        store.put(key, data.replace(b'"schema_version":1', b'"schema_version":2'))
    elif how == "foreign":
        store.put(key, b"this is a note of somebody else\n")
    else:
        flipped = bytearray(data)
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        store.put(key, bytes(flipped))


def check_cured(store: Store, wanted: dict) -> None:
    """After whatever happened: repair leaves nothing, verify says so, and the next run ends as the undisturbed one."""
    try:
        done = repair(store, decode=False)
        assert not done.left
        for _ in range(2):
            report = verify(store, decode=False)
            assert report.sound, (done, report.problems)
            assert repair(store, decode=False).problems == ()
    except StoreError as error:
        assert "writes it anew" in str(error)  # the run record, which only the run's own manifest brings back
    summary = render(store, retry_failed=True)
    assert summary.exit_code == 3 and outcome(store) == wanted
    report = verify(store, decode=False)
    assert report.sound, report.problems
    render(store)
    assert outcome(store) == wanted


def damage(store: Store, kind: str, number: int, how: str, chance: random.Random) -> str | None:
    keys = [found.entry.key for found in listed(store, "") if found.kind == kind]
    if not keys:
        return None
    key = keys[number % len(keys)]
    hurt(store, key, how, chance)
    return key


def read_everything(store: Store) -> None:
    """Whatever a person may call; sentences at worst."""
    calls = [
        lambda: status(store),
        lambda: report_page(store, None, Limits(cards=9, video_bytes=1 << 20, page_bytes=1 << 22)),
        lambda: contact_sheet(store),
        lambda: [join_video(store, name) for name in sorted(list_commits(store).done)],
        lambda: links(store, sorted(list_commits(store).done), 60),
        lambda: verify(store),
        lambda: collect(store, grace=0.0),
    ]
    for call in calls:
        try:
            call()
        except FlowcacheError as error:
            assert str(error)
