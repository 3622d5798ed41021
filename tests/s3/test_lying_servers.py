"""Servers that answer what is not so: the end comes in time and with its cause, and no video is wrong."""

import time
from contextlib import suppress

import pytest
import torch

from flowcache.errors import StoreError
from flowcache.storage.commits import read_commits
from flowcache.storage.objects import cloud, s3
from flowcache.storage.objects import store as objects
from flowcache.storage.repair import repair
from flowcache.storage.verify import verify
from flowcache.worker.text_cache import TextCache
from tests.s3.nights import Night, where
from tests.soak import spoils

pytestmark = pytest.mark.usefixtures("quick")
GIVES = "get list"
STATE, CHUNK, MARKER = "_state/v1/", r"media/v1/.*m4s", r"_commits/v1/\d"
LIES = {  # what is done, to what
    "a Content-Length that is too large": (spoils.length(lambda size: size + 9), GIVES, ""),
    "a Content-Length that is too small": (spoils.length(lambda size: size - 9), GIVES, ""),
    "an empty body": (spoils.page(200, b""), GIVES, ""),
    "a chunked body that is cut": (spoils.cut_chunks, GIVES, ""),
    "a login page": (spoils.page(200, b"<html><body>Sign in</body></html>"), "put create get list", ""),
    "an error with status 200": (
        spoils.page(200, spoils.error("InternalError"), "application/xml"),
        "put get list",
        "",
    ),
    "a state of a proxy": (spoils.page(200, b"<html>Sign in</html>"), "get", STATE),
    "writes that are swallowed": (spoils.swallowed(), "put create", ""),
    "chunks that are swallowed": (spoils.swallowed('"11111111111111111111111111111111"'), "put", CHUNK),
    "a marker that is swallowed": (spoils.swallowed(), "create", MARKER),
    "nothing where something is": (spoils.refuse(404, "NoSuchKey"), "get", STATE),
    "no content": (spoils.page(204, b""), "put create get list", ""),
    "a part": (spoils.page(206, b"x" * 9), GIVES, ""),
    "an unknown status": (spoils.page(299, b""), "put create get list", ""),
    "nonsense": (spoils.page(200, bytes(range(256))), "list", ""),
}

DRIPS = {
    "a state": (spoils.drip(5.0), "get", STATE),
    "the answer to a chunk": (spoils.drip(5.0), "put", CHUNK),
    "a listing": (spoils.drip(0.5), "list", ""),
}


@pytest.fixture
def night(moto, proxy):
    return Night(moto, proxy)


@pytest.fixture(scope="module")
def wanted(moto, proxy):
    made = Night(moto, proxy)
    assert made.run() == (0, "")
    return made.outcome()


@pytest.fixture
def in_time(monkeypatch):
    """Not what a busy machine takes, and less than what drips."""
    monkeypatch.setattr(objects, "LIMIT", 5.0)
    for module in (cloud, s3):
        monkeypatch.setattr(module, "ANSWER", 6.0)
    monkeypatch.setattr(s3.S3Backend, "reading", {"timeout": 6.0})


def begins(operations: str, pattern: str) -> int:
    """After how many such requests a lie begins: what concerns everything begins once the run is at work."""
    return 0 if pattern else 3 if operations == "list" else 25


@pytest.mark.slow
@pytest.mark.parametrize("lie", DRIPS)
def test_what_drips_is_given_up_in_time(night, wanted, in_time, lie):
    spoil, operations, pattern = DRIPS[lie]
    begun = time.monotonic()
    ended, told = night.run(where(operations, pattern, spoil, after=begins(operations, pattern)), infra_retries=0)
    assert ended == 1 and "does not answer in time" in told
    assert time.monotonic() - begun < 150  # alone it would take minutes, hours or days
    night.unblamed()
    assert night.run() == (0, "") and night.outcome() == wanted


@pytest.mark.slow
@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("times", [2, 1 << 30], ids=["for a while", "for good"])
def test_a_lie_costs_no_video(night, wanted, lie, times):
    spoil, operations, pattern = LIES[lie]
    ended, told = night.run(where(operations, pattern, spoil, times, after=begins(operations, pattern)))
    assert ended == 0 or (ended == 1 and told), (ended, told)
    assert ended or times == 2
    night.unblamed()
    assert night.run() == (0, "") and night.outcome() == wanted


def test_etags_that_are_no_sums_are_no_lie(night, wanted):
    """As with encryption: what was written is read back once."""
    asked = []

    def judge(request):
        asked.append(request.operation)
        return spoils.tagged('"00000000000000000000000000000000"') if request.operation in ("put", "create") else None

    night.store.backend._sums = True
    assert night.run(judge) == (0, "") and night.outcome() == wanted
    assert asked.count("get") < 1.5 * asked.count("put")  # of writes that are read back there are more


def test_a_server_that_forgets_exclusive_creates_ends_the_run_without_success(night):
    """It knew them when it was probed at the start."""
    ended, told = night.run(where("create", "", spoils.unconditional, after=4))
    assert ended == 1 and "ignores exclusive creates (If-None-Match)" in told
    assert not night.direct.exists("_SUCCESS")
    night.unblamed()
    assert night.run()[0] == 0 and verify(night.direct, decode=False).sound


def test_listings_that_stand_still_end_the_run_with_the_difference(night, wanted):
    ended, told = night.run(where("list", "", spoils.Frozen(), after=3))
    assert ended == 1 and "does not show" in told and not night.direct.exists("_SUCCESS")
    night.unblamed()
    assert night.run() == (0, "") and night.outcome() == wanted


def test_the_state_of_another_video_is_not_continued(night, wanted):
    """All objects of that size would do: here it is the video's own playlist."""
    other = spoils.body_of(lambda: night.path("media/v1/init.mp4"))
    ended, told = night.run(where("get", STATE, other))
    assert ended == 1 and "the store contradicts itself about s3://" in told and "/_state/v1/00000." in told
    night.unblamed()
    assert night.run() == (0, "") and night.outcome() == wanted


def test_the_words_of_another_text_are_not_used(night):
    texts = TextCache(night.store, "d" * 64, "float32")
    one, other = torch.ones(1, 2, 3), torch.zeros(1, 2, 3)
    texts.put("one", one), texts.put("other", other)
    night.proxy.judge = where("get", texts.key("one"), spoils.body_of(lambda: night.path(texts.key("other"))))
    assert texts.find("one") is None and torch.equal(texts.find("other"), other)


def test_repair_withdraws_nothing_that_the_store_only_refuses_or_garbles(night, wanted):
    assert night.run() == (0, "")
    markers = read_commits(night.direct).markers
    for spoil in (spoils.refuse(403, "AccessDenied"), spoils.refuse(503, "SlowDown"), spoils.page(200, b"<html>")):
        night.proxy.judge = where("get", r"media/v1/\d", spoil)
        with suppress(StoreError):
            assert repair(night.store, decode=False).left  # what one object's refusal leaves is told
        night.proxy.judge = lambda asked: None
        assert read_commits(night.direct).markers == markers and night.outcome() == wanted
