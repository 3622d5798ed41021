"""What all that people write is made of: texts, numbers, objects without unknown keys; and how it is shown to them."""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import GroupedMetadata
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from flowcache.errors import masked

# Control characters but newline and tab, and halves of UTF-16 pairs, which no UTF-8 file can hold.
UNWRITABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _whole(value: Any) -> Any:
    """64.0 is the whole number 64: spreadsheets and pandas write it so."""
    exact = isinstance(value, float) and value.is_integer() and abs(value) <= 2**53
    return int(value) if exact else value


Whole = Annotated[int, BeforeValidator(_whole)]


@dataclass(frozen=True)
class Together(GroupedMetadata):
    """What pydantic shall check of an annotated type, in this order: `Annotated[int, whole(1, 9)]`."""

    checks: tuple[Any, ...]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.checks)


def whole(low: int, high: int) -> Together:
    """Of an int: a whole number from `low` to `high`."""
    return Together((BeforeValidator(_whole), Field(ge=low, le=high)))


def real(low: float, high: float) -> Together:
    """Of a float: a finite number from `low` to `high`."""
    return Together((Field(ge=low, le=high, allow_inf_nan=False),))


def _clean(text: str) -> str:
    """Without control characters; lines end as they do on Unix."""
    text = text.replace("\r\n", "\n")
    bad = UNWRITABLE.search(text)
    if bad:
        where = {"code": f"U+{ord(bad[0]):04X}", "at": bad.start() + 1}
        raise PydanticCustomError("control", "holds the control character {code} at character {at}", where)
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "is blank")
    return text


def text(longest: int, blank: bool = False) -> Together:
    """Of a str: at most `longest` characters, none of them a control character."""
    plain = (Field(max_length=longest), AfterValidator(_clean))
    return Together(plain if blank else (*plain, AfterValidator(_not_blank)))


class Written(BaseModel):
    """Base of all that people write: unknown keys refused, no conversions between types, null is absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def shown(value: Any) -> str:
    """What was given, in at most some 60 characters, without credentials and control characters."""
    if isinstance(value, str):
        start = repr(masked(value[:5000])[:50])
        return start if len(value) <= 50 and len(start) <= 80 else f"{start[:50]}... ({len(value):,} characters)"
    if isinstance(value, (list, dict)):
        entries = "1 entry" if len(value) == 1 else f"{len(value):,} entries"
        return f"{'a list' if isinstance(value, list) else 'an object'} of {entries}"
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)[:60]


def suggestion(key: str, known: Iterable[str]) -> str:
    """What to say about the unknown key: the known one that it may stand for, else all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(key[:100].lower(), known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
