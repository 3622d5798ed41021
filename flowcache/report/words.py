"""Numbers as people read them."""


def duration(seconds: float) -> str:
    """Such as 4.2 s, 3 min 05 s, 7 h 40 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def size(count: float) -> str:
    """Bytes, such as 812 B, 4.1 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def share(part: float, whole: float) -> str:
    """Such as 42 %; a dash where there is nothing to take a share of."""
    return f"{part / whole:.0%}".replace("%", " %") if whole else "–"
