"""A moment as a person gives it: "07:00", or a date with a time."""

import re
from datetime import datetime, timedelta

ACCEPTED = "a time of day such as '07:00', or a moment such as '2026-11-23 07:00' or '2026-11-23T07:00+01:00'"
DAY, JUST_PASSED = timedelta(days=1), timedelta(hours=1)


def deadline(text: str, now: datetime | None = None) -> float:
    """Unix seconds: of a time of day the next one, without a zone in that of `now` (None: the clock, local).

    One that passed less than an hour ago has passed: a job that is started again after its deadline must not go on
    until tomorrow. ValueError says what is accepted.
    """
    now = now or datetime.now()
    try:
        if re.fullmatch(r"\d{1,2}:\d\d", text):
            hours, minutes = map(int, text.split(":"))
            today = now.replace(hour=hours, minute=minutes, second=0, microsecond=0)
            last = now - (now - today) % DAY
            return (last if now - last < JUST_PASSED else last + DAY).timestamp()
        then = datetime.fromisoformat(text)
        if "T" in text or " " in text.strip():
            return (then if then.tzinfo else then.replace(tzinfo=now.tzinfo)).timestamp()
    except ValueError:
        pass
    raise ValueError(f"got {text!r}; accepted: {ACCEPTED}")
