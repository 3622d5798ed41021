"""The Parquet tables, opened by the tools that people use."""

import dataclasses
import io
import json
import uuid

import duckdb
import pandas
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from flowcache.errors import Problem
from flowcache.storage import layout
from flowcache.storage.commits import DeadLetter, dead_letter, read_commits
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import new_run, read_run
from flowcache.storage.schemas import CHUNKS, VIDEOS
from flowcache.storage.tables import chunk_rows, video_rows, write_tables
from tests.unit.storage.samples import DIGESTS, SCHEDULE, Studio, plan, request


@pytest.fixture
def folder(studio, tmp_path):
    """The finished run as local files: (root, its records)."""
    for entry in studio.store.list():
        Store(str(tmp_path)).put(entry.key, studio.store.get(entry.key))
    return tmp_path


def parts(root, table):
    return sorted((root / "meta" / table).glob("run=*/part-*.parquet"))


def test_the_files_have_the_documented_schemas(folder):
    for table, schema in (("videos", VIDEOS), ("chunks", CHUNKS)):
        (part,) = parts(folder, table)
        assert pq.read_schema(part).equals(schema, check_metadata=False)
        assert all(field.metadata[b"description"] for field in pq.read_schema(part))


def test_rows_are_those_of_the_markers(folder, studio):
    commits = read_commits(studio.store)
    rows = pq.read_table(parts(folder, "chunks")[0]).to_pylist()
    order = [("cat", i) for i in range(6)] + [("dog", 0), ("dog", 1)]
    assert [(row["video_id"], row["chunk"]) for row in rows] == order
    marker, row = commits.markers["cat"][1], rows[3]
    chunk = dataclasses.asdict(marker.chunks[1])
    assert row["uri"] == chunk.pop("key")
    assert {name: row[name] for name in chunk} == chunk
    shared = ("run_id", "video_id", "segment", "fps", "attempt", "host", "gang", "world_size", "started", "finished")
    assert {name: row[name] for name in shared} == {name: getattr(marker, name) for name in shared}
    assert dict(row["segment_seconds"]) == marker.seconds and row["init"] == marker.init_key
    assert dict(row["hardware"]) == marker.hardware
    assert {name: row[name] for name in SCHEDULE} == SCHEDULE


def test_a_video_row_holds_the_whole_request(folder, studio):
    cat, dog = pq.read_table(parts(folder, "videos")[0]).to_pylist()
    wanted = studio.requests[0]
    assert json.loads(cat["request_json"]) == json.loads(json.dumps(wanted.to_dict()))
    same = ("negative_prompt", "image", "video", "media_sha256", "width", "height", "fps", "seed", "guidance", "steps")
    same += ("end_image", "end_image_sha256", "ar_step")
    assert {name: cat[name] for name in same} == {name: getattr(wanted, name) for name in same}
    assert cat["priority"] == wanted.priority == 0
    assert cat["shots"] == [dataclasses.asdict(shot) for shot in wanted.shots]
    assert dict(cat["labels"]) == wanted.labels and dict(dog["labels"]) == {}
    assert (cat["model"], cat["model_digest"], cat["policy"]) == ("tiny", "d" * 64, "paper")
    assert json.loads(cat["policy_json"]) == wanted.policy
    assert (cat["status"], cat["error"], cat["requested_frames"], cat["frames"]) == ("done", None, 24, 24)
    assert (cat["segments"], cat["chunks"], cat["steps_computed"], cat["steps_reused"]) == (3, 6, 36, 12)
    assert (cat["forwards"], cat["repeats"], cat["residual_ratio"]) == (42 + 3 * 30, 3, 0.75)
    assert (cat["render_seconds"], cat["started"], cat["finished"]) == (7.5, 100.0, 102.5)


def test_duckdb_reads_and_joins(folder):
    rows = duckdb.sql(
        f"""
        select v.video_id, v.labels['team'] as team, v.shots[1].prompt, count(*), sum(c.bytes) = any_value(v.bytes)
        from read_parquet('{folder}/meta/videos/**/*.parquet', hive_partitioning = true) v
        join read_parquet('{folder}/meta/chunks/**/*.parquet', hive_partitioning = true) c using (run, video_id)
        group by all order by 1
        """
    ).fetchall()
    assert rows == [("cat", "red", "a cat moves", 6, True), ("dog", None, "a dog moves", 2, True)]


def test_pandas_reads_and_joins(folder):
    videos, chunks = (pandas.read_parquet(folder / "meta" / table) for table in ("videos", "chunks"))
    joined = chunks.merge(videos, on=["run_id", "video_id"], suffixes=("", "_video"))
    assert len(joined) == 8 and set(joined["run"].astype(str)) == set(joined["run_id"])
    assert joined.groupby("video_id")["frames"].sum().to_dict() == {"cat": 24, "dog": 8}


def test_pyarrow_dataset_reads_and_joins(folder):
    videos, chunks = (
        pyarrow.dataset.dataset(folder / "meta" / name, partitioning="hive").to_table() for name in ("videos", "chunks")
    )
    scalars = videos.select(["video_id", "status", "policy"])
    joined = chunks.select(["video_id", "chunk", "uri"]).join(scalars, "video_id")
    assert joined.num_rows == 8
    assert set(joined.column("policy").to_pylist()) == {"paper", "off"}
    assert set(videos.column("run").to_pylist()) == set(videos.column("run_id").to_pylist())


def tables_of(store):
    return {entry.key: store.get(entry.key) for entry in store.list(layout.META)}


