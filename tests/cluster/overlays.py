"""The variants of cluster/ as kustomize renders them, and the parts of a Ray resource."""

import copy
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(path.name for path in (ROOT / "cluster" / "overlays").iterdir())
KINDS = {"cpu-cluster": "RayCluster", "gpu-cluster": "RayCluster", "nightly": "RayCronJob"}  # others: RayJob
LOGS = {"name": "ray-logs", "mountPath": "/tmp/ray"}  # shared by head and autoscaler, inside of our /tmp
FILES = {path.stem: path for path in (ROOT / "cluster").rglob("ray*.yaml")}


def kustomize(folder: Path) -> subprocess.CompletedProcess:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here: it renders the overlays (kubectl kustomize)")
    return subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)


@cache
def rendered(overlay: str) -> dict[str, dict[str, Any]]:
    """The overlay's resources by kind."""
    made = kustomize(ROOT / "cluster" / "overlays" / overlay)
    assert made.returncode == 0, made.stderr
    return {resource["kind"]: resource for resource in yaml.safe_load_all(made.stdout)}


def ray(overlay: str) -> dict[str, Any]:
    (resource,) = (value for kind, value in rendered(overlay).items() if kind.startswith("Ray"))
    return copy.deepcopy(resource)


def job_of(resource: dict[str, Any]) -> dict[str, Any]:
    return resource["spec"]["jobTemplate"] if resource["kind"] == "RayCronJob" else resource["spec"]


def cluster_of(resource: dict[str, Any]) -> dict[str, Any]:
    return resource["spec"] if resource["kind"] == "RayCluster" else job_of(resource)["rayClusterSpec"]


def pods(resource: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = cluster_of(resource)
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def made(resource: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each kind of pod that the operator makes, by name, with the containers that it adds (KubeRay 1.7)."""
    cluster = cluster_of(resource)
    head, *workers = copy.deepcopy(pods(resource))
    if cluster.get("enableInTreeAutoscaling"):
        options = cluster["autoscalerOptions"]
        added = {
            name: options[name] for name in ("resources", "securityContext", "args", "volumeMounts") if name in options
        }
        added["volumeMounts"] = [*added["volumeMounts"], LOGS]
        head["containers"][0]["volumeMounts"].append(LOGS)
        head["volumes"].append({"name": LOGS["name"], "emptyDir": {}})
        head["containers"].append({"name": "autoscaler", **added})
    found = {"head": head}
    for group, worker in zip(cluster["workerGroupSpecs"], workers, strict=True):
        copied = {name: worker["containers"][0][name] for name in ("securityContext", "volumeMounts")}
        waits = {"name": "wait-gcs-ready"} | copied
        small = {"cpu": "200m", "memory": "256Mi"}
        worker["initContainers"] = [waits | {"resources": {"requests": small, "limits": small}}]
        found[group["groupName"]] = worker
    if resource["kind"] != "RayCluster":
        found["submitter"] = copy.deepcopy(job_of(resource)["submitterPodTemplate"]["spec"])
    return found
