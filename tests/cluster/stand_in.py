"""A stand-in for KubeRay's RayJob controller, written from its documentation and tried rules (1.7, K8sJobMode).

It creates clusters of one head, submits, polls, tries again, suspends and deletes; pods are whatever `new_head` makes.
"""

import asyncio
import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

POLL = 0.5  # seconds; the operator's are 3
SUBMITTER_GONE = 30.0  # seconds after the submitter's end in which the Ray job has to have ended, too
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
STATUS_CHECKS = 300.0  # seconds without an answer of the head after which a RayJob is given up for good
NEVER_AGAIN = ("DeadlineExceeded", "JobStatusCheckTimeoutExceeded")
LETTERS = "bcdfghjklmnpqrstvwxz2456789"


class Head(Protocol):
    url: str
    env: dict[str, str]

    @property
    def running(self) -> bool: ...

    def delete(self) -> None: ...


class Missing(Exception):
    """The head answers, and knows no such job."""


@dataclass
class JobApi:
    """Ray's, by HTTP."""

    head: Head

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.head.env['RAY_AUTH_TOKEN']}"}

    def ask(self, path: str, document: Any = None, method: str | None = None) -> Any:
        data = None if document is None else json.dumps(document).encode()
        headers = self.headers | ({"Content-Type": "application/json"} if data else {})
        request = urllib.request.Request(f"{self.head.url}/api/{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60 if data else 5) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise (Missing if error.code == 404 else OSError)(f"{error}: {error.read()[:1000]}") from error

    def status(self, name: str) -> dict[str, Any]:
        return self.ask(f"jobs/{name}")


class Submitter(threading.Thread):
    """The submitter's pod: what `ray job submit --no-wait` and `ray job logs --follow` do, and end with.

    It waits for the head first, as long as its liveness probe lets it (`patience`, seconds).
    """

    def __init__(self, api: JobApi, name: str, entrypoint: str, patience: float):
        super().__init__(daemon=True)
        self.api, self.name_, self.entrypoint, self.patience = api, name, entrypoint, patience
        self.log, self.code, self.ended = "", None, 0.0
        self.start()

    def run(self) -> None:
        try:
            self._wait()
            try:
                self.api.status(self.name_)
            except Missing:
                self.api.ask("jobs/", {"entrypoint": self.entrypoint, "submission_id": self.name_}, "POST")
            asyncio.run(self._follow())
            self.api.status(self.name_)
            self.code = 0  # whatever the job's was
        except (OSError, RuntimeError, Missing, aiohttp.ClientError) as error:
            self.log += f"submitter: {error!r}\n"
            self.code = 1
        self.ended = time.monotonic()

    def _wait(self) -> None:
        limit = time.monotonic() + self.patience
        while True:
            try:
                return self.api.ask("jobs/")
            except OSError:
                if time.monotonic() > limit:
                    raise
                time.sleep(POLL)

    async def _follow(self) -> None:
        url = f"{self.api.head.url}/api/jobs/{self.name_}/logs/tail"
        async with aiohttp.ClientSession(headers=self.api.headers) as session, session.ws_connect(url) as socket:
            async for message in socket:
                self.log += message.data
            if socket.close_code in (None, aiohttp.WSCloseCode.ABNORMAL_CLOSURE):
                raise RuntimeError("the connection broke off")


@dataclass
class RayJob:
    """`spec` as in the manifest; `status` and `deployment` as kubectl shows them, `history`: each of the latter."""

    name: str
    spec: dict[str, Any]
    annotations: dict[str, str] = field(default_factory=dict)
    status: str = ""
    deployment: str = ""
    reason: str = ""
    message: str = ""
    failed: int = 0
    started: float = 0.0
    history: list[str] = field(default_factory=list)
    tries: list[Submitter] = field(default_factory=list)

    @property
    def log(self) -> str:
        return "".join(submitter.log for submitter in self.tries)


class Operator:
    """`reconcile` is one look at one RayJob. new_head: starts one, and waits until it is ready.

    haste: what a second of its patience with a head that does not answer, and of the submitter's, is here.
    """

    def __init__(self, new_head: Callable[[dict[str, Any]], Head], haste: float = 1.0):
        self.new_head, self.haste = new_head, haste
        self.heads: dict[str, Head] = {}  # of the RayJob's cluster
        self.unanswered: dict[str, float] = {}  # since when

    def run(self, until: Callable[[], bool], *jobs: RayJob, within: float = 600.0) -> None:
        limit = time.monotonic() + within
        while not until():
            shown = [(job.name, job.history, job.status, job.reason, job.message, job.log[-3000:]) for job in jobs]
            assert time.monotonic() < limit, shown
            for job in jobs:
                self.reconcile(job)
            time.sleep(POLL)

    def reconcile(self, job: RayJob) -> None:
        before = job.deployment
        step = {"": self._begin, "Running": self._look, "Suspending": self._clear, "Retrying": self._clear}
        if job.deployment == "Suspended" and not job.spec.get("suspend"):
            job.deployment = ""
        elif job.deployment in step:
            step[job.deployment](job)
        if job.deployment == "Failed":
            self._fail(job)
        if job.deployment != before:
            job.history.append(job.deployment)

    def delete(self, job: RayJob) -> None:
        """The Ray job is told to stop, and the cluster goes without waiting for it."""
        head = self.heads.pop(job.name)
        JobApi(head).ask(f"jobs/{job.tries[-1].name_}/stop", {}, "POST")
        head.delete()

    def _begin(self, job: RayJob) -> None:
        head = self.heads[job.name] = self.new_head(job.spec["rayClusterSpec"])
        name = f"{job.name}-{''.join(random.choices(LETTERS, k=5))}"
        self._submit(job, head, name)
        job.started, job.deployment = time.monotonic(), "Running"

    def _submit(self, job: RayJob, head: Head, name: str) -> None:
        (container,) = job.spec["submitterPodTemplate"]["spec"]["containers"]
        probe = container.get("livenessProbe")
        patience = probe["failureThreshold"] * probe["periodSeconds"] * self.haste if probe else float("inf")
        job.tries.append(Submitter(JobApi(head), name, job.spec["entrypoint"], patience))

    def _look(self, job: RayJob) -> None:
        head, submitter, now = self.heads[job.name], job.tries[-1], time.monotonic()
        self._cluster(job)
        if job.spec.get("suspend"):
            job.deployment = "Suspending"
        elif now - job.started > job.spec["activeDeadlineSeconds"]:
            self._failed(job, "DeadlineExceeded")
        elif now - self.unanswered.get(job.name, now) > STATUS_CHECKS * self.haste:
            self._failed(job, "JobStatusCheckTimeoutExceeded")
        elif submitter.code and self._pods(job) <= job.spec["submitterConfig"]["backoffLimit"]:
            self._submit(job, head, submitter.name_)
        elif submitter.code:
            self._failed(job, "AppFailed" if job.status == "FAILED" else "SubmissionFailed")
        elif submitter.code == 0 and now - submitter.ended > SUBMITTER_GONE:
            job.status = "FAILED"
            self._failed(job, "JobDeploymentStatusTransitionGracePeriodExceeded")
        else:
            self._ask(job, head, submitter)

    def _ask(self, job: RayJob, head: Head, submitter: Submitter) -> None:
        try:
            found = JobApi(head).status(submitter.name_)
        except Missing:
            if submitter.code is not None:
                self._failed(job, "AppFailed", "Ray job not found")
            return
        except OSError:
            self.unanswered.setdefault(job.name, time.monotonic())
            return
        self.unanswered.pop(job.name, None)
        job.status, job.message = found["status"], found.get("message") or ""
        if job.status == "FAILED" and submitter.code is not None:
            self._failed(job, "AppFailed", job.message)
        elif job.status in ENDED and submitter.code is not None:
            job.deployment = "Complete"

    def _pods(self, job: RayJob) -> int:
        """How many submitters the present try has had."""
        return sum(submitter.name_ == job.tries[-1].name_ for submitter in job.tries)

    def _cluster(self, job: RayJob) -> None:
        """The RayCluster's controller: a head that is gone comes back, unless the RayJob says that it need not."""
        if not self.heads[job.name].running and "ray.io/disable-provisioned-head-restart" not in job.annotations:
            self.heads[job.name] = self.new_head(job.spec["rayClusterSpec"])

    def _failed(self, job: RayJob, reason: str, message: str = "") -> None:
        job.deployment, job.reason, job.message = "Failed", reason, message

    def _fail(self, job: RayJob) -> None:
        job.failed += 1
        if job.failed <= job.spec["backoffLimit"] and job.reason not in NEVER_AGAIN:
            job.deployment = "Retrying"

    def _clear(self, job: RayJob) -> None:
        """The cluster is deleted; its pods may take their time."""
        self.heads.pop(job.name).delete()
        self.unanswered.pop(job.name, None)
        job.status = job.reason = job.message = ""
        job.deployment = "Suspended" if job.deployment == "Suspending" else ""
