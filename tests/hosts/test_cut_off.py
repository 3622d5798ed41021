"""Hosts that lose one another for ten seconds, or for good: same bytes, nothing twice, nobody waits for ever."""

import time

import pytest

from tests.hosts.cluster import HEAD, NODES, STORE

pytestmark = pytest.mark.slow
ONE, TWO = NODES
BRIEF = 10.0  # seconds


CUTS = {
    "a node from the head": [(ONE, HEAD)],
    "a node from the store": [(ONE, STORE)],
    "a node from both": [(ONE, HEAD), (ONE, STORE)],
    "the head from the store": [(HEAD, STORE)],
}


def test_each_cut_for_ten_seconds(hosts, calm, rows):
    """One after the other, in one run."""
    driver = hosts.driver(rows)
    for done, pairs in enumerate(CUTS.values()):
        driver.until(1 + done)
        for pair in pairs:
            hosts.net.cut(*pair)
        time.sleep(BRIEF)
        hosts.net.heal()
    driver.whole(calm)


@pytest.mark.parametrize("pairs", list(CUTS.values())[:3], ids=list(CUTS)[:3])
def test_a_node_cut_off_for_good(hosts, calm, rows, pairs):
    """What it had under way is rendered on the other one."""
    driver = hosts.driver(rows)
    driver.until(2)
    for pair in pairs:
        hosts.net.cut(*pair)
    driver.whole(calm)


def test_the_head_cut_from_the_store_for_good(hosts, calm, rows):
    """It says so and ends with code 1 after its patience; the same command goes on once there is a route."""
    driver = hosts.driver(rows, patience=20)
    driver.until(2)
    hosts.net.cut(HEAD, STORE)
    assert driver.ended() == 1 and "night" in driver.said() and "Traceback" not in driver.said(), driver.said()[-3000:]
    hosts.net.heal()
    hosts.driver(rows, driver.name).whole(calm)


def test_a_zombie_that_commits_after_it_was_declared_dead(hosts, calm, rows):
    """Its markers are held back on the way until all is rendered again and done."""
    driver = hosts.driver(rows)
    driver.until(1)
    hosts.tell_store(f"_hold?from={hosts.net.address(ONE)}&match=/{driver.name}/_commits/")
    held = hosts.until_noted("held")
    hosts.net.cut(ONE, HEAD)
    driver.whole(calm)
    hosts.tell_store("_release")
    hosts.until_noted("412", **{"path": held["path"], "from": held["from"]})
    driver.same(calm)


def test_a_node_that_is_lost_with_its_power_and_one_that_comes(hosts, calm, rows):
    driver = hosts.driver(rows)
    driver.until(2)
    hosts.net.kill(TWO)
    driver.until(4)
    hosts.node(TWO)
    driver.whole(calm)
