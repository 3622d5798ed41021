"""Crashes and races at every point of the protocol: no reader sees half a segment, every rerun ends the same."""

import uuid
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.errors import StoreError
from flowcache.storage import layout
from flowcache.storage.commits import (
    DeadLetter,
    clear_dead_letter,
    commit_segment,
    dead_letter,
    mark_done,
    marker_sha256,
    new_attempt,
    put_init,
    read_commits,
    withdraw_success,
)
from flowcache.storage.documents import to_json
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import begin_run
from flowcache.storage.verify import verify
from tests.unit.storage.faults import Crash, FaultyStore, Uncommitted
from tests.unit.storage.samples import Studio, encoded, outcome, plan, request

REQUESTS = (request("cat", 2), request("dog", 1))


def fresh() -> Store:
    return Store(f"memory://{uuid.uuid4().hex}")


@cache
def undisturbed() -> tuple[dict, int]:
    """What a run without faults gives, and how many writes it takes."""
    store = FaultyStore(fresh(), 10**9, False)
    Studio(store, REQUESTS).run()
    return outcome(store), 10**9 - store._left


def test_the_sequence_has_the_writes_that_the_crash_tests_cover():
    # owner, run record; per segment 2 media, state, init, marker, 2 playlists; per video 2 playlists, DONE;
    # the tables' index is withdrawn, 2 tables, the index; _SUCCESS
    assert undisturbed()[1] == 2 + 3 * 7 + 2 * 3 + 4 + 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_each_write_and_a_rerun_give_the_undisturbed_outcome(after):
    wanted, writes = undisturbed()
    for point in range(writes):
        store = fresh()
        with pytest.raises(Crash):
            Studio(FaultyStore(store, point, after), REQUESTS).run()
        if store.list(layout.RUNS):
            report = verify(store, decode=False)
            assert report.sound, (point, report.problems)
        assert store.exists(layout.SUCCESS) == (point == writes - 1 and after)
        Studio(store, REQUESTS).run()
        assert outcome(store) == wanted, point
        report = verify(store, decode=False)
        assert report.sound, (point, report.problems)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.booleans()), max_size=5))
def test_any_series_of_crashes_and_errors_ends_in_the_undisturbed_outcome(faults):
    store = fresh()
    for point, after, crash in faults:
        error = Crash() if crash else StoreError("cannot write: the disk is full")
        try:
            Studio(FaultyStore(store, point, after, error), REQUESTS).run()
        except (Crash, StoreError):
            assert not store.list(layout.RUNS) or verify(store, decode=False).sound
    Studio(store, REQUESTS).run()
    assert outcome(store) == undisturbed()[0]
    assert verify(store).sound


def test_a_reader_sees_a_sound_store_after_every_single_write():
    store, seen = fresh(), []

    def read():
        if not store.list(layout.RUNS):  # claimed, and not begun
            seen.append(0)
            return
        report = verify(store, decode=False)
        assert report.sound, report.problems
        for marker in (m for video in read_commits(store).markers.values() for m in video):
            assert all(store.exists(chunk.key) for chunk in marker.chunks)
            assert store.exists(marker.state_key) and store.exists(marker.init_key)
        seen.append(report.counts["segments"])

    Studio(FaultyStore(store, 10**9, False, watch=read), REQUESTS).run()
    assert seen == sorted(seen) and len(seen) == undisturbed()[1] and seen[-1] == 3


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(4)), st.lists(st.booleans(), min_size=4, max_size=4))
def test_of_racing_attempts_one_wins_and_all_learn_which(order, lost_answer):
    """Four attempts commit the same segment in any order, some of them without hearing the answer."""
    store = fresh()
    studio = Studio(store, REQUESTS)
    segment = plan(REQUESTS)[0]
    attempts = [Studio(Uncommitted(store), REQUESTS) for _ in range(4)]
    markers = [attempt.render(segment, None) for attempt in attempts]
    assert len({marker.attempt for marker in markers}) == 4
    outcomes = []
    for index in order:
        outcomes.append(commit_segment(store, markers[index]))
        if lost_answer[index]:  # the client sends its create once more
            outcomes.append(commit_segment(store, markers[index]))
    assert {marker_sha256(winner) for winner in outcomes} == {marker_sha256(markers[order[0]])}
    assert read_commits(store).markers["cat"] == (markers[order[0]],)
    assert studio.render(segment, None) == markers[order[0]]