def test_nothing_is_written_again_unless_it_changed(studio):
    run, before = read_run(studio.store), tables_of(studio.store)
    assert write_tables(studio.store, run) == {}
    for key in list(before):
        studio.store.delete(key)
        assert write_tables(studio.store, run) and tables_of(studio.store) == before
    assert write_tables(studio.store, run) == {}


def test_a_video_has_its_rows_in_the_same_part_whatever_is_committed(monkeypatch):
    monkeypatch.setattr("flowcache.storage.parts.ROWS_PER_PART", 4)
    store, requests = Store(f"memory://{uuid.uuid4().hex}"), tuple(request(name, 2) for name in ("a", "b", "c"))
    record, studio = new_run(requests, DIGESTS, plan(requests), "0.1.0"), Studio(store, requests)
    written, markers = [], {}
    for segment in plan(requests):
        markers[segment.video_id] = studio.render(segment, markers.get(segment.video_id))
        written += [{key.rpartition("/")[2] for key in write_tables(store, record)}]
        rows = [row for key in tables_of(store) if "chunks/" in key for row in read_rows(store, key)]
        assert [(row["video_id"], row["chunk"]) for row in rows] == [
            (row["video_id"], row["chunk"]) for row in chunk_rows(read_commits(store))
        ]
    # the first one writes all parts, later ones those in which something changed
    names = [f"part-{number:05d}.parquet" for number in (0, 1, 2)]
    assert written == [set(names), {names[0]}, {names[1]}, {names[1]}, {names[2]}, {names[2]}]


def read_rows(store, key):
    return pq.read_table(io.BytesIO(store.get(key))).to_pylist()


def test_parts_of_other_names_go_after_the_right_ones_are_there(studio, monkeypatch):
    run = read_run(studio.store)
    old = f"{layout.table_prefix('chunks', run.run_id)}/part-00000-abc.parquet"
    studio.store.put(old, b"x")
    studio.store.delete(layout.part_key("chunks", run.run_id, 0))
    order, put, delete = [], Store.put, Store.delete
    monkeypatch.setattr(Store, "put", lambda self, key, data: (order.append(key), put(self, key, data)))
    monkeypatch.setattr(Store, "delete", lambda self, key: (order.append(key), delete(self, key)))
    write_tables(studio.store, run)
    index = layout.parts_key(run.run_id)
    assert order == [index, *(layout.part_key(name, run.run_id, 0) for name in ("videos", "chunks")), old, index]


def test_markers_that_are_known_are_not_read(studio, monkeypatch):
    run, known = read_run(studio.store), read_commits(studio.store)
    for entry in studio.store.list(layout.META):
        studio.store.delete(entry.key)
    read, get = [], Store.get
    monkeypatch.setattr(Store, "get", lambda self, key: (read.append(key), get(self, key))[1])
    write_tables(studio.store, run, known={"cat": dict(enumerate(known.all("cat")))})
    assert [key for key in read if key.startswith(layout.COMMITS)] == [layout.marker_key("dog", 0)]


def test_the_parts_of_another_run_are_left_alone(studio):
    write_tables(studio.store, dataclasses.replace(read_run(studio.store), run_id="f" * 16))
    assert len(studio.store.list(f"{layout.META}/chunks")) == 2


def test_a_run_without_any_chunk_has_tables_with_columns(tmp_path):
    store, requests = Store(str(tmp_path)), (request("cat"),)
    write_tables(store, new_run(requests, DIGESTS, plan(requests), "0.1.0"))
    counted = duckdb.sql(f"select count(*), count(sha256) from '{tmp_path}/meta/chunks/*/*.parquet'")
    assert counted.fetchall() == [(0, 0)]
    (row,) = pq.read_table(parts(tmp_path, "videos")[0]).to_pylist()
    assert (row["status"], row["chunks"], row["playlist"], row["started"]) == ("partial", 0, None, None)


def test_status_and_error_of_videos_that_are_not_done():
    store = Store(f"memory://{uuid.uuid4().hex}")
    requests = tuple(request(name, 2) for name in ("begun", "broken", "refused", "waiting"))
    problems = [
        Problem("m.csv", "fps", "must be positive", 5, "row-five"),
        Problem("m.csv", "seed", "is no number", 5, "row-five"),
        Problem("m.csv", "id", "is no safe name", 6, None),
        Problem("m.csv", "id", "is used twice", 7, "begun"),
    ]
    record = new_run(requests, DIGESTS, plan(requests), "0.1.0", problems)
    studio = Studio(store, requests)
    for segment in (s for s in plan(requests) if s.index == 0 and s.video_id in ("begun", "broken")):
        studio.render(segment, None)
    dead_letter(store, DeadLetter("broken", 1, 0, "NaN in step 3", "work", 3, "", None))
    dead_letter(store, DeadLetter("refused", None, None, "no such image", "rejected", 1, "", None))
    listed = video_rows(record, read_commits(store))
    rows = {row["video_id"]: row for row in listed}
    assert [row["error"] for row in listed if row["video_id"] is None] == [
        "m.csv row 6 id: is no safe name",
        "m.csv row 7 id: is used twice",
    ]
    assert {name: row["status"] for name, row in rows.items()} == {
        "begun": "partial", "broken": "failed", "refused": "rejected", "waiting": "partial",
        "row-five": "rejected", None: "rejected",
    }  # fmt: skip
    broken = rows["broken"]
    assert (broken["error"], broken["failed_segment"], broken["chunks"]) == ("NaN in step 3", 1, 2)
    assert rows["row-five"]["error"] == "m.csv row 5 fps: must be positive; m.csv row 5 seed: is no number"
    assert len(write_tables(store, record)) == 2
