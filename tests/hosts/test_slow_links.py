"""Links that are slow or lose packets, and clocks that are wrong."""

import pytest

from tests.hosts.cluster import HEAD, NODES, STORE

pytestmark = pytest.mark.slow
ONE, TWO = NODES


@pytest.fixture
def link(hosts):
    """link(name, ...): a host's link for this test; processes on it keep their address, and lose their connections."""
    changed = []

    def call(name: str, **slow: float) -> None:
        changed.append(name)
        hosts.net.link(name, **slow)

    yield call
    for name in changed:
        hosts.net.link(name)


def test_nodes_behind_slow_links_render_the_same(hosts, calm, rows, link):
    link(ONE, delay=0.1, loss=0.01)  # one way: a round trip takes 200 ms
    link(TWO, rate=1e7)
    hosts.driver(rows).whole(calm)


def test_a_store_behind_a_slow_link(hosts, calm, rows, link):
    link(STORE, delay=0.1, loss=0.01, rate=1e7)
    hosts.driver(rows[:1]).whole(calm)


def test_a_node_whose_clock_is_an_hour_off_gets_no_work_where_the_store_minds(hosts, calm, rows):
    hosts.node(ONE, **hosts.clock(3600))
    hosts.until_alive(*NODES)
    driver = hosts.driver(rows[:2])
    driver.whole(calm)
    assert f"node {hosts.net.address(ONE)}" in driver.said() and "RequestTimeTooSkewed" in driver.said()
    assert not [
        made for made in hosts.requests() if made["from"] == hosts.net.address(ONE) and driver.name in made["path"]
    ]


def test_a_driver_whose_clock_is_an_hour_off_is_told_so_before_anything_starts(hosts, rows):
    driver = hosts.driver(rows, **hosts.clock(-3600))
    assert driver.ended() == 2 and "RequestTimeTooSkewed" in driver.said() and "Traceback" not in driver.said()
    assert HEAD not in {made["from"] for made in hosts.requests() if driver.name in made["path"]}
