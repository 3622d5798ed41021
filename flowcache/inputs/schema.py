"""What people write in manifests and job files: names, types and ranges of every field (pydantic)."""

import difflib
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from flowcache.cache.policy_settings import POLICIES
from flowcache.errors import masked

MAX_PROMPT = 10_000  # characters
MAX_SECONDS = 86_400
MAX_FRAMES = 1_000_000  # of a video
MAX_SIDE = 8192  # pixels
MAX_SHOTS = 1_000
MAX_LABELS = 64
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# Control characters but newline and tab, and halves of UTF-16 pairs, which no UTF-8 file can hold.
UNWRITABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


ACCEPTS = {
    "id": "1 to 128 letters, digits, '.', '_' and '-', the first a letter or digit, without '..'",
    "prompt": "text of 1 to 10,000 characters without control characters",
    "shots": "a list of 1 to 1,000 objects, each with prompt, seconds or frames, and cut",
    "negative_prompt": "text of at most 10,000 characters without control characters",
    "image": "a path or URL of at most 4,096 characters",
    "video": "a path or URL of at most 4,096 characters",
    "end_image": "a path or URL of at most 4,096 characters",
    "seconds": "a number above 0, at most 86,400",
    "frames": "a whole number from 1 to 1,000,000",
    "width": "a whole number from 1 to 8192",
    "height": "a whole number from 1 to 8192",
    "fps": "a whole number from 1 to 120",
    "seed": "a whole number from 0 to 9223372036854775807",
    "guidance": "a number from 0 to 50",
    "steps": "a whole number from 1 to 1,000",
    "ar_step": "a whole number from 0 to 1,000",
    "segment": "'all'",
    "model": "a model's name or the path of a checkpoint folder",
    "policy": "'off', 'dense', 'paper', 'flowcache' or 'teacache', these three also as 'paper:slow' or 'paper:fast', "
    "or an object with name and settings (docs/manifest.md)",
    "policy.name": "'off', 'dense', 'paper', 'teacache' or 'flowcache'",
    "policy.preset": "'slow' or 'fast'",
    "policy.threshold": "a number from 0 to 100",
    "policy.ret_steps": "a whole number from 0 to 1,000",
    "policy.reuse": "true or false",
    "policy.refresh": "true or false",
    "policy.renoise": "true or false",
    "policy.kv": "an object with keep ('all', 'recent', 'sink' or 'compressed') and what goes with it",
    "policy.kv.keep": "'all', 'recent', 'sink' or 'compressed'",
    "policy.kv.first": "a whole number of chunks from 1 to 1,000",
    "policy.kv.chunks": "a whole number of chunks from 1 to 1,000",
    "policy.kv.by": "'token', 'frame' or 'chunk'",
    "policy.kv.mix": "a number from 0 to 1",
    "policy.kv.queries": "'token', 'frame' or 'chunk'",
    "policy.kv.weighting": "'even', 'hard_code', 'exponential', 'polynomial', 'upper_convex_polynomial' or 'gaussian'",
    "policy.kv.power": "a number above 0, at most 100",
    "policy.velocity": "true or false",
    "policy.last_step": "true or false",
    "policy.near_clean": "true or false",
    "priority": "a whole number from -1000 to 1000",
    "labels": "an object of at most 64 names with text, numbers or booleans",
    "labels.*": "a name of at most 100 characters with text of at most 1,000, a finite number or a boolean",
    "cut": "true or false",
}


def _whole(value: Any) -> Any:
    """64.0 is the whole number 64: spreadsheets and pandas write it so."""
    exact = isinstance(value, float) and value.is_integer() and abs(value) <= 2**53
    return int(value) if exact else value


Whole = Annotated[int, BeforeValidator(_whole)]


def whole(low: int, high: int) -> Any:
    """The type of whole numbers from `low` to `high`."""
    return Annotated[Whole, Field(ge=low, le=high)]


