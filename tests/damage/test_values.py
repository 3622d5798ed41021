"""Documents that are JSON, with values that nobody wrote: not a number, half a character pair, 400 digits, a year
beyond calendars, another object's name. Readers say a sentence at worst; repair and a render end in the undisturbed
bytes."""

import json
import random
import uuid

import pytest

from flowcache.cli import status as screen
from flowcache.errors import FlowcacheError, StoreError
from flowcache.storage import layout
from flowcache.storage.commits import read_commits
from flowcache.storage.control import Command, give
from flowcache.storage.documents import canonical
from flowcache.storage.events import read_events
from flowcache.storage.keys import ours
from flowcache.storage.objects.store import Store
from flowcache.storage.repair import repair
from flowcache.storage.status import status
from tests.damage.scene import check_cured, night, read_everything, render

KINDS = ("marker", "done", "letter", "run", "owner", "holder", "parts", "success", "withdrawal", "command", "taken")
HUGE = 10**400
NUMBERS = [0, -1, 1, 2**31, 2**63, -(2**63) - 1, HUGE, True, None, 1.5, 1e18, 1e300, float("nan"), float("inf"), "1"]
TEXTS = ["", "\x00", "\ud800", "\x1b[2J", "../../x", "_OWNER", "media/other/init.mp4", "long", "a" * 9000, None, 3, []]
ANYTHING = [None, [], {}, [[]], {"a": {}}, "x", 3]
COMMAND = {"number": 1, "by": "a@b", "at": 1.0, "videos": ["long"], "once": "x", "schema_version": 1}
TAKEN = {"number": 1, "holder": "x", "by": "y", "at": 1.0, "outcome": "obeyed", "message": "m", "schema_version": 1}


def places(value, at=()):
    """The way to each value within a document."""
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield from places(one, (*at, name))


def strange(value, chance: random.Random):
    if isinstance(value, list):
        return chance.choice([value + value, value[::-1], value[:1], [None], *ANYTHING])
    if isinstance(value, dict):
        return chance.choice([{**value, "extra": 1}, dict(list(value.items())[1:]), *ANYTHING])
    return chance.choice(TEXTS if isinstance(value, str) else NUMBERS if value is not None else NUMBERS + TEXTS)


def spoil(store: Store, key: str, chance: random.Random) -> tuple:
    """One value of the document becomes another one. Which, and what."""
    document = json.loads(store.get(key))
    *way, last = chance.choice([at for at in places(document) if at])
    inner = document
    for name in way:
        inner = inner[name]
    inner[last] = strange(inner[last], chance)
    store.put(key, json.dumps(document).encode())
    return key, (*way, last), repr(inner[last])[:60]


def scene(chance: random.Random) -> Store:
    """A night, sometimes with a withdrawal or a command."""
    store = night(chance.choice([None, 0, 1, 2]))
    if chance.random() < 0.3 and (chunks := list(ours(store.list("media/long"), "media"))):
        store.delete(chunks[0].entry.key)
        repair(store, decode=False)
    if chance.random() < 0.4:
        store.delete(layout.SUCCESS)
        verb = chance.choice(["cancel", "skip", "resume", "pause", "prioritise", "stop"])
        store.put(layout.command_key(1), json.dumps(COMMAND | {"verb": verb}).encode())
        if chance.random() < 0.5:
            store.put(layout.taken_key(1), json.dumps(TAKEN).encode())
    return store


def look(store: Store) -> None:
    """What a person sees."""
    read_everything(store)
    try:
        found = status(store)
        assert screen.summary(found) and screen.screen_of(found) and screen.commands(found.commands)
        assert all(map(screen.line_of, read_events(store, set())))
    except FlowcacheError as error:
        assert str(error)


def cure(store: Store, wanted: dict, of_run: bool) -> None:
    if store.list(layout.CONTROL):  # whatever they say, somebody wants everything after all
        try:
            repair(store, decode=False)
        except StoreError:
            pass  # the run record: see check_cured
        give(store, Command(0, "resume", "a", 1.0))
        give(store, Command(0, "resume", "a", 1.0, ["long"]))
        for _ in range(3):  # the first ones may be told to stop
            render(store, retry_failed=True)
    try:
        check_cured(store, wanted)
    except AssertionError:
        if not of_run:
            raise
        check_cured(store, wanted)  # repair could not begin before a render had written the record anew


def values(seed: int, wanted: dict) -> None:
    chance, given = random.Random(seed), []
    store = scene(chance)
    try:
        for _ in range(chance.choice((1, 1, 2, 3))):
            there = list(ours(store.list(), *KINDS))
            kind = chance.choice(sorted({one.kind for one in there}))
            given.append(spoil(store, chance.choice([one.entry.key for one in there if one.kind == kind]), chance))
        look(store)
        if chance.random() < 0.4:
            render(store)
        cure(store, wanted, any(key.startswith(layout.RUNS) for key, *_ in given))
    except Exception as error:
        raise AssertionError(f"seed {seed}: {given}") from error


def test_some_strange_values(wanted):
    for _ in range(10):
        values(uuid.uuid4().int % 10**6, wanted)


@pytest.mark.slow
def test_three_hundred_strange_values(wanted):
    first = uuid.uuid4().int % 10**6
    for seed in range(first, first + 300):
        values(seed, wanted)


@pytest.mark.parametrize(
    "said",
    [{"at": float("nan")}, {"by": "\ud800"}, {"videos": ["\ud800"]}, {"number": True}, {"at": HUGE}, {"at": 1e300}],
)
def test_a_command_that_no_table_can_hold_is_refused_and_stops_nothing(wanted, said):
    store = night(0)
    store.delete(layout.SUCCESS)
    store.put(layout.command_key(1), json.dumps(COMMAND | {"verb": "resume", "videos": []} | said).encode())
    look(store)
    assert render(store).exit_code == 3
    (told,) = status(store).commands
    assert "(damaged)" in told.command and told.outcome == "refused"
    check_cured(store, wanted)


def test_lists_of_parts_that_hold_no_hashes_are_written_anew(wanted):
    store = night()
    (key,) = [one.entry.key for one in ours(store.list(), "parts")]
    store.put(key, b'{"0":3,"1":[],"2":"\\ud800"}')
    assert render(store).exit_code == 3 and set(read_commits(store).done) == set(wanted["done"])
    check_cured(store, wanted)


def test_a_holder_that_names_no_run_does_not_say_whose_the_root_is(wanted):
    store = night()
    (key,) = [one.entry.key for one in ours(store.list(), "holder")]
    store.put(key, canonical(json.loads(store.get(key)) | {"run_id": "../x"}))
    store.put(layout.OWNER, b"{}")
    assert render(store).exit_code == 3
    check_cured(store, wanted)
