"""Warnings of prompts that a text encoder will not see, or not whole."""

from collections.abc import Iterable, Iterator, Mapping

from flowcache.errors import Problem
from flowcache.families.texts import SeenTexts
from flowcache.inputs.row import Place
from flowcache.inputs.told import Told
from flowcache.records import ModelSpec, RenderRequest


def unseen(
    requests: Iterable[RenderRequest], specs: Mapping[str, ModelSpec], places: Mapping[str, Place]
) -> list[Problem]:
    """One for each text, those after the first 1,000 counted."""
    seen, told = {name: SeenTexts(spec) for name, spec in specs.items()}, Told()
    known: dict[tuple[str, str], str | None] = {}
    for request in requests:
        for field, text in _texts(request):
            key = request.model, text
            if key not in known:
                known[key] = seen[request.model].fault(text, request)
            if fault := known[key]:
                file, row = places[request.id]
                told.add([Problem(file, field, fault, row, request.id)])
    return told.problems


def _texts(request: RenderRequest) -> Iterator[tuple[str, str]]:
    if len(request.shots) == 1:
        yield "prompt", request.shots[0].prompt
    else:
        yield from ((f"shots[{index}].prompt", shot.prompt) for index, shot in enumerate(request.shots))


def together(warnings: Iterable[Problem]) -> list[Problem]:
    """Those that say the same of the same field, as one: the first, and how many there are."""
    groups: dict[tuple[str, str, str], list[Problem]] = {}
    for one in warnings:
        groups.setdefault((one.file, one.field, one.message), []).append(one)
    return [same[0] if len(same) == 1 else _counted(same) for same in groups.values()]


def _counted(same: list[Problem]) -> Problem:
    first, more = same[0], len(same) - 1
    said = f"{first.message}; as in {more:,} more row{'s' if more > 1 else ''}"
    return Problem(first.file, first.field, said, first.row, first.video, sum(one.rows for one in same))
