"""What is wrong with a Ray resource of Kubernetes: by its schema, strictly, and by the rules beyond it.

The rules are the operator's (KubeRay 1.7, `ray-operator/controllers/ray/utils/validation.go`) and Kueue's limits."""

import gzip
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).parents[1] / "golden" / "kuberay"
LONGEST_NAME = {"RayCluster": 53, "RayJob": 47, "RayCronJob": 36}
CRON_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))  # minute, hour, day, month, weekday
KUEUE, VOLCANO = "kueue.x-k8s.io/queue-name", "volcano.sh/queue-name"


@cache
def schema(kind: str) -> dict[str, Any]:
    """The schema of a kind of resource, in which every unknown field is a fault."""
    return strict(json.loads(gzip.decompress((SCHEMAS / f"{kind}.json.gz").read_bytes())))


def strict(node: Any) -> Any:
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: strict(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict) and not node.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    if node.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
    return closed


def faults(resource: dict[str, Any]) -> list[str]:
    """What is wrong with a RayCluster, RayJob or RayCronJob, its schema first; empty if nothing is."""
    return against(schema(resource["kind"]), resource) or list(_rules(resource))


def against(wanted: dict[str, Any], value: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(wanted).iter_errors(value)]


def _rules(resource: dict[str, Any]) -> Iterator[str]:
    kind, name, spec = resource["kind"], resource["metadata"]["name"], resource["spec"]
    labels = resource["metadata"].get("labels", {})
    if len(name) > LONGEST_NAME[kind] or not re.fullmatch("[a-z]([a-z0-9-]*[a-z0-9])?", name):
        yield f"name: at most {LONGEST_NAME[kind]} lower-case letters, digits and dashes"
    if kind == "RayCluster":
        yield from _cluster(spec)
    elif kind == "RayJob":
        yield from _job(spec, labels)
    else:
        yield from _schedule(spec)
        yield from _job(spec["jobTemplate"], {})
        if {KUEUE, VOLCANO} & labels.keys():
            yield "labels: a RayCronJob does not pass them on to its jobs, so no queue sees them"


def _schedule(spec: dict[str, Any]) -> Iterator[str]:
    if "TZ" in spec["schedule"]:
        yield "schedule: the zone goes into timeZone"
    fields = spec["schedule"].split()
    if len(fields) != 5 or not all(map(_cron_field, fields, CRON_RANGES)):
        yield "schedule: is no cron line of five fields"
    if spec.get("timeZone", "UTC") not in available_timezones():
        yield "timeZone: is unknown"


def _cron_field(field: str, limits: tuple[int, int]) -> bool:
    numbers = [int(number) for number in re.findall(r"(?<!/)\b\d+", field)]
    shape = re.fullmatch(r"(\*|\d+(-\d+)?)(/[1-9]\d*)?(,(\*|\d+(-\d+)?)(/[1-9]\d*)?)*", field)
    return bool(shape) and all(limits[0] <= number <= limits[1] for number in numbers)


def _job(spec: dict[str, Any], labels: dict[str, str]) -> Iterator[str]:
    shutdown = spec.get("shutdownAfterJobFinishes", False)
    if not shutdown and (spec.get("ttlSecondsAfterFinished", 0) > 0 or spec.get("suspend")):
        yield "shutdownAfterJobFinishes: ttlSecondsAfterFinished and suspend need it"
    if spec.get("ttlSecondsAfterFinished", 0) < 0 or spec.get("backoffLimit", 0) < 0:
        yield "ttlSecondsAfterFinished, backoffLimit: not below 0"
    if min(spec.get(name, 1) for name in ("activeDeadlineSeconds", "preRunningDeadlineSeconds")) <= 0:
        yield "activeDeadlineSeconds, preRunningDeadlineSeconds: above 0"
    if shutdown and spec.get("deletionStrategy", {}).get("deletionRules"):
        yield "deletionRules: exclude shutdownAfterJobFinishes"
    selected, cluster = spec.get("clusterSelector"), spec.get("rayClusterSpec")
    if bool(selected) == bool(cluster):
        yield "one of rayClusterSpec and clusterSelector is needed"
    if selected and (spec.get("backoffLimit") or spec.get("suspend")):
        yield "clusterSelector: excludes backoffLimit and suspend"
    if spec.get("submissionMode") == "SidecarMode" and {"submitterConfig", "submitterPodTemplate"} & spec.keys():
        yield "submissionMode: a sidecar has no submitter of its own"
    if cluster:
        yield from _cluster(cluster)
    if KUEUE in labels:
        yield from _kueue(spec)


def _kueue(spec: dict[str, Any]) -> Iterator[str]:
    cluster = spec.get("rayClusterSpec", {})
    if not spec.get("shutdownAfterJobFinishes"):
        yield "shutdownAfterJobFinishes: Kueue needs it"
    if cluster.get("enableInTreeAutoscaling"):
        yield "enableInTreeAutoscaling: Kueue admits clusters of a fixed size only"
    if len(cluster.get("workerGroupSpecs", ())) > 7:
        yield "workerGroupSpecs: Kueue takes at most 7"


def _cluster(spec: dict[str, Any]) -> Iterator[str]:
    version = tuple(int(part) for part in spec.get("rayVersion", "0").split("."))
    if spec.get("authOptions", {}).get("mode") == "token" and version < (2, 52):
        yield "rayVersion: token authentication needs 2.52 or newer, and said so"
    scales = spec.get("enableInTreeAutoscaling", False)
    second = scales and spec.get("autoscalerOptions", {}).get("version") == "v2"
    if spec.get("autoscalerOptions", {}).get("idleTimeoutSeconds", 0) < 0:
        yield "idleTimeoutSeconds: not below 0"
    groups = [("head", spec["headGroupSpec"]), *((group["groupName"], group) for group in spec["workerGroupSpecs"])]
    if len({name for name, _ in groups}) < len(groups):
        yield "groupName: two groups share one"
    for name, group in groups:
        yield from (f"{name}: {fault}" for fault in _group(group, second))
    for name, group in groups[1:]:
        if not 0 <= group["minReplicas"] <= group.get("replicas", group["minReplicas"]) <= group["maxReplicas"]:
            yield f"{name}: 0 <= minReplicas <= replicas <= maxReplicas"
        if "idleTimeoutSeconds" in group and not second:
            yield f"{name}: idleTimeoutSeconds needs autoscaler v2"


def _group(group: dict[str, Any], second: bool) -> Iterator[str]:
    pod = group["template"].get("spec", {})
    if not pod.get("containers"):
        yield "a pod needs a container"
    if second and pod.get("restartPolicy", "Never") != "Never":
        yield "restartPolicy: Never with autoscaler v2"
    start = group.get("rayStartParams", {})
    if {"num-cpus", "num-gpus", "memory", "resources"} & start.keys() and group.get("resources"):
        yield "resources: either in rayStartParams or in resources"
    if "labels" in start:
        yield "rayStartParams: labels have a field of their own"
    for container in pod.get("containers", ()):
        mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
        if mounted - {volume["name"] for volume in pod.get("volumes", ())}:
            yield "volumeMounts: a volume is missing"