def test_segments_after_a_gap_are_known_but_not_contiguous():
    store = fresh()
    studio = Studio(store, (request("cat", 4),))
    segments = plan(studio.requests)
    held = {i: studio.render(segments[i], None) for i in (0, 2, 3)}
    commits = read_commits(store)
    assert commits.markers["cat"] == (held[0],)
    assert commits.beyond["cat"] == commits.all("cat")[1:] == (held[2], held[3])
    assert commits.find("cat", 1) is None and commits.find("cat", 2) == held[2] and commits.find("dog", 0) is None
    with pytest.raises(StoreError, match="segments have gaps"):
        mark_done(store, "cat", commits.all("cat"))


def test_done_again_is_the_same_and_a_different_one_is_refused():
    store = fresh()
    Studio(store, REQUESTS).run()
    markers = read_commits(store).markers["cat"]
    before = store.get(layout.done_key("cat"))
    assert to_json(mark_done(store, "cat", markers)) == before
    with pytest.raises(StoreError, match="says something else"):
        mark_done(store, "cat", markers[:1])


def test_chunks_of_another_encoder_are_refused():
    store = fresh()
    piece = encoded(1, 0, 4)
    assert put_init(store, "cat", piece.init) == put_init(store, "cat", piece.init) == "media/cat/init.mp4"
    with pytest.raises(StoreError, match="Use one software version for all workers"):
        put_init(store, "cat", piece.init[:-1] + b"?")


def test_dead_letters_are_read_and_cleared():
    store = fresh()
    row = request("cat").to_dict()
    letter = DeadLetter("cat", 1, 3, "NaN in step 4 \udcff", "work", 3, "...\nlast\ud800 line", row)
    dead_letter(store, letter)  # with bytes of a log that are no text
    letter = replace(letter, cause="NaN in step 4 \\udcff", log_tail="...\nlast\\ud800 line")
    (read,) = read_commits(store).dead_letters.values()
    assert to_json(read) == to_json(letter)
    clear_dead_letter(store, "cat")
    clear_dead_letter(store, "cat")
    assert read_commits(store).dead_letters == {}


def test_success_can_be_withdrawn():
    store = fresh()
    Studio(store, REQUESTS).run()
    withdraw_success(store)
    assert not store.exists(layout.SUCCESS)


def test_a_damaged_marker_is_named():
    store = fresh()
    Studio(store, REQUESTS).run()
    store.put(layout.marker_key("cat", 1), b'{"schema_version":1}')
    commits = read_commits(store)
    assert "_commits/cat/00001.json is damaged: no valid SegmentMarker" in commits.damaged["cat"]
    assert len(commits.all("cat")) == 1 and len(commits.all("dog")) == 1
    store.put(layout.marker_key("cat", 1), b'{"schema_version":99}')
    assert "has schema version 99, this flowcache reads 1" in read_commits(store).damaged["cat"]


def test_attempts_are_unique_safe_and_sort_by_time():
    attempts = [new_attempt() for _ in range(1000)]
    assert len(set(attempts)) == 1000
    assert all(attempt.isalnum() and len(attempt) == 16 for attempt in attempts)
    assert attempts[0][:8] <= attempts[-1][:8]


def test_layout_is_the_documented_one():
    assert layout.run_key("r") == "_run/r.json"
    assert layout.marker_key("v", 12) == "_commits/v/00012.json"
    assert layout.done_key("v") == "_commits/v/DONE.json"
    assert layout.dead_letter_key("v") == "_dead_letter/v.json"
    assert layout.state_key("v", 12, "a") == "_state/v/00012.a.safetensors"
    assert layout.init_key("v") == "media/v/init.mp4"
    assert layout.media_key("v", 12, "a") == "media/v/00012.a.m4s"
    assert layout.playlist_key("v") == "media/v/index.m3u8"
    assert layout.part_key("chunks", "r", 3) == "meta/chunks/run=r/part-00003.parquet"


def test_a_video_called_done_is_not_mistaken_for_a_marker():
    store = fresh()
    studio = Studio(store, (request("DONE.json", 1),))
    begin_run(store, studio.record())
    studio.run()
    assert read_commits(store).done == {"DONE.json"}
    assert verify(store).sound
