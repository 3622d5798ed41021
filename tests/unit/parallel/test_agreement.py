import pytest
import torch

from flowcache.parallel.agreement import Disagreement, check_agreement

CPU = torch.device("cpu")


class Heard:
    """A mesh in which the other ranks sent what was recorded from them."""

    rank = 0

    def __init__(self, *others):
        self.others, self.size = others, 1 + len(others)

    def all_gather(self, part, dim, sizes):
        return torch.cat([part, *self.others])


class Recorder:
    rank, size = 0, 1

    def all_gather(self, part, dim, sizes):
        self.sent = part
        return part


def digest(*decisions) -> torch.Tensor:
    recorder = Recorder()
    check_agreement(recorder, 0, decisions, CPU)
    return recorder.sent


def test_equal_decisions_pass():
    check_agreement(Heard(digest("110", "101"), digest("110", "101")), 3, ("110", "101"), CPU)


@pytest.mark.parametrize("other", [("110", "100"), ("110101",), ("101", "110")])
def test_a_rank_that_decided_otherwise_is_named(other):
    with pytest.raises(Disagreement, match="ranks 0 and 2 took different decisions on chunk 3"):
        check_agreement(Heard(digest("110", "101"), digest(*other)), 3, ("110", "101"), CPU)
