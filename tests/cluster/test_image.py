"""The image of the Dockerfile, built and run as the pods of cluster/: nobody, a read-only root, a store and no more."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.container import ADDRESS, STORE, Container, Image, Network, buildah, needs_containers
from tests.cluster.overlays import ROOT, made, ray

pytestmark = pytest.mark.slow

BUILT = "FLOWCACHE_TEST_IMAGE"  # in the environment: an image of `tools/build-image` to take in place of a new one
NAME = "localhost/flowcache:test"
SHORTEST = ("still", "magi-triangle")  # of the demo's, by model
ENV = {
    "AWS_ENDPOINT_URL": f"http://{ADDRESS}:{STORE}",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
    "OMP_NUM_THREADS": "1",
}
DASHBOARD = f"http://{ADDRESS}:8265"
# As the operator starts one, with CPUs of its own in place of a worker.
HEAD = (
    "ray start --head --num-cpus=2 --dashboard-host=0.0.0.0 --metrics-export-port=8080 "
    "--dashboard-agent-listen-port=52365 --block"
)
BASH = ("/bin/bash", "-ce", "--")
# What KubeRay 1.7 has the submitter do, with what there is in the image.
SUBMITTER = """
until python -c "import urllib.request as r; exit(b'success' not in r.urlopen('{address}/api/gcs_healthz').read())"
do sleep 2
done
if ! ray job status --address {address} {name} >/dev/null 2>&1
then ray job submit --address {address} --no-wait --submission-id {name} -- {entrypoint}
fi
ray job logs --address {address} --follow {name}
"""
SEEN = """
import json, os, pathlib
status = dict(line.split(":\\t", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "capabilities": [status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")],
    "no new privileges": status["NoNewPrivs"],
    "routes": pathlib.Path("/proc/net/route").read_text().splitlines()[1:],
    "writable": [folder for folder in ("/", "/opt/venv", "/etc", "/var/tmp", "/run", "/tmp", "/home/ray")
                 if os.access(folder, os.W_OK)],
}))
"""


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    needs_containers()
    name = os.environ.get(BUILT, NAME)
    if BUILT not in os.environ:
        build()
    built = Image(name)
    yield built
    built.close()


def build() -> None:
    tool = str(ROOT / "tools" / "build-image")
    base = (ROOT / "Dockerfile").read_text().partition("\nFROM ")[2].split()[0]
    if base not in buildah("images", "--noheading", "--format", "{{.Name}}:{{.Tag}}").replace("library/", " "):
        subprocess.run([tool, "--base"], check=True)
    subprocess.run([tool, NAME, "--layers"], check=True)


@pytest.fixture(scope="module")
def network(image, tmp_path_factory) -> Iterator[Network]:
    made = Network(tmp_path_factory.mktemp("store") / "log")
    try:
        wait(lambda: made.ask(f"http://{ADDRESS}:{STORE}/", "--head"), 60)
        made.ask(f"http://{ADDRESS}:{STORE}/flowcache", "--request", "PUT")
        yield made
    finally:
        made.close()


@pytest.fixture
def container(image, network, tmp_path) -> Iterator[Callable[..., Container]]:
    """container(pod, name, *command, **env): of the demo's job."""
    started: list[Container] = []

    def start(pod: str, name: str, *command: str, **env: str) -> Container:
        started.append(Container(image, network, made(ray("cpu-job"))[pod], tmp_path / name, *command, **ENV, **env))
        return started[-1]

    yield start
    for each in reversed(started):
        each.close()


def wait(until: Callable[[], Any], within: float, message: Callable[[], str] = str) -> None:
    limit = time.monotonic() + within
    while not until():
        assert time.monotonic() < limit, message()
        time.sleep(0.5)


def rows(*names: str) -> list[dict[str, Any]]:
    written = map(json.loads, (ROOT / "manifests" / "demo.jsonl").read_text().splitlines())
    return [row for row in written if row["id"] in names]


