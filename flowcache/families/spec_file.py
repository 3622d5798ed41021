"""Every value of a flowcache.json, looked at before it is used. No torch."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

Rule = tuple[str, Callable[[Any], bool]]
MOST = 1_000_000


def whole(least: int, most: int = MOST) -> Rule:
    return f"a whole number from {least} to {most:,}", lambda value: type(value) is int and least <= value <= most


def number(value: Any) -> bool:
    """Whether it is one that a float can be: neither infinite nor of hundreds of digits."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


TEXT: Rule = "text", lambda value: isinstance(value, str)
SWITCH: Rule = "true or false", lambda value: type(value) is bool
NUMBER: Rule = f"a number from 0 to {MOST:,}", lambda value: number(value) and 0 <= value <= MOST
SIZES: Rule = (
    "pairs of width and height, whole numbers above 0",
    lambda value: (
        isinstance(value, tuple)
        and all(
            isinstance(size, tuple) and len(size) == 2 and all(whole(1)[1](side) for side in size) for size in value
        )
    ),
)
WORDS: Rule = "a list of words", lambda value: isinstance(value, tuple) and all(isinstance(word, str) for word in value)
PRESETS: Rule = (
    "an object of presets, with threshold, ret_steps and coefficients of numbers",
    lambda value: isinstance(value, dict) and all(preset(each) for each in value.values()),
)
COUNTS = ("chunk", "window", "channels", "time_stride", "space_stride", "patch", "fps", "width", "height", "frames")
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(COUNTS, whole(1)),
    **dict.fromkeys(("steps", "max_steps"), whole(1, 10_000)),
    **dict.fromkeys(("overlap", "ar_step"), whole(0)),
    **dict.fromkeys(("guidance", "shift", "condition_noise"), NUMBER),
    **dict.fromkeys(("name", "negative_prompt"), TEXT),
    "causal": SWITCH,
    "sizes": SIZES,
    "vocabulary": WORDS,
    "reuse": PRESETS,
}


def preset(value: Any) -> bool:
    """One of `reuse`; a family may have further keys."""
    return isinstance(value, dict) and all(holds(value[key]) for key, holds in PRESET.items() if key in value)


PRESET: Mapping[str, Callable[[Any], bool]] = {
    "threshold": NUMBER[1],
    "ret_steps": whole(0)[1],
    "coefficients": lambda value: isinstance(value, tuple) and all(map(number, value)),
}


def faults(raw: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, message) of what is not accepted, lists being tuples; what is missing is not looked for."""
    found = [
        (key, f"got {str(raw[key])[:60]!r}; accepted: {accepted}")
        for key, (accepted, holds) in RULES.items()
        if key in raw and not holds(raw[key])
    ]
    if found or not {"chunk", "window", "overlap"} <= raw.keys():
        return found
    found += [
        (key, f"got {raw[key]}; accepted: a multiple of {raw['chunk']}, the chunk")
        for key in ("window", "overlap")
        if raw[key] % raw["chunk"]
    ]
    if raw["overlap"] >= raw["window"]:
        found.append(("overlap", f"got {raw['overlap']}; accepted: less than the window of {raw['window']}"))
    return found
