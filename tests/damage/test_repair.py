"""Every kind of object, damaged in every way: verify names it, a rerun stops at no more than its video, and repair and
a rerun end in the bytes of the undisturbed run."""

import random
import uuid

import pytest

from benchmarks.scale import Memory
from flowcache.storage import layout
from flowcache.storage.commits import list_commits, new_attempt, read_commits
from flowcache.storage.gc import collect
from flowcache.storage.keys import listed, named
from flowcache.storage.objects.backend import Entry
from flowcache.storage.repair import repair
from flowcache.storage.status import status
from flowcache.storage.verify import verify
from tests.damage.scene import KINDS, REQUESTS, check_cured, damage, night, outcome, poisoned, render
from tests.unit.scheduler.studio import Studio


@pytest.mark.parametrize("upto", [None, 2], ids=["finished", "under way"])
@pytest.mark.parametrize("how", ["removed", "cut", "flipped", "newer", "foreign"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_object_damaged_in_each_way(kind, how, upto, wanted):
    for number in range(4):
        store, chance = night(upto), random.Random(f"{kind} {how} {number}")
        key = damage(store, kind, number, how, chance)
        if key is None:
            return
        if kind != "run":
            status(store)
            collect(store, grace=0.0)
            verify(store, decode=False)
        summary = render(store)
        hit = named(Entry(key, 1)).video_id
        left = {hit} if (kind, how, upto) == ("marker", "newer", 2) else set()  # not ours to take back
        assert set(summary.done) >= {"long", "other", "short"} - {hit} and summary.exit_code == 3
        assert set(summary.failed) - {"bad"} <= ({hit} if kind == "marker" and upto is None else left)
        check_cured(store, wanted)


def test_what_was_continued_goes_with_what_is_damaged_and_is_kept_aside(wanted):
    store = night()
    old = {key: store.get(key) for key in (layout.marker_key("long", n) for n in range(3))}
    store.delete(read_commits(store).markers["long"][1].state_key)
    assert repair(store, decode=False).withdrawn == {"long": [1, 2]}
    (aside,) = listed(store, layout.WITHDRAWN)
    assert aside.video_id == "long"
    text = store.get(aside.entry.key).decode()
    assert all(old[layout.marker_key("long", n)].decode().strip() in text.replace('\\"', '"') for n in (1, 2))
    assert not store.exists(layout.SUCCESS) and list_commits(store).segments["long"] == [0]
    shown = Studio(*REQUESTS, store=store)
    shown.run(retries=0, fault=poisoned)
    assert sorted(shown.notes.order) == [("long", 1), ("long", 2)]
    assert outcome(store) == wanted and verify(store, decode=False).sound


class Dies(BaseException):
    """The process ends here."""


def test_a_repair_that_dies_anywhere_is_finished_by_whoever_comes(wanted, monkeypatch):
    for point in range(40):
        store = night()
        store.delete(read_commits(store).markers["long"][1].state_key)
        left, whole = [point], Memory.delete

        def delete(self, key, left=left, whole=whole):
            left[0] -= 1
            if left[0] < 0:
                raise Dies
            whole(self, key)

        with monkeypatch.context() as patch:
            patch.setattr(Memory, "delete", delete, raising=False)
            try:
                repair(store, decode=False)
                over = True
            except Dies:
                over = False
        if point % 2:
            check_cured(store, wanted)
        else:
            render(store)
            check_cured(store, wanted)
        if over:
            return
    raise AssertionError("never came to an end")


def test_tables_name_the_attempt_that_is_there_after_a_marker_was_removed_by_hand():
    store = night()
    store.delete(layout.marker_key("long", 2))
    render(store)
    report = verify(store, decode=False)
    assert report.sound, report.problems


def test_tables_of_another_run_are_left_and_told():
    store = night()
    (part, *_) = [one.entry.key for one in listed(store, layout.META, "part")]
    key = layout.part_key("videos", "0" * 16, 0)
    store.put(key, store.get(part))
    done = repair(store, decode=False)
    assert [problem.key for problem in done.left] == [key] and store.exists(key)
    assert done.withdrawn == {}


def random_damages(count: int, seed: int, wanted: dict) -> None:
    """One after the other in the same root, each a rerun or a repair away from the undisturbed bytes."""
    chance, store = random.Random(seed), night()
    for number in range(count):
        hit = []
        for _ in range(chance.choice((1, 1, 2, 5))):
            kind = chance.choice([kind for kind in KINDS if kind != "run"])
            how = chance.choice(["removed", "cut", "flipped", "newer", "foreign"])
            hit.append((damage(store, kind, chance.randrange(100), how, chance), how))
        try:
            if chance.random() < 0.5:
                render(store)
            check_cured(store, wanted)
        except Exception as error:
            raise AssertionError(f"damage {number} of seed {seed}: {hit}") from error


@pytest.mark.parametrize("seed", range(3))
def test_some_random_damages_in_a_row(seed, wanted):
    random_damages(8, seed, wanted)


@pytest.mark.slow
def test_a_hundred_random_damages_in_a_row(wanted):
    random_damages(100, uuid.uuid4().int % 10**6, wanted)


def test_a_lost_playlist_beside_a_damaged_marker_is_that_videos_trouble_alone(wanted):
    store = night()
    store.delete(layout.playlist_key("long"))
    store.put(layout.marker_key("long", 1), b"damaged")
    summary = render(store)
    assert (summary.exit_code, set(summary.done)) == (3, {"other", "short"})
    assert "flowcache repair" in summary.failed["long"]
    check_cured(store, wanted)


def test_a_withdrawal_takes_no_newer_marker_back(wanted):
    """Its deleting is done again by whoever comes; what was rendered since are other bytes."""
    store = night()
    store.delete(read_commits(store).markers["long"][0].state_key)
    repair(store, decode=False)
    render(store)
    before = list_commits(store)
    render(store)
    assert list_commits(store).segments == before.segments and outcome(store) == wanted
    assert len(new_attempt()) == 16
