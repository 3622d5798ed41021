"""The whole way of a video, through the command line and Ray."""

import io
import json
import re
from itertools import pairwise

import duckdb
import numpy as np
import pytest
from PIL import Image

import flowcache
from benchmarks.same import compare
from flowcache import api
from flowcache.inputs.options import RunOptions
from flowcache.inputs.schema import RowDefaults
from flowcache.inputs.segments import plan
from flowcache.progress.events import Together
from flowcache.runtime.cluster import ray_provider
from flowcache.scheduler.driver import run
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import new_run
from tests.e2e.media import decoded
from tests.e2e.rows import row


def test_a_manifest_becomes_videos_and_tables(render, flowcache, tmp_path):
    shots = [
        {"prompt": "a red circle moving right on a blue background", "frames": 21},
        {"prompt": "a green square moving up on a white background", "frames": 9, "cut": True},
        {"prompt": "a green square moving down on a white background", "frames": 12},
    ]
    rows = [
        row("long", frames=69, labels={"team": "a"}, policy="paper"),
        {"id": "cuts", "shots": shots, "steps": 2, "priority": 3},
    ]
    made = render(rows)
    assert made.code == 0, made.err
    assert made.json["done"] == ["long", "cuts"] and made.json["rendered"] == 6 + 4

    tables = {name: f"'{tmp_path}/out/meta/{name}/*/*.parquet'" for name in ("videos", "chunks")}
    query = f"""
        select v.video_id, v.labels['team'][1], count(*), sum(c.frames), min(c.start_frame), v.frames
        from {tables["videos"]} v join {tables["chunks"]} c using (video_id) where v.status = 'done'
        group by all order by 1
    """
    found = [
        tuple(team[0] if isinstance(team, list) else team for team in line) for line in duckdb.sql(query).fetchall()
    ]
    assert found == [("cuts", None, 4, 42, 0, 42), ("long", "a", 6, 69, 0, 69)]

    assert flowcache("verify", tmp_path / "out", "--json").json["sound"]
    status = flowcache("status", tmp_path / "out", "--json").json
    assert [(video["state"], video["chunks"], video["chunks_total"]) for video in status["videos"]] == [
        ("done", 6, 6),
        ("done", 4, 4),
    ]
    assert "2 done" in flowcache("status", tmp_path / "out").out

    count = "sum(length(replace(replace(decisions, '/', ''), '{}', ''))), sum(steps_{}), min(kv_bytes) > 0"
    for left_out, kind in (("0", "computed"), ("1", "reused")):
        query = f"select {count.format(left_out, kind)} from {tables['chunks']}"
        ((marked, counted, kept),) = duckdb.sql(query).fetchall()
        assert marked == counted and kept
        assert flowcache("report", tmp_path / "out", "--to", tmp_path / "out.html").code == 0
        paths = re.findall(rf'<path class="{kind}" d="(.*?)"', (tmp_path / "out.html").read_text())
        assert sum(int(cells) for path in paths for cells in re.findall(r"h(\d+)", path)) == counted

    again = render(rows, "--address", "127.0.0.1:1")  # no Ray is asked when nothing is missing
    assert again.code == 0 and again.json["rendered"] == 0

    other = render([row("another")])
    assert other.code == 2 and "holds another run" in other.json["error"]


def test_chunks_decode_frame_by_frame_and_export_alike(render, flowcache, tmp_path):
    assert render([row("v", frames=33)]).code == 0
    folder = tmp_path / "out" / "media" / "v"
    lines = (folder / "index.m3u8").read_text().splitlines()
    parts = [folder / "init.mp4", *(folder / line for line in lines if line.endswith(".m4s"))]
    joined = decoded(io.BytesIO(b"".join(part.read_bytes() for part in parts)))
    assert len(joined) == 33 and lines[-1] == "#EXT-X-ENDLIST"
    assert all(abs(after - before - 1 / 12) < 1e-6 for (before, _), (after, _) in pairwise(joined))
    played = decoded(str(folder / "index.m3u8"))  # ffmpeg's HLS player
    assert len(played) == 33 and all(np.array_equal(a, b) for (_, a), (_, b) in zip(joined, played, strict=True))

    assert flowcache("export", tmp_path / "out", "--to", tmp_path / "plain").code == 0
    plain = decoded(str(tmp_path / "plain" / "v.mp4"))
    assert len(plain) == 33 and all(np.array_equal(a, b) for (_, a), (_, b) in zip(joined, plain, strict=True))

    assert flowcache("sheet", tmp_path / "out", "--to", tmp_path / "sheet.png").code == 0
    assert Image.open(tmp_path / "sheet.png").width > 640


def test_starts_from_a_picture_ends_with_one_and_goes_on_from_a_video(render, tmp_path, picture, flowcache):
    Image.new("RGB", (64, 64), (200, 40, 40)).save(tmp_path / "end.png")
    assert render([row("still", image=str(picture), end_image=str(tmp_path / "end.png"))]).code == 0
    assert flowcache("export", tmp_path / "out", "--to", tmp_path).code == 0
    frames = [frame.astype(float) for _, frame in decoded(str(tmp_path / "still.mp4"))]
    for frame, file in ((frames[0], picture), (frames[-1], tmp_path / "end.png")):
        wanted = np.asarray(Image.open(file).convert("RGB"), dtype=float)
        assert np.abs(frame - wanted).mean() < 12  # what the codec and H.264 lose

    went_on = render([row("on", frames=24, video=str(tmp_path / "still.mp4"))], to=tmp_path / "more")
    assert went_on.code == 0 and went_on.json["rendered"] == 2


