"""A run that chooses K/V, on a video of a few chunks: what its rows say, and that it goes on where it was."""

from dataclasses import replace

import pytest

from flowcache.bench.names import KV_ALL
from flowcache.bench.report import report
from flowcache.bench.run import Bench
from flowcache.bench.walking import Studio
from tests.unit.bench.small import Killed, asked, killed_after, quiet, small

POLICIES = "kv-compressed:1,kv-sink:2"


def told(model, policies=POLICIES):
    return asked(model, 1, policies, converged=False)


@pytest.fixture(scope="module")
def model():
    """One chunk is under way at a time."""
    made = small("tiny-skyreels", 4)
    return replace(made, spec=replace(made.spec, steps=2))


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """A run that nobody disturbed: its folder and rows."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, Bench(model, folder, told(model)).run(quiet)


def test_what_rows_say(model, whole):
    rows = {row.entry.label: row for row in whole[1]}
    assert list(rows) == ["kv-all", "kv-recent:1", "kv-recent:2", "kv-sink:1+1", "kv-compressed:1"]
    every, transformer = rows["kv-all"], model.transformer
    chunk = 2 * transformer.layers * 2 * transformer.kv_heads * transformer.head_dim * 4  # K and V, branches, float32
    chunk *= model.spec.chunk_tokens(model.spec.width, model.spec.height)
    held = {label: row.kv_bytes / chunk for label, row in rows.items()}
    assert held == {"kv-all": 4, "kv-recent:1": 2, "kv-recent:2": 3, "kv-sink:1+1": 3, "kv-compressed:1": 2}
    assert {(row.chunks, row.chunk_forwards, row.off_forwards) for row in rows.values()} == {
        (4, every.chunk_forwards, every.chunk_forwards)
    }
    assert every.psnr is every.psnr_last is every.ssim is None and every.colour_drift >= 0
    assert all(row.psnr_converged is None and row.caption_last in (True, False) for row in rows.values())
    for label in rows.keys() - {"kv-all"}:
        assert rows[label].psnr_first == 100 > rows[label].psnr > rows[label].psnr_last  # the first chunks see all
        assert rows[label].flops < every.flops and rows[label].ssim < 1
    assert rows["kv-compressed:1"].psnr != rows["kv-recent:1"].psnr


def test_all_kv_are_as_good_as_none_kept(model, tmp_path):
    """`off` forwards finished chunks anew."""
    bench = Bench(model, tmp_path, told(model, "kv-recent:1,fewer-steps:1"))
    assert [entry.label for entry, _ in bench.references] == ["off", "kv-all"]
    prompt, studio = bench.asked.prompts[0], bench.studio
    off, kept = (studio.walk(recipe, prompt.text, prompt.seed) for _, recipe in bench.references)
    assert off.forwards > kept.forwards and (off.latents - kept.latents).abs().max() < 1e-3


def test_a_killed_run_goes_on_and_step_policies_can_be_added(model, whole, tmp_path, monkeypatch):
    with pytest.raises(Killed):
        Bench(model, tmp_path, told(model)).run(killed_after(3))
    walked, walk = [], Studio.walk

    def counted(self, recipe, prompt, seed):
        walked.append(recipe)
        return walk(self, recipe, prompt, seed)

    monkeypatch.setattr(Studio, "walk", counted)
    rows = Bench(model, tmp_path, told(model)).run(quiet)
    assert [replace(row, seconds=0.0) for row in rows] == [replace(row, seconds=0.0) for row in whole[1]]
    assert len(walked) == 1 + 2  # one warms up
    more = Bench(model, tmp_path, told(model, f"{POLICIES},taylorseer:2")).run(quiet)
    assert {row.policy for row in more} == {row.policy for row in rows} | {"off", "taylorseer"}
    assert all(row in more for row in rows)


def test_the_report_has_kv_alone(model, whole):
    folder, rows = whole
    text = report(Bench(model, folder, told(model)), rows, "no ColorVideoVDP (not here)")
    assert "4 chunks, 2 steps" in text and "## K/V: drift" in text and "## Costs" not in text
    assert "| kv-compressed:1 | kv-recent:1 | 0.500 / 0.500 |" in text and KV_ALL.label in text
    assert "PSNR to all K/V" in (folder / "bench.html").read_text()
