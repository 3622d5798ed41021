"""docs/kubernetes.md as a person follows it: each command by the real kubectl, against the API server that it asks."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import botocore.session
import pytest

from tests.cluster.api_server import Cluster, pod, serve, thing_of
from tests.cluster.overlays import ROOT, ray

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
MINE = re.findall(r"^ *```yaml\n( *resources:\n.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)
NIGHT = "flowcache-nightly-29409180"
# What a person ends, and what of it has been asked by then.
ENDLESS = {
    "-w": "GET /apis/ray.io/v1/namespaces/flowcache/rayjobs?watch",
    "port-forward": "/flowcache-cluster-head/portforward",
}


def commands(text: str) -> list[str]:
    """Lines of code and words in backticks that call kubectl, as they stand there."""
    prose, *fenced = re.split(r"^ *```", text, flags=re.MULTILINE)
    code, outside = "\n".join(fenced[0::2]), "\n".join([prose, *fenced[1::2]])
    lines = [line.strip() for line in code.replace("\\\n", " ").splitlines() if "kubectl" in line]
    return lines + re.findall(r"`(kubectl [^`]*)`", outside)


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


INSTALLING = commands(section("The operator")) + commands(section("The first video"))
LATER = sorted(set(commands(PAGE)) - set(INSTALLING) - {"kubectl", "kubectl patch", "kubectl apply -k"})


class Person:
    """In a checkout of the files, with `mine` made as the page says. line: of the page."""

    def __init__(self, folder: Path, cluster: Cluster):
        self.folder, self.cluster = folder, cluster
        for name in ("cluster", "jobs"):
            shutil.copytree(ROOT / name, folder / name)
        self.mine = folder / "cluster" / "overlays" / "mine" / "kustomization.yaml"
        self.mine.parent.mkdir()
        (written,) = MINE
        self.mine.write_text(dedent(written))
        self.server, config = serve(cluster, folder)
        self.env = os.environ | {"KUBECONFIG": str(config), "HOME": str(folder), "NIGHT": f"rayjob/{NIGHT}"}

    def does(self, line: str) -> None:
        """To its end, which is no error."""
        endless = next((asked for option, asked in ENDLESS.items() if option in line.split()), None)
        if endless:
            self._until_asked(line.removesuffix("&"), endless)
            return
        # Where it waits for something else than what is there, it ends with an error, not after the page's hours.
        patient = re.sub(r"--timeout=\d+[hm]", "--timeout=60s", line)
        done = self._start("set -eo pipefail; " + patient)
        _, said = done.communicate(timeout=120)
        assert done.returncode == 0 and "No resources found" not in said, f"{line}\n{said}"
        assert "warning" not in said.lower(), said

    def _until_asked(self, line: str, wanted: str) -> None:
        process, limit = self._start(f"exec {line}"), time.monotonic() + 60
        while not self._has_asked(wanted) and process.poll() is None:
            assert time.monotonic() < limit, self.cluster.asked
            time.sleep(0.05)
        process.terminate()
        _, said = process.communicate(timeout=30)
        assert self._has_asked(wanted), f"{line}\n{said}"

    def _has_asked(self, wanted: str) -> bool:
        return any(each.endswith(wanted) for each in self.cluster.asked)

    def _start(self, script: str) -> subprocess.Popen:
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen(["bash", "-c", script], env=self.env, cwd=self.folder, text=True, **streams)


@pytest.fixture
def person(tmp_path) -> Iterator[Person]:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    cluster = Cluster()
    cluster.add("pods", pod("operator", {"app.kubernetes.io/component": "kuberay-operator"}), "ray-system")
    cluster.add("namespaces", thing_of("Namespace", "default"), "")
    made = Person(tmp_path, cluster)
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_from_nothing_to_the_first_video(person):
    assert len(INSTALLING) >= 9
    images: set[str] = set()
    for line in INSTALLING:
        person.does(line)
        images |= set(re.findall("'image': '([^']*flowcache[^']*)'", str(person.cluster.objects)))
    made = [(plural, name) for plural, namespace, name in person.cluster.objects if namespace == "flowcache"]
    assert {("secrets", "flowcache-s3"), ("configmaps", "flowcache-jobs"), ("networkpolicies", "flowcache")} <= {*made}
    assert "REGISTRY/flowcache:0.2.0" in images and "flowcache:0.2.0" not in images
    assert ("rayjobs", "flowcache") not in made  # the last line deletes it


def test_what_the_secret_of_the_page_says_is_read(monkeypatch, tmp_path):
    given = dict(re.findall(r"--from-literal=(\w+)=(\S+)", PAGE))
    for name, value in ({"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_REGION": "elsewhere"} | given).items():
        monkeypatch.setenv(name, value)
    client = botocore.session.Session().create_client("s3")
    assert client.meta.region_name == given.pop("AWS_DEFAULT_REGION")
    assert client.meta.endpoint_url == given.pop("AWS_ENDPOINT_URL")
    assert given.keys() == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


@pytest.mark.parametrize("line", LATER)
def test_what_is_done_later(person, line):
    """On a cluster where the job, a night and a standing cluster are."""
    cluster: Cluster = person.cluster
    if "apply -k" in line:
        person.mine.write_text(person.mine.read_text().replace("../cpu-job", "../gpu-cluster"))
        cluster.add("namespaces", thing_of("Namespace", "monitoring"), "")
    else:
        for overlay, plural in {"gpu-cluster": "rayclusters", "gpu-job": "rayjobs", "nightly": "raycronjobs"}.items():
            cluster.add(plural, ray(overlay), "flowcache")
        night = thing_of("RayJob", NIGHT, "ray.io/v1", spec=ray("nightly")["spec"]["jobTemplate"])
        night["metadata"]["labels"] = {"ray.io/cronjob-name": "flowcache-nightly"}
        cluster.add("rayjobs", night, "flowcache")
        cluster.add("events", thing_of("Event", "one"), "flowcache")
        cluster.come()
    cluster.add("namespaces", thing_of("Namespace", "flowcache"), "")
    cluster.asked.clear()
    person.does(line.replace(" NAME", f" {NIGHT}"))
    assert [each for each in cluster.asked if "/namespaces/flowcache/" in each or "/monitoring/" in each], cluster.asked


def test_a_command_that_kubectl_refuses_or_whose_object_is_not_there_is_noticed(person):
    person.cluster.add("namespaces", thing_of("Namespace", "flowcache"), "")
    person.cluster.add("rayjobs", ray("gpu-job"), "flowcache")
    for line in (
        "kubectl -n flowcache delete rayjob flowcahe",
        "kubectl delete rayjob flowcache",
        "kubectl -n flowcache get rayjob,pods -w",
        "kubectl -n flowcache wait rayjob/flowcache --for=jsonpath='{.status.jobState}'=SUCCEEDED --timeout=1s",
        'kubectl -n flowcache patch rayjob flowcache --type merge -p \'{"spec":{"suspended":true}}\'',
    ):
        with pytest.raises(AssertionError):
            person.does(line)
