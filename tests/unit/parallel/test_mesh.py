"""A rank that does not come to an exchange."""

import time
from datetime import timedelta

import pytest
import torch

from flowcache.parallel.mesh import PeerLost, arrange


def alone_in_an_exchange(group, seconds: float, dimension: str):
    """Rank 0 waits for the others of one dimension, which don't come in time; what it is told."""
    ranks = arrange(group, 2, timedelta(seconds=seconds))
    if ranks.all.rank:
        time.sleep(3 * seconds)
        return None
    mesh = getattr(ranks, dimension)
    try:
        mesh.all_to_all([torch.ones(2)] * mesh.size, [2] * mesh.size)
    except PeerLost as error:
        return str(error)


@pytest.mark.parametrize("dimension", ["heads", "history"])
def test_a_rank_that_does_not_come_is_noticed_in_time(pool, dimension):
    """In groups of two of the gang's four ranks, too: torch gives those half an hour of their own accord."""
    told, *_ = pool(4, alone_in_an_exchange, 0.5, dimension)
    assert told.startswith("an exchange with the other ranks failed") and "Timed out waiting 500ms" in told
