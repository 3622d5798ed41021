"""Whatever a store answers is the store's: no video is given up for it, and a rerun after the cure ends the same."""

import pytest

from flowcache.storage.commits import list_commits
from tests.s3.answers import ANSWERS
from tests.s3.nights import Night, where
from tests.soak.spoils import refuse

pytestmark = pytest.mark.usefixtures("quick")
PLACES = {  # what is asked for, and by whom
    "a chunk, by a worker": ("put", r"media/{video}/\d+\..*m4s"),
    "an init segment, by a worker": ("create", r"media/{video}/init\.mp4"),
    "a state, by a worker": ("put", "_state/{video}/"),
    "a state read, by a worker": ("get", "_state/{video}/"),
    "a marker, by a worker": ("create", r"_commits/{video}/\d"),
    "a text read, by a worker": ("get", "_texts/"),
    "a playlist, by the driver": ("put", r"media/{video}/index\.m3u8"),
    "DONE, by the driver": ("create", "_commits/{video}/DONE"),
    "a table, by the driver": ("put", "meta/"),
    "a listing, by the driver": ("list", ""),
    "the end, by the driver": ("put", "_SUCCESS"),
}
BUSY = {"ConditionalRequestConflict", "OperationAborted", "PreconditionFailed", "RequestTimeout", "TooManyRequests"}
ALL = "put create get head list delete"
AT_WORK = 25  # requests until the first gangs are


def table(*codes: str) -> list:
    """All answers; those that are not named are for `make test-slow`."""
    return [code if code in codes else pytest.param(code, marks=pytest.mark.slow) for code in ANSWERS]


@pytest.fixture(scope="module")
def wanted(moto, proxy):
    night = Night(moto, proxy)
    assert night.run() == (0, "")
    return night.outcome()


@pytest.fixture
def night(moto, proxy, wanted):
    """Whatever is done to it, a run without it goes on to the same end."""
    made = Night(moto, proxy)
    yield made
    made.unblamed()
    assert made.run() == (0, "") and made.outcome() == wanted


def spoil(code: str):
    return refuse(ANSWERS[code][0], code)


@pytest.mark.parametrize("code", table("QuotaExceeded", "AccessDenied"))
def test_an_answer_to_everything_from_some_moment_on(night, code):
    ended, told = night.run(where(ALL, "", spoil(code), after=AT_WORK))
    assert ended == 1 and ANSWERS[code][1] in told, told


@pytest.mark.parametrize("code", table("ExpiredToken"))
def test_an_answer_to_everything_that_comes_once(night, code):
    assert night.run(where(ALL, "", spoil(code), times=1, after=AT_WORK + len(code))) == (0, "")


@pytest.mark.parametrize("code", table("QuotaExceeded", "SlowDown"))
def test_an_answer_to_all_that_concerns_one_video(night, code):
    ended, told = night.run(where(ALL, "/v1/", spoil(code)))
    assert ended == 1 and ANSWERS[code][1] in told, told
    assert list_commits(night.direct).done == {"v0", "v2", "v3"}


@pytest.mark.slow
@pytest.mark.parametrize("code", ["QuotaExceeded", "AccessDenied", "SlowDown", "NotImplemented"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("video", ["[^/]+", "v1"], ids=["every video's", "one video's"])
@pytest.mark.parametrize("times", [3, 1 << 30], ids=["for a while", "for good"])
def test_an_answer_in_one_place(night, code, place, video, times):
    operations, pattern = PLACES[place]
    ended, told = night.run(where(operations, pattern.format(video=video), spoil(code), times, after=2 * (not pattern)))
    assert ended in ((0, 1) if times == 3 else (1,)), (ended, told)
    assert (ANSWERS[code][1] in told) == (ended == 1), told


@pytest.mark.parametrize("code", table("MethodNotAllowed", "BadGateway"))
def test_before_anything_was_started(night, code):
    ended, told = night.run(where(ALL, "", spoil(code)))
    passing = ANSWERS[code][0] in (429, 500, 502, 503, 504, 509) or code in BUSY
    assert ended == (1 if passing else 2) and ANSWERS[code][1] in told, told
    assert not night.direct.list()
