"""What a MAGI-1 checkpoint says of its sampling beside what every model does. No torch."""

from dataclasses import dataclass


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
