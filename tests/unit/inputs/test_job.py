"""Job files: what they may say, how options replace it, and every fault at once."""

from dataclasses import fields
from pathlib import Path

import pytest

from flowcache.errors import InputError
from flowcache.inputs.deadline import deadline
from flowcache.inputs.job import JOB_ACCEPTS, Defaults, JobSpec, load_job, merged
from flowcache.inputs.options import RunOptions
from flowcache.inputs.schema import Policy

ROOT = Path(__file__).parents[3]
MINIMAL = "manifest: night.jsonl\noutput: runs/night\n"


def job(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "job.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems(path: Path | None, **options) -> list[tuple[str, str, str]]:
    with pytest.raises(InputError) as caught:
        merged(path, **options)
    return [(Path(found.file).name, found.field, found.message) for found in caught.value.problems]


def test_a_job_needs_a_manifest_and_an_output_only(tmp_path):
    spec = load_job(job(tmp_path, MINIMAL))
    assert (spec.manifest, spec.output, spec.model) == (("night.jsonl",), "runs/night", "tiny-skyreels")
    assert (spec.policy.name, spec.gang, spec.gangs, spec.threads, spec.device) == ("off", 1, None, 1, "auto")
    assert (spec.retries, spec.infra_retries, spec.keep_going, spec.address) == (2, 5, False, None)


def test_everything_that_a_job_can_say(tmp_path):
    text = """
manifest: s3://bucket/night.parquet
output: s3://bucket/night
model: models/skyreels
policy: {name: paper, preset: fast, threshold: 0.2}
defaults: {width: 960, height: 544, fps: 24, seconds: 10, steps: 30, guidance: 5, seed: 3, negative_prompt: ""}
gang: 4
gangs: 16
threads: 8
device: cuda
shard_weights: true
address: auto
keep_going: true
retries: 0
infra_retries: 20
segment_timeout: 1800
exchange_timeout: 60
"""
    spec = load_job(job(tmp_path, text))
    assert spec.policy == Policy(name="paper", preset="fast", threshold=0.2)
    assert (spec.gang, spec.gangs, spec.device, spec.segment_timeout) == (4, 16, "cuda", 1800.0)
    assert spec.shard_weights and spec.run_options().exchange_timeout == spec.exchange_timeout == 60.0
    rows = spec.row_defaults()
    assert (rows.model, rows.policy, rows.width, rows.seconds) == ("models/skyreels", spec.policy, 960, 10.0)
    assert (rows.frames, rows.seed, rows.negative_prompt) == (None, 3, "")


def test_off_is_a_word_in_a_job_and_no_boolean(tmp_path):
    assert load_job(job(tmp_path, MINIMAL + "policy: off\n")).policy == Policy(name="off")
    assert problems(job(tmp_path, MINIMAL + "keep_going: yes\n"))[0][1] == "keep_going"


def test_options_replace_what_the_file_says(tmp_path):
    path = job(tmp_path, MINIMAL + "gang: 2\npolicy: paper\n")
    spec = merged(path, output="elsewhere", gang=None, policy="paper:fast", keep_going=True)
    assert (spec.output, spec.gang, spec.policy.preset, spec.keep_going) == ("elsewhere", 2, "fast", True)
    assert merged(manifest="m.csv", output="o") == JobSpec(manifest="m.csv", output="o", defaults=Defaults())


def test_all_faults_of_file_and_options_come_at_once(tmp_path):
    text = (
        "manifest: 3\noutputs: o\npolicy: papr\nretries: 1e3\nsegment_timeout: .inf\ndevice: gpu\n"
        "defaults: {steps: .nan, stps: 3, frames: 0, width: '64', fps: true}\n"
    )
    found = problems(job(tmp_path, text), gang=0)
    assert {(file, field) for file, field, _ in found} == {("command line", "gang")} | {
        ("job.yaml", field)
        for field in (
            "manifest", "output", "outputs", "policy", "retries", "segment_timeout", "device", "defaults.steps",
            "defaults.stps", "defaults.frames", "defaults.width", "defaults.fps",
        )
    }  # fmt: skip
    messages = {field: message for _, field, message in found}
    assert "did you mean 'output'?" in messages["outputs"] and "did you mean 'steps'?" in messages["defaults.stps"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "is empty"),
        ("- a\n", "is a list of 1 entry"),
        ("manifest: [a\n", "broken YAML in line 2"),
        ("manifest: a\nmanifest: b\n", "'manifest' is given twice"),
        ("defaults: {fps: 1, fps: 2}\n", "'fps' is given twice"),
        ("1: 2\n", "1 is no name"),
        ("a: !!python/object/apply:os.getcwd []\n", "broken YAML in line 1"),
        ("a: \x01\n", "broken YAML"),
        ("--- 1\n--- 2\n", "broken YAML"),
        ("[" * 5000, "broken YAML"),
        (b"manifest: caf\xe9\n", "is not UTF-8"),
        (MINIMAL + "#" * (1 << 20), "is larger than 64 KiB"),
    ],
)
def test_files_that_are_no_jobs(tmp_path, text, cause):
    found = problems(job(tmp_path, text))
    assert len(found) == 1 and cause in found[0][2]


