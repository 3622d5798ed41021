"""Submitting without a cluster: what is sent, whether anything is, and how a job is followed over a bad line."""

import hashlib
import json
import os
import pkgutil
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from PIL import Image
from ray.dashboard.modules.job.pydantic_models import JobDetails
from ray.job_submission import JobStatus

from flowcache.api import check
from flowcache.errors import FlowcacheError, InputError
from flowcache.inputs.job import JobSpec, load_job
from flowcache.runtime import submit as jobs
from flowcache.storage.objects.store import Store
from tests.unit.storage.samples import Studio, request

MANIFESTS = Path(__file__).parents[3] / "manifests"
FAR = {"manifest": "s3://bucket/night.parquet", "output": "s3://bucket/night"}


def details(name: str, status: JobStatus, code: int | None = None) -> JobDetails:
    return JobDetails(type="SUBMISSION", submission_id=name, status=status, entrypoint="", driver_exit_code=code)


class FakeClient:
    """A cluster's jobs, what was sent to it, and a log whose connections end as `tails` says."""

    def __init__(self, known=(), statuses=(), tails=(), refuse=False):
        self.known, self.statuses, self.tails, self.refuse = dict(known), list(statuses), list(tails), refuse
        self.sent = {}
        self.env_vars = None

    def list_jobs(self):
        return [details(name, status) for name, status in self.known.items()]

    def submit_job(self, *, entrypoint, submission_id, runtime_env):
        if self.refuse:
            self.known[submission_id] = JobStatus.RUNNING
            raise RuntimeError("Request failed with status code 400: it is there already")
        folder, self.env_vars = Path(runtime_env["working_dir"]), runtime_env["env_vars"]
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
    assert made.files.keys() == {"flowcache-data/manifest.jsonl", "flowcache-data/job.yaml"}
    assert made.entrypoint == "flowcache render --job flowcache-data/job.yaml --endpoint-url 'http://store:9000/a b'"
    (tmp_path / "job.yaml").write_bytes(made.files["flowcache-data/job.yaml"])
    sent = load_job(tmp_path / "job.yaml")
    assert sent == spec.model_copy(update={"manifest": ("flowcache-data/manifest.jsonl",), "address": None})
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
        "flowcache-data/job.yaml"
    }


def rows(folder: Path, *rows: dict) -> JobSpec:
    (folder / "m.jsonl").write_text("".join(json.dumps({"prompt": "a red circle", **row}) + "\n" for row in rows))
    return JobSpec(manifest=str(folder / "m.jsonl"), output="s3://b/o")


