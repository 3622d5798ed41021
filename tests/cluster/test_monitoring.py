"""The dashboard and Prometheus' configuration name what is there."""

import json
import re
from pathlib import Path

import ray
import yaml
from ray.util.metrics import Counter, Metric

from flowcache.runtime.metrics import RunMetrics, WorkMetrics
from tests.cluster.overlays import pods, rendered
from tests.cluster.overlays import ray as ray_resource

MONITORING = Path(__file__).parents[2] / "cluster" / "monitoring"
RAYS_OWN = Path(ray.__file__).parent / "dashboard/modules/metrics/dashboards/default_dashboard_panels.py"


def declared() -> dict[str, set[str]]:
    """Our metrics as Prometheus names them, with their labels."""
    metrics = [value for owner in (WorkMetrics("g"), RunMetrics()) for value in vars(owner).values()]
    return {
        f"ray_{metric.info['name']}{'_total' * isinstance(metric, Counter)}": set(metric.info["tag_keys"])
        for metric in metrics
        if isinstance(metric, Metric)
    }


def queries() -> list[str]:
    board = json.loads((MONITORING / "grafana.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def faults(query: str) -> list[str]:
    """Names and labels of a query that no metric has."""
    known, rays = declared(), RAYS_OWN.read_text()
    names = set(re.findall(r"\bray_\w+", query))
    wrong = [name for name in names if name not in known and f"{name}{{" not in rays]
    labels = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in re.split(r",\s*", group)}
    labels |= {label for group in re.findall(r"\{([^}]*)\}", query) for label in re.findall(r"(\w+)=", group)}
    has = {"instance"}.union(*(known.get(name, set()) for name in names))
    return wrong + sorted(labels - has)


def test_every_query_asks_for_a_metric_that_exists():
    assert [faults(query) for query in queries()] == [[]] * len(queries())
    assert set(declared()) <= {name for query in queries() for name in re.findall(r"\bray_\w+", query)}


def test_a_wrong_name_or_label_is_noticed():
    assert faults("sum(ray_flowcache_chunk_total)") == ["ray_flowcache_chunk_total"]
    assert faults("sum by (modl) (ray_flowcache_chunks_total)") == ["modl"]
    assert faults('ray_flowcache_videos{stat="done"}') == ["stat"]
    assert faults("ray_node_gpu_use") == ["ray_node_gpu_use"]


def test_what_was_declared_appears_on_a_running_ray(finished):
    shown = {name for name in finished.metrics if name.startswith("ray_flowcache_")}
    assert set(declared()) - shown == {"ray_flowcache_failures_total"}  # nothing failed


def test_the_docs_tell_every_metric_and_variant():
    text = (MONITORING.parents[1] / "docs" / "kubernetes.md").read_text()
    assert set(declared()) == set(re.findall(r"`(ray_flowcache_\w+)`", text))
    table = text[: text.index("\n## ")]
    assert {path.name for path in (MONITORING.parent / "overlays").iterdir()} == set(
        re.findall(r"`([a-z-]+)`", " ".join(line.split(" | ")[0] for line in table.splitlines() if line[:3] == "| `"))
    )


def test_panels_have_their_place():
    board = json.loads((MONITORING / "grafana.json").read_text())
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in board["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken)) and max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_prometheus_finds_the_pods():
    pods_of, machines = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    keeps = {rule["source_labels"][0]: rule["regex"] for rule in pods_of["relabel_configs"] if "regex" in rule}
    selected = rendered("gpu-job")["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    assert keeps["__meta_kubernetes_pod_label_ray_io_is_ray_node"] == selected["ray.io/is-ray-node"]
    for pod in pods(ray_resource("gpu-job")):
        ports = [port["name"] for port in pod["containers"][0]["ports"]]
        assert ports.count(keeps["__meta_kubernetes_pod_container_port_name"]) == 1
    assert machines["file_sd_configs"][0]["files"] == ["/tmp/ray/prom_metrics_service_discovery.json"]
