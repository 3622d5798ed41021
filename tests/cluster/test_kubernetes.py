"""cluster/: every variant as kustomize renders it, against schemas and rules; and that broken ones are noticed."""

import re
import shlex
import shutil

import pytest
import typer.main
import yaml

import flowcache
from flowcache.cli.main import app
from flowcache.inputs.job import load_job
from tests.cluster import kuberay
from tests.cluster.overlays import FILES, KINDS, OVERLAYS, ROOT, cluster_of, job_of, kustomize, pods, ray, rendered


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variant_is_valid(overlay):
    resource = ray(overlay)
    assert resource["kind"] == KINDS.get(overlay, "RayJob")
    assert kuberay.faults(resource) == []


def test_the_cluster_is_valid_without_kustomize_too():
    assert kuberay.faults(yaml.safe_load(FILES["raycluster"].read_text())) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_versions_are_those_of_the_tests_and_every_pod_is_nobody(overlay):
    (version,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    resource = ray(overlay)
    assert cluster_of(resource)["rayVersion"] == version and cluster_of(resource)["authOptions"]["mode"] == "token"
    for pod in pods(resource):
        (container,) = pod["containers"]
        assert container["image"] == f"flowcache:{flowcache.__version__}"
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
        assert container["envFrom"][0]["secretRef"]["name"] == "flowcache-s3"
    assert cluster_of(resource)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_jobs_are_mounted_as_they_lie_in_jobs(overlay):
    head = pods(ray(overlay))[0]
    (volume,) = (volume for volume in head["volumes"] if "configMap" in volume)
    jobs = rendered(overlay)["ConfigMap"]
    assert volume["configMap"]["name"] == jobs["metadata"]["name"]
    written = {path.name: path.read_text() for path in (ROOT / "jobs").glob("*.yaml")}
    del written["kustomization.yaml"]
    assert jobs["data"] == written


@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if not name.endswith("-cluster")])
def test_the_job_is_a_command_line_that_works_and_fits_its_workers(overlay):
    resource = ray(overlay)
    program, command, *arguments = shlex.split(job_of(resource)["entrypoint"])
    assert (program, command) == ("flowcache", "render")
    given = typer.main.get_command(app).commands["render"].make_context("render", arguments).params
    folder, name = given["job"].parent, given["job"].name
    mounts = {mount["mountPath"] for mount in pods(resource)[0]["containers"][0]["volumeMounts"]}
    assert str(folder) in mounts and name in rendered(overlay)["ConfigMap"]["data"]
    job = load_job(ROOT / "jobs" / name)
    limits = pods(resource)[1]["containers"][0]["resources"]["limits"]
    assert job.gang * job.threads <= int(limits["cpu"])
    assert job.device != "cuda" or job.gang <= int(limits["nvidia.com/gpu"])
    if job.device == "cuda":  # a gang for each worker, and one worker there from the start
        groups = cluster_of(resource)["workerGroupSpecs"]
        assert job.gangs <= sum(group["maxReplicas"] for group in groups) and groups[0]["minReplicas"] >= 1
        assert job.model.startswith("/models/") and "/models" in mounts


def test_spot_workers_are_the_others_elsewhere():
    on_demand, spot = cluster_of(ray("gpu-spot-job"))["workerGroupSpecs"]
    assert spot["template"]["spec"].pop("nodeSelector") and spot["minReplicas"] == 0
    del spot["template"]["spec"]["tolerations"][-1]
    assert on_demand["template"]["spec"].pop("affinity")
    assert spot["template"] == on_demand["template"]


def test_a_job_takes_no_standing_cluster_its_service():
    """The operator calls both `<name>-head-svc`, and turns it to the job's cluster (KubeRay 1.7)."""
    jobs, clusters = (
        {ray(name)["metadata"]["name"] for name in OVERLAYS if ray(name)["kind"] == kind}
        for kind in ("RayJob", "RayCluster")
    )
    assert jobs and clusters and not jobs & clusters


def test_ports_are_open_to_few():
    policy = rendered("gpu-job")["NetworkPolicy"]["spec"]
    options = kuberay.schema("RayCluster")["properties"]["spec"]["properties"]["networkPolicy"]["properties"]
    rule = options["head"]["properties"]["ingressRules"]["items"]
    assert [kuberay.against(rule, ingress) for ingress in policy["ingress"]] == [[], [], []]
    assert kuberay.against(rule, {"frm": []}) and policy["policyTypes"] == ["Ingress"]
    outside = [rule for rule in policy["ingress"] if "namespaceSelector" in rule["from"][0]]
    assert [[port["port"] for port in rule["ports"]] for rule in outside] == [[8265], [8080]]


