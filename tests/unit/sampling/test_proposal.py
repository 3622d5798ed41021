"""Schedules that are proposed from exact walks, and climbed by real ones."""

from itertools import combinations

import pytest
import torch

from flowcache.sampling.proposal import Walks, aligned, chained, climb, even_steps, moves, openings, propose

STEPS = 9


def walks(lag: int = 3, branches: int = 1, seed: int = 0) -> Walks:
    """Of random latents and velocities that change unevenly."""
    draw = torch.Generator().manual_seed(seed)
    count = STEPS + 1 + branches * STEPS
    vectors = torch.randn(count, 60, generator=draw, dtype=torch.float64).cumsum(0)
    growth = torch.linspace(3, 1, STEPS + 1, dtype=torch.float64)
    return Walks(lag, vectors @ vectors.T, growth, torch.linspace(0, 1, STEPS + 1, dtype=torch.float64).square())


def every(count: int) -> list[tuple[int, ...]]:
    return [(0, *rest) for rest in combinations(range(1, STEPS), count - 1)]


def test_what_can_be_joined_exactly_costs_nothing():
    """A flow of constant velocity: any jump is a sum of where it stands and the velocity."""
    draw = torch.Generator().manual_seed(1)
    start, velocity = torch.randn(2, 50, generator=draw, dtype=torch.float64)
    time = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
    vectors = torch.stack([*(start + each * velocity for each in time), *[velocity] * STEPS])
    found = Walks(3, vectors @ vectors.T, torch.ones(STEPS + 1, dtype=torch.float64), time)
    assert all(found.cost(schedule) == pytest.approx(0, abs=1e-6) for schedule in every(4))


def test_a_jump_is_what_least_squares_leave():
    draw = torch.Generator().manual_seed(2)
    vectors = torch.randn(STEPS + 1 + 2 * STEPS, 60, generator=draw, dtype=torch.float64)
    found = Walks(
        3, vectors @ vectors.T, torch.ones(STEPS + 1, dtype=torch.float64), torch.arange(STEPS + 1.0).double()
    )
    known = vectors[[4, *(found.velocity(branch, step) for step in (4, 2) for branch in range(2))]]
    wanted = vectors[7]
    join = torch.linalg.lstsq(known.T, wanted[:, None]).solution
    assert found.jumps[2, 4, 7] == pytest.approx(float((wanted - known.T @ join[:, 0]).square().sum()), rel=1e-5)
    assert found.jumps[-1, 4, 7] > found.jumps[2, 4, 7]  # with less at hand


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_the_chain_is_the_best_of_all_where_neighbours_do_not_count(count):
    found = walks(lag=STEPS)  # the chunk ahead is always finished
    assert chained(found, count) == min(every(count), key=found.cost)


@pytest.mark.parametrize("lag", [1, 2, 3, 5])
@pytest.mark.parametrize("branches", [1, 3])
def test_no_single_move_improves_a_proposal(lag, branches):
    found = walks(lag, branches, seed=lag)
    schedule = propose(found, 4)
    assert schedule[0] == 0 and len(schedule) == 4 == len({*schedule})
    assert found.cost(schedule) <= min(found.cost(other) for other in moves(schedule, STEPS, STEPS))
    assert found.cost(schedule) <= found.cost(chained(found, 4))


def test_a_neighbours_age_counts():
    """Two schedules alike but for whether the step that lies a lag ahead was computed."""
    found = walks(lag=3)
    alone = Walks(STEPS, found.products, found.growth, found.time)
    aligned, not_aligned = (0, 3, 6), (0, 4, 6)
    extra = {each: found.cost(each) - alone.cost(each) for each in (aligned, not_aligned)}
    assert extra[aligned] == pytest.approx(0, abs=1e-9) and extra[not_aligned] > 0


def test_a_climb_ends_at_a_top_or_when_its_walks_are_spent():
    asked = []

    def judge(pair):
        asked.append(pair)
        wanted = (0, 2, 5, 7), pair[0] if pair[0] == pair[1] else (0, 1, 4)
        chunks = zip(reversed(pair), wanted, strict=True)
        return -sum(abs(step - to) for own, goal in chunks for step, to in zip(own, goal, strict=True))

    assert climb([alike(0, 1, 3, 4), alike(0, 2, 3, 4)], STEPS, judge, 1000) == alike(0, 2, 5, 7)
    assert len(asked) == len({*asked})
    assert climb([((0, 2, 3), (0, 1, 3, 4))], STEPS, judge, 1000) == ((0, 1, 4), (0, 2, 5, 7))
    asked.clear()
    best = climb([alike(0, 1, 3, 4)], STEPS, judge, 5)
    assert len(asked) == 5 and judge(best) >= judge(alike(0, 1, 3, 4))
    assert climb([alike(0)], STEPS, lambda pair: 0.0, 10) == alike(0)


def alike(*schedule):
    return schedule, schedule


def test_a_climb_makes_no_move_that_does_not_fit():
    asked = []

    def judge(pair):
        asked.append(pair)
        return pair[1][-1]

    assert climb([alike(0, 3)], STEPS, judge, 100, lambda pair: pair[1][-1] < 6) == alike(0, 5)
    assert max(pair[1][-1] for pair in asked) == 5


def test_a_climb_asks_for_what_costs_less_first():
    asked = []
    climb([alike(0, 3)], STEPS, lambda pair: asked.append(pair) or 0.0, 100, cost=lambda pair: -pair[1][-1])
    assert asked == [alike(0, last) for last in (3, 5, 4, 2, 1)]


def test_a_first_chunk_of_its_own_costs_its_own_jumps():
    """None where it takes every step; the others' are as without it."""
    found, later = walks(2), (0, 3, 6)
    own = openings(found)
    assert [len(each) for each in own] == [STEPS, round(STEPS * 0.75), STEPS // 2] and own[0] == tuple(range(STEPS))
    assert found.both((later, later)) == found.cost(later) <= found.both((own[0], later))
    assert found.both((own[2], later)) == pytest.approx(found.cost(later) + found.joined(own[2]))


@pytest.mark.parametrize("lag", [0, 1, 2, 3, 4, 5, STEPS + 1])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, STEPS])
def test_steps_in_step_with_the_lag(lag, count):
    """All but those that are left over by whole places of the lag have one computed a lag later."""
    found = aligned(walks(lag), count)
    assert found[0] == 0 and len(found) == count == len({*found}) and list(found) == sorted(found)
    rounds = -(-STEPS // lag) if lag else 1
    alone = [step for step in found if step + lag < STEPS and step + lag not in found]
    assert len(alone) <= (count % rounds if count >= rounds else count)


def test_moves_keep_the_first_step_and_stay_inside():
    found = moves((0, 1, STEPS - 1), STEPS, 2)
    assert found == [(0, 2, 8), (0, 3, 8), (0, 1, 6), (0, 1, 7)]


def test_even_steps():
    assert even_steps(30, 10) == tuple(range(0, 30, 3)) and even_steps(30, 1) == (0,) and even_steps(3, 3) == (0, 1, 2)
    assert even_steps(30, 12) == (0, 2, 5, 8, 10, 12, 15, 18, 20, 22, 25, 28)