def test_missing_files_and_folders(tmp_path):
    assert problems(tmp_path / "none.yaml")[0][2] == "does not exist"
    assert problems(tmp_path)[0][2] == "is a folder, not a file"


def test_seconds_and_frames_exclude_each_other_in_defaults(tmp_path):
    found = problems(job(tmp_path, MINIMAL + "defaults: {seconds: 4, frames: 57}\n"))
    assert [field for _, field, _ in found] == ["defaults.frames"]


def test_without_a_file_the_command_line_is_named():
    assert [(file, field) for file, field, _ in problems(None)] == [
        ("command line", "manifest"),
        ("command line", "output"),
    ]


def test_every_field_of_a_job_is_in_the_docs():
    text = (ROOT / "docs" / "manifest.md").read_text()
    assert all(f"| `{name}` |" in text and name in JOB_ACCEPTS for name in JobSpec.model_fields)


JOBS = sorted(path for path in (ROOT / "jobs").glob("*.yaml") if path.name != "kustomization.yaml")


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_the_job_files_of_the_repository_are_valid(path):
    spec = load_job(path)
    assert all("://" in name or (ROOT / name).is_file() for name in spec.manifest)


def test_the_jobs_of_the_design_are_there():
    assert [path.stem for path in JOBS] == ["benchmark", "demo", "overnight-magi", "overnight-skyreels"]


@pytest.mark.parametrize("text", ["7 o'clock", "25:00", "07:60", "tomorrow"])
def test_a_deadline_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="until: got .*; accepted: a time of day such as '07:00'"):
        merged(None, manifest="m.jsonl", output="out", until=text)


WHAT = {
    "manifest",
    "output",
    "model",
    "policy",
    "defaults",
    "keep_going",
    "succeed_with",
    "webhook",
}  # the rest says how
UNSAID = {"start_timeout", "retry_failed", "patience", "idle_release", "started_as"}  # what no job says


def test_a_setting_has_one_name_from_the_job_to_the_run():
    how = set(JobSpec.model_fields) - WHAT
    assert {option.name for option in fields(RunOptions)} == how | UNSAID
    assert JobSpec(manifest="m.csv", output="o").run_options() == RunOptions()


def test_what_a_job_says_of_the_run_is_what_the_run_is_told():
    said = {
        "gang": 2, "gangs": 3, "shard_weights": True, "threads": 4, "device": "cpu", "dtype": "bf16",
        "weights": "fp8", "vae_dtype": "bf16", "vae_tiling": "on", "compile": True, "address": "auto",
        "retries": 7, "infra_retries": 8, "segment_timeout": 9.0, "allow_private_media": True,
        "exchange_timeout": 10.0, "grace": 11.0, "wait_for_gpus": 12.0, "watermark": "mine:mark",
        "watermark_payload": "ours", "finish": "mine:finish",
    }  # fmt: skip
    moment = "2100-01-01T07:00+00:00"
    made = JobSpec(manifest="m.csv", output="o", until=moment, **said).run_options(retry_failed=True)
    assert said.keys() | {"until"} == set(JobSpec.model_fields) - WHAT
    assert made == RunOptions(**said, until=deadline(moment), retry_failed=True)


@pytest.mark.parametrize(
    ("written", "seconds"), [("30m", 1800), ("90s", 90), ("2h", 7200), ("1.5m", 90), ("45", 45), (45, 45), (0, 0)]
)
def test_a_length_of_time_has_a_unit_or_counts_seconds(written, seconds):
    assert merged(None, manifest="m.csv", output="o", wait_for_gpus=written).wait_for_gpus == seconds


@pytest.mark.parametrize("written", ["a while", "30 minutes", "8d", "-1", -1, "1e9", "", [3]])
def test_what_is_no_length_of_time_is_refused(written):
    with pytest.raises(InputError, match="wait_for_gpus: .*; accepted: seconds, or such as '90s'"):
        merged(None, manifest="m.csv", output="o", wait_for_gpus=written)


@pytest.mark.parametrize("written", [[0], [1], [2], ["3"], [3, 5, 3], 3])
def test_only_a_night_with_a_report_may_succeed(written):
    with pytest.raises(InputError, match="succeed_with.*accepted: "):
        merged(None, manifest="m.csv", output="o", succeed_with=written)
