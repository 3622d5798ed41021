"""A condition on rows, as SQL has them: `labels.team = 'a' and (steps >= 20 or not image is null)`."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from flowcache.errors import InputError, Problem
from flowcache.inputs.rates import rate
from flowcache.inputs.schema import Row
from flowcache.inputs.written import shown, suggestion

ACCEPTED = "such as \"labels.team = 'a' and steps >= 20\", with =, !=, <, <=, >, >=, like, is null, and, or, not, ( )"
LONGEST = 10_000  # characters
DEEPEST = 100  # parentheses and nots in each other
TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>[+-]?\d+(?:\.\d+)?(?![\w./])|\d+/\d+(?![\w./]))|(?P<sign><=|>=|!=|<>|==|=|<|>|\(|\))
    |(?P<name>[A-Za-z_][\w-]*(?:\.(?:[\w-]+|"[^"]*"))?))""",
    re.VERBOSE,
)
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne, "<>": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
Fields = Mapping[str, Any]
Test = Callable[[Fields], bool]


@dataclass(frozen=True)
class Where:
    """A condition that was read."""

    written: str
    holds: Test


def where(*written: str) -> Where:
    """That all of these hold; InputError where one can't be read. What a row does not say is no value: nothing but `is
    null` holds of it."""
    tests = [_test(one) for one in written]
    return Where(" and ".join(f"({one})" for one in written), lambda row: all(test(row) for test in tests))


def _test(written: str) -> Test:
    try:
        reader = _Reader(written)
        test = reader.either(0)
        if reader.token:
            raise ValueError(f"{shown(reader.token)} is one thing too many")
    except ValueError as fault:
        raise InputError([Problem("--where", "", f"{shown(written)}: {fault}; accepted: {ACCEPTED}")]) from None
    return test


class _Reader:
    """Recursive descent: or, and, not, comparison."""

    def __init__(self, written: str):
        if len(written) > LONGEST:
            raise ValueError(f"has {len(written):,} characters; at most {LONGEST:,}")
        self.rest, self.token, self.kind = written, "", ""
        self.next()

    def next(self) -> str:
        """The token that was there; goes on to the next one."""
        before, found = self.token, TOKEN.match(self.rest)
        if found is None and self.rest.strip():
            raise ValueError(f"{shown(self.rest.strip()[:20])} can't be read")
        self.token = found[0].strip() if found else ""
        self.kind = (found.lastgroup or "") if found else ""
        self.rest = self.rest[found.end() :] if found else ""
        return before

    def word(self, *words: str) -> bool:
        """Whether one of these words stands here, which is then behind us."""
        there = self.kind in ("name", "sign") and self.token.lower() in words
        if there:
            self.next()
        return there

    def either(self, depth: int) -> Test:
        found = [self.both(depth)]
        while self.word("or"):
            found.append(self.both(depth))
        return found[0] if len(found) == 1 else lambda row: any(test(row) for test in found)

    def both(self, depth: int) -> Test:
        found = [self.one(depth)]
        while self.word("and"):
            found.append(self.one(depth))
        return found[0] if len(found) == 1 else lambda row: all(test(row) for test in found)

    def one(self, depth: int) -> Test:
        if depth > DEEPEST:
            raise ValueError("is nested too deeply")
        if self.word("not"):
            test = self.one(depth + 1)
            return lambda row: not test(row)
        if self.word("("):
            test = self.either(depth + 1)
            if not self.word(")"):
                raise ValueError("a parenthesis is not closed")
            return test
        return self.comparison()

    def comparison(self) -> Test:
        if self.kind != "name":
            raise ValueError(f"{shown(self.token)} is no field" if self.token else "something is missing at its end")
        field = self.next()
        head, _, label = field.partition(".")
        if head not in Row.model_fields or (label and head != "labels"):
            raise ValueError(f"{shown(field)} is no field of a row; {suggestion(head, Row.model_fields)}")
        label = label.strip('"')
        if self.word("is"):
            there = self.word("not")
            if not self.word("null"):
                raise ValueError("after is comes null, or not null")
            return lambda row: (_value(row, head, label) is not None) == there
        if self.word("like"):
            pattern = self.value()
            glob = re.sub(r"([\[*?])", r"[\1]", str(pattern)).replace("%", "*").replace("_", "?")
            return lambda row: (found := _value(row, head, label)) is not None and fnmatchcase(_text(found), glob)
        compare = COMPARE.get(self.token)
        if compare is None:
            raise ValueError(f"after {field} comes a comparison")
        self.next()
        return _comparison(head, label, compare, self.value())

    def value(self) -> Any:
        kind, token = self.kind, self.next()
        if kind == "text":
            return token[1:-1].replace("''", "'")
        if kind == "number":
            return float(token) if "/" not in token else token
        if kind == "name" and token.lower() in ("true", "false"):
            return token.lower()
        raise ValueError(f"{shown(token)} is no value: text is quoted, as 'a'" if token else "a value is missing")


def _comparison(head: str, label: str, compare: Callable[[Any, Any], bool], wanted: Any) -> Test:
    if head == "fps":
        wanted = _rate(wanted)

    def holds(row: Fields) -> bool:
        found = _value(row, head, label)
        if found is None:
            return False
        try:
            if head == "fps" and not isinstance(wanted, str):
                return compare(_rate(found), wanted)
            if isinstance(wanted, float):
                return compare(float(found), wanted)
            return compare(_text(found), wanted)
        except (TypeError, ValueError):
            return False

    return holds


def _rate(said: Any) -> Any:
    """As a row means it: 23.976 is 24000/1001. As it is where it is no frame rate."""
    try:
        return rate(said)
    except ValueError:
        return said


def _value(row: Fields, head: str, label: str) -> Any:
    found = row.get(head)
    if label:
        return found.get(label) if isinstance(found, Mapping) else None
    if head == "policy" and isinstance(found, Mapping):
        return found.get("name")
    return found


def _text(value: Any) -> str:
    return ("false", "true")[value] if isinstance(value, bool) else str(value)
