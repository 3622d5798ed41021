import pytest

from tests.hosts.cluster import Hosts
from tests.hosts.network import lacking

PROMPT = "a red circle moving right on a blue background"


@pytest.fixture(scope="session")
def rows() -> list[dict]:
    """Videos of two segments each, long enough that something can happen to them."""
    return [{"id": f"v{n}", "prompt": PROMPT, "frames": 69, "steps": 2, "seed": n} for n in range(4)]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The four hosts; pytest's own folders are theirs no more than any other below /tmp."""
    if reason := lacking():
        pytest.skip(reason)
    hosts = Hosts(tmp_path_factory.mktemp("hosts"))
    try:
        yield hosts.start()
    finally:
        hosts.close()


@pytest.fixture(scope="session")
def calm(made, rows):
    """The store of an undisturbed run."""
    driver = made.driver(rows, "calm")
    assert driver.ended() == 0, driver.said()[-3000:]
    return driver.store


@pytest.fixture
def hosts(made, calm):
    """All of them well before a test, and again after it."""
    made.well()
    yield made
    made.net.heal()
