"""What MAGI-1 can be asked for. No torch."""

from collections.abc import Iterator

from flowcache.families.base import Asked
from flowcache.families.magi.layout import token_arrays
from flowcache.families.magi.tokens import ARRAY, NAMES, NEGATIVE_ARRAYS, OFFICIAL
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
    if spec.pipeline.passes != 1 and values["prev_chunks_scale"] is not None:
        why = f"{spec.name} is not distilled, and guided by three passes"
        yield "prev_chunks_scale", f"does not go with {spec.name}; accepted: none, since {why}"
    yield from _tokens(asked, spec)


def _tokens(asked: Asked, spec: ModelSpec) -> Iterator[tuple[str, str]]:
    names, negative = asked.values["special_tokens"], asked.values["negative_prompt"]
    unknown = [name for name in names or () if name not in NAMES]
    if unknown:
        yield "special_tokens", f"got {unknown[0][:50]!r}{asked.origin('special_tokens')}; accepted: {', '.join(NAMES)}"
    needed = {"special_tokens": (ARRAY,) if names else (), "negative_prompt": (ARRAY, *NEGATIVE_ARRAYS)}
    wanted = {"special_tokens": names, "negative_prompt": negative == OFFICIAL}
    for field in (field for field, says in wanted.items() if says):
        missing = [array for array in needed[field] if array not in token_arrays(spec.path)]
        if missing:
            yield field, f"does not go with {spec.name}, whose special tokens lack {', '.join(missing)}; accepted: none"
