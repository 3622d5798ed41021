"""Gang sizes on the command line: what plan shows and recommends, and what is refused before anything starts."""

from flowcache.report.words import size
from tests.e2e.rows import row, write

CHUNK = 192  # tokens of tiny-skyreels' chunk at 64x64
MAGI = {"frames": 24, "steps": 4, "model": "tiny-magi"}


def test_the_sizes_side_by_side(flowcache, tmp_path):
    manifest = write(tmp_path / "rows.jsonl", [row("a"), row("b", **MAGI)])
    asked = "plan", manifest, "--gpus", "6", "--tflops", "1e-2", "--link", "1GB/s", "--gang", "3"
    shown = flowcache(*asked)
    assert shown.code == 0, shown.err
    for part in ("tiny-skyreels at 64x64", "tiny-magi at 64x64", "1 x 3", "2 x 4", "recommended: --gang 3: done in",
                 "- 1 GB/s each way", "about ", "on 6 GPUs"):  # fmt: skip
        assert part in shown.out, shown.out
    whole = flowcache(*asked, "--json").json
    counted = ["videos", "segments", "chunks", "frames", "without_reuse", "most", "least", "sampling"]
    assert list(whole) == [*counted, "estimate", "gangs", "signed", "watermark"]
    document = whole["gangs"]
    three = next(option for option in document["options"] if option["ranks"] == 3)
    one = document["options"][0]
    assert [cost["history"] for cost in three["costs"]] == [3, 3] and document["recommended"] == 3
    for alone, shared in zip(one["costs"], three["costs"], strict=True):
        assert shared["memory"]["keys_values"] * 3 / alone["memory"]["keys_values"] < 1.02
        assert 0 < shared["efficiency"] < alone["efficiency"] == 1 and shared["step_bytes"] > alone["step_bytes"] == 0
    sharded = flowcache(*asked, "--shard-weights", "--json").json["gangs"]["options"][2]["costs"][0]
    assert sharded["memory"]["gathered"] > 0 and sharded["step_bytes"] > three["costs"][0]["step_bytes"]
    assert three["fastest"] <= three["slowest"] and document["options"][-1]["slowest"] is None


def test_the_answer_comes_first_and_the_sizes_only_when_asked_for(flowcache, tmp_path):
    manifest = write(tmp_path / "rows.jsonl", [row("a"), row("b", **MAGI)])
    first, held, how_long, *rest = flowcache("plan", manifest).out.splitlines()
    cost = flowcache("plan", manifest, "--json").json
    counts = [f"{cost[name]} {name}" for name in ("videos", "segments", "chunks", "frames")]
    assert first == f"{', '.join(counts)}: {cost['most']['forwards']} chunk forwards"
    most = max(sum(each["memory"].values()) for each in cost["gangs"]["options"][0]["costs"])
    assert held.startswith(f"a rank holds about {size(most)}:") and how_long.startswith("how long: say --like")
    assert "as asked, at most" in "".join(rest) and "nothing is signed before `flowcache sign`" in rest[-2]
    assert "no invisible mark" in rest[-1]
    for part in ("ranks of a gang", "recommended", "assumed", "--gpu-memory"):
        assert part not in "".join(rest), part
    timed = flowcache("plan", manifest, "--tflops", "1e-2").out.splitlines()
    assert timed[2].startswith("about ") and timed[-2].startswith("- ") and "ranks of a gang" not in "".join(timed)


def test_what_does_not_fit_is_said_without_being_asked(flowcache, tmp_path):
    manifest = write(tmp_path / "rows.jsonl", [row("a")])
    assert "recommended: none: none of these gangs fits" in flowcache("plan", manifest, "--gpu-memory", "0.1GB").out
    alone = flowcache("plan", manifest, "--gang", "16").out
    assert "no gangs of 16: a gang lies on one node" in alone and "recommended: --gang 1: the smallest" in alone


def test_what_cannot_be_shared_is_refused_with_what_can(flowcache, tmp_path):
    """By plan and by render, before Ray is asked or the output is touched."""
    manifest, output = write(tmp_path / "rows.jsonl", [row("a"), row("b", **MAGI)]), tmp_path / "out"
    accepted = f"--gang: got 385; accepted for tiny-skyreels at 64x64: 1 to {CHUNK}"
    render = "render", manifest, "--output", output, "--address", "127.0.0.1:1"
    for asked in (("plan", manifest), ("plan", manifest, "--gpus", "385", "--tflops", "1"), render):
        refused = flowcache(*asked, "--gang", 385)
        assert (
            refused.code == 2 and accepted in refused.err and "accepted for tiny-magi at 64x64: 1 to 384" in refused.err
        )
    assert not output.exists()
    assert flowcache("plan", manifest, "--gang", CHUNK, "--node-gpus", CHUNK).code == 0


def test_what_cannot_be_read_is_reported_together(flowcache, tmp_path):
    manifest = write(tmp_path / "rows.jsonl", [row("a")])
    refused = flowcache("plan", manifest, "--link", "fast", "--gpu-memory", "80", "--until", "later")
    assert refused.code == 2
    for part in ("--link: got 'fast'; accepted: nvlink4", "--gpu-memory: got '80'", "--until: got 'later'"):
        assert part in refused.err
