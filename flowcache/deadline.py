"""A moment as a person gives it: "07:00", or a date with a time."""

import re
from datetime import datetime, timedelta

ACCEPTED = "a time such as 07:00 (the next one, local), or 2026-11-23T07:00, with or without +01:00"


def deadline(text: str, now: datetime | None = None) -> float:
    """Unix seconds. ValueError says what is accepted. now: local, without a time zone; None: the clock's."""
    now = now or datetime.now()
    try:
        if re.fullmatch(r"\d{1,2}:\d\d", text):
            hour, minute = map(int, text.split(":"))
            then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
            return (then if then > now else then + timedelta(days=1)).timestamp()
        then = datetime.fromisoformat(text)
        if "T" in text or " " in text.strip():
            return then.timestamp()  # local where it names no zone, so that summer time is heeded
    except ValueError:
        pass
    raise ValueError(f"got {text!r}; accepted: {ACCEPTED}")
