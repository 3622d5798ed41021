"""How a run comes to its Ray, and hears that it is lost, without a Ray. With one: tests/fault/test_ray_lost.py."""

import signal
import socket
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from ray.exceptions import RpcError

from flowcache.errors import InputError
from flowcache.inputs.options import RunOptions, address_fault
from flowcache.runtime import session
from flowcache.scheduler.gang_pool import ClusterError
from flowcache.scheduler.stopping import StoppedEarly, Stopping, on_sigterm


class FakeRay:
    """One node, "here", whose head answers as told."""

    def __init__(self):
        self.up, self.alive, self.silent, self.started, self.left = False, True, threading.Event(), [], 0
        self.fault: Exception | None = None

    def is_initialized(self):
        return self.up

    def init(self, **settings):
        self.started.append(settings)
        if self.fault:
            raise self.fault
        self.up = True

    def nodes(self):
        if self.silent.is_set():
            time.sleep(3600)  # a daemon's
        return [{"NodeID": "here", "Alive": self.alive}, {"NodeID": "there", "Alive": True}]

    def shutdown(self):
        self.up, self.left = False, self.left + 1

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: "here", gcs_address="127.0.0.1:6379")


@pytest.fixture
def ray(monkeypatch):
    made = FakeRay()
    monkeypatch.setattr(session, "ray", made)
    monkeypatch.setattr(session, "answers", lambda address: True)
    monkeypatch.setattr(session, "LOOK", 0.01)
    monkeypatch.setattr(session, "SILENCE", 0.5)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return made


@pytest.fixture
def handler_kept():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("address", ["auto", "local", "head:6379", "10.0.0.1:6379", "a.b-c:1", "[::1]:6379"])
def test_addresses_of_a_cluster(address):
    assert address_fault(address) is None and not RunOptions(address=address).faults()


@pytest.mark.parametrize(
    "address",
    ["http://head:8265", "https://h", "nonsense", "head", "ray://head:10001", "h:x", ":1", "a b:1", "::1:6379"],
)
def test_what_is_no_address_is_refused_before_work(address):
    (fault,) = RunOptions(address=address).faults()
    assert fault.file == "--address" and repr(address) in fault.message
    assert fault.message.endswith("accepted: 'auto', or the head's host and port such as head:6379")


def test_where_nobody_listens_is_told_at_once(ray):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(InputError, match=f"--address: no Ray cluster answers at {address}: .*refused"):
        session.joined(RunOptions(address=address)).__enter__()
    assert not ray.started


def test_an_address_of_the_environment_is_looked_at_too(ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    with pytest.raises(InputError, match="--address: got 'http://head:8265', which is a dashboard's"):
        session.joined(RunOptions()).__enter__()


@pytest.mark.parametrize(
    "fault",
    [
        Exception("The current node timed out during startup.\nThis"),
        OSError(28, "No space left"),
        RuntimeError(),
    ],
)
def test_a_ray_that_does_not_start_is_one_sentence(ray, fault):
    ray.fault = fault
    with pytest.raises(ClusterError, match=r"^Ray did not start on this machine \(.*\)\. Is it short of .* again$"):
        session.joined(RunOptions()).__enter__()
    with pytest.raises(InputError, match="no Ray cluster answers at auto"):
        session.joined(RunOptions(address="auto")).__enter__()


def test_a_ray_that_does_not_start_is_tried_once_more(ray):
    init, said = ray.init, []

    def late(**settings):
        ray.fault = None if ray.started else Exception("The current node timed out during startup. This")
        init(**settings)

    ray.init = late
    with session.joined(RunOptions(), said.append):
        assert len(ray.started) == 2
    assert said == ["Ray did not start (The current node timed out during startup. This); trying once more"]


def test_a_ray_of_our_own_ends_with_us_and_another_one_stays(ray):
    with session.joined(RunOptions()) as watch:
        assert watch.ours and len(watch.nodes) == 2 and watch.lost is None
    assert ray.left == 1
    ray.up = True
    with session.joined(RunOptions()) as watch:
        assert not watch.ours
    assert ray.left == 1


def test_a_job_of_a_cluster_joins_it_without_an_address(ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with session.joined(RunOptions()) as watch:
        assert not watch.ours and ray.started[0]["address"] == "auto"


@pytest.mark.parametrize("heard", [signal.SIG_IGN, lambda *_: None])
def test_who_hears_sigterm_does_so_after_ray_has_come(ray, monkeypatch, handler_kept, heard):
    init = ray.init

    def taking(**settings):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))  # as Ray's own does
        init(**settings)

    signal.signal(signal.SIGTERM, heard)
    monkeypatch.setattr(ray, "init", taking)
    with session.joined(RunOptions()):
        assert signal.getsignal(signal.SIGTERM) is heard


