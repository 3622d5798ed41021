"""The real driver under a stand-in for the operator: ends of heads, exit codes, two jobs on one output."""

import copy
import json
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowcache.storage.commits import list_commits
from flowcache.storage.objects.store import Store
from flowcache.storage.verify import verify
from tests.cluster.head_pod import HeadPod, needs_namespaces
from tests.cluster.overlays import job_of, ray
from tests.cluster.ray_head import free_port
from tests.cluster.stand_in import STATUS_CHECKS, JobApi, Operator, RayJob

ROW = {"prompt": "a red circle moving right on a blue background", "frames": 69, "steps": 4}
PAST = "2020-01-01 00:00"


def render(folder: Path, rows: list[dict], *options: str) -> str:
    """The command line of a job: `rows` into `folder`/out."""
    folder.mkdir(exist_ok=True)
    manifest = folder / "rows.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["render", str(manifest), "--output", str(folder / "out"), "--gangs", "1", *options]
    return shlex.join([sys.executable, "-m", "flowcache.cli", *arguments])


def job(name: str, entrypoint: str, **spec) -> RayJob:
    """The RayJob of cluster/ with another command line."""
    resource = copy.deepcopy(ray("cpu-job"))
    return RayJob(name, job_of(resource) | {"entrypoint": entrypoint} | spec, resource["metadata"]["annotations"])


def rows(number: int) -> list[dict]:
    return [{"id": f"video-{index}", **ROW, "seed": index} for index in range(number)]


def chunks(folder: Path) -> set[Path]:
    return set((folder / "out").glob("media/*/*.m4s"))


@pytest.fixture
def pods() -> Iterator[list[HeadPod]]:
    """Each head that was made, in turn."""
    needs_namespaces()
    made: list[HeadPod] = []
    yield made
    for pod in made:
        pod.remove()


@pytest.fixture
def operator(pods) -> Operator:
    def new_head(cluster: dict) -> HeadPod:
        for _ in range(3):  # beside other work Ray may give up its own start
            pod = HeadPod(cluster["headGroupSpec"]["template"]["spec"])
            if pod.ready():
                pods.append(pod)
                return pod
            pod.remove()
        pytest.fail("no head came up")

    return Operator(new_head)


class Standing:
    """The one head that stays, in place of each cluster: what is asked here is what becomes of exit codes."""

    running = True

    def __init__(self, head):
        self.url, self.env = head.url, head.client

    def delete(self) -> None: ...


@pytest.fixture
def standing(head) -> Operator:
    return Operator(lambda cluster: Standing(head))


class Away(Standing):
    """A head whose node has vanished: nothing answers, and nothing says so."""

    def __init__(self, head):
        super().__init__(head)
        self.url = f"http://127.0.0.1:{free_port()}"


def over(*jobs: RayJob):
    return lambda: all(each.deployment in ("Complete", "Failed") for each in jobs)


