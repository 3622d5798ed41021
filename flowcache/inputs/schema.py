"""What people write in manifests and job files: names, types and ranges of every field (pydantic)."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PlainSerializer, PlainValidator, ValidationError
from pydantic_core import PydanticCustomError

from flowcache.inputs.policy_schema import Policy
from flowcache.inputs.rates import ACCEPTED as RATES
from flowcache.inputs.rates import rate
from flowcache.inputs.written import Whole, Written, real, shown, suggestion, text, whole
from flowcache.records import Rate, write_rate

MAX_PROMPT = 10_000  # characters
MAX_SECONDS = 86_400
MAX_FRAMES = 1_000_000  # of a video
MAX_SIDE = 8192  # pixels
MAX_WINDOW = 4_093  # frames; of SkyReels-V2 1,024 latent ones, for so many it has positions
MAX_SHOTS = 1_000
MAX_LABELS = 64
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


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
    "fps": RATES,
    "seed": "a whole number from 0 to 9223372036854775807",
    "guidance": "a number from 0 to 50",
    "steps": "a whole number from 1 to 1,000",
    "ar_step": "a whole number from 0 to 1,000",
    "segment": "'all'",
    "shift": "a number above 0, at most 100",
    "addnoise_condition": "a number from 0 to 1,000",
    "base_num_frames": "a whole number from 1 to 4,093",
    "overlap_history": "a whole number from 1 to 4,093",
    "causal_block_size": "a whole number from 1 to 1,024",
    "fit": "'crop', 'pad' or 'stretch'",
    "video_from": "'start' or 'end'",
    "solver": "'official' or 'corrected'",
    "special_tokens": "a list of names, or text with commas between them; 'none' for no token",
    "prev_chunks_scale": "a number from 0 to 10",
    "model": "a model's name or the path of a checkpoint folder",
    "policy": "a policy's name, or an object with name and settings",
    "priority": "a whole number from -1000 to 1000",
    "labels": "an object of at most 64 names with text, numbers or booleans",
    "labels.*": "a name of at most 100 characters with text of at most 1,000, a finite number or a boolean",
    "cut": "true or false",
}


def _safe_id(value: str) -> str:
    if not usable_id(value):
        raise PydanticCustomError("unsafe_id", "{given} is no safe object key", {"given": shown(value)})
    return value


def _names(value: Any) -> Any:
    """A list, or names in text, as a CSV cell has them."""
    if isinstance(value, str):
        return () if value.strip() == "none" else tuple(name.strip() for name in value.split(","))
    return tuple(value) if isinstance(value, list) else value


def _in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    """Once each, and sorted: those who write them in another order ask for the same."""
    return tuple(sorted(set(names)))


def _label(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and abs(value) < float("inf")):
        return str(value)
    return value


Fps = Annotated[Rate, PlainValidator(rate), PlainSerializer(write_rate, when_used="json")]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]
Names = Annotated[
    tuple[Annotated[str, text(50)], ...], Field(max_length=50), BeforeValidator(_names), AfterValidator(_in_order)
]
Label = Annotated[str, text(1000, blank=True), BeforeValidator(_label)]


class Look(Written):
    """What a row may say, and a job's `defaults` may say for all rows."""

    negative_prompt: Annotated[str, text(MAX_PROMPT, blank=True)] | None = None
    seconds: Seconds | None = None
    fps: Fps | None = None
    seed: Annotated[int, whole(0, 2**63 - 1)] | None = None
    guidance: Annotated[float, real(0, 50)] | None = None
    steps: Annotated[int, whole(1, 1000)] | None = None
    ar_step: Annotated[int, whole(0, 1000)] | None = None
    segment: Literal["all"] | None = None
    shift: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None = None
    addnoise_condition: Annotated[float, real(0, 1000)] | None = None
    base_num_frames: Annotated[int, whole(1, MAX_WINDOW)] | None = None
    overlap_history: Annotated[int, whole(1, MAX_WINDOW)] | None = None
    causal_block_size: Annotated[int, whole(1, 1024)] | None = None
    fit: Literal["crop", "pad", "stretch"] | None = None
    video_from: Literal["start", "end"] | None = None
    solver: Literal["official", "corrected"] | None = None
    special_tokens: Names | None = None
    prev_chunks_scale: Annotated[float, real(0, 10)] | None = None