def test_two_ranks_give_what_one_gives(render, tmp_path, picture):
    ends = {"image": str(picture), "end_image": str(picture)}
    rows = [row("v"), row("dense", policy="dense", ar_step=1, **ends), row("m", frames=24, steps=4, model="tiny-magi")]
    assert render(rows).code == 0
    assert render(rows, "--gang", "2", to=tmp_path / "two").code == 0
    stores = [Store(str(tmp_path / name)) for name in ("out", "two")]
    lines, same = compare(*stores)
    assert same and len(lines) == 3 and lines[2].startswith("v by 1 rank and by 2 ranks: the same decisions")
    assert render(rows, "--gang", "2", "--shard-weights", to=tmp_path / "sharded").code == 0
    two, sharded = (sorted((tmp_path / name / "media").glob("*/*.m4s")) for name in ("two", "sharded"))
    assert [chunk.read_bytes() for chunk in sharded] == [chunk.read_bytes() for chunk in two]

    dense, other = (next((tmp_path / "two" / "media" / name).glob("00001.*.m4s")) for name in ("dense", "v"))
    other.write_bytes(dense.read_bytes())
    assert not compare(*stores)[1]


def test_bad_input_starts_nothing(render, tmp_path):
    rows = [row("fine"), row("../x"), row("long", frames=22), {"id": "empty"}, row("fine")]
    refused = render(rows)
    assert refused.code == 2
    assert [(p["row"], p["field"]) for p in refused.json["problems"]] == [
        (2, "id"),
        (3, "frames"),
        (4, "prompt"),
        (5, "id"),
    ]
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("not a folder")
    output = render([row("v")], to=tmp_path / "file" / "out")
    assert output.code == 2 and "file" in output.json["error"]
    for options in (("--gang", "193"), ("--shard-weights",)):
        gang = render([row("v")], *options)
        assert gang.code == 2 and "accepted" in gang.json["error"]


def test_keep_going_renders_the_good_and_records_the_bad(render, tmp_path):
    result = render([row("good"), row("bad", frames=22)], "--keep-going")
    assert result.code == 3
    assert result.json["done"] == ["good"] and "22" in result.json["rejected"]["bad"]
    videos = f"'{tmp_path}/out/meta/videos/*/*.parquet'"
    assert duckdb.sql(f"select video_id, status from {videos} order by 1").fetchall() == [
        ("bad", "rejected"),
        ("good", "done"),
    ]


def test_a_failing_video_becomes_a_dead_letter_and_stops_no_other(cluster, tmp_path, picture):
    """The picture is deleted after the check: the work itself fails, on every attempt."""
    rows = [row("broken", image=str(picture), priority=1), row("fine")]
    requests, problems, _, specs = api.check(rows, RowDefaults())
    assert not problems
    segments = [segment for request in requests for segment in plan(request, specs[request.model])]
    record = new_run(requests, {name: spec.digest for name, spec in specs.items()}, segments, "test")
    store, options = Store(str(tmp_path / "out")), RunOptions(address=cluster, gangs=1, retries=1)
    saved = picture.read_bytes()
    picture.unlink()
    summary = run(store, record, requests, specs, options, Together(), ray_provider)
    assert summary.exit_code == 3 and summary.done == ("fine",) and "start.png" in summary.failed["broken"]
    letter = json.loads(store.get("_dead_letter/broken.json"))
    assert (letter["segment"], letter["rank"], letter["kind"], letter["attempts"]) == (0, 0, "work", 2)
    assert letter["request"]["id"] == "broken" and "does not exist" in letter["log_tail"]
    assert "\x1b" not in letter["log_tail"]

    unreachable = RunOptions(address="127.0.0.1:1")  # the dead letter stands: nothing is left to render
    assert run(store, record, requests, specs, unreachable, Together(), ray_provider).exit_code == 3

    picture.write_bytes(saved)
    options = RunOptions(address=cluster, gangs=1, retry_failed=True)
    assert run(store, record, requests, specs, options, Together(), ray_provider).exit_code == 0
    assert store.exists("_SUCCESS") and not store.exists("_dead_letter/broken.json")


def test_verify_names_the_damage(render, flowcache, tmp_path):
    assert render([row("v")]).code == 0
    chunk = sorted((tmp_path / "out" / "media" / "v").glob("*.m4s"))[1]
    data = bytearray(chunk.read_bytes())
    data[-5] ^= 1
    chunk.write_bytes(data)
    result = flowcache("verify", tmp_path / "out", "--json")
    assert result.code == 4
    assert any((p["video_id"], p["chunk"]) == ("v", 1) and "sha256" in p["message"] for p in result.json["problems"])


def test_python_interface(cluster, tmp_path):
    summary = flowcache.render([row("v")], output=str(tmp_path / "out"), options=RunOptions(address=cluster, gangs=1))
    assert summary.done == ("v",) and summary.exit_code == 0
    model = flowcache.load_model("tiny-skyreels")
    assert model.text.encode("a red circle").shape[0] == 1
    with pytest.raises(AttributeError):
        _ = flowcache.no_such_thing


def test_models_tells_what_can_be_rendered(flowcache):
    specs = {spec["name"]: spec for spec in flowcache("models", "--json").json}
    assert specs.keys() == {"tiny-magi", "tiny-skyreels"} and specs["tiny-skyreels"]["heads"] > 0
    assert "9, 21, 33" in flowcache("models", "tiny-skyreels").out
    assert flowcache("models", "nowhere").code == 2


def test_more_gangs_than_fit_do_not_stop_the_run(render):
    """The cluster has two CPUs: the third gang waits for resources that never come."""
    result = render([row(name, frames=9) for name in "abc"], "--gangs", "3")
    assert result.code == 0 and len(result.json["done"]) == 3
