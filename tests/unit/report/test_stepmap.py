"""The map drawn again from its paths is the decisions."""

import re

from hypothesis import given
from hypothesis import strategies as st

from flowcache.records import ChunkRecord
from flowcache.report.stepmap import StepMap, step_maps


def chunks(decisions) -> list[ChunkRecord]:
    return [ChunkRecord(i, "", "", 1, 4, 4 * i, 0, 0, 0, 0, 0, 0, None, text) for i, text in enumerate(decisions)]


def drawn(found: StepMap) -> list[str]:
    grid = [[""] * found.columns for _ in range(found.rows)]
    for path, mark in ((found.computed_path, "1"), (found.reused_path, "0")):
        for x, y, length in re.findall(r"M(\d+) (\d+)\.5h(\d+)", path):
            for column in range(int(x), int(x) + int(length)):
                assert grid[int(y)][column] == ""
                grid[int(y)][column] = mark
    return ["".join(row) for row in grid]


STEPS = st.text("01", min_size=1, max_size=12)


@given(st.integers(1, 3).flatmap(lambda branches: st.lists(st.lists(STEPS, min_size=branches, max_size=branches))))
def test_drawn_again_it_is_the_decisions(decisions):
    maps = step_maps(chunks("/".join(branches) for branches in decisions))
    assert [drawn(found) for found in maps] == [list(rows) for rows in zip(*decisions, strict=True)]
    assert [found.computed for found in maps] == ["".join(rows).count("1") for rows in zip(*decisions, strict=True)]


def test_rows_without_decisions_stay_empty():
    (found,) = step_maps(chunks([None, "110"]))
    assert drawn(found) == ["", "110"] and found.branch == "with the prompt"
    assert step_maps(chunks([None])) == step_maps([]) == []
