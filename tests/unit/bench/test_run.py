"""A run on small windows: what its rows say, and that a killed one goes on where it was."""

import json
from dataclasses import replace

import pytest

from flowcache.bench.report import report
from flowcache.bench.run import WARM_UP, Bench
from flowcache.bench.table import FILE
from flowcache.bench.walking import Studio
from flowcache.cache.fixed_steps import Calibration
from flowcache.errors import FlowcacheError, InputError
from flowcache.sampling.records import NotFinite
from flowcache.worker.windows import Windows
from tests.unit.bench.small import Killed, asked, killed_after, quiet, small


@pytest.fixture(scope="module")
def model():
    return small("tiny-skyreels", 1)


@pytest.fixture
def walks(monkeypatch):
    """Policies or solvers of recipes that were walked, each time."""
    walked, walk = [], Studio.walk

    def counted(self, recipe, prompt, seed):
        walked.append((recipe.policy.name if recipe.by == "own" else recipe.by, recipe.steps, seed))
        return walk(self, recipe, prompt, seed)

    monkeypatch.setattr(Studio, "walk", counted)
    return walked


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """A run that nobody disturbed, of two prompts: its folder and rows."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, Bench(model, folder, asked(model, 2)).run(quiet)


def timeless(rows):
    return [replace(row, seconds=0.0) for row in rows]


def test_what_rows_say(model, whole):
    _, rows = whole
    first = {row.entry.label: row for row in rows if row.seed == 4000}
    off, ours = first["off"], first["flowcache:0.5"]
    assert len(rows) == 2 * len(first) and {row.off_forwards for row in rows} == {off.chunk_forwards}
    assert off.psnr is None and off.ssim is None and off.psnr_converged < 100
    assert ours.chunk_forwards < off.chunk_forwards and ours.flops < off.flops and ours.psnr < 100 and ours.ssim < 1
    assert all(row.caption_right in (True, False) and row.cvvdp is None and row.kv_bytes > 0 for row in rows)
    skipping = [first[name].chunk_forwards for name in ("taylorseer:2", "magcache:0.12")]
    assert max(skipping) < off.chunk_forwards


def test_what_is_the_same_is_rendered_once(tmp_path, walks):
    """Fewer steps of MAGI-1, officially and by us: it has but one solver, and Adams-Bashforth beside it."""
    magi = small("tiny-magi", 2)
    told = asked(magi, 1, "fewer-steps:0.6,fewer-steps-official:0.6,magcache,teacache", converged=False)
    found = {row.entry.label: row for row in Bench(magi, tmp_path, told).run(quiet)}
    ours, official = found["fewer-steps:0.6"], found["fewer-steps-official:0.6"]
    assert replace(official, policy=ours.policy) == ours and ours.psnr != found["fewer-steps:0.6 AB2"].psnr
    names = [name for name, _, _ in walks]
    assert (names.count("flowcache"), names.count("adams-bashforth")) == (1, 1)
    assert found["magcache:0.12"].chunk_forwards < found["off"].chunk_forwards


def test_a_killed_run_goes_on_with_what_is_missing(model, whole, tmp_path, walks):
    """Killed after 2 rows of one prompt, and again after 1 of the other, it walks each setting once all the same."""
    for rows in (2, 7):
        with pytest.raises(Killed):
            Bench(model, tmp_path, asked(model, 2)).run(killed_after(rows))
        assert len(Bench(model, tmp_path, asked(model, 2)).table.rows) == rows
    assert timeless(Bench(model, tmp_path, asked(model, 2)).run(quiet)) == timeless(whole[1])
    once = [walk for walk in walks if walk != ("off", WARM_UP, 4000)]
    assert sorted(once) == sorted({*once}) and len(once) == 2 * (6 + 1) + 1  # a converged walk each, and the ratios
    walks.clear()
    Bench(model, tmp_path, asked(model, 2)).run(quiet)
    assert walks == []


def test_more_prompts_and_policies_are_added_to_what_is_there(model, tmp_path, walks):
    few = Bench(model, tmp_path, asked(model, 1, "taylorseer:2")).run(quiet)
    walks.clear()
    more = Bench(model, tmp_path, asked(model, 1, "taylorseer:2,taylorseer:4")).run(quiet)
    assert more[:2] == few and len(more) == 3
    assert [name for name, steps, _ in walks] == ["off", "taylorseer"]  # one warms up, the reference is there
    assert Bench(model, tmp_path, asked(model, 1, "taylorseer:2")).run(quiet) == few


def test_another_runs_folder_is_refused(model, whole):
    folder, _ = whole
    for changed, field in [
        ({"target": "converged"}, "target"),
        ({"converged": False}, "converged"),
        ({"seed": 9}, "seed"),
    ]:
        with pytest.raises(InputError, match=field):
            Bench(model, folder, asked(model, **changed))
    other = replace(model, spec=replace(model.spec, digest="another"))
    with pytest.raises(InputError, match="digest: is .* there; accepted: 'another'"):
        Bench(other, folder, asked(model))


def test_a_metric_and_the_target_are_asked(model, tmp_path):
    told = asked(model, 1, "taylorseer:2", target="converged")
    off, ours = Bench(model, tmp_path, told, metric=lambda video, other, fps: float(fps)).run(quiet)
    assert ours.cvvdp == off.cvvdp == model.spec.fps and off.ssim < 1 and off.psnr is None


def test_without_converged_walks_nothing_is_walked_so_long(model, tmp_path, walks):
    rows = Bench(model, tmp_path, asked(model, 1, "taylorseer:2", converged=False)).run(quiet)
    assert [row.psnr_converged for row in rows] == [None, None]
    assert walks == [("off", WARM_UP, 4000), ("off", 4, 4000), ("taylorseer", 4, 4000)]


def test_what_diverges_is_named_and_the_rows_before_it_stay(model, tmp_path, monkeypatch):
    walk = Studio.walk

    def diverging(self, recipe, prompt, seed):
        if recipe.policy.name == "taylorseer":
            raise NotFinite(0)
        return walk(self, recipe, prompt, seed)

    monkeypatch.setattr(Studio, "walk", diverging)
    bench = Bench(model, tmp_path, asked(model, 1, "taylorseer:2", converged=False))
    with pytest.raises(FlowcacheError, match="^taylorseer:2 on 'an? .*: chunk 0 .* name the other --policies"):
        bench.run(quiet)
    assert [row.policy for row in bench.table.rows] == ["off"]


def test_what_is_damaged_of_what_was_kept_is_measured_again(model, tmp_path, walks):
    def told(*policies):
        return asked(model, 1, ",".join(("magcache", *policies)), converged=False)

    Bench(model, tmp_path, told()).run(quiet)
    kept = sorted(tmp_path.glob("references/*/*"))
    sound, damage = [file.read_bytes() for file in kept], (b"", b"5", b'[["a"]]', bytes(99))
    assert [file.suffix for file in kept] == [".json", ".safetensors"]
    for number, content in enumerate(damage, 2):
        for file in kept:
            file.write_bytes(content)
        walks.clear()
        Bench(model, tmp_path, told(f"taylorseer:{number}")).run(quiet)
        assert sorted(name for name, _, seed in walks if seed != 4000 or name != "off") == ["magcache", "taylorseer"]
        assert [file.read_bytes() for file in kept] == sound


def test_the_report_is_written_beside_the_table(model, whole):
    folder, rows = whole
    bench = Bench(model, folder, asked(model, 2))
    text = report(bench, bench.run(quiet), "no ColorVideoVDP (not here)")
    assert {path.name for path in folder.iterdir()} == {FILE, "bench.md", "bench.html", "curve.png", "references"}
    assert (folder / "bench.md").read_text() == text
    assert f"{model.spec.digest[:12]} (without a calibration), 2 prompts of seed 4 (noise 4000 to 4001)" in text
    assert "2 of 4 steps" in text and "not calibrated" in text and "no ColorVideoVDP (not here)" in text
    assert bench.predicted == {}
    assert text in report(Bench(model, folder, asked(model, 2)), rows, "no ColorVideoVDP (not here)")


def test_errors_are_predicted_of_what_is_calibrated(model, tmp_path):
    at = Windows(model.spec, "off").conditions()
    made = Calibration(0.5, at, (0, 2), ((), ()), ((), ()))
    calibrated = replace(model, spec=replace(model.spec, calibrations=(made,)))
    bench = Bench(calibrated, tmp_path, asked(calibrated, 1, "flowcache:0.5,flowcache:0.3", converged=False))
    assert {entry.label for entry in bench.predicted} == {"flowcache:0.5"} and min(bench.predicted.values()) > 0
    text = report(bench, bench.run(quiet))
    assert "2 of 4 steps, UniPC, corrected, calibrated" in text and "1 of 4 steps, UniPC, corrected, not" in text
    (file,) = tmp_path.glob("references/*/predicted.json")
    sound = json.loads(file.read_text())
    assert sound["flowcache:0.3"] is None
    for damaged in ("", "[]", '{"flowcache:0.5": "low", "flowcache:0.3": NaN}'):
        file.write_text(damaged)
        again = Bench(calibrated, tmp_path, asked(calibrated, 1, "flowcache:0.5,flowcache:0.3", converged=False))
        assert again.predicted == bench.predicted and json.loads(file.read_text()) == sound