@pytest.mark.slow
def test_suspended_drained_and_lost_heads_cost_a_try_each_and_no_video(operator, pods, tmp_path):
    """Three ends of a head under work: by suspending, by `kubectl delete pod`, and of its machine."""
    night = job("night", render(tmp_path, rows(3)))
    seen: set[Path] = set()

    def works() -> bool:
        """Something new was rendered by the job's present head."""
        return night.deployment == "Running" and bool(chunks(tmp_path) - seen)

    def settled() -> None:
        pods[-1].remove()
        seen.update(chunks(tmp_path))

    operator.run(works, night)
    night.spec["suspend"] = True
    operator.run(lambda: night.deployment == "Suspended", night)
    settled()
    assert night.failed == 0 and pods[0].took is not None and pods[0].took < pods[0].grace
    night.spec["suspend"] = False

    operator.run(works, night)
    pods[-1].delete()
    operator.run(lambda: night.deployment == "Retrying", night)
    assert (night.status, night.reason, night.failed) == ("FAILED", "AppFailed", 1)
    assert "exit code 5" in night.message and "SIGTERM came" in night.message
    assert "Traceback" not in night.log
    settled()
    assert pods[1].took is not None and pods[1].took < pods[1].grace

    operator.run(works, night)
    pods[-1].lose()
    operator.run(lambda: night.deployment == "Retrying", night, within=60)
    assert (night.reason, night.failed) == ("SubmissionFailed", 2)

    operator.run(over(night), night)
    assert (night.status, night.deployment, night.failed) == ("SUCCEEDED", "Complete", 2)
    assert len(pods) == 4  # none of them a second head of a cluster whose job is lost
    store = Store(str(tmp_path / "out"))
    assert list_commits(store).done == {"video-0", "video-1", "video-2"}
    assert not verify(store).problems


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "options", "expected"),
    [
        ("done", [], ("SUCCEEDED", "Complete", 0)),
        ("some failed", [], ("FAILED", "Failed", 2)),
        ("some failed", ["--succeed-with", "3"], ("SUCCEEDED", "Complete", 0)),
        ("late", ["--succeed-with", "3"], ("FAILED", "Failed", 2)),
        ("late", ["--succeed-with", "3", "--succeed-with", "5"], ("SUCCEEDED", "Complete", 0)),
        ("bad input", ["--succeed-with", "3", "--succeed-with", "5"], ("FAILED", "Failed", 2)),
        ("bad input", ["--stop-on-bad-input"], ("STOPPED", "Complete", 0)),
        ("no option", ["--stop-on-bad-input"], ("STOPPED", "Complete", 0)),
        ("some failed", ["--stop-on-bad-input"], ("FAILED", "Failed", 2)),
    ],
)
def test_what_becomes_of_each_exit_code(standing, tmp_path, ends, options, expected):
    good, bad = {"id": "good", **ROW, "frames": 21}, {"id": "bad", **ROW, "frames": 22}
    asked = {
        "done": ([good], []),
        "some failed": ([good, bad], ["--keep-going"]),
        "late": ([good], ["--until", PAST]),
        "bad input": ([good, bad], []),
        "no option": ([good], ["--hurry"]),
    }
    manifest, more = asked[ends]
    night = job("night", render(tmp_path, manifest, *more, *options), backoffLimit=1)
    standing.run(over(night), night)
    assert (night.status, night.deployment, night.failed) == expected, night.log
    if expected[0] == "FAILED":
        assert f"exit code {dict(zip(asked, (0, 3, 5, 2, 2), strict=True))[ends]}" in night.message
    if expected[0] == "STOPPED":
        assert {"bad input": "row 2: frames: got 22", "no option": "No such option"}[ends] in night.log


def another_submitter(night: RayJob) -> None:
    night.spec["submitterConfig"]["backoffLimit"] = 2


def no_probe(night: RayJob) -> None:
    del night.spec["submitterPodTemplate"]["spec"]["containers"][0]["livenessProbe"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (None, ("SUCCEEDED", "Complete", "", 1)),
        (another_submitter, ("", "Failed", "JobStatusCheckTimeoutExceeded", 1)),
        (no_probe, ("", "Failed", "JobStatusCheckTimeoutExceeded", 1)),
    ],
)
def test_a_head_that_is_away_for_more_than_300_seconds(head, tmp_path, change, expected):
    """And so is the next one, before it comes: with the settings of cluster/ that costs a try, with others the job."""
    haste, heads = 0.03, [Away(head), Standing(head)]

    def new_head(cluster: dict) -> Standing:
        if len(heads) == 1:
            time.sleep(1.1 * STATUS_CHECKS * haste)
        return heads.pop(0)

    night = job("night", render(tmp_path, [{"id": "good", **ROW, "frames": 21}]))
    if change is not None:
        change(night)
    Operator(new_head, haste).run(over(night), night)
    assert (night.status, night.deployment, night.reason, night.failed) == expected, night.log


@pytest.mark.slow
def test_of_two_jobs_on_one_output_the_second_leaves_and_a_stop_is_polite(standing, tmp_path):
    """As after two missed ticks of a RayCronJob; then `kubectl delete rayjob`, which tells Ray to stop the job."""
    command = render(tmp_path, rows(12), "--succeed-with", "3", "--succeed-with", "5")
    nights = [job(f"nightly-2940918{minute}", command) for minute in range(2)]
    standing.run(lambda: any(night.deployment == "Complete" for night in nights), *nights)
    left, stays = sorted(nights, key=lambda night: night.deployment != "Complete")
    assert left.status == "SUCCEEDED" and f"job {stays.name} is at work" in left.log and "committed" not in left.log
    assert stays.deployment == "Running" and stays.status == "RUNNING"

    api, name = JobApi(standing.heads[stays.name]), stays.tries[-1].name_
    standing.delete(stays)
    standing.run(lambda: api.status(name)["status"] == "STOPPED")
    stays.tries[-1].join(60)
    assert "SIGTERM came" in stays.log and "the same command goes on" in stays.log
    assert not verify(Store(str(tmp_path / "out"))).problems
