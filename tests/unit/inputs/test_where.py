"""Conditions on rows."""

import pytest

from flowcache.errors import InputError
from flowcache.inputs.where import where

ROW = {
    "id": "cat-1",
    "steps": 8,
    "labels": {"team": "a", "take": 3, "ok": True, "my shelf": "x"},
    "policy": {"name": "off"},
}


@pytest.mark.parametrize(
    "written",
    [
        "labels.team = 'a'", "labels.team == 'a'", "LABELS.team != 'b'".lower(), "labels.take = 3", "labels.take = '3'",
        "labels.ok = true", "labels.\"my shelf\" = 'x'", "steps >= 8 and steps < 9", "steps > 8 or id = 'cat-1'",
        "not steps > 8", "image is null", "id is not null", "id like 'cat-%'", "id like 'cat__'", "policy = 'off'",
        "(steps = 1 or steps = 8) and not (image is not null)", "labels.team IN_ = 'a'".replace(" IN_", ""),
        "seed < 1 or steps = 8", "id != 'it''s'",
    ],
)  # fmt: skip
def test_what_holds(written):
    assert where(written).holds(ROW)


@pytest.mark.parametrize(
    "written",
    ["labels.team = 'b'", "labels.none = 'a'", "seed > 0", "seed != 1", "not steps = 8", "id like 'Cat%'",
     "steps = 'a'", "id > 3", "image like '%'", "id like '[c]at-1'", "labels.team < 'a'"],
)  # fmt: skip
def test_what_does_not_hold(written):
    assert not where(written).holds(ROW)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "something is missing"), ("steps", "after steps comes a comparison"), ("steps = ", "a value is missing"),
        ("step = 3", "did you mean 'steps'"), ("steps = 3 3", "one thing too many"), ("(steps = 3", "not closed"),
        ("id = cat", "text is quoted"), ("steps is 3", "null, or not null"), ("id = 'a", "can't be read"),
        ("seed.x = 3", "no field of a row"), ("not " * 200 + "steps = 3", "nested too deeply"),
        ("(" * 5000 + "id", "nested too deeply"), ("x" * 20_000, "has 20,000 characters"),
        ("id = 'a'; drop", "can't be read"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_refused(written, said):
    with pytest.raises(InputError) as caught:
        where(written)
    (problem,) = caught.value.problems
    assert said in problem.message and "accepted: such as" in problem.message and problem.file == "--where"


def test_rows_of_any_shape_are_judged():
    for row in ({}, {"labels": 3}, {"labels": ["team"]}, {"steps": None}, {"steps": [1]}, {"id": b"x"}):
        assert not where("labels.team = 'a' or steps = 8 or id = 'cat'").holds(row)


def test_of_several_conditions_all_must_hold():
    both = where("steps > 3 or seed = 1", "labels.team = 'a'")
    assert both.holds({"steps": 9, "labels": {"team": "a"}}) and both.holds({"seed": 1, "labels": {"team": "a"}})
    assert not both.holds({"steps": 9}) and not both.holds({"steps": 2, "labels": {"team": "a"}})
    with pytest.raises(InputError, match="'stepz > 3'"):
        where("steps > 3", "stepz > 3")
