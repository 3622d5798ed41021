"""Which rows are meant, and what all are given."""

import pytest

from flowcache import api
from flowcache.errors import InputError
from flowcache.inputs.given import Given, checked
from flowcache.inputs.lines import Line
from flowcache.inputs.schema import RowDefaults
from flowcache.inputs.selection import Selection, frame_size, settings
from flowcache.inputs.where import where

PROMPT = "a red circle moving right on a blue background"


def rows(count: int = 10) -> list[Line]:
    return [Line(n, {"id": f"v{n}", "prompt": PROMPT, "labels": {"team": "ab"[n % 2]}}) for n in range(1, count + 1)]


def numbers(selection: Selection, found=None) -> list[int]:
    return [line.number for line in selection.rows(rows() if found is None else found)]


def test_by_id_pattern_condition_and_number():
    assert numbers(Selection()) == list(range(1, 11)) and Selection().all
    assert numbers(Selection(only=("v3", "v1*"))) == [1, 3, 10]
    assert numbers(Selection(where=where("labels.team = 'a'"))) == [2, 4, 6, 8, 10]
    assert numbers(Selection(where=where("labels.team = 'a'"), limit=2)) == [2, 4]
    assert not Selection(limit=1).all


def test_a_limit_reads_no_further():
    def endless():
        yield from rows(3)
        raise AssertionError("was read on")

    assert numbers(Selection(limit=3), endless()) == [1, 2, 3]


def test_a_sample_follows_from_the_rows_alone():
    drawn = numbers(Selection(sample=4))
    assert len(drawn) == 4 and drawn == sorted(drawn)
    moved = [line._replace(number=line.number + 50) for line in reversed(rows())]
    assert {n - 50 for n in numbers(Selection(sample=4), moved)} == set(drawn)
    assert set(numbers(Selection(sample=5))) > set(drawn)  # one more, and none lost
    assert numbers(Selection(sample=99)) == list(range(1, 11))


def test_rows_without_id_are_named_by_their_content():
    (plain,), problems, _, _ = api.check([{"prompt": PROMPT}], RowDefaults())
    given = Given([{"prompt": PROMPT}, {"prompt": "a green square"}], RowDefaults(), Selection(only=(plain.id,)))
    found = checked(given)
    assert [one.id for one in found.requests] == [plain.id] and not found.problems


def test_values_take_the_place_of_what_rows_say():
    selection = Selection(values=settings(["steps=3", "labels.batch=n2", "seconds=1"], {"seed": 7}))
    ((_, row, _),) = selection.rows([Line(1, {"id": "a", "steps": 9, "frames": 9, "labels": {"team": "a"}})])
    assert row == {"id": "a", "steps": 3, "seed": 7, "seconds": 1.0, "labels": {"team": "a", "batch": "n2"}}
    assert settings(["width=64.0", 'policy={"name": "paper"}', "model=tiny-magi"], {})["width"] == 64
    assert selection.all


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("steps", "accepted: FIELD=VALUE"), ("step=3", "did you mean 'steps'"), ("id=x", "is a row's own"),
        ("prompt=x", "is a row's own"), ("steps=x", "a whole number from 1 to 1,000"), ("seed=-1", "from 0 to"),
        ("labels={", "broken JSON"), ("fps=0", "from 1 to 120"), ("labels.=x", "labels"),
    ],
)  # fmt: skip
def test_values_that_no_row_may_say_are_refused_once(written, said):
    with pytest.raises(InputError) as caught:
        settings([written], {})
    assert said in str(caught.value) and caught.value.problems[0].file == "--set"


@pytest.mark.parametrize(
    ("written", "direct", "said"),
    [
        (["steps=3", "steps=4"], {}, "--set: steps: got '4', and steps is given as '3'"),
        (["steps=3", "steps=3"], {}, "--set: steps: got '3', and steps is given as '3'"),
        (["seed = 3"], {"seed": 4}, "--set: seed: got '3', and seed is given as '4'"),
        (["width=64"], frame_size("96x64"), "--set: width: got '64', and width is given as '96'"),
        (["labels.a=1", "labels.a=2"], {}, "--set: labels.a: got '2', and labels.a is given as '1'"),
        (["labels.a=1", 'labels={"b": "2"}'], {}, "--set: labels: got '{\"b\": \"2\"}', and labels.a is given as '1'"),
        (['labels={"a": "1"}', "labels.a=2"], {}, "--set: labels.a: got '2', and labels is given as"),
    ],
)
def test_what_is_set_twice_is_refused_with_both(written, direct, said):
    with pytest.raises(InputError) as caught:
        settings(written, direct)
    assert said in str(caught.value) and "accepted: each once" in str(caught.value)
    assert settings(["labels.a=1", "labels.ab=2"], {})["labels"] == {"a": "1", "ab": "2"}


def test_sizes():
    assert (
        frame_size("960x544") == frame_size(" 960 X 544 ") == {"width": 960, "height": 544} and frame_size(None) == {}
    )
    for wrong in ("", "960", "960x", "x5", "9a0x5", "960x544x3"):
        with pytest.raises(InputError, match="--size: got .*accepted: WIDTHxHEIGHT"):
            frame_size(wrong)


def test_what_meets_no_row_is_a_fault():
    def problems(selection):
        given = Given([{"id": "cat", "prompt": PROMPT}], RowDefaults(), selection)
        return [str(one) for one in checked(given).problems]

    none = "requests: has no row that is meant; accepted: a selection that leaves at least one"
    assert problems(Selection(where=where("steps = 3"))) == [none]
    assert problems(Selection(only=("cat",), where=where("steps = 3"))) == [none]
    assert problems(Selection(only=("cot",))) == ["--only: 'cot' names no video of requests; did you mean 'cat'?"]
    assert problems(Selection(only=("cat", "dog*"))) == ["--only: 'dog*' names no video of requests; known are cat"]


def test_rows_that_are_not_meant_are_not_judged():
    bad = [{"id": "cat", "prompt": PROMPT}, {"id": "dog", "prompt": PROMPT, "steps": -1}]
    assert not checked(Given(bad, RowDefaults(), Selection(only=("cat",)))).problems
    assert len(checked(Given(bad, RowDefaults(), Selection(only=("dog",)))).problems) == 1
