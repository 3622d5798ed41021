"""docs/storage.md must not drift from the code."""

import re
from pathlib import Path

import duckdb
import pytest

from flowcache.storage import layout
from flowcache.storage.objects.store import LOOK_PAUSES, RETRY_PAUSES, Store
from flowcache.storage.schemas import CHUNKS, COMMANDS, MANIFESTS, VIDEOS

DOC = (Path(__file__).parents[3] / "docs" / "storage.md").read_text()


def section(heading: str) -> str:
    return DOC.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]


def example(name: str) -> str:
    return re.search(rf"<!-- tested: {name} -->\n```\w+\n(.*?)```", DOC, re.DOTALL).group(1)


@pytest.fixture
def root(studio, tmp_path):
    for entry in studio.store.list(layout.META):
        Store(str(tmp_path)).put(entry.key, studio.store.get(entry.key))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("table", "schema"), [("videos", VIDEOS), ("chunks", CHUNKS), ("manifests", MANIFESTS), ("commands", COMMANDS)]
)
def test_the_schemas_are_the_documented_ones(table, schema):
    lines = [line for line in section(f"### `meta/{table}`").splitlines() if line.startswith("| `")]
    assert [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines] == [
        (f"`{f.name}`", f"`{f.type}`", "yes" if f.nullable else "no", f.metadata[b"description"].decode())
        for f in schema
    ]


def test_the_layout_is_the_documented_one():
    keys = {
        layout.run_key("<run_id>"),
        layout.generation_key("<run_id>", 2),
        layout.table_prefix("manifests", "<run_id>") + "/generation-<n>.parquet",
        layout.marker_key("<video_id>", 12),
        layout.done_key("<video_id>"),
        layout.finish_key("<video_id>", "<module>:<function>"),
        layout.finished_key("<video_id>", "<module>:<function>", "<attempt>", "<file>"),
        layout.dead_letter_key("<video_id>"),
        layout.state_key("<video_id>", 12, "<attempt>"),
        layout.text_key("<model>", "<precision>", "<sha256>"),
        layout.init_key("<video_id>"),
        layout.media_key("<video_id>", 12, "<attempt>"),
        layout.playlist_key("<video_id>"),
        layout.master_key("<video_id>"),
        layout.given_key("sha256-<sha256>"),
        layout.command_key(7),
        layout.taken_key(7),
        layout.rows_key("<sha256>", ".jsonl"),
        layout.events_key("<holder>", 3),
        layout.commands_key("<run_id>"),
        layout.SUCCESS,
        layout.STOPPED,
        layout.OWNER,
        layout.table_prefix("{videos,chunks}", "<run_id>") + "/part-<n>.parquet",
        layout.parts_key("<run_id>"),
        layout.withdrawn_key("<video_id>", "<moment>"),
        layout.link_key("<video_id>", "<expires>"),
        layout.holder_key("<holder>"),
    }
    assert {line.split()[0] for line in section("## Layout").split("```")[1].strip().splitlines()} == keys


def test_the_retries_are_the_documented_ones():
    assert len(RETRY_PAUSES) == 4 and round(sum(RETRY_PAUSES)) == 8
    assert "tried again four times over eight seconds" in DOC
    assert len(LOOK_PAUSES) == 5 and round(sum(LOOK_PAUSES)) == 16
    assert "listed again, five times over 16 seconds" in DOC


def test_the_duckdb_example_runs(root):
    rows = duckdb.sql(example("duckdb").replace("ROOT", root)).fetchall()
    assert rows == [("cat", "red", 6, 0.25), ("dog", None, 2, 0.25)]


def test_the_python_example_runs(root):
    names: dict = {}
    exec(example("python").replace("ROOT", root), names)
    assert len(names["joined"]) == 8 and set(names["joined"]["status"]) == {"done"}
