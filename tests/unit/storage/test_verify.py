"""Every kind of damage must be found and named; what is sound must be called sound."""

import dataclasses
import io
import json
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowcache.errors import StoreError
from flowcache.storage import layout
from flowcache.storage.commits import (
    DeadLetter,
    commit_segment,
    dead_letter,
    mark_done,
    put_playlist,
    read_commits,
    success,
    withdraw_success,
)
from flowcache.storage.documents import sha256, to_json
from flowcache.storage.media import encode_chunk
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import read_run
from flowcache.storage.status import status
from flowcache.storage.tables import write_tables
from flowcache.storage.verify import verify
from tests.unit.storage.samples import FPS, Studio, encoded, pixels, plan


def found(studio, **options) -> list[str]:
    return [str(problem) for problem in verify(studio.store, **options).problems]


def cat(studio, segment=1):
    return read_commits(studio.store).markers["cat"][segment]


def refit(studio, marker, data: bytes, frames: int = 4):
    """Replace the marker's first chunk by `data` everywhere, as if it had been rendered so."""
    store, chunk = studio.store, marker.chunks[0]
    store.put(chunk.key, data)
    chunk = dataclasses.replace(chunk, sha256=sha256(data), bytes=len(data), frames=frames)
    changed = dataclasses.replace(marker, chunks=(chunk, *marker.chunks[1:]))
    store.put(layout.marker_key(marker.video_id, marker.segment), to_json(changed))
    store.delete(layout.done_key(marker.video_id))
    markers = read_commits(store).markers[marker.video_id]
    put_playlist(store, marker.video_id, markers, done=True)
    mark_done(store, marker.video_id, markers)
    store.delete(layout.parts_key(read_run(store).run_id))  # markers never change, but here one did
    write_tables(store, read_run(store))


def test_a_sound_store_is_sound_and_counted(studio):
    report = verify(studio.store)
    assert report.sound and report.problems == ()
    held = {name: report.counts[name] for name in ("videos", "done", "segments", "chunks", "frames", "rows", "orphans")}
    assert held == {"videos": 2, "done": 2, "segments": 4, "chunks": 8, "frames": 32, "rows": 10, "orphans": 0}
    assert report.counts["objects"] == 8 + 4 + 2  # chunks, states, inits
    assert report.counts["bytes"] == sum(e.size for e in studio.store.list("media") if e.key.endswith(".m4s"))


def test_missing_objects_are_named(studio):
    marker = cat(studio)
    for key in (marker.chunks[1].key, marker.state_key, layout.init_key("dog")):
        studio.store.delete(key)
    assert found(studio) == [
        f"video cat segment 1: is missing ({marker.state_key})",
        f"video cat segment 1 chunk 3: is missing ({marker.chunks[1].key})",
        "video dog segment 0: is missing (media/dog/init.mp4)",
    ]


@pytest.mark.parametrize("decode", [True, False])
def test_one_flipped_bit_is_found(studio, decode):
    marker = cat(studio)
    for key in (marker.chunks[0].key, marker.state_key, marker.init_key):
        data = bytearray(studio.store.get(key))
        data[-1] ^= 1
        studio.store.put(key, bytes(data))
    damaged = "is damaged: its sha256 is not the one in its marker"
    assert found(studio, decode=decode)[-2:] == [
        f"video cat segment 1: {damaged} ({marker.state_key})",
        f"video cat segment 1 chunk 2: {damaged} ({marker.chunks[0].key})",
    ]
    assert f"video cat segment 0: {damaged} (media/cat/init.mp4)" in found(studio, decode=decode)


def test_a_cut_object_is_found_without_reading_it(studio):
    chunk = cat(studio).chunks[0]
    studio.store.put(chunk.key, studio.store.get(chunk.key)[:-5])
    assert found(studio) == [
        f"video cat segment 1 chunk 2: has {chunk.bytes - 5} bytes, its marker says {chunk.bytes} ({chunk.key})"
    ]


