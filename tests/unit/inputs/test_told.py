"""What is told of a manifest's faults, and what is counted."""

from flowcache.errors import Problem
from flowcache.inputs.told import Told


def fault(row: int | None, message: str = "is bad") -> Problem:
    return Problem("m.csv", "", message, row)


def test_few_problems_are_told_in_their_order():
    told = Told(3)
    told.add([])
    told.add([fault(2), fault(2, "twice")])
    assert not told.full and told.problems == [fault(2), fault(2, "twice")]


def test_after_many_problems_rows_are_counted():
    told = Told(3)
    for row in range(1, 11):
        told.add([fault(row), fault(row)])
    *first, last = told.problems
    assert first == [fault(1), fault(1), fault(2)] and told.full
    assert (last.row, last.rows) == (3, 8) and last.message.startswith("is at fault, as 7 rows after it are")


def test_one_row_more_is_told_as_one():
    told = Told(1)
    told.add([fault(1)])
    told.add([fault(5)])
    assert str(told.problems[-1]) == "m.csv row 5: is at fault; the first 1 problems are told one by one"


def test_what_is_wrong_with_the_whole_file_is_always_told():
    told = Told(1)
    told.add([fault(1)])
    told.add([fault(None, "is cut short")])
    assert told.problems == [fault(1), fault(None, "is cut short")]
    told.clear()
    assert told.problems == [] and not told.full
