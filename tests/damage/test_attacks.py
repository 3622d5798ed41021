"""What nobody thought of: objects exchanged, copied, emptied, blown up, of another run, with odd names. Readers say so
in a sentence, and repair and a render end in the undisturbed bytes; in memory, in a folder and on an S3 server."""

import random
import uuid

import pytest
import s3fs
from moto.server import ThreadedMotoServer

from benchmarks.scale import CountingBackend, Memory
from flowcache.errors import StoreError
from flowcache.storage import layout
from flowcache.storage.keys import Named, ours
from flowcache.storage.objects.store import Store
from tests.damage.scene import LONG, check_cured, night, read_everything, render
from tests.unit.scheduler.studio import Studio, request

EXCHANGED = ("marker", "done", "state", "media", "init", "playlist", "master", "letter", "part", "holder", "withdrawal")
ODD = ["a b", "ä", "x\ty", "%2e%2e", "*", "'", '"', "-", "~", "#", "?", "=1", "00001.json ", "\u202e", "[x]"]


def of_kinds(store: Store, *kinds: str) -> list[Named]:
    return list(ours(store.list(), *kinds))


def exchange(store, chance):
    """Two objects of one kind change places."""
    there = of_kinds(store, chance.choice(EXCHANGED))
    if len(there) > 1:
        first, second = (one.entry.key for one in chance.sample(there, 2))
        a, b = store.get(first), store.get(second)
        store.put(first, b)
        store.put(second, a)


def copy(store, chance):
    """One object in the place of another of any kind."""
    source, target = (one.entry.key for one in chance.sample(of_kinds(store), 2))
    if not target.startswith(layout.RUNS):
        store.put(target, store.get(source))


def more(store, chance):
    """Names of ours that nobody gave."""
    one = chance.choice(of_kinds(store, "marker", "media", "state", "letter", "done", "withdrawal", "holder"))
    data = store.get(one.entry.key)
    attempt = layout.new_attempt()
    store.put(
        chance.choice(
            [
                layout.marker_key("long", 7),
                layout.marker_key("nobody", 0),
                layout.done_key("nobody"),
                layout.dead_letter_key("nobody"),
                layout.dead_letter_key("short"),
                layout.media_key("long", 99, attempt),
                layout.state_key("short", 3, attempt),
                layout.withdrawn_key("long", attempt),
                layout.holder_key(attempt),
                layout.link_key("long", 99),
            ]
        ),
        data,
    )


def empty(store, chance):
    store.put(chance.choice([one for one in of_kinds(store) if one.kind != "run"]).entry.key, b"")


def huge(store, chance):
    key = chance.choice([one for one in of_kinds(store) if one.kind != "run"]).entry.key
    store.put(key, chance.choice([b"\0", b"[", b'{"a":', b"9"]) * 300_000)


def of_another_run(store, chance):
    """Everything that another run has of this kind."""
    other = Studio(request("long", LONG, priority=chance.randrange(1, 9)), store=Memory(CountingBackend(0.0)))
    other.run()
    for one in of_kinds(other.store, chance.choice(["marker", "done", "state", "media", "playlist", "run", "owner"])):
        store.put(one.entry.key, other.store.get(one.entry.key))


def folder_gone(store, chance):
    folder = chance.choice(
        ["_commits/long", "_state", "_state/long", "media/long", "meta", "_holders", "_withdrawn", "media"]
    )
    for entry in store.list(folder):
        if chance.random() < 0.9:
            store.delete(entry.key)


def forged(store, chance):
    name = chance.choice([layout.SUCCESS, layout.STOPPED, layout.OWNER, layout.holder_key("0" * 16)])
    store.put(name, chance.choice([b"{}", b"[]", b"\xff", b'{"run_id":1}', b'{"schema_version":1}', b"null"]))


def odd_names(store, chance):
    for folder in (
        "_commits",
        "_commits/long",
        "_state/long",
        "media",
        "media/long",
        "_dead_letter",
        "_run",
        "_withdrawn",
    ):
        for ending in ("", ".json", "/00000.json", ".m4s"):
            try:
                store.put(f"{folder}/{chance.choice(ODD)}{ending}", b"note")
            except (StoreError, OSError):
                continue  # no such name there


ATTACKS = (exchange, copy, more, empty, huge, of_another_run, folder_gone, forged, odd_names)


def attack(store: Store, chance: random.Random, folder, wanted, given) -> None:
    done = []
    for _ in range(chance.choice((1, 1, 2, 4))):
        harm = chance.choice(ATTACKS)
        harm(store, chance)
        done.append(harm.__name__)
    given.append(done)
    read_everything(store)
    if chance.random() < 0.4:
        given.append("render")
        render(store)
    check_cured(store, wanted)


def attacks(store: Store, count: int, seed: int, folder, wanted) -> None:
    chance, given = random.Random(seed), []
    for entry in (calm := night()).list():
        store.put(entry.key, calm.get(entry.key))
    for number in range(count):
        try:
            attack(store, chance, folder, wanted, given)
        except Exception as error:
            raise AssertionError(f"attack {number} of seed {seed}: {given[-3:]}") from error


def test_some_attacks_in_a_row(wanted, tmp_path):
    attacks(Memory(CountingBackend(0.0)), 4, uuid.uuid4().int % 10**6, tmp_path, wanted)


@pytest.mark.slow
def test_a_hundred_attacks_in_a_row(wanted, tmp_path):
    attacks(Memory(CountingBackend(0.0)), 100, uuid.uuid4().int % 10**6, tmp_path, wanted)


@pytest.mark.slow
def test_some_attacks_in_a_folder(wanted, tmp_path):
    attacks(Store(str(tmp_path / "out")), 4, 1, tmp_path, wanted)


@pytest.mark.slow
def test_some_attacks_on_an_s3_server(wanted, tmp_path):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        options = {"endpoint_url": "http://{}:{}".format(*server.get_host_and_port()), "key": "k", "secret": "s"}
        s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False, **options).mkdir("attacked")
        attacks(Store("s3://attacked/night 1", **options), 5, 2, tmp_path, wanted)
    finally:
        server.stop()
