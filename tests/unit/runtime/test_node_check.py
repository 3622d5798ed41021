"""Nodes are asked whether they reach the store; here they are no more than stores of their own."""

import threading
import uuid

import pytest
from ray.exceptions import GetTimeoutError

from flowcache.errors import StoreError
from flowcache.runtime import node_check
from flowcache.runtime.node_check import NodeChecks, Verdict, answer, ask_node
from flowcache.scheduler.gang_pool import ClusterError
from flowcache.storage.objects.store import Store

NO_KEYS = "no S3 credentials found; set AWS_ACCESS_KEY_ID"


class Broken(Store):
    """Fails whatever it is asked, while it is told to."""

    def __init__(self, url: str, message: str, passing: bool = False):
        super().__init__(url)
        self.message, self.passing, self.broken = message, passing, True

    def find(self, key):
        if self.broken:
            raise StoreError(self.message, self.passing, of_machine=not self.passing)
        return super().find(key)


class Nodes:
    """By address, the store as that node sees it; `asked` counts."""

    def __init__(self, store: Store, **seen: Store | None):
        self.store, self.seen, self.asked, self.notes = store, seen, [], []
        self.hold = threading.Event()
        self.checks = NodeChecks(store, self.notes.append, self.ask)

    def ask(self, node, store, question, word, key):
        self.asked.append(node)
        if self.seen[node] is None:  # it hangs
            self.hold.wait(20)
            return Verdict("it did not answer", passing=True)
        return answer(self.seen[node], question, word, key)

    def addresses(self) -> dict[str, str]:
        return {node: f"10.0.0.{number}" for number, node in enumerate(self.seen, 1)}

    def begin(self, patience: float = 5.0) -> set[str]:
        self.checks.begin(self.addresses, patience)
        return self.checks.admitted(self.addresses())

    def left(self) -> list[str]:
        """What the checks have left in the store, hidden things included."""
        return [entry.key for entry in self.store.backend.list("")]


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/night"


def test_nodes_that_reach_the_store_are_asked_once_and_leave_nothing(url):
    nodes = Nodes(Store(url), a=Store(url), b=Store(url))
    assert nodes.begin() == {"a", "b"} and nodes.checks.unproven == set() and nodes.notes == []
    for _ in range(3):
        assert nodes.checks.admitted(nodes.addresses()) == {"a", "b"}
    assert sorted(nodes.asked) == ["a", "b"]
    nodes.checks.close()
    assert nodes.left() == []


def test_a_node_that_does_not_is_avoided_and_named_with_cause_and_cure(url):
    nodes = Nodes(Store(url), a=Store(url), b=Broken(url, NO_KEYS), c=Store(url + "-of-its-own"))
    assert nodes.begin() == {"a"} and nodes.checks.unproven == {"b", "c"}
    second, third = sorted(nodes.notes)
    assert "node 10.0.0.2 (b) gets no work" in second and NO_KEYS in second and "docs/security.md" in second
    assert "node 10.0.0.3 (c) gets no work" in third and "share" in third
    nodes.checks.admitted(nodes.addresses())
    assert len(nodes.notes) == 2  # told once
    nodes.checks.close()
    assert nodes.left() == []


def test_where_none_does_the_run_ends_with_all_of_them(url):
    nodes = Nodes(Store(url), a=Broken(url, NO_KEYS), b=Broken(url, NO_KEYS), c=Broken(url, "no route", passing=True))
    with pytest.raises(ClusterError) as caught:
        nodes.begin()
    message = str(caught.value)
    assert caught.value.exit_code == 1 and message.count(NO_KEYS) == 1
    assert "10.0.0.1 (a); 10.0.0.2 (b): " in message and "10.0.0.3 (c): no route" in message
    assert "docs/security.md" in message


def test_a_store_that_answers_nobody_is_waited_for(url, monkeypatch):
    """The driver asks itself before it blames the nodes."""
    monkeypatch.setattr(node_check, "PAUSE", 0.01)
    store = Broken(url, "connection refused", passing=True)
    store.broken = False
    nodes = Nodes(store, a=store)
    store.broken = True
    threading.Timer(0.5, lambda: setattr(store, "broken", False)).start()
    assert nodes.begin() == {"a"} and len(nodes.asked) > 1
    store.broken = True
    nodes.checks._asked.clear()
    with pytest.raises(ClusterError, match="does not answer any more"):
        nodes.begin(patience=0.1)


def test_a_node_that_hangs_holds_up_nobody(url, monkeypatch):
    monkeypatch.setattr(node_check, "OTHERS", 0.2)
    nodes = Nodes(Store(url), a=Store(url), b=None)
    assert nodes.begin() == {"a"} and nodes.checks.unproven == {"b"} and nodes.checks.verdict("b") is None
    nodes.hold.set()
    nodes.checks._asked["b"].result(5)
    assert nodes.checks.admitted(nodes.addresses()) == {"a"} and "10.0.0.2 (b)" in nodes.notes[0]


def test_nodes_that_join_later_are_asked_and_failed_ones_again(url, monkeypatch):
    nodes = Nodes(Store(url), a=Store(url))
    nodes.begin()
    nodes.seen["b"] = Broken(url, NO_KEYS)
    assert nodes.checks.admitted(nodes.addresses()) == {"a"}
    nodes.checks._asked["b"].result(5)
    assert nodes.checks.admitted(nodes.addresses()) == {"a"} and NO_KEYS in nodes.notes[0]
    nodes.seen["b"].broken = False
    monkeypatch.setattr(node_check, "AGAIN", 0.0)
    nodes.checks.admitted(nodes.addresses())
    nodes.checks._asked["b"].result(5)
    assert nodes.checks.admitted(nodes.addresses()) == {"a", "b"} and nodes.asked.count("a") == 1


class Process:
    """Stands for an actor; calls are their own names."""

    class ready:
        remote = staticmethod(lambda: "ready")

    class answer:
        remote = staticmethod(lambda *_: "answer")


@pytest.mark.parametrize(
    ("slow", "said"),
    [
        ("", ""),
        ("ready", "no process started there within 300 s"),
        ("answer", "it did not answer within 60 s"),
    ],
)
def test_the_start_of_a_process_and_its_answer_are_waited_for_apart(tmp_path, monkeypatch, slow, said):
    waits, killed = {}, []

    def get(call, timeout):
        waits[call] = timeout
        if call == slow:
            raise GetTimeoutError
        return Verdict("")

    monkeypatch.setattr(node_check.ray, "get", get)
    monkeypatch.setattr(node_check.ray, "kill", killed.append)
    monkeypatch.setattr(node_check.Asked, "options", lambda **_: Process)
    monkeypatch.setattr(Process, "remote", lambda: Process, raising=False)
    verdict = ask_node("0" * 56, Store(str(tmp_path)), "question", "word", "key")
    assert said in verdict.why and bool(verdict.why) == bool(said) and killed == [Process]
    assert waits == {"ready": 300, "answer": 60} if slow != "ready" else {"ready": 300}
