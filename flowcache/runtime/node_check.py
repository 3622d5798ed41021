"""Nodes show that they reach the store as the driver does, before they get work: what they make goes there.

The driver writes a word below the output. Every node reads it and creates an answer beside it, with its own credentials
and over its own network, and the driver reads that back: so both see one store, and the node may write to it.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flowcache.errors import StoreError, masked
from flowcache.scheduler.gang_pool import ClusterError
from flowcache.storage.growth import some_of
from flowcache.storage.objects.store import Store

BEGIN = 300.0  # seconds for a process to start on a node: the first one reads its packages from a cold disk
DEADLINE = 60.0  # seconds for it to answer then
OTHERS = 10.0  # seconds for the rest, where some nodes have answered
AGAIN = 300.0  # seconds before a node that did not reach the store is asked once more
PAUSE = 5.0  # seconds before all are asked again, where the driver does not reach the store either
AT_ONCE = 64  # nodes
OWN = (
    "Nodes take credentials from their own environment, files or role and not from the driver's (docs/security.md, "
    "Credentials of the store)"
)
ELSEWHERE = (
    "does not find there what the driver wrote: there it is another folder or endpoint. Take a folder that all nodes "
    "share, or s3://, gs://, az://, and the same endpoint on all nodes"
)


@dataclass(frozen=True)
class Verdict:
    """why: the node does not reach the store; "" where it does."""

    why: str
    passing: bool = False  # another try may do better


PASSED = Verdict("")


def answer(store: Store, question: str, word: str, key: str) -> Verdict:
    """On the node: find the driver's word, and write it down once more."""
    try:
        if store.find(question) != word.encode():
            return Verdict(f"{masked(store.url)}: it {ELSEWHERE}")
        if not store.create(key, word.encode()):
            return Verdict(f"{masked(store.url)}: somebody else's answer is there")
    except StoreError as error:
        return Verdict(str(error), error.passing)
    return PASSED


@ray.remote(num_cpus=0, max_restarts=0)
class Asked:
    """A process on a node."""

    def ready(self) -> None:
        """It has started."""

    def answer(self, store: Store, question: str, word: str, key: str) -> Verdict:
        return answer(store, question, word, key)


def ask_node(node: str, store: Store, question: str, word: str, key: str) -> Verdict:
    """What `answer` says in a process on that node. Its start is waited for apart: on a busy machine it takes longer
    than an answer may."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    process: Any = Asked.options(scheduling_strategy=there).remote()
    patience, what = BEGIN, "no process started there"
    try:
        ray.get(process.ready.remote(), timeout=BEGIN)
        patience, what = DEADLINE, "it did not answer"
        return ray.get(process.answer.remote(store, question, word, key), timeout=DEADLINE)
    except GetTimeoutError:
        why = f"{what} within {patience:.0f} s: is it cut off from {masked(store.url)}, or from the head?"
        return Verdict(why, passing=True)
    except RayError as error:
        return Verdict(f"no process answers there ({type(error).__name__})", passing=True)
    finally:
        ray.kill(process)


class NodeChecks:
    """What each node has shown, by its id. Asked in threads: neither nodes nor store hold up the driver's loop."""

    def __init__(self, store: Store, note: Callable[[str], None], ask_node: Callable[..., Verdict] = ask_node):
        self.store, self.note, self._ask_node = store, note, ask_node
        self._word = secrets.token_hex(16)
        self._question = f"_run/.nodes-{secrets.token_hex(6)}"  # the dot: no listing shows it
        self._threads = ThreadPoolExecutor(AT_ONCE, "node-check")
        self._asked: dict[str, Future[Verdict]] = {}
        self._when: dict[str, float] = {}
        self._addresses: dict[str, str] = {}
        self._told: dict[str, str] = {}
        store.put(self._question, self._word.encode())

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._forget(self._question)

    def verdict(self, node: str) -> Verdict | None:
        """None: the node has yet to answer; it is asked now if it was not."""
        if node not in self._asked:
            self._ask(node)
        return self._asked[node].result() if self._asked[node].done() else None

    @property
    def unproven(self) -> set[str]:
        """Nodes that were asked, and have not shown that they reach the store."""
        return {node for node, asked in self._asked.items() if not asked.done() or asked.result().why}

    def admitted(self, nodes: Mapping[str, str]) -> set[str]:
        """Of those, given with their addresses, the ones that reach the store. New ones are asked, failed ones again
        after a while."""
        self._addresses.update(nodes)
        for gone in self._asked.keys() - nodes.keys():
            del self._asked[gone]
        for node in nodes:
            verdict = self.verdict(node)
            if verdict and verdict.why:
                self._tell(node, verdict.why)
                if time.monotonic() - self._when[node] > AGAIN:
                    self._ask(node)
        return nodes.keys() - self.unproven

    def begin(self, nodes: Callable[[], Mapping[str, str]], patience: float) -> None:
        """Ask all nodes together. ClusterError where none of them reaches a store that the driver reaches.

        patience: seconds for a store that does not answer the driver either.
        """
        begun = time.monotonic()
        while found := nodes():
            asked = [self._asked.get(node) or self._ask(node) for node in found]
            wait(asked, timeout=OTHERS)
            if self.admitted(found):
                return  # who has not answered yet may come later
            wait(asked)
            if self.admitted(found):
                return
            failed = {node: verdict for node in found if (verdict := self.verdict(node))}
            if not (all(verdict.passing for verdict in failed.values()) and self._down()):
                raise ClusterError(self._none_of(failed))
            if time.monotonic() - begun > patience:
                raise ClusterError(f"the store does not answer any more. {self._none_of(failed)}")
            time.sleep(PAUSE)
            self._asked.clear()

    def _ask(self, node: str) -> Future[Verdict]:
        self._when[node] = time.monotonic()
        self._asked[node] = self._threads.submit(self._checked, node, f"{self._question}-{secrets.token_hex(6)}")
        return self._asked[node]

    def _checked(self, node: str, key: str) -> Verdict:
        try:
            said = self._ask_node(node, self.store, self._question, self._word, key)
            if not said.why and self.store.find(key) != self._word.encode():
                return Verdict(f"{masked(self.store.url)} shows the driver nothing of what the node wrote there")
            return said
        except StoreError as error:
            return Verdict(f"what it wrote cannot be read: {error}", error.passing)
        finally:
            self._forget(key)

    def _down(self) -> bool:
        """Whether the driver itself gets no answer of the store."""
        try:
            self.store.find(self._question)
        except StoreError as error:
            return error.passing
        return False

    def _forget(self, key: str) -> None:
        try:
            self.store.delete(key)
        except StoreError:
            return  # hidden from listings; the store's fault is told by whoever needs the store

    def _tell(self, node: str, why: str) -> None:
        if self._told.get(node) != why:
            self._told[node] = why
            self.note(f"node {self._name(node)} gets no work, it does not reach the store: {why}. {OWN}")

    def _name(self, node: str) -> str:
        return f"{self._addresses.get(node, 'of unknown address')} ({node[:8]})"

    def _none_of(self, failed: Mapping[str, Verdict]) -> str:
        """Causes with the nodes that have them."""
        by_cause: dict[str, list[str]] = {}
        for node, verdict in failed.items():
            by_cause.setdefault(verdict.why, []).append(self._name(node))
        causes = ". ".join(f"{some_of(sorted(names))}: {why}" for why, names in by_cause.items())
        return f"no node reaches the store as this machine does. {causes}. {OWN}"
