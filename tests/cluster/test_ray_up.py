"""ray_cluster.yaml, by Ray's own schema and checks."""

import copy
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

import flowcache
from flowcache.inputs.job import load_job

ROOT = Path(__file__).parents[2]


@pytest.fixture
def written() -> dict:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def check(written: dict) -> None:
    """As `ray up` does: defaults filled in, then the schema and what goes beyond it."""
    validate_config(prepare_config(copy.deepcopy(written)))


def test_ray_takes_it(written):
    check(written)
    assert written["docker"]["image"].endswith(f":{flowcache.__version__}")
    assert "--env RAY_AUTH_MODE=token" in written["docker"]["run_options"]
    assert any(target.endswith(".ray/auth_token") for target in written["file_mounts"])
    head = " ".join(written["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head  # reached through ssh alone
    spot = written["available_node_types"]["spot"]
    assert spot["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"} and spot["min_workers"] == 0


@pytest.mark.parametrize("name", ["overnight-skyreels", "overnight-magi"])
def test_the_overnight_jobs_fit(written, name):
    job = load_job(ROOT / "jobs" / f"{name}.yaml")
    workers = [kind for label, kind in written["available_node_types"].items() if label != written["head_node_type"]]
    for kind in workers:
        assert job.gang <= kind["resources"]["GPU"] and job.gang * job.threads <= kind["resources"]["CPU"]
    assert job.gangs <= sum(kind["max_workers"] for kind in workers) <= written["max_workers"]
    mounted = re.findall(r"--volume \S+:(\S+):ro", " ".join(written["docker"]["run_options"]))
    assert any(job.model.startswith(f"{folder}/") for folder in mounted)


@pytest.mark.parametrize(
    ("broken", "kind", "message"),
    [
        (lambda c: c.update(head_node={"InstanceType": "x"}), jsonschema.ValidationError, "head_node"),
        (lambda c: c.pop("provider"), Exception, "provider"),
        (lambda c: c["available_node_types"]["spot"].pop("resources"), jsonschema.ValidationError, "resources"),
        (lambda c: c["available_node_types"]["spot"].update(spot=True), jsonschema.ValidationError, "spot"),
        (lambda c: c["docker"].update(imag="x"), jsonschema.ValidationError, "imag"),
        (lambda c: c.update(head_node_type="boss"), ValueError, "head_node_type"),
        (lambda c: c.update(max_workers=0), ValueError, "max_workers"),
    ],
)
def test_what_is_broken_is_refused(written, broken, kind, message):
    broken(written)
    with pytest.raises(kind, match=message):
        check(written)