def real(low: float, high: float) -> Any:
    """The type of finite numbers from `low` to `high`."""
    return Annotated[float, Field(ge=low, le=high, allow_inf_nan=False)]


def _clean(text: str) -> str:
    bad = UNWRITABLE.search(text)
    if bad:
        where = {"code": f"U+{ord(bad[0]):04X}", "at": bad.start() + 1}
        raise PydanticCustomError("control", "holds the control character {code} at character {at}", where)
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "is blank")
    return text


def _safe_id(value: str) -> str:
    if not usable_id(value):
        raise PydanticCustomError("unsafe_id", "{given} is no safe object key", {"given": shown(value)})
    return value


def expand_policy(value: Any) -> Any:
    """The short form "name:preset" as an object."""
    if not isinstance(value, str):
        return value
    name, colon, preset = value.partition(":")
    if name not in POLICIES or (colon and not (POLICIES[name] and preset)):
        raise PydanticCustomError("policy", "got {given}", {"given": shown(value)})
    return {"name": name, "preset": preset} if colon else {"name": name}


def _label(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and abs(value) < float("inf")):
        return str(value)
    return value


def text(longest: int, blank: bool = False) -> Any:
    """The type of text of at most `longest` characters without control characters."""
    plain = Annotated[str, Field(max_length=longest), AfterValidator(_clean)]
    return plain if blank else Annotated[plain, AfterValidator(_not_blank)]


Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]
Label = Annotated[text(1000, blank=True), BeforeValidator(_label)]


class Written(BaseModel):
    """Base of all that people write: unknown keys refused, no conversions between types, null is absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class KV(Written):
    """What is kept of a window's finished chunks; `row.policy` checks which settings go with which `keep`."""

    keep: Literal["all", "recent", "sink", "compressed"]
    first: whole(1, 1000) | None = None
    chunks: whole(1, 1000) | None = None
    by: Literal["token", "frame", "chunk"] | None = None
    mix: real(0, 1) | None = None
    queries: Literal["token", "frame", "chunk"] | None = None
    weighting: (
        Literal["even", "hard_code", "exponential", "polynomial", "upper_convex_polynomial", "gaussian"] | None
    ) = None
    power: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None = None


class Policy(Written):
    """Which settings go with which name: cache/settings.py.

    `off` is the unaccelerated model, causal by chunks, `dense` the same with attention both ways, as official by
    default; `paper` is FlowCache as published, `flowcache` is ours, `teacache` the baseline that decides for the
    whole window at once.
    """

    name: Literal["off", "dense", "paper", "teacache", "flowcache"]
    preset: text(100) | None = None
    threshold: real(0, 100) | None = None
    ret_steps: whole(0, 1000) | None = None
    reuse: bool | None = None
    refresh: bool | None = None
    renoise: bool | None = None
    velocity: bool | None = None
    last_step: bool | None = None
    near_clean: bool | None = None
    kv: KV | None = None


class Look(Written):
    """What a row may say, and a job's `defaults` may say for all rows."""

    negative_prompt: text(MAX_PROMPT, blank=True) | None = None
    seconds: Seconds | None = None
    fps: whole(1, 120) | None = None
    seed: whole(0, 2**63 - 1) | None = None
    guidance: real(0, 50) | None = None
    steps: whole(1, 1000) | None = None
    ar_step: whole(0, 1000) | None = None
    segment: Literal["all"] | None = None


class Defaults(Look):
    """What a job says for all rows; what is absent here the model decides."""

    frames: whole(1, MAX_FRAMES) | None = None
    width: whole(1, MAX_SIDE) | None = None
    height: whole(1, MAX_SIDE) | None = None


class RowDefaults(Defaults):
    """All that holds for every row that does not say otherwise."""

    model: text(4096) = "tiny-skyreels"
    policy: Annotated[Policy, BeforeValidator(expand_policy)] = Policy(name="off")


