import io
import json
import logging

from flowcache.progress.json_lines import JsonLines, JsonProgress
from tests.unit.progress.played import play


def test_the_driver_logs_each_event_with_its_place():
    stream = io.StringIO()
    play(JsonProgress(stream))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    failed = next(line for line in lines if line["level"] == "warning")
    assert [failed[name] for name in ("video", "segment", "rank", "kind")] == ["long", 0, 1, "work"]
    assert failed["cause"] == "OSError: s3://***@host/x gone" and failed["time"].endswith("Z")
    told = [line["message"] for line in lines if line.get("video") == "long" and line.get("segment") == 1]
    assert told == ["segment started", "chunk finished", "segment committed"]
    assert [line["video"] for line in lines if line["message"] in ("video done", "video dead-lettered")] == [
        "short",
        "long",
    ]
    summaries = [line["message"] for line in lines if "chunks" in line["message"]]
    assert summaries[0] == "run 0123456789abcdef: 0/2 videos, 0/7 chunks" and summaries[-1].startswith("1/3 videos")
    assert not logging.getLogger("flowcache.run").propagate


def test_a_log_line_never_breaks_on_what_it_holds():
    record = logging.LogRecord("n", logging.INFO, "", 0, "two\nlines at %s", ("s3://a:b@c/d",), None)
    record.video, record.cause = "v", ValueError("x")
    line = JsonLines().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert found["message"] == "two\nlines at s3://***@c/d" and found["cause"] == "x"