def test_one_line_changes_the_image_everywhere(tmp_path):
    for name in ("cluster", "jobs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    mine = tmp_path / "cluster" / "overlays" / "mine"
    mine.mkdir()
    lines = "resources: [../nightly]\nimages: [{name: flowcache, newName: example/flowcache, newTag: '7'}]\n"
    (mine / "kustomization.yaml").write_text(lines)
    made = kustomize(mine)
    assert set(re.findall(r"image: (\S+)", made.stdout)) == {"example/flowcache:7"}, made.stderr

    patch = tmp_path / "cluster" / "components" / "gpu" / "kustomization.yaml"
    patch.write_text(patch.read_text().replace("/volumes/-", "/volume/-"))
    assert kustomize(mine).returncode != 0  # a patch that meets nothing is no silence


def cluster(change):
    return lambda resource: change(cluster_of(resource))


def worker(**fields):
    return cluster(lambda spec: spec["workerGroupSpecs"][0].update(fields))


def job(**fields):
    return lambda resource: job_of(resource).update(fields)


BROKEN = {
    "an unknown field": ("gpu-job", job(shutdownAfterJobFinish=True), "shutdownAfterJobFinish"),
    "an unknown field of a pod": ("gpu-job", lambda r: pods(r)[1].update(toleration=[]), "toleration"),
    "a wrong type": ("gpu-job", job(backoffLimit="2"), "'2' is not of type 'integer'"),
    "a wrong mode": ("gpu-cluster", cluster(lambda s: s["authOptions"].update(mode="on")), "'on' is not one of"),
    "a quantity that is none": (
        "gpu-job",
        lambda r: pods(r)[0]["containers"][0]["resources"]["limits"].update(memory=True),
        "memory",
    ),
    "nothing that ends the cluster": ("gpu-job", job(shutdownAfterJobFinishes=False), "ttlSecondsAfterFinished and"),
    "suspended for ever": (
        "gpu-job",
        job(shutdownAfterJobFinishes=False, ttlSecondsAfterFinished=0, suspend=True),
        "and suspend need it",
    ),
    "two ways of deletion": (
        "gpu-job",
        job(deletionStrategy={"deletionRules": [{"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED"}}]}),
        "deletionRules: exclude",
    ),
    "a deadline of zero": ("gpu-job", job(activeDeadlineSeconds=0), "above 0"),
    "retries below zero": ("gpu-job", job(backoffLimit=-1), "not below 0"),
    "two clusters": ("gpu-job", job(clusterSelector={"ray.io/cluster": "other"}), "one of rayClusterSpec"),
    "no cluster": ("gpu-job", lambda r: r["spec"].pop("rayClusterSpec"), "one of rayClusterSpec"),
    "a sidecar with a submitter": ("gpu-job", job(submissionMode="SidecarMode"), "no submitter of its own"),
    "no least number": (
        "gpu-job",
        lambda r: cluster_of(r)["workerGroupSpecs"][0].pop("minReplicas"),
        "'minReplicas' is a required",
    ),
    "more than the most": ("gpu-job", worker(replicas=9), "<= maxReplicas"),
    "a group's name twice": ("gpu-spot-job", worker(groupName="spot"), "two groups share one"),
    "a token for an old Ray": ("gpu-job", cluster(lambda s: s.update(rayVersion="2.40.0")), "2.52 or newer"),
    "a pod that is restarted": ("gpu-job", lambda r: pods(r)[1].update(restartPolicy="Always"), "restartPolicy"),
    "no container": ("gpu-job", lambda r: pods(r)[0].update(containers=[]), "a pod needs a container"),
    "a mount of nothing": ("gpu-job", lambda r: pods(r)[1].update(volumes=[]), "a volume is missing"),
    "resources twice": ("gpu-job", worker(rayStartParams={"num-cpus": "1"}, resources={"CPU": "1"}), "either in"),
    "labels as parameters": ("gpu-job", worker(rayStartParams={"labels": "a=b"}), "a field of their own"),
    "idle time without the new autoscaler": ("kueue", worker(idleTimeoutSeconds=60), "needs autoscaler v2"),
    "a negative idle time": (
        "gpu-job",
        cluster(lambda s: s["autoscalerOptions"].update(idleTimeoutSeconds=-1)),
        "idleTimeoutSeconds: not below 0",
    ),
    "a long name": ("gpu-job", lambda r: r["metadata"].update(name="x" * 48), "at most 47"),
    "a long name of a schedule": ("nightly", lambda r: r["metadata"].update(name="x" * 37), "at most 36"),
    "a schedule of four fields": ("nightly", lambda r: r["spec"].update(schedule="0 19 * *"), "no cron line"),
    "an hour that is none": ("nightly", lambda r: r["spec"].update(schedule="0 24 * * *"), "no cron line"),
    "a zone in the schedule": ("nightly", lambda r: r["spec"].update(schedule="TZ=UTC 0 1 * * *"), "into timeZone"),
    "a zone that is none": ("nightly", lambda r: r["spec"].update(timeZone="Mars/Crater"), "is unknown"),
    "a nightly job in a queue": ("nightly", lambda r: r["metadata"].update(labels={kuberay.KUEUE: "q"}), "no queue"),
    "Kueue and autoscaling": (
        "kueue",
        cluster(lambda spec: spec.update(enableInTreeAutoscaling=True)),
        "of a fixed size only",
    ),
    "Kueue and no end": ("kueue", job(shutdownAfterJobFinishes=False, ttlSecondsAfterFinished=0), "Kueue needs it"),
    "Kueue and many groups": (
        "kueue",
        cluster(lambda spec: spec.update(workerGroupSpecs=spec["workerGroupSpecs"] * 8)),
        "at most 7",
    ),
}


@pytest.mark.parametrize(("overlay", "broken", "message"), BROKEN.values(), ids=BROKEN)
def test_each_rule_notices_what_breaks_it(overlay, broken, message):
    resource = ray(overlay)
    broken(resource)
    assert any(message in fault for fault in kuberay.faults(resource)), kuberay.faults(resource)
