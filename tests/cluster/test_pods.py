"""What the operator makes of cluster/: who reaches whom, what Pod Security and quotas say, how long an end takes."""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer.main
import yaml

from flowcache.cli.main import app
from flowcache.cli.stop import PROCESSES, alive
from flowcache.inputs.job import JobSpec, load_job
from tests.cluster import kuberay, kubernetes
from tests.cluster.overlays import LOGS, OVERLAYS, ROOT, cluster_of, job_of, made, pods, ray, rendered
from tests.cluster.stand_in import STATUS_CHECKS

JOBS = [name for name in OVERLAYS if not name.endswith("-cluster")]
COMPONENT, OPERATOR = "app.kubernetes.io/component", "kuberay-operator"
# The labels of its pods: by KubeRay's chart (`helm install kuberay-operator`), and by its kustomization.
OPERATORS = {
    "chart": {"app.kubernetes.io/name": "kuberay-operator", "app.kubernetes.io/instance": "x", COMPONENT: OPERATOR},
    "kustomize": {"app.kubernetes.io/name": "kuberay", COMPONENT: OPERATOR},
}
NODE = {"ray.io/is-ray-node": "yes", "app.kubernetes.io/created-by": "kuberay-operator"}
SUBMITTER = {"ray.io/originated-from-crd": "RayJob", "app.kubernetes.io/created-by": "kuberay-operator"}
CLOSING = 60.0  # seconds for what a stopped run still writes: playlists, tables, and reading them back


@pytest.mark.parametrize("namespace", ["ray-system", "default", "kuberay-operator", "anything"])
@pytest.mark.parametrize("installed", OPERATORS)
def test_the_operator_reaches_the_dashboard_wherever_it_is_installed(installed, namespace):
    policy = rendered("gpu-job")["NetworkPolicy"]["spec"]
    reached = [port for port in (6379, 8265, 10001, 8080, 52365)
               if kubernetes.admits(policy, port, OPERATORS[installed], namespace, same=False)]  # fmt: skip
    assert reached == [8265]


def test_the_submitter_reaches_the_head_and_strangers_do_not():
    policy = rendered("gpu-job")["NetworkPolicy"]["spec"]
    assert kubernetes.selects(policy["podSelector"], NODE) and not kubernetes.selects(policy["podSelector"], SUBMITTER)
    for port in (6379, 8265, 8080, 12345):
        assert kubernetes.admits(policy, port, SUBMITTER, "flowcache", same=True)
        for labels in ({}, NODE, SUBMITTER, {COMPONENT: "other"}):
            assert not kubernetes.admits(policy, port, labels, "elsewhere", same=False)
        assert kubernetes.admits(policy, port, {}, "monitoring", same=False) == (port == 8080)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pod_security_restricted_takes_every_pod_that_the_operator_makes(overlay):
    found = made(ray(overlay))
    assert ("submitter" in found) == (overlay in JOBS)
    assert {name: list(kubernetes.not_restricted(pod)) for name, pod in found.items()} == dict.fromkeys(found, [])
    tokens = {name: pod.get("automountServiceAccountToken", True) for name, pod in found.items()}
    scales = cluster_of(ray(overlay)).get("enableInTreeAutoscaling")  # the autoscaler changes the number of workers
    assert tokens == {name: name == "head" and scales for name in found}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_quota_of_requests_and_limits_takes_every_container(overlay):
    for pod in made(ray(overlay)).values():
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            asked, most = container["resources"]["requests"], container["resources"]["limits"]
            assert {"cpu", "memory"} <= asked.keys() and asked.keys() == most.keys()
            assert all(kubernetes.quantity(asked[name]) <= kubernetes.quantity(most[name]) for name in asked)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_roots_are_read_only_and_what_is_written_has_a_volume(overlay):
    for name, pod in made(ray(overlay)).items():
        empty = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            mounts = {mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in empty}
            assert mounts - {LOGS["mountPath"]} == ({"/tmp"} if name == "submitter" else {"/tmp", "/home/ray"})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_the_agent_of_each_node(overlay):
    for pod in pods(ray(overlay)):
        (container,) = pod["containers"]
        ready, alive = container["readinessProbe"], container["livenessProbe"]
        assert (
            ready["httpGet"] == alive["httpGet"] == {"path": "/api/healthz", "port": 52365}
        )  # KubeRay's, and Ray's own
        assert alive["failureThreshold"] * alive["periodSeconds"] >= 600  # a busy node is no lost one


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (lambda pod: pod["containers"][0].pop("securityContext"), "allowPrivilegeEscalation"),
        (lambda pod: pod["containers"][0]["securityContext"].pop("capabilities"), "capabilities"),
        (lambda pod: pod.pop("securityContext"), "runAsNonRoot"),
        (lambda pod: pod["securityContext"].update(runAsUser=0), "runAsNonRoot"),
        (lambda pod: pod["securityContext"].pop("seccompProfile"), "seccompProfile"),
        (lambda pod: pod.update(volumes=[{"name": "x", "hostPath": {"path": "/"}}]), "volumes"),
        (lambda pod: pod.update(hostNetwork=True), "host namespaces"),
    ],
)
def test_what_restricted_refuses_is_noticed(broken, why):
    for pod in made(ray("gpu-job")).values():
        broken(pod)
        assert any(why in fault for fault in kubernetes.not_restricted(pod))


