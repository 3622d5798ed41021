"""Figures that are reported: exact where the data are known."""

import numpy as np
import pytest

from flowcache.bench.statistics import Paired, interval, markdown, paired, tenth


def test_interval_holds_the_mean():
    mean, low, high = interval(list(range(100)))
    assert mean == 49.5 and low < mean < high and high - low == pytest.approx(4 * 28.9 / 10, rel=0.15)
    assert interval([3.0] * 5) == (3, 3, 3)


def test_an_interval_is_of_means_of_draws():
    """Of 0 and 1 a draw's mean is 0, 1/2 or 1, in 1, 2 and 1 of 4: all three lie within 95 %."""
    assert interval([0.0, 1.0]) == (0.5, 0.0, 1.0)
    assert interval([0.0, 1.0], seed=1) == interval([0.0, 1.0], seed=2)


def test_differences_belong_to_the_same_prompts():
    """The prompts differ by tens of dB, ours and theirs by 1 each: nothing is left to chance."""
    theirs = [10.0, 30.0, 50.0, 20.0]
    assert paired([value + 1 for value in theirs], theirs) == Paired((1, 1, 1), 1, 4, 4)
    found = paired([12.0, 30.0, 49.0, 27.0], theirs)
    assert found.mean[0] == 2 and found.median == 1 and (found.better, found.of) == (2, 4)
    assert found.mean[1] < 2 < found.mean[2]


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0])])
def test_what_does_not_belong_together_is_refused(ours, theirs):
    with pytest.raises(ValueError):
        paired(ours, theirs)


def test_nine_tenths_reach_the_tenth():
    assert tenth(list(range(11))) == 1 and tenth([5.0]) == 5
    assert tenth(np.arange(101.0)) == 10


def test_markdown():
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert markdown(["a"], [["paper:a|b"]]).endswith("\n| paper:a\\|b |")
