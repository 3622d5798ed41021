"""A Ray with dashboard, job API, token authentication and metrics, as a cluster has them."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.ray_head import answers, environment, new_address


@dataclass(frozen=True)
class Head:
    """`url`: of the dashboard. `metrics`: of the Prometheus endpoint. `client`: the environment of who may submit."""

    url: str
    metrics: str
    client: dict[str, str]

    def scrape(self) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """{metric: {labels: value}}, as Prometheus would read it."""
        found: dict[str, dict] = {}
        with urllib.request.urlopen(self.metrics, timeout=10) as answer:
            for family in text_string_to_metric_families(answer.read().decode()):
                for sample in family.samples:
                    found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return found

    def submit(self, *arguments: object, **changes: str | None) -> subprocess.Popen:
        """`flowcache submit` as somebody with the token, in a process of its own; None removes a variable."""
        env = {name: value for name, value in (self.client | changes).items() if value is not None}
        command = [sys.executable, "-m", "flowcache.cli", "submit", *map(str, arguments), "--address", self.url]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@dataclass(frozen=True)
class Finished:
    """A job that was followed: its file, how `submit` ended, and the metrics seen while it ran."""

    job: Path
    code: int
    out: str
    err: str
    metrics: dict[str, dict]


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """Started as an operator starts it, in processes of its own: the mode of authentication is one per process."""
    client = environment()
    folder = tempfile.mkdtemp(prefix="ray-")  # short: paths of sockets end at 107 characters
    address = new_address(folder)
    with open(Path(folder) / "start.log", "w+") as log:
        process = subprocess.Popen(address.command, env=client, stdout=log, stderr=subprocess.STDOUT)
        try:
            for url in (*address.healthy, address.metrics):
                if not answers(url, lambda: process.poll() is None):
                    log.seek(0)
                    pytest.fail(f"ray start did not come up:\n{log.read()}")
            yield Head(address.url, address.metrics, client)
            if process.poll() is not None:
                pytest.fail(f"the head died:\n{Path(log.name).read_text()}")
        finally:
            process.terminate()
            process.wait(60)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def finished(head, tmp_path_factory) -> Finished:
    folder = tmp_path_factory.mktemp("job")
    row = {"prompt": "a red circle moving right on a blue background", "frames": 21, "steps": 4}
    row["policy"] = {"name": "paper", "threshold": 100, "ret_steps": 1}  # reuses what it may
    rows = [{"id": name, **row, "seed": seed} for seed, name in enumerate("ab")]
    rows[1]["image"] = "start.png"  # goes along
    Image.new("RGB", (64, 64), (40, 40, 200)).save(folder / "start.png")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = folder / "job.yaml"
    job.write_text(f"manifest: {folder}/rows.jsonl\noutput: {folder}/out\ngangs: 1\n")
    process = head.submit(job)
    seen: dict[str, dict] = {}
    while process.poll() is None:
        with suppress(OSError):  # a busy machine answers too late
            for name, samples in head.scrape().items():
                seen.setdefault(name, {}).update(samples)
        time.sleep(0.3)
    out, err = process.communicate()
    return Finished(job, process.returncode, out, err, seen)