def head(overlay):
    return pods(ray(overlay))[0]


def setting(pod, name) -> float:
    (value,) = [entry["value"] for entry in pod["containers"][0]["env"] if entry["name"] == name]
    return float(value)


def job_file(overlay) -> JobSpec:
    """The job of the overlay, with what its command line says on top."""
    _, _, *arguments = shlex.split(job_of(ray(overlay))["entrypoint"])
    given = typer.main.get_command(app).commands["render"].make_context("render", arguments).params
    job = load_job(ROOT / "jobs" / given["job"].name)
    return job.model_copy(update={"succeed_with": given["succeed_with"] or job.succeed_with})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_end_of_a_head_leaves_time_for_the_driver(overlay):
    pod = head(overlay)
    program, command, *arguments = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    given = typer.main.get_command(app).commands[command].make_context(command, arguments).params
    assert (program, command) == ("flowcache", "stop") and given["linger"] > 2 * 3  # the operator looks every 3 s
    wait, drain = setting(pod, "RAY_JOB_STOP_WAIT_TIME_S"), setting(pod, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S")
    graces = [load_job(path).grace for path in (ROOT / "jobs").glob("[!k]*.yaml")]
    assert wait >= max(graces) + CLOSING
    assert pod["terminationGracePeriodSeconds"] >= wait + given["linger"] + drain


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_head_submitter_and_one_worker_stay_off_spot_machines(overlay):
    cluster = cluster_of(ray(overlay))
    kept = [pods(ray(overlay))[1]] if len(cluster["workerGroupSpecs"]) > 1 else []
    templates = [cluster["headGroupSpec"]["template"]]
    if overlay in JOBS:
        templates.append(job_of(ray(overlay))["submitterPodTemplate"])
    for template in templates:  # what ends with them is the whole try
        annotations = template["metadata"]["annotations"]
        assert annotations["karpenter.sh/do-not-disrupt"] == "true"
        assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    for pod in kept + [template["spec"] for template in templates]:
        node = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        (term,) = node["nodeSelectorTerms"]  # several would be alternatives
        assert {rule["operator"] for rule in term["matchExpressions"]} == {"NotIn"}
        kinds = {rule["key"]: rule["values"] for rule in term["matchExpressions"]}
        assert kinds["karpenter.sh/capacity-type"] == ["spot"] and kinds["cloud.google.com/gke-spot"] == ["true"]


@pytest.mark.parametrize("overlay", JOBS)
def test_a_submitter_that_loses_the_head_ends_the_try_before_the_operator_gives_up(overlay):
    job = job_of(ray(overlay))
    submitter = job["submitterPodTemplate"]["spec"]
    (container,) = submitter["containers"]
    assert submitter["restartPolicy"] == "Never" and job["submitterConfig"]["backoffLimit"] == 0
    assert container["image"] == head(overlay)["containers"][0]["image"] and container.get("command") is None
    probe = container["livenessProbe"]
    longest = (probe["failureThreshold"] + 1) * (probe["periodSeconds"] + probe["timeoutSeconds"])
    assert longest + submitter["terminationGracePeriodSeconds"] < STATUS_CHECKS
    assert probe["failureThreshold"] * probe["periodSeconds"] >= 60  # a busy head is no lost one
    assert job["backoffLimit"] >= 1


def test_only_a_rayjob_of_ones_own_can_do_without_a_second_head():
    """A RayCronJob gives its jobs no annotations."""
    kept = {name: ray(name)["metadata"].get("annotations", {}) for name in OVERLAYS}
    without = [name for name, found in kept.items() if found.get("ray.io/disable-provisioned-head-restart") == "true"]
    assert set(without) == set(JOBS) - {"nightly"}


class Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        self.send_response(self.status if self.path == "/api/gcs_healthz" else 404)
        self.end_headers()

    def log_message(self, format, *args):
        pass


@pytest.mark.parametrize(("status", "code"), [(200, 0), (500, 1), (None, 1)])
def test_the_submitters_probe_asks_the_head(status, code):
    (container,) = made(ray("cpu-job"))["submitter"]["containers"]
    command = container["livenessProbe"]["exec"]["command"]
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Head", (Health,), {"status": status})) as server:
        if status:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        else:
            server.server_close()
        env = os.environ | {"RAY_DASHBOARD_ADDRESS": f"127.0.0.1:{server.server_port}"}
        done = subprocess.run([sys.executable, *command[1:]], env=env, capture_output=True, timeout=30)
        assert done.returncode == code, done.stderr
        if status:
            server.shutdown()


def autoscaler(start: str, *before: str) -> subprocess.Popen:
    (script,) = cluster_of(ray("gpu-job"))["autoscalerOptions"]["args"]
    env = os.environ | {"KUBERAY_GEN_AUTOSCALER_START_CMD": start}
    return subprocess.Popen([*before, "/bin/bash", "-c", "--", script], env=env, start_new_session=True)


def test_the_autoscaler_ends_at_once():
    process = autoscaler("sleep 61.25")
    started = time.monotonic()
    while not running("sleep 61.25") and time.monotonic() < started + 10:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    while running("sleep 61.25") and time.monotonic() < started + 20:
        time.sleep(0.05)
    assert not running("sleep 61.25")


def running(command: str) -> bool:
    found = [int(entry.name) for entry in PROCESSES.iterdir() if entry.name.isdecimal() and words(entry) == command]
    return any(map(alive, found))


def words(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def test_an_autoscaler_that_fails_is_seen_to_fail():
    assert autoscaler("false").wait(10) == 1


def requested(overlay, counts) -> dict[str, float]:
    total: dict[str, float] = {}
    for name, pod in made(ray(overlay)).items():
        for resource, amount in kubernetes.requests(pod).items():
            total[resource] = total.get(resource, 0) + counts.get(name, 1) * amount
    return total


def test_the_quota_of_the_docs_is_enough_for_kueue_and_no_more():
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    (text,) = re.findall(r"```yaml\n(apiVersion: kueue.*?)```", page, re.DOTALL)
    queue, local = [document for document in yaml.safe_load_all(text) if document["kind"] != "ResourceFlavor"]
    (group,) = queue["spec"]["resourceGroups"]
    (flavor,) = group["flavors"]
    quota = {resource["name"]: kubernetes.quantity(resource["nominalQuota"]) for resource in flavor["resources"]}
    workers = cluster_of(ray("kueue"))["workerGroupSpecs"][0]["replicas"]
    assert quota == requested("kueue", {"workers": workers}) and set(group["coveredResources"]) == set(quota)
    assert local["metadata"]["name"] == ray("kueue")["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    assert local["spec"]["clusterQueue"] == queue["metadata"]["name"]


DAY, FINISHING = 24 * 3600, 3600


@pytest.mark.parametrize("overlay", [name for name in JOBS if name != "nightly"])
def test_a_job_that_starts_at_any_hour_reaches_its_deadline(overlay):
    job = job_of(ray(overlay))
    assert job["activeDeadlineSeconds"] >= DAY + job["preRunningDeadlineSeconds"] + FINISHING


def test_a_queue_that_holds_pods_back_may_do_so_for_a_day():
    """Volcano's; Kueue suspends the RayJob, whose seconds begin when it is let in."""
    assert job_of(ray("volcano"))["preRunningDeadlineSeconds"] >= DAY
    assert ray("kueue")["metadata"]["labels"].keys() == {kuberay.KUEUE}


def test_a_night_reaches_its_deadline_and_ends_before_the_next():
    job, written = job_of(ray("nightly")), job_file("nightly")
    minute, hour = ray("nightly")["spec"]["schedule"].split()[:2]
    begin = datetime(2026, 1, 1, int(hour), int(minute))
    until = datetime.strptime(str(written.until), "%H:%M").replace(year=2026, month=1, day=2)
    night = (until - begin).total_seconds()
    assert night + job["preRunningDeadlineSeconds"] + FINISHING <= job["activeDeadlineSeconds"] < DAY


@pytest.mark.parametrize("overlay", JOBS)
def test_what_ends_with_a_report_is_not_tried_again(overlay):
    job = job_file(overlay)
    assert 3 in job.succeed_with and (5 in job.succeed_with or not job.until)
    assert job.device != "cuda" or job.wait_for_gpus >= 600
