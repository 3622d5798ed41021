"""N ranks give what one gives, whatever is rendered, by whatever model and policy."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowcache.parallel.mesh import ALONE
from tests.unit.parallel.cases import Case, cases, play, play_on, play_one_by_one
from tests.unit.parallel.pool import Pool


def check(pool: Pool, case: Case, ranks: int) -> None:
    alone = play(ALONE, case)
    together = pool(ranks, play_on, case)
    for outcome in together:
        np.testing.assert_allclose(outcome.latents, alone.latents, atol=1e-4, rtol=0)
        assert outcome.decisions == alone.decisions
    assert [sum(held) for held in zip(*(outcome.kv_bytes for outcome in together), strict=True)] == alone.kv_bytes


def draw_gang(data, family: str, most: int) -> tuple[Case, int]:
    case = data.draw(cases(family))
    return case, data.draw(st.integers(2, min(most, case.tokens)), "ranks")


@pytest.mark.parametrize("family", ["skyreels", "magi"])
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_gang_gives_what_one_rank_gives(pool, family, data):
    check(pool, *draw_gang(data, family, most=4))


@pytest.mark.parametrize("family", ["skyreels", "magi"])
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_gang_gives_the_same_packed_as_one_by_one(pool, family, data):
    case, ranks = draw_gang(data, family, most=4)
    for packed, alone in zip(pool(ranks, play_on, case), pool(ranks, play_one_by_one, case), strict=True):
        np.testing.assert_allclose(packed.latents, alone.latents, atol=1e-5, rtol=1e-5)
        assert sorted(packed.decisions) == sorted(alone.decisions) and packed.kv_bytes == alone.kv_bytes


@pytest.mark.slow
@pytest.mark.parametrize("family", ["skyreels", "magi"])
@settings(max_examples=300, derandomize=False, print_blob=True)
@given(st.data())
def test_many_gangs_give_what_one_rank_gives(pool, family, data):
    check(pool, *draw_gang(data, family, most=8))
