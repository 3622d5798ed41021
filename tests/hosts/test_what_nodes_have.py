"""Nodes that lack what the driver has: the store's credentials, its endpoint, the pictures that rows name."""

import pytest
from PIL import Image

from flowcache.storage.commits import read_commits
from tests.hosts.cluster import HEAD, NODES

pytestmark = pytest.mark.slow
ONE, TWO = NODES
LACKING = {
    "no credentials": ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no S3 credentials found"),
    "credentials of somebody else": ({"AWS_ACCESS_KEY_ID": "AKIAOFANOTHER"}, "InvalidAccessKeyId"),
    "an endpoint of its own": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "127.0.0.1:9"),
}


@pytest.mark.parametrize(("environment", "cause"), LACKING.values(), ids=LACKING.keys())
def test_a_node_that_does_not_reach_the_store_is_named_and_gets_no_work(hosts, calm, rows, environment, cause):
    hosts.node(ONE, **environment)
    hosts.until_alive(*NODES)
    driver = hosts.driver(rows[:1])
    driver.whole(calm)
    assert f"node {hosts.net.address(ONE)} (" in driver.said() and cause in driver.said(), driver.said()[:3000]
    assert "segment failed" not in driver.said()


def test_where_no_node_does_the_run_ends_at_once(hosts, rows):
    for name in NODES:
        hosts.node(name, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    hosts.until_alive(*NODES)
    driver = hosts.driver(rows)
    assert driver.ended() == 1 and "segment started" not in driver.said()
    said = driver.said()
    for name in NODES:
        assert hosts.net.address(name) in said
    assert "no S3 credentials found" in said and "docs/security.md" in said and "Traceback" not in said
    assert [key for key in driver.store.backend.list("_run") if ".nodes-" in key.key] == []


def test_a_node_without_credentials_that_comes_later_gets_no_work(hosts, calm, rows):
    hosts.net.kill(ONE)
    hosts.until_alive(TWO)
    driver = hosts.driver(rows)
    driver.until(1)
    hosts.node(ONE, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    driver.until_said(f"node {hosts.net.address(ONE)} (")
    driver.whole(calm)


def test_a_picture_that_only_the_head_has(hosts, calm, rows):
    """Its video alone is given up, by its name; once the nodes have it, the same command renders it."""
    Image.new("RGB", (64, 64), "red").save(hosts.folder / HEAD / "start.png")
    shown = {**rows[0], "id": "shown", "frames": 9, "image": "/tmp/start.png"}
    driver = hosts.driver([rows[1], shown])
    assert driver.ended() == 3, driver.said()[-3000:]
    commits = read_commits(driver.store)
    assert commits.done == {"v1"} and set(commits.dead_letters) == {"shown"}
    assert (
        "/tmp/start.png" in commits.dead_letters["shown"].cause
        and "does not exist" in commits.dead_letters["shown"].cause
    )
