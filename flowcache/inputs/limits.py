"""How much is read of what people name."""

from flowcache.errors import UnreadableError

BLOCK = 1 << 20  # bytes


def check_size(size: int, limit: int) -> None:
    """UnreadableError over `limit` bytes."""
    if size > limit:
        raise UnreadableError(f"is larger than {limit >> 20:,} MiB")
