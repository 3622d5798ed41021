"""A length of time as a person gives it: "30m", or a number of seconds."""

import re
from typing import Any

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
ACCEPTED = "seconds, or such as '90s', '30m' or '2h', at most 7 days"


def seconds(value: Any) -> Any:
    """Text of a number with a unit (none: seconds) as seconds; anything else as it is."""
    written = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,3})?)\s*([smhd]?)\s*", value) if isinstance(value, str) else None
    return float(written[1]) * UNITS[written[2] or "s"] if written else value
