"""How a gang names what Ray raises, without a Ray."""

import pytest
from ray.exceptions import ActorDiedError, ObjectLostError, OutOfDiskError

from flowcache.errors import MediaError, ObjectError, OutOfMemory, StoreError
from flowcache.runtime import gang, ranks
from flowcache.runtime.actor import end_of
from flowcache.runtime.node_check import Verdict
from flowcache.scheduler.protocols import GangFailure, kind_of
from flowcache.storage.documents import Damaged
from flowcache.storage.objects.store import MissingObject


@pytest.mark.parametrize("error", [OutOfDiskError("no disk"), ObjectLostError("a" * 56, None, "")])
def test_what_ray_itself_cannot_do_is_no_fault_of_the_work(error, monkeypatch):
    made = gang.RayGang.__new__(gang.RayGang)
    made._pending, made._stream = {"joined": 2}, None

    def lost(item):
        raise error

    monkeypatch.setattr(gang.ray, "get", lost)
    with pytest.raises(GangFailure, match=f"Ray has lost its answer .{type(error).__name__}") as caught:
        made.poll(["joined"])
    assert (caught.value.rank, caught.value.kind, caught.value.usable) == (2, "infra", False)


class Process:
    """Of a rank: whether it has come up, and what a ping meets: an answer, silence or a process that is gone."""

    def __init__(self, up: bool, meets: str):
        self.up, self.meets, self.ping = up, meets, self

    def remote(self):
        return self, "ping"


@pytest.mark.parametrize(
    ("processes", "lost"),
    [
        ([(True, "answer"), (True, "answer")], None),
        ([(True, "gone"), (True, "silence")], (1, "does not answer")),  # NCCL has ended the one that waited
        ([(True, "gone"), (False, "silence")], (0, "is gone")),
        ([(False, "silence"), (True, "gone")], (1, "is gone")),
        ([(False, "silence"), (True, "silence")], (1, "does not answer")),
        ([(True, "answer"), (False, "silence")], (1, "has not come up")),
    ],
)
def test_a_rank_that_still_starts_is_not_taken_for_the_lost_one(processes, lost, monkeypatch):
    made = gang.RayGang.__new__(gang.RayGang)
    made.actors = [Process(*process) for process in processes]
    made._logs = [(actor, "log") for actor in made.actors]

    def get(item):
        if item[0].meets == "gone":
            raise ActorDiedError()

    def wait(items, num_returns, timeout):
        ready = [item for item in items if (item[0].up if item[1] == "log" else item[0].meets != "silence")]
        return ready, [item for item in items if item not in ready]

    monkeypatch.setattr(ranks.ray, "get", get)
    monkeypatch.setattr(ranks.ray, "wait", wait)
    found = made._lost()
    assert found == lost or (found[0] == lost[0] and lost[1] in found[1])


class Asked:
    """Checks of nodes whose answer is `said`."""

    said: Verdict | None = None

    def verdict(self, node):
        assert node == "n"
        return self.said


@pytest.mark.parametrize("why", ["", "no S3 credentials found"])
def test_a_gang_that_comes_to_a_new_node_waits_until_that_has_shown_its_store(why, monkeypatch):
    made = gang.RayGang.__new__(gang.RayGang)
    made._pending, made._stream, made._end, made.group = {}, None, None, "group"
    made.node, made.started, made.checks = "", False, Asked()
    monkeypatch.setattr(ranks, "placement_group_table", lambda group: {"bundles_to_node_id": {0: "n"}})
    assert made.poll([]) == [] and not made.started and made.node == "n" and not made.admitted
    made.checks.said = Verdict(why)
    assert made.admitted
    if why:
        with pytest.raises(GangFailure, match=why) as caught:
            made.poll([])
        assert (caught.value.kind, caught.value.usable) == ("node", False)
    else:
        assert made.poll([]) == [] and made.started and not made.admitted


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (StoreError("no answer", passing=True), "store"),
        (StoreError("no credentials", of_machine=True), "node"),
        (StoreError("no answer", passing=True, of_machine=True), "store"),
        (StoreError("QuotaExceeded"), "store"),
        (ObjectError("init.mp4 differs"), "work"),
        (MissingObject("the state does not exist"), "work"),
        (Damaged("the marker is damaged"), "damaged"),
        (OutOfMemory("118 GiB"), "memory"),
        (MediaError("no picture"), "work"),
        (RuntimeError("CUDA error"), "work"),
    ],
)
def test_whose_fault_an_error_is(cause, kind):
    assert kind_of(cause) == kind


def test_the_end_of_a_log_is_text_or_nothing(tmp_path):
    log = tmp_path / "worker.err"
    log.write_bytes(b"x" * 9000 + b"\n\xff last words\n")
    assert len(end_of(str(log))) == 4000 and end_of(str(log)).endswith("\n\ufffd last words\n")
    assert end_of("/dev/null") == end_of(str(tmp_path / "gone")) == ""
