"""Submitting without a cluster: what is sent, whether anything is, and how a job is followed over a bad line."""

import json
from pathlib import Path

import pytest
from ray.dashboard.modules.job.pydantic_models import JobDetails
from ray.job_submission import JobStatus

from flowcache.errors import FlowcacheError, InputError
from flowcache.inputs.job import JobSpec, load_job
from flowcache.runtime import submit as jobs

FAR = {"manifest": "s3://bucket/night.parquet", "output": "s3://bucket/night"}


def details(name: str, status: JobStatus, code: int | None = None) -> JobDetails:
    return JobDetails(type="SUBMISSION", submission_id=name, status=status, entrypoint="", driver_exit_code=code)


class FakeClient:
    """A cluster's jobs, what was sent to it, and a log whose connections end as `tails` says."""

    def __init__(self, known=(), statuses=(), tails=(), refuse=False):
        self.known, self.statuses, self.tails, self.refuse = dict(known), list(statuses), list(tails), refuse
        self.sent = {}

    def list_jobs(self):
        return [details(name, status) for name, status in self.known.items()]

    def submit_job(self, *, entrypoint, submission_id, runtime_env):
        if self.refuse:
            self.known[submission_id] = JobStatus.RUNNING
            raise RuntimeError("Request failed with status code 400: it is there already")
        folder = Path(runtime_env["working_dir"])
        files = (path for path in folder.rglob("*") if path.is_file())
        self.sent[submission_id] = {str(path.relative_to(folder)): path.read_bytes() for path in files}

    def get_job_info(self, name):
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(status, Exception):
            raise status
        return details(name, status)

    async def tail_job_logs(self, name):
        for item in self.tails.pop(0) if self.tails else ():
            if isinstance(item, Exception):
                raise item
            yield item


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(jobs, "POLL", 0.0)


def test_a_local_manifest_goes_along_and_names_the_job(tmp_path):
    manifest = tmp_path / "night.jsonl"
    manifest.write_text('{"prompt": "a red circle"}\n')
    spec = JobSpec(manifest=str(manifest), output="s3://bucket/night", address="auto", policy="paper:fast")
    made = jobs.prepare(spec, ["--endpoint-url", "http://store:9000/a b"])
    assert set(made.files) == {"night.jsonl", "job.yaml"}
    assert made.entrypoint == "flowcache render --job job.yaml --endpoint-url 'http://store:9000/a b'"
    (tmp_path / "job.yaml").write_bytes(made.files["job.yaml"])
    sent = load_job(tmp_path / "job.yaml")
    assert sent == spec.model_copy(update={"manifest": "night.jsonl", "address": None})
    assert jobs.prepare(spec, ["--endpoint-url", "http://store:9000/a b"]) == made
    assert jobs.prepare(spec).name != made.name
    manifest.write_text('{"prompt": "a blue circle"}\n')
    assert jobs.prepare(spec, ["--endpoint-url", "http://store:9000/a b"]).name != made.name


def test_what_the_cluster_could_not_find_is_refused_all_at_once(tmp_path):
    spec = JobSpec(manifest=str(tmp_path / "none.csv"), output="runs/night", model="models/14b")
    with pytest.raises(InputError) as caught:
        jobs.prepare(spec)
    assert [problem.field for problem in caught.value.problems] == ["output", "model", ""]
    assert "none.csv" in str(caught.value)
    assert jobs.prepare(JobSpec(**FAR | {"output": "/shared/night", "model": "/models/14b"})).files.keys() == {
        "job.yaml"
    }


def rows(folder: Path, *rows: dict) -> JobSpec:
    (folder / "m.jsonl").write_text("".join(json.dumps({"prompt": "a red circle", **row}) + "\n" for row in rows))
    return JobSpec(manifest=str(folder / "m.jsonl"), output="s3://b/o")