def test_a_sigterm_that_ray_hears_while_it_starts_is_told_to_who_heard_it_before(ray, monkeypatch, handler_kept):
    def told(**settings):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ray, "init", told)
    stopping = Stopping(RunOptions())
    with pytest.raises(StoppedEarly) as ended, on_sigterm(stopping), session.joined(RunOptions()):
        pytest.fail("there is no Ray")
    assert ended.value.exit_code == 5 and stopping.early


def until(holds) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_node_of_ours_that_is_dead_ends_the_run(ray):
    with pytest.raises(ClusterError, match="^the local Ray is lost: its process on this machine .the raylet. has died"):
        with session.joined(RunOptions()) as watch:
            ray.alive = False
            until(lambda: watch.lost)
            watch.check()
    assert ray.left == 1


def test_a_head_that_is_silent_ends_the_run(ray, monkeypatch):
    monkeypatch.setattr(session, "LEAVE", 0.1)
    with pytest.raises(ClusterError, match="^the local Ray is lost: its head .the GCS process. has not answered for"):
        with session.joined(RunOptions()) as watch:
            ray.silent.set()
            until(lambda: watch.lost)
            assert watch.nodes


def test_of_a_head_of_our_own_nobody_waits_for_the_return(ray, monkeypatch):
    with session.joined(RunOptions()) as watch:
        monkeypatch.setattr(session, "answers", lambda address: False)
        until(lambda: watch.lost)
        assert watch.lost == "the local Ray is lost: its head (the GCS process) has died or was stopped"


def test_a_call_into_ray_that_never_ends_is_ended_with_the_process(ray, monkeypatch):
    ended, said = threading.Event(), []
    monkeypatch.setattr(session, "_end", ended.set)
    monkeypatch.setattr(session, "STUCK", 0.1)
    with session.joined(RunOptions(), said.append):
        ray.silent.set()
        assert ended.wait(30)
    assert said[0].startswith("error: the local Ray is lost: its head (the GCS process) has not answered for")
    assert said[0].endswith("the same command goes on from there")


def test_a_ray_that_does_not_let_go_is_not_waited_for(ray, monkeypatch):
    first, over = [], threading.Event()
    monkeypatch.setattr(session, "STUCK", 0.1)
    monkeypatch.setattr(session, "atexit", SimpleNamespace(register=first.append, unregister=lambda call: None))
    monkeypatch.setattr(ray, "shutdown", over.wait, raising=True)
    with pytest.raises(ClusterError, match="^the local Ray is lost: it has not let go for .*goes on from there$"):
        with session.joined(RunOptions()):
            pass
    ray.up = False
    with pytest.raises(KeyError):  # what the run ended with is what is told
        with session.joined(RunOptions()):
            raise KeyError
    over.set()
    assert first == [session._end, session._end]


def test_what_ray_raises_is_one_sentence(ray):
    with pytest.raises(ClusterError, match="^Ray failed: RpcError: no$"):
        with session.joined(RunOptions()):
            raise RpcError("no")


def test_who_listens_and_who_does_not():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        listening.listen()
        assert session.answers(address)
    assert not session.answers(address)
    assert session.answers("no-such-host.invalid:1")
