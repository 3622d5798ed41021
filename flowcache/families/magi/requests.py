"""What MAGI-1 can be asked for. No torch."""

from collections.abc import Iterator

from flowcache.families.base import Asked
from flowcache.records import ModelSpec


def check(asked: Asked, spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """See `Family.check`."""
    values, window = asked.values, spec.pipeline.window
    steps, guidance = values["steps"], values["guidance"]
    if steps and values["ar_step"] is None and steps % window:
        accepted = f"multiples of {window}, which are the chunks in flight of {spec.name}, or an ar_step"
        yield "steps", f"got {steps}{asked.origin('steps')}; accepted: {accepted}"
    if spec.pipeline.passes == 1 and guidance not in (None, 1.0):
        given = f"got {guidance:g}{asked.origin('guidance')}"
        yield "guidance", f"{given}; accepted: 1, since {spec.name} is distilled and runs once"