def test_pictures_and_videos_beside_the_manifest_go_along(tmp_path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.png").write_bytes(b"picture")
    (tmp_path / "b.mp4").write_bytes(b"video")
    elsewhere = {"image": "s3://bucket/c.png", "end_image": "/shared/d.png"}
    job = jobs.prepare(
        rows(tmp_path, {"image": "media/a.png", "end_image": "media/a.png"}, {"video": "b.mp4"}, elsewhere)
    )
    assert set(job.files) == {"job.yaml", "m.jsonl", "media/a.png", "b.mp4"}
    client = FakeClient()
    jobs.submit(client, job)
    assert client.sent[f"{job.name}-1"] == job.files
    (tmp_path / "b.mp4").write_bytes(b"another")
    assert jobs.prepare(rows(tmp_path, {"video": "b.mp4"})).name != job.name


def test_files_that_cannot_be_sent_are_named_with_their_rows(tmp_path, monkeypatch):
    spec = rows(tmp_path, {"image": "none.png"}, {"video": "../other.mp4"}, {"image": 3})
    with pytest.raises(InputError) as caught:
        jobs.prepare(spec)
    told = [(problem.row, problem.field, problem.message) for problem in caught.value.problems]
    assert told[0] == (1, "image", "'none.png' cannot be read (no such file or directory)")
    assert told[1][:2] == (2, "video") and "leaves the manifest's folder" in told[1][2] and len(told) == 2

    (tmp_path / "a.png").write_bytes(b"x" * 2000)
    monkeypatch.setattr(jobs, "LIMIT", 1000)
    with pytest.raises(InputError, match="accepted: URLs for so much"):
        jobs.prepare(rows(tmp_path, {"image": "a.png"}))


@pytest.mark.parametrize(
    ("statuses", "attempt", "started"),
    [
        ([], 1, True),
        ([JobStatus.PENDING], 1, False),
        ([JobStatus.RUNNING], 1, False),
        ([JobStatus.SUCCEEDED], 1, False),
        ([JobStatus.FAILED], 2, True),
        ([JobStatus.FAILED, JobStatus.STOPPED], 3, True),
        ([JobStatus.FAILED, JobStatus.RUNNING], 2, False),
    ],
)
def test_only_after_a_failure_is_the_same_job_started_anew(statuses, attempt, started):
    job = jobs.prepare(JobSpec(**FAR))
    client = FakeClient({f"{job.name}-{number}": status for number, status in enumerate(statuses, 1)})
    assert jobs.submit(client, job) == (f"{job.name}-{attempt}", started)
    assert client.sent == ({f"{job.name}-{attempt}": job.files} if started else {})


def test_of_two_submitters_at_once_the_later_follows_the_job_of_the_first():
    job = jobs.prepare(JobSpec(**FAR))
    assert jobs.submit(FakeClient(refuse=True), job) == (f"{job.name}-1", False)


def answers(client: FakeClient, *texts: str) -> FakeClient:
    """The client, whose first submissions are answered with these errors."""
    left, accept = list(texts), client.submit_job

    def submit_job(**job):
        if left:
            raise RuntimeError(f"Request failed with {left.pop(0)}")
        accept(**job)

    client.submit_job = submit_job
    return client


def test_a_cluster_that_is_not_ready_yet_is_waited_for(monkeypatch):
    job = jobs.prepare(JobSpec(**FAR))
    busy = "status code 500: No available agent"
    client = answers(FakeClient(), busy, busy)
    assert jobs.submit(client, job) == (f"{job.name}-1", True) and client.sent
    monkeypatch.setattr(jobs, "PATIENCE", 0.0)
    with pytest.raises(FlowcacheError, match="could not be submitted: .* No available agent"):
        jobs.submit(answers(FakeClient(), busy), job)


def test_a_refusal_is_told_at_once():
    with pytest.raises(FlowcacheError, match="could not be submitted: .* 400: no such plugin"):
        jobs.submit(answers(FakeClient(), "status code 400: no such plugin"), jobs.prepare(JobSpec(**FAR)))


def test_a_log_whose_connection_breaks_is_shown_once_and_whole():
    """Each connection begins with the log's start; the last one comes after the job's end."""
    running, done = JobStatus.RUNNING, JobStatus.SUCCEEDED
    client = FakeClient(
        statuses=[running, running, running, OSError("gone"), done],
        tails=[["one\ntw", RuntimeError("closed")], ["one\n"], ["one\ntwo\n", "three\n"]],
    )
    shown = []
    assert jobs.follow(client, "j", shown.append).status == done
    assert "".join(shown) == "one\ntwo\nthree\n" and not client.tails


def test_a_silent_connection_is_made_anew(monkeypatch):
    monkeypatch.setattr(jobs, "QUIET", 0.01)
    client = FakeClient(statuses=[JobStatus.RUNNING, JobStatus.SUCCEEDED])

    async def silent(name):
        import asyncio

        await asyncio.sleep(60)
        yield "never"

    client.tail_job_logs = silent
    assert jobs.follow(client, "j", print).status == JobStatus.SUCCEEDED


def test_a_lost_head_ends_the_following(monkeypatch):
    monkeypatch.setattr(jobs, "PATIENCE", 0.0)
    with pytest.raises(FlowcacheError, match="no longer says how j fares: refused"):
        jobs.follow(FakeClient(statuses=[OSError("refused")]), "j", print)


@pytest.mark.parametrize(
    ("status", "code", "wanted"),
    [("SUCCEEDED", 0, 0), ("FAILED", 3, 3), ("FAILED", 2, 2), ("FAILED", None, 1), ("STOPPED", -15, 1)],
)
def test_exit_codes(status, code, wanted):
    assert jobs.exit_code(details("j", JobStatus(status), code)) == wanted


@pytest.mark.parametrize("address", ["auto", "head:8265", "ray://head:10001", "http://127.0.0.1:1"])
def test_addresses_where_no_dashboard_answers(address, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(InputError, match="--address"):
        jobs.connect(address)


def test_an_address_that_ray_would_override_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:8265")
    with pytest.raises(InputError, match="RAY_ADDRESS says 'http://elsewhere:8265'"):
        jobs.connect("http://127.0.0.1:1")