class ShotRow(Written):
    """One entry of `shots`. Presence and ranges of lengths are checked with the whole row and its model."""

    prompt: text(MAX_PROMPT) | None = None
    seconds: Seconds | None = None
    frames: Whole | None = None
    cut: bool | None = None


class Row(Look):
    """One row of a manifest. Presence, lengths and sizes are checked later, as in ShotRow."""

    id: Annotated[str, AfterValidator(_safe_id)] | None = None
    prompt: text(MAX_PROMPT) | None = None
    shots: Annotated[list[ShotRow], Field(min_length=1, max_length=MAX_SHOTS)] | None = None
    frames: Whole | None = None
    width: Whole | None = None
    height: Whole | None = None
    image: text(4096) | None = None
    video: text(4096) | None = None
    end_image: text(4096) | None = None
    model: text(4096) | None = None
    policy: Annotated[Policy, BeforeValidator(expand_policy)] | None = None
    priority: whole(-1000, 1000) | None = None
    labels: Annotated[dict[text(100), Label], Field(max_length=MAX_LABELS)] | None = None


ROW_FIELDS = tuple(Row.model_fields)
WHOLE_FIELDS = ("frames", "width", "height", "fps", "seed", "steps", "ar_step", "priority")
REAL_FIELDS = ("seconds", "guidance")
NESTED_FIELDS = ("shots", "labels", "policy")  # JSON where a format has only text


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


def usable_id(value: Any) -> str | None:
    """`value` where it is an id that a row may have, else None."""
    return value if isinstance(value, str) and SAFE_ID.fullmatch(value) and ".." not in value else None


def suggestion(key: str, known: Iterable[str]) -> str:
    """What to say about the unknown key: the known one that it may stand for, else all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(key[:100].lower(), known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"


def path_name(loc: tuple[int | str, ...]) -> str:
    """("shots", 1, "frames") as shots[1].frames; keys that a terminal should not see are quoted."""
    name = ""
    for part in loc:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part != "[key]":
            part = part if len(part) <= 50 and part.isprintable() else shown(part)
            name += f".{part}" if name else part
    return name


def faults(error: ValidationError, model: type[BaseModel], accepts: dict[str, str]) -> list[tuple[tuple, str]]:
    """Every fault of `error` as (location, message). `accepts`: what each field takes, by path_name."""
    return [(found["loc"], _message(found, model, accepts)) for found in error.errors(include_url=False)]


def _message(found: Any, model: type[BaseModel], accepts: dict[str, str]) -> str:
    loc, kind, given = found["loc"], found["type"], found["input"]
    if kind == "extra_forbidden":
        return f"is no known field; {suggestion(str(loc[-1]), _known(loc, model))}"
    if kind == "missing":
        return f"is missing; accepted: {_accepted(loc, accepts)}"
    if kind == "string_too_long":
        return f"has {len(given):,} characters; accepted: {_accepted(loc, accepts)}"
    if kind in ("control", "blank", "unsafe_id", "policy", "root"):
        return f"{found['msg']}; accepted: {_accepted(loc, accepts)}"
    return f"got {shown(given)}; accepted: {_accepted(loc, accepts)}"


def _known(loc: tuple, model: type[BaseModel]) -> Iterable[str]:
    nested = {"shots": ShotRow, "policy": Policy, "defaults": Defaults}
    if loc[:2] == ("policy", "kv") and len(loc) > 2:
        return KV.model_fields
    return (nested[loc[0]] if len(loc) > 1 else model).model_fields


def _accepted(loc: tuple, accepts: dict[str, str]) -> str:
    if loc[0] == "labels":
        return accepts["labels.*" if len(loc) > 1 else "labels"]
    if loc[0] == "shots" and len(loc) < 3:
        return accepts["shots"]
    name = path_name(loc)
    return accepts.get(name) or accepts.get(str(loc[-1]), "a known field")
