"""`flowcache bench` on a checkpoint with random weights: its files, and a second call that renders nothing."""

import pyarrow.parquet as pq
import pytest

from flowcache.bench import walking

POLICIES = "flowcache:0.5,magcache,taylorseer:2,paper:fast"


def test_two_prompts_are_measured_once(flowcache, checkpoint, tmp_path, monkeypatch):
    asked = ("--n", 2, "--seed", 8, "--guidance", 2.5, "--policies", POLICIES)
    arguments = ("bench", checkpoint, *asked, "--out", tmp_path / "out")
    made = flowcache(*arguments)
    assert made.code == 0, made.err
    assert "# flowcache bench random" in made.out and "not calibrated" in made.out
    assert "steps, guidance 2.5; target off" in made.out
    assert "14/14 done" in made.err
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"bench.parquet", "bench.md", "bench.html", "curve.png"} <= files
    rows = pq.read_table(tmp_path / "out" / "bench.parquet").to_pylist()
    settings = {(row["policy"], row["setting"]) for row in rows}
    assert len(rows) == 2 * len(settings) == 14 and {row["seed"] for row in rows} == {8000, 8001}
    assert {("fewer-steps", "0.5"), ("fewer-steps", "0.5 official start")} <= settings  # they come with ours
    assert all(row["psnr_converged"] > 0 and row["flops"] > 0 and row["off_forwards"] > 0 for row in rows)
    monkeypatch.setattr(walking, "denoise", lambda *_, **__: pytest.fail("rendered again"))
    again = flowcache(*arguments, "--json")
    assert again.code == 0 and {each["setting"] for each in again.json["settings"]} == {
        f"{policy}:{setting}" if setting else policy for policy, setting in settings
    }
