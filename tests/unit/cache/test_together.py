"""TeaCache by tokens: one decision for all chunks, worked out by hand."""

import torch

from flowcache.cache.together import TokensTogether


def taken(rule: TokensTogether, rows: list[dict[int, tuple[int, float]]]) -> list[str]:
    """For each row its chunks' decisions; rows: chunk -> (its step, its token's value)."""
    window, found = rule.of_window(9, len(rows), lambda x: x), []
    for number, row in enumerate(rows):
        steps = {chunk: step for chunk, (step, _) in row.items()}
        decisions = window.decide(number, steps, lambda chunk, row=row: torch.tensor([row[chunk][1]]))
        found.append("".join("01"[decisions[chunk].compute] for chunk in row))
    return found


def test_changes_of_all_tokens_add_up_to_one_decision():
    """(|11 - 10| + |10 - 10|) / 20 = .05 a row, then .1 / 2.1 ... : computed where the sum reaches .1."""
    rule = TokensTogether(0.1, 1, (1.0, 0.0))
    rows = [{0: (0, 10.0), 1: (0, 10.0)}, {0: (1, 11.0), 1: (1, 10.0)}, {0: (2, 11.0), 1: (2, 12.1)}]
    assert taken(rule, rows) == ["11", "00", "11"]  # .05, then .05 + 2.1 / 21 = .15


def test_the_first_rows_are_computed():
    rows = [{0: (step, 10.0)} for step in range(4)]
    assert taken(TokensTogether(0.1, 2, (1.0, 0.0)), rows) == ["1", "1", "0", "0"]


def test_a_chunk_that_begins_is_computed_alone():
    """Its tokens have none to be compared with, and the sum of the others goes on."""
    rule = TokensTogether(0.1, 0, (1.0, 0.0))
    rows = [{0: (0, 10.0)}, {0: (1, 10.6)}, {0: (2, 10.6), 1: (0, 3.0)}, {0: (3, 11.2), 1: (1, 3.0)}]
    assert taken(rule, rows) == ["1", "0", "01", "11"]  # .06; .06; .06 + .6 / 13.6 = .104


def test_a_finished_chunk_is_forgotten():
    window = TokensTogether(0.1, 0, (1.0, 0.0)).of_window(2, 4, lambda x: x)
    window.decide(0, {0: 0}, lambda chunk: torch.ones(1))
    window.forget(0)
    assert window.decide(1, {0: 1}, lambda chunk: torch.ones(1))[0].compute