def test_chunks_that_were_wrong_from_the_start_are_found(studio):
    """Right hash, wrong video: only decoding tells."""
    marker = cat(studio, 2)
    for data, message in (
        (encoded(12, 16, 3).data, "decodes to 3 frames, its marker says 4"),
        (encoded(12, 15, 4).data, "frame 0 is at 1.8750 s, expected 2.0000 s"),
        (b"\0\0\0\x08mdat", "decodes to 0 frames, its marker says 4"),
    ):
        refit(studio, marker, data)
        assert found(studio) == [f"video cat segment 2 chunk 4: {message} ({marker.chunks[0].key})"]
        assert found(studio, decode=False) == []


def test_another_picture_size_is_found(studio):
    wide = encode_chunk(pixels(1, 0, 4)[:, :, :16], 0, FPS)
    marker = cat(studio, 0)
    studio.store.put(marker.init_key, wide.init)
    markers = read_commits(studio.store).markers["cat"]
    refit(studio, dataclasses.replace(markers[0], init_sha256=sha256(wide.init)), wide.data)
    assert "video cat segment 0 chunk 0: is 16x16, requested 32x16" in "\n".join(found(studio))


def test_playlist_and_done_are_compared(studio):
    put_playlist(studio.store, "cat", read_commits(studio.store).markers["cat"][:2], done=True)
    done = json.loads(studio.store.get(layout.done_key("dog")))
    studio.store.put(layout.done_key("dog"), json.dumps({**done, "frames": 7}).encode())
    assert found(studio) == [
        "video cat: the playlist does not list the committed chunks (media/cat/index.m3u8)",
        "video cat: the master playlist does not say what the markers do (media/cat/master.m3u8)",
        "video dog: DONE does not agree with the segment markers (_commits/dog/DONE.json)",
    ]
    studio.store.delete(layout.playlist_key("cat"))
    assert "video cat: has no playlist (media/cat/index.m3u8)" in found(studio)


def test_a_gap_in_a_done_video_is_found(studio):
    studio.store.delete(layout.marker_key("cat", 1))
    problems = found(studio)
    assert "video cat: is marked done with 2 segments, planned were 3" in problems
    assert "video cat segment 2: continues a segment that is not the committed one" in problems
    assert "video cat: video cat is not done: its committed segments have gaps (_commits/cat/DONE.json)" in problems


def test_a_damaged_marker_does_not_stop_the_rest(studio):
    studio.store.delete(cat(studio, 0).chunks[0].key)
    studio.store.put(layout.marker_key("cat", 2), b"{}")
    problems = found(studio)
    assert any("_commits/cat/00002.json is damaged: no valid SegmentMarker" in problem for problem in problems)
    assert any(problem.startswith("video cat segment 0 chunk 0: is missing") for problem in problems)


def test_a_marker_in_the_wrong_place_or_of_another_run_is_found(studio):
    marker = cat(studio, 2)
    studio.store.put(layout.marker_key("cat", 7), to_json(marker))
    assert (
        f"video cat: {studio.store.uri('_commits/cat/00007.json')} is damaged: it is that of segment 2 of video cat"
        in found(studio)
    )
    commit_segment(studio.store, dataclasses.replace(marker, video_id="emu", segment=0))
    assert "video emu: is not part of this run" in found(studio)
    studio.store.put(layout.marker_key("cat", 2), to_json(dataclasses.replace(marker, spec_hash="0", run_id="zero")))
    assert "video cat segment 2: was committed by another run (zero)" in found(studio)


def test_chunks_that_do_not_follow_each_other_are_found(studio):
    marker = cat(studio, 2)
    moved = tuple(dataclasses.replace(chunk, start_frame=chunk.start_frame + 1) for chunk in marker.chunks)
    changed = dataclasses.replace(marker, chunks=moved, frames=9)
    studio.store.put(layout.marker_key("cat", 2), to_json(changed))
    problems = found(studio, decode=False)
    assert "video cat segment 2 chunk 4: starts at frame 17, expected chunk 4 at frame 16" in problems
    assert "video cat segment 2: says 9 frames, its chunks say otherwise" in problems


