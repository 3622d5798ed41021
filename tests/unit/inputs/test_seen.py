"""Prompts that a text encoder will not see, lengths that become others: told once, errors where that is asked for."""

from flowcache.errors import Problem
from flowcache.inputs.given import Given, checked
from flowcache.inputs.seen import together
from flowcache.inputs.selection import Selection

RED = "a red circle moving right on a blue background"


def test_texts_that_are_not_seen_are_told_and_with_strict_refused():
    rows = [
        {"id": "all", "prompt": "一只猫在草地上奔跑", "model": "tiny-magi"},
        {"id": "part", "prompt": f"{RED} 一只猫", "model": "tiny-magi"},
        {"id": "link", "prompt": "https://x.com/cat.png", "model": "tiny-magi"},
        {"id": "long", "prompt": RED, "shots": None, "seconds": 4.75},
        {"id": "late", "shots": [{"prompt": RED, "frames": 9}, {"prompt": "a red circle " * 400, "frames": 12}]},
        {"id": "good", "prompt": RED, "model": "tiny-magi"},
    ]
    found = checked(Given(rows))
    told = {(one.video, one.field): one.message for one in found.warnings if "does not know" not in one.message}
    assert found.problems == [] and len(found.requests) == 6
    assert told.keys() == {("all", "prompt"), ("part", "prompt"), ("late", "shots[1].prompt")}
    emptied = "is empty once tiny-magi has cleaned it, as officially; accepted: text in English"
    assert told["all", "prompt"] == f"{emptied}; as in 1 more row"
    assert "keeps 39 of its 42 letters" in told["part", "prompt"]
    assert told["late", "shots[1].prompt"] == (
        "has 1,201 tokens, of which tiny-skyreels sees 16; accepted: a shorter text"
    )
    strict = checked(Given(rows, selection=Selection(strict=True)))
    assert [request.id for request in strict.requests] == ["long", "good"] and strict.warnings == []
    assert {one.video for one in strict.problems} == {"all", "part", "link", "late"}


def test_seconds_that_become_others_say_so_once():
    rows = [{"id": f"v{number}", "prompt": RED, "seconds": 1} for number in range(3)]
    (told,) = checked(Given([*rows, {"id": "exact", "prompt": RED, "seconds": 0.75}])).warnings
    assert str(told) == "requests row 1: seconds: got 1, which becomes 0.75: 9 frames; as in 2 more rows"
    assert told.rows == 3


def test_what_differs_is_told_apart():
    every = [Problem("m", "a", "x", 1), Problem("m", "a", "y", 2), Problem("m", "b", "x", 3), Problem("m", "a", "x", 4)]
    assert [(one.row, one.rows) for one in together(every)] == [(1, 2), (2, 1), (3, 1)]
