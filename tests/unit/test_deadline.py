from datetime import UTC, datetime

import pytest

from flowcache.deadline import deadline

NOW = datetime(2026, 11, 22, 22, 30)


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("07:00", datetime(2026, 11, 23, 7, 0)),
        ("7:00", datetime(2026, 11, 23, 7, 0)),
        ("23:05", datetime(2026, 11, 22, 23, 5)),
        ("22:30", datetime(2026, 11, 23, 22, 30)),
        ("2026-12-01T06:00", datetime(2026, 12, 1, 6, 0)),
        ("2026-12-01 06:00", datetime(2026, 12, 1, 6, 0)),
        ("2026-12-01T06:00+00:00", datetime(2026, 12, 1, 6, 0, tzinfo=UTC)),
    ],
)
def test_moments(text, then):
    assert deadline(text, NOW) == then.timestamp()


@pytest.mark.parametrize("text", ["", "noon", "25:00", "07:60", "7", "2026-12-01", "2026-13-01T06:00"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(ValueError, match="accepted: a time such as 07:00"):
        deadline(text, NOW)