def rewrite(studio, table, change):
    (entry,) = studio.store.list(f"meta/{table}")
    rows = pq.read_table(io.BytesIO(studio.store.get(entry.key)))
    file = io.BytesIO()
    pq.write_table(change(rows), file)
    studio.store.put(entry.key, file.getvalue())
    return entry.key


def test_tables_are_compared_row_by_row(studio):
    rewrite(studio, "chunks", lambda t: t.set_column(t.schema.get_field_index("frames"), t.schema.field("frames"),
                                                     pa.array([4, 4, 4, 5, 4, 4, 4, 4])))  # fmt: skip
    rewrite(studio, "videos", lambda t: t.slice(1))
    run = read_run(studio.store).run_id
    assert found(studio) == [
        f"does not hold the rows that the markers give (1 rows of 2) (meta/videos/run={run})",
        f"video cat segment 1 chunk 3: the row differs from the markers in frames (meta/chunks/run={run})",
    ]


def test_tables_of_an_unfinished_run_may_lag_but_not_lie(studio):
    withdraw_success(studio.store)
    rewrite(studio, "chunks", lambda t: t.slice(2))
    rewrite(studio, "videos", lambda t: t.slice(1))
    assert found(studio) == []
    rewrite(studio, "chunks", lambda t: t.set_column(t.schema.get_field_index("chunk"), t.schema.field("chunk"),
                                                     pa.array([2, 3, 4, 99, 0, 1])))  # fmt: skip
    assert found(studio) == [
        f"video cat segment 2 chunk 99: a row that no marker gives (meta/chunks/run={read_run(studio.store).run_id})"
    ]


def test_foreign_and_broken_files_among_the_tables_are_found(studio):
    key = rewrite(studio, "chunks", lambda t: t.drop_columns(["host"]))
    studio.store.put("meta/videos/notes.txt", b"hello")
    (entry,) = (e for e in studio.store.list("meta/videos") if e.key.endswith(".parquet"))
    studio.store.put(entry.key, b"PAR1 torn")
    problems = "\n".join(found(studio))
    assert f"has another schema than meta/chunks of this version ({key})" in problems
    assert "a foreign file among the videos tables breaks readers (meta/videos/notes.txt)" in problems
    assert f"({entry.key})" in problems and "is no readable Parquet file" in problems


def test_success_without_the_videos_is_found(studio):
    studio.store.delete(layout.done_key("cat"))
    assert "video cat: is neither done nor a dead letter, though the run is marked finished" in found(studio)
    dead_letter(studio.store, DeadLetter("cat", 2, 0, "gave up", "work", 3, "", None))
    markers = read_commits(studio.store).markers["cat"]
    put_playlist(studio.store, "cat", markers)
    write_tables(studio.store, read_run(studio.store))
    assert found(studio) == []


def test_a_playlist_of_a_growing_video_may_lag_but_not_lie(studio):
    withdraw_success(studio.store)
    for key in (layout.done_key("cat"), *(entry.key for entry in studio.store.list("meta/videos"))):
        studio.store.delete(key)
    markers = read_commits(studio.store).markers["cat"]
    for committed in (1, 2, 3):
        put_playlist(studio.store, "cat", markers[:committed])
        assert found(studio, decode=False) == []
    studio.store.delete(layout.playlist_key("cat"))
    assert found(studio, decode=False) == []
    put_playlist(studio.store, "cat", markers[1:])
    assert found(studio, decode=False) == [
        "video cat: the playlist does not list the committed chunks (media/cat/index.m3u8)"
    ]