class Defaults(Look):
    """What a job says for all rows; what is absent here the model decides."""

    frames: Annotated[int, whole(1, MAX_FRAMES)] | None = None
    width: Annotated[int, whole(1, MAX_SIDE)] | None = None
    height: Annotated[int, whole(1, MAX_SIDE)] | None = None


class RowDefaults(Defaults):
    """All that holds for every row that does not say otherwise."""

    model: Annotated[str, text(4096)] = "tiny-skyreels"
    policy: Policy = Policy(name="off")


class ShotRow(Written):
    """One entry of `shots`. Presence and ranges of lengths are checked with the whole row and its model."""

    prompt: Annotated[str, text(MAX_PROMPT)] | None = None
    seconds: Seconds | None = None
    frames: Whole | None = None
    cut: bool | None = None


class Row(Look):
    """One row of a manifest. Presence, lengths and sizes are checked later, as in ShotRow."""

    id: Annotated[str, AfterValidator(_safe_id)] | None = None
    prompt: Annotated[str, text(MAX_PROMPT)] | None = None
    shots: Annotated[list[ShotRow], Field(min_length=1, max_length=MAX_SHOTS)] | None = None
    frames: Whole | None = None
    width: Whole | None = None
    height: Whole | None = None
    image: Annotated[str, text(4096)] | None = None
    video: Annotated[str, text(4096)] | None = None
    end_image: Annotated[str, text(4096)] | None = None
    model: Annotated[str, text(4096)] | None = None
    policy: Policy | None = None
    priority: Annotated[int, whole(-1000, 1000)] | None = None
    labels: Annotated[dict[Annotated[str, text(100)], Label], Field(max_length=MAX_LABELS)] | None = None


WHOLE_FIELDS = (
    *("frames", "width", "height", "fps", "seed", "steps", "ar_step", "priority"),
    *("base_num_frames", "overlap_history", "causal_block_size"),
)
REAL_FIELDS = ("seconds", "guidance", "shift", "addnoise_condition", "prev_chunks_scale")
NESTED_FIELDS = ("shots", "labels", "policy")  # JSON where a format has only text


def usable_id(value: Any) -> str | None:
    """`value` where it is an id that a row may have, else None."""
    return value if isinstance(value, str) and SAFE_ID.fullmatch(value) and ".." not in value else None


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
    if kind == "told":
        return found["msg"]
    if kind == "extra_forbidden":
        return f"is no known field; {suggestion(str(loc[-1]), _known(loc, model))}"
    if kind == "missing":
        return f"is missing; accepted: {_accepted(loc, accepts)}"
    if kind == "string_too_long":
        return f"has {len(given):,} characters; accepted: {_accepted(loc, accepts)}"
    if kind in ("control", "blank", "unsafe_id", "root"):
        return f"{found['msg']}; accepted: {_accepted(loc, accepts)}"
    return f"got {shown(given)}; accepted: {_accepted(loc, accepts)}"


def _known(loc: tuple, model: type[BaseModel]) -> Iterable[str]:
    nested = {"shots": ShotRow, "defaults": Defaults}
    return (nested[loc[0]] if len(loc) > 1 else model).model_fields


def _accepted(loc: tuple, accepts: dict[str, str]) -> str:
    if loc[0] == "labels":
        return accepts["labels.*" if len(loc) > 1 else "labels"]
    if loc[0] == "shots" and len(loc) < 3:
        return accepts["shots"]
    name = path_name(loc)
    return accepts.get(name) or accepts.get(str(loc[-1])) or accepts.get(str(loc[0]), "a known field")
