from datetime import UTC, datetime

import pytest

from flowcache.inputs.deadline import deadline

NOW = datetime(2026, 11, 22, 22, 30)


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("07:00", datetime(2026, 11, 23, 7, 0)),
        ("7:00", datetime(2026, 11, 23, 7, 0)),
        ("23:05", datetime(2026, 11, 22, 23, 5)),
        ("2026-12-01T06:00", datetime(2026, 12, 1, 6, 0)),
        ("2026-12-01 06:00", datetime(2026, 12, 1, 6, 0)),
        ("2026-12-01T06:00+00:00", datetime(2026, 12, 1, 6, 0, tzinfo=UTC)),
    ],
)
def test_moments(text, then):
    assert deadline(text, NOW) == then.timestamp()


@pytest.mark.parametrize(
    ("now", "text", "wanted"),
    [
        ("07:00", "07:00", "22T07:00"),
        ("07:59", "07:00", "22T07:00"),
        ("08:00", "07:00", "23T07:00"),
        ("00:30", "23:45", "21T23:45"),
        ("00:30", "00:45", "22T00:45"),
        ("00:30", "2026-11-24 06:30", "24T06:30"),
    ],
)
def test_a_time_that_has_just_passed_is_not_tomorrows(now, text, wanted):
    """A job that Kubernetes starts again after its deadline ends at once. Zones are those of `now`."""
    found = deadline(text, datetime.fromisoformat(f"2026-11-22T{now}:00+05:00"))
    assert found == datetime.fromisoformat(f"2026-11-{wanted}:00+05:00").timestamp()


@pytest.mark.parametrize("text", ["", "noon", "25:00", "07:60", "7", "2026-12-01", "2026-13-01T06:00"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(ValueError, match="accepted: a time of day such as '07:00'"):
        deadline(text, NOW)