def test_a_run_that_goes_on_during_the_check_is_no_damage(studio, monkeypatch):
    """Between any two reads of verify, the run commits more."""
    target, finished = Studio(Store(f"memory://{uuid.uuid4().hex}"), studio.requests), []
    real_list, real_get = Store.list, Store.get

    def step():
        if not finished and not busy:
            busy.append(True)
            try:
                finished.extend([True] if next(run, None) is None else [])
            finally:
                busy.clear()

    def steps():
        """The run, stopped after each write."""
        order = sorted((e.key for e in real_list(studio.store)), key=lambda key: written.index(key))
        for key in order[1:]:
            target.store.put(key, real_get(studio.store, key))
            yield key

    written = write_order(studio)
    target.store.put(written[0], real_get(studio.store, written[0]))
    run, busy = steps(), []
    monkeypatch.setattr(Store, "list", lambda self, prefix="": (step(), real_list(self, prefix), step())[1])
    monkeypatch.setattr(Store, "get", lambda self, key: (step(), real_get(self, key), step())[1])
    while not finished:
        report = verify(target.store, decode=False)
        assert report.sound, report.problems
    assert verify(target.store).counts["done"] == 2


def write_order(studio) -> list[str]:
    """Keys in the order in which the protocol writes them."""
    run = [layout.OWNER, *(e.key for e in studio.store.list("_run"))]
    for video_id, markers in read_commits(studio.store).markers.items():
        for marker in markers:
            run += [chunk.key for chunk in marker.chunks] + [marker.state_key, marker.init_key]
            run.append(layout.marker_key(video_id, marker.segment))
        run += [layout.playlist_key(video_id), layout.master_key(video_id), layout.done_key(video_id)]
    run += [e.key for e in studio.store.list("meta")] + [layout.SUCCESS]
    return list(dict.fromkeys(run))


def test_orphans_are_counted_and_are_no_problem(studio):
    studio.store.put("media/cat/00001.lost.m4s", b"x")
    studio.store.put("_state/cat/00000.lost.safetensors", b"x")
    report = verify(studio.store)
    assert report.sound and report.counts["orphans"] == 2


def test_a_root_without_a_run_is_refused(studio):
    studio.store.delete(layout.run_key(read_run(studio.store).run_id))
    for check in (verify, status):
        with pytest.raises(StoreError, match="holds no run"):
            check(studio.store)


def test_status_follows_the_run(studio):
    store = studio.store
    withdraw_success(store)
    for key in (layout.done_key("cat"), layout.marker_key("cat", 1), layout.marker_key("cat", 2)):
        store.delete(key)
    for key in (layout.done_key("dog"), layout.marker_key("dog", 0)):
        store.delete(key)
    report = status(store)
    assert [(video.video_id, video.state) for video in report.videos] == [("cat", "running"), ("dog", "waiting")]
    assert (report.finished, report.total("chunks"), report.total("chunks_total")) == (False, 2, 8)
    assert report.videos[0].playlist == "media/cat/index.m3u8" and report.videos[1].playlist is None
    assert report.reuse_rate == pytest.approx(0.25)
    dead_letter(store, DeadLetter("dog", None, None, "no such image", "rejected", 1, "", None))
    success(store, {})
    report = status(store)
    assert [video.state for video in report.videos] == ["partial", "dead"]
    assert report.videos[1].error == "no such image"
    Studio(store, studio.requests).run()
    assert [video.state for video in status(store).videos] == ["done", "done"]


def test_status_reads_no_media(studio, monkeypatch):
    real, read = type(studio.store).get, []
    monkeypatch.setattr(type(studio.store), "get", lambda self, key: (read.append(key), real(self, key))[1])
    status(studio.store)
    assert {key.split("/")[0] for key in read} == {"_run", "_STOPPED", "_commits", "_OWNER"}


def test_the_plan_of_the_samples_is_what_was_committed(studio):
    assert len(plan(studio.requests)) == verify(studio.store, decode=False).counts["segments"]
