import pytest
import torch

from flowcache.models.exhausted import ran_out
from flowcache.parallel.agreement import Disagreement, check_agreement
from flowcache.parallel.kv_sharding import HeadSharded
from flowcache.parallel.mesh import ALONE, GangMesh, PeerLost, exchanging

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


class Late:
    """What an exchange over NCCL gives when a peer is gone: begun, and an error of CUDA where it is read."""

    def __getattr__(self, name):
        def read():
            raise torch.AcceleratorError("CUDA error: unspecified launch failure\nmore")

        return read


class Unheard(Recorder):
    def all_gather(self, part, dim, sizes):
        return Late()

    def all_reduce(self, values):
        return Late()


def test_a_peer_whose_loss_shows_where_its_word_is_read_is_lost():
    with pytest.raises(PeerLost, match="unspecified launch failure$"):
        check_agreement(Unheard(), 0, ("1",), CPU)
    ranks = GangMesh(Unheard(), Unheard(), Unheard())
    with pytest.raises(PeerLost, match="unspecified launch failure$"):
        HeadSharded(ranks, CPU).total(torch.ones(2))


def test_what_is_read_of_others_lies_where_the_host_is():
    assert HeadSharded(ALONE, CPU).total(torch.ones(2)).tolist() == [1, 1]


NO_MEMORY = [
    torch.OutOfMemoryError("9 GiB"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    torch.distributed.DistBackendError(
        "NCCL error in: ProcessGroupNCCL.cpp:77, unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'"
    ),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    MemoryError(),
]
LOST = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    torch.AcceleratorError("CUDA error: unspecified launch failure"),
    torch.distributed.DistBackendError("NCCL communicator was aborted on rank 1."),
    torch.distributed.DistNetworkError("Connection reset by peer"),
    RuntimeError("Rank 0 successfully reached monitoredBarrier, but received errors while waiting for send/recv"),
    RuntimeError(""),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=str)
def test_too_little_memory_is_no_peers_fault(error):
    with pytest.raises(type(error)), exchanging():
        raise error
    assert ran_out(error)


@pytest.mark.parametrize("error", LOST, ids=str)
def test_other_errors_of_an_exchange_are_a_lost_peer(error):
    with pytest.raises(PeerLost), exchanging():
        raise error
    assert not ran_out(error)
