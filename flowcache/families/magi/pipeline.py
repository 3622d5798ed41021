"""What a MAGI-1 checkpoint says of its sampling beside what every model does. No torch."""

import math
from dataclasses import dataclass, fields
from typing import Any, get_args


@dataclass(frozen=True)
class Pipeline:
    """How MAGI-1 samples chunks in flight (the runtime and engine configs of a checkpoint). Times: 0 noise, 1 clean.

    window: chunks in flight at once. passes: of guidance: 3 (text; the chunks before alone; nothing), or 1.
    guidance_times: from which on the scales of the same place hold. kv_ranges: how many chunks are seen, a chunk's own
    included, by the share of its steps that it has done; empty: all. clean_kv_range: the same while a finished chunk
    is run once more, at clean_time; -1: the last of kv_ranges. near_clean: time from which on, with one pass, a copy
    of the first chunk that sees itself alone is mixed in. shortcut: the order of 12 steps. distilled: the model embeds
    the number of steps, too.
    """

    window: int = 4
    passes: int = 3
    guidance_times: tuple[float, ...] = (0.0, 0.0217, 0.1, 0.3, 0.999)
    previous_scales: tuple[float, ...] = (1.5, 1.5, 1.5, 1.0, 1.0)
    text_scales: tuple[float, ...] = (7.5, 7.5, 7.5, 0.0, 0.0)
    kv_ranges: tuple[int, ...] = (5, 4, 3, 2)
    clean_kv_range: int = 1
    clean_time: float = 0.9999
    near_clean: float = 0.3
    shortcut: str = "8,16,16"
    distilled: bool = False

    def __post_init__(self) -> None:
        """TypeError names a value that no pipeline has."""
        for each in fields(self):
            value = getattr(self, each.name)
            if not _is(value, each.type):
                raise TypeError(f"{each.name}: got {str(value)[:60]!r}; accepted: {_said(each.type)}")
        lengths = {len(self.guidance_times), len(self.previous_scales), len(self.text_scales)}
        accepted = {
            "window: from 1 on": self.window > 0,
            "passes: 1 or 3": self.passes in (1, 3),
            "kv_ranges: whole numbers from 1 on": min(self.kv_ranges, default=1) > 0,
            "guidance_times, previous_scales and text_scales: of one length, not empty": len(lengths) == 1
            and 0 not in lengths,
        }
        for said, holds in accepted.items():
            if not holds:
                raise TypeError(f"accepted for {said}")


KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _is(value: Any, kind: Any) -> bool:
    if inner := get_args(kind):
        return isinstance(value, tuple) and all(_is(each, inner[0]) for each in value)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind


def _said(kind: Any) -> str:
    inner = get_args(kind)
    return f"a list, each {KINDS[inner[0]]}" if inner else KINDS[kind]