def picture(path: Path, size: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.frombytes("RGB", (size, size), os.urandom(3 * size * size)).save(path, "PNG")
    return path


def refused(spec: JobSpec) -> list[tuple[int, str, str]]:
    with pytest.raises(InputError) as caught:
        jobs.prepare(spec)
    return [(problem.row, problem.field, problem.message) for problem in caught.value.problems]


def test_pictures_and_videos_beside_the_manifest_go_along_and_are_found_again(tmp_path, monkeypatch):
    """By rows that stay as written: ids and seeds are hashes of that."""
    here, there = tmp_path / "here", tmp_path / "there"
    picture(here / "media" / "a.png")
    shutil.copy(MANIFESTS / "media" / "start.mp4", here / "b.mp4")
    elsewhere = {"image": str(picture(tmp_path / "c.png"))}
    spec = rows(here, {"image": "media/a.png", "end_image": "media/a.png"}, {"video": "b.mp4", "seed": 1}, elsewhere)
    job, client = jobs.prepare(spec), FakeClient()
    jobs.submit(client, job)
    assert client.sent[f"{job.name}-1"] == job.files and client.env_vars == {"PYTHONSAFEPATH": "1"}
    assert job.entrypoint == "flowcache render --job flowcache-data/job.yaml --media flowcache-data/media.json"
    for name, data in job.files.items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(data)
    monkeypatch.chdir(there)
    sent = load_job("flowcache-data/job.yaml")
    table = json.loads(Path("flowcache-data/media.json").read_text())
    wanted, faults, _, _ = check(*spec.manifest, spec.row_defaults())
    found, more, _, _ = check(*sent.manifest, sent.row_defaults(), media=table)
    assert not faults + more and len(found) == 3
    for before, after in zip(wanted, found, strict=True):
        assert (before.id, before.seed) == (after.id, after.seed)
        assert (before.media_sha256, before.end_image_sha256) == (after.media_sha256, after.end_image_sha256)
    picture(here / "media" / "a.png")
    assert jobs.prepare(spec).name != job.name


def test_files_that_cannot_be_sent_are_named_with_their_rows(tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("import os")
    picture(tmp_path / "a.png", 32)
    told = refused(
        rows(tmp_path, {"image": "none.png"}, {"video": "a.png"}, {"image": 3, "end_image": "text.png"}, {"image": ""})
    )
    assert [(row, field) for row, field, _ in told] == [(1, "image"), (2, "video"), (3, "end_image"), (4, "image")]
    assert told[0][2] == "'none.png' does not exist; accepted: a picture that can be opened and decoded"
    assert told[1][2].startswith("'a.png' is no video that can be opened")
    assert told[2][2].startswith("'text.png' is no picture that can be opened (PNG, JPEG, ")

    monkeypatch.setattr(jobs, "LIMIT", 1000)
    with pytest.raises(InputError, match="accepted: URLs for so much"):
        jobs.prepare(rows(tmp_path, {"image": "a.png"}))


def test_nothing_from_outside_the_manifests_folder_is_sent(tmp_path):
    here = tmp_path / "here"
    picture(tmp_path / "private" / "a.png")
    here.mkdir()
    (here / "link.png").symlink_to(tmp_path / "private" / "a.png")
    (here / "folder").symlink_to(tmp_path / "private")
    (here / "loop.png").symlink_to(here / "loop.png")
    names = ["../private/a.png", "link.png", "folder/a.png"]
    told = refused(rows(here, *({"image": name} for name in [*names, "loop.png", "folder/../x.png"])))
    out = "leaves the manifest's folder; accepted: a path in it, or a URL"
    assert [message for *_, message in told[:3]] == [f"{name!r} {out}" for name in names]
    assert len(told) == 5

    (tmp_path / "linked").symlink_to(here)  # how the folder itself is reached does not matter
    picture(here / "own.png")
    (here / "within.png").symlink_to("own.png")
    jobs.prepare(rows(tmp_path / "linked", {"image": "own.png"}, {"image": "within.png"}, {"image": "x/../own.png"}))


def test_a_runs_playlist_goes_along_as_the_video_that_it_names(tmp_path, monkeypatch):
    Studio(Store(str(tmp_path / "night")), (request("cat", 3),)).run()
    row = {"video": "night/media/cat/index.m3u8", "fps": 8}
    job = jobs.prepare(spec := rows(tmp_path, row))
    (sent,) = (data for name, data in job.files.items() if "/media-" in name)
    (asked,) = check(*spec.manifest, spec.row_defaults())[0]
    assert hashlib.sha256(sent).hexdigest() == asked.media_sha256
    harmless(job.files, tmp_path / "there")

    chunk = next((tmp_path / "night/media/cat").glob("00001.*"))
    kept = chunk.rename(tmp_path / "night/media/cat/kept.m4s")
    ((_, field, message),) = refused(rows(tmp_path, row))
    assert field == "video" and message.startswith(f"{row['video']!r} names {chunk.name}, which does not exist")
    outside = tmp_path.parent / f"{tmp_path.name}.m4s"
    chunk.symlink_to(kept.rename(outside))
    ((_, _, message),) = refused(rows(tmp_path, row))
    assert "leaves the manifest's folder" in message
    outside.unlink()


def test_a_file_that_changes_after_it_was_looked_at_is_not_sent(tmp_path, monkeypatch):
    path, look = picture(tmp_path / "a.png"), jobs.Sandbox.probe

    def replaced(*arguments):
        found = look(*arguments)
        path.write_text("import os")
        return found

    monkeypatch.setattr(jobs.Sandbox, "probe", replaced)
    ((row, field, message),) = refused(rows(tmp_path, {"image": "a.png"}))
    assert (row, field) == (1, "image") and message.startswith("'a.png' changed while it was read")


OURS = re.compile(r"flowcache-data/(job\.yaml|media\.json|manifest\.(jsonl|ndjson|csv|parquet)|media-[0-9a-f]{32})")
HOSTILE = (
    "yaml.py", "sitecustomize.py", "usercustomize.py", "conftest.py", "ray.py", "torch/__init__.py", "__main__.py",
    "flowcache/__init__.py", "x.pth", "yaml.pyc", "yaml.so", "yaml.abi3.so", "__pycache__/yaml.cpython-311.pyc",
    "flowcache-data/job.yaml", "job.yaml", "media.json", ".rayignore", ".gitignore", ".git/config", "venv/a.png",
    "pyproject.toml", "~no-such-user/a.png", "a b;$(id).png", "a.zip", ".env",
)  # fmt: skip


def harmless(files: dict[str, bytes], folder: Path) -> None:
    """Every file bears a name of ours, and Python finds no module in the folder to which Ray unpacks them."""
    for name, data in files.items():
        assert OURS.fullmatch(name)
        assert "/media-" not in name or hashlib.sha256(data).hexdigest().startswith(name[-32:])
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    assert os.listdir(folder) == ["flowcache-data"] and not "flowcache-data".isidentifier()
    assert not list(pkgutil.iter_modules([str(folder), str(folder / "flowcache-data")]))


def test_names_that_python_or_ray_look_for_are_not_sent(tmp_path):
    for name in HOSTILE:
        picture(tmp_path / "here" / name)
    job = jobs.prepare(rows(tmp_path / "here", *({"image": name} for name in HOSTILE)))
    harmless(job.files, tmp_path / "there")
    assert len(job.files) == len(HOSTILE) + 3


@settings(deadline=None, max_examples=60)
@given(names=st.lists(st.text(max_size=40), min_size=1, max_size=3), manifest=st.text(max_size=20))
def test_no_name_of_the_manifests_choosing_is_sent(tmp_path_factory, names, manifest):
    folder = tmp_path_factory.mktemp("names")
    for name in names:
        assume(not os.path.isabs(name) and ".." not in Path(name).parts and "::" not in name and "://" not in name)
    assume("/" not in manifest)
    try:
        for name in names:
            picture(folder / "here" / name)
        spec = rows(folder / "here", *({"image": name} for name in names))
        renamed = Path(*spec.manifest).rename(folder / "here" / f"{manifest}.jsonl")
    except (OSError, ValueError):
        reject()  # not a name that a file can have
    job = jobs.prepare(spec.model_copy(update={"manifest": (str(renamed),)}))
    harmless(job.files, folder / "there")


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