def upload(network: Network, folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    network.ask(f"http://{ADDRESS}:{STORE}/flowcache/{name}", "--upload-file", str(file))
    return f"s3://flowcache/{name}"


@pytest.mark.parametrize("pod", ["head", "workers", "submitter"])
def test_a_pod_may_write_where_its_volumes_are_and_reaches_nobody(container, pod):
    looked = container(pod, "looks", "python", "-c", SEEN)
    assert looked.ended(120) == 0, looked.log
    seen = json.loads(looked.log)
    volumes = ["/tmp"] if pod == "submitter" else ["/tmp", "/home/ray"]
    assert seen == {
        "user": [1000, 1000],
        "capabilities": ["0" * 16] * 5,
        "no new privileges": "1",
        "routes": [],
        "writable": volumes,
    }


def test_models_are_listed(container):
    listed = container("head", "lists", "flowcache", "models")
    assert listed.ended(300) == 0, listed.log
    assert "tiny-skyreels" in listed.log and "tiny-magi" in listed.log


def test_the_shortest_videos_of_the_demo(container, network, tmp_path):
    manifest = upload(network, tmp_path, "shortest.jsonl", rows(*SHORTEST))
    job = (
        "--job",
        "/etc/flowcache/jobs/demo.yaml",
        "--output",
        "s3://flowcache/shortest",
        "--gangs",
        "1",
        "--gang",
        "2",
    )
    began = time.time()
    rendered = container("head", "renders", "flowcache", "render", manifest, *job, "--log-json")
    assert rendered.ended(900) == 0, rendered.log
    lines = [json.loads(line) for line in rendered.log.splitlines() if line.startswith('{"time"')]
    first = next(line["time"] for line in lines if "chunk" in line)
    print(f"first chunk after {datetime.fromisoformat(first).timestamp() - began:.0f} s")  # noqa: T201 (of docs/kubernetes.md)
    verified = container("head", "verifies", "flowcache", "verify", "s3://flowcache/shortest")
    assert verified.ended(300) == 0 and "2 videos" in verified.log, verified.log


def test_a_head_takes_jobs_and_ends_politely(container, network, tmp_path):
    """`flowcache submit`, then a job as the operator submits one, then the end of the pod that it runs in."""
    spec = made(ray("cpu-job"))
    head = container("head", "head", "/bin/bash", "-c", "--", HEAD)
    probe = spec["head"]["containers"][0]["readinessProbe"]["httpGet"]
    healthy = f"http://{ADDRESS}:{probe['port']}{probe['path']}"
    wait(lambda: "success" in network.ask(healthy), 300, lambda: head.log)

    job = {"manifest": "/tmp/rows.jsonl", "output": "s3://flowcache/submitted", "gangs": 1, "threads": 1}
    script = f"""
        printf '%s\\n' '{json.dumps(rows("still")[0])}' > /tmp/rows.jsonl
        printf '%s\\n' '{json.dumps(job)}' > /tmp/job.yaml
        flowcache submit /tmp/job.yaml --address {DASHBOARD}
    """
    submitted = container("submitter", "submits", "/bin/bash", "-c", script)
    assert submitted.ended(600) == 0 and "1 videos done" in submitted.log, submitted.log + head.log

    many = [{**rows("still")[0], "id": f"video-{index}", "frames": 69, "seed": index} for index in range(12)]
    manifest = upload(network, tmp_path, "many.jsonl", many)
    render = f"flowcache render {manifest} --output s3://flowcache/many --gangs 1"
    script = SUBMITTER.format(address=DASHBOARD, name="night-b2c4d", entrypoint=render)
    operators = container("submitter", "operators", *BASH, script, RAY_DASHBOARD_ADDRESS=DASHBOARD)
    wait(lambda: "committed" in operators.log, 600, lambda: operators.log)
    alive = operators.run(*spec["submitter"]["containers"][0]["livenessProbe"]["exec"]["command"])
    assert alive.returncode == 0, alive.stderr

    begin = time.monotonic()
    hook = head.run(*spec["head"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"])
    assert (hook.returncode, "1 stopped" in hook.stderr) == (0, True), hook.stderr
    assert operators.ended(60) == 0 and "SIGTERM came" in operators.log, operators.log
    head.process.terminate()  # which runc passes on
    head.ended(spec["head"]["terminationGracePeriodSeconds"])
    assert time.monotonic() - begin < spec["head"]["terminationGracePeriodSeconds"]
    written = {path.name for path in (tmp_path / "head" / "home").iterdir()}
    print(f"the end took {time.monotonic() - begin:.0f} s; in the home lies {written or 'nothing'}")  # noqa: T201
