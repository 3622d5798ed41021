"""Asks of a calibration by pretended gangs: each is answered once, lost gangs are replaced, some errors are final."""

from collections import defaultdict
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import pytest

from flowcache.errors import FlowcacheError
from flowcache.inputs.options import RunOptions
from flowcache.scheduler.gang_pool import ClusterError
from flowcache.scheduler.gang_walks import GangWalks
from flowcache.scheduler.protocols import GangFailure
from flowcache.worker.walking import Ask
from flowcache.worker.windows import Prompt

CIRCLE, SQUARE, TRIANGLE = (Prompt(f"a {shape}", seed) for seed, shape in enumerate(("circle", "square", "triangle")))
GONE = GangFailure(1, "infra", "its process is gone")


@dataclass(frozen=True)
class Once(Ask[str]):
    prompt: Prompt
    number: int = 0

    def answer(self, walking):
        return f"{self.prompt.text} {self.number}"


@dataclass(frozen=True)
class Row(Once):
    stays: ClassVar[bool] = True


class Pretended:
    """A gang that is up, or done, when it is next waited for; `fates`: by gang, what it raises instead, in turn."""

    def __init__(self, name, fates, done):
        self.name, self.fates, self.done = name, fates, done
        self.node, self.started, self.task, self.heard, self.torn = "", False, None, 0.0, False

    def assign(self, ask):
        assert self.started and self.task is None and not self.torn
        self.task = ask

    def poll(self, news):
        fate = self.fates.pop(0) if self.fates else None
        if fate:
            raise fate
        if not self.started:
            self.started, self.node = True, "n"
            return []
        ask, self.task = self.task, None
        self.done.append((self.name, ask))
        return [ask.answer(None)]

    def tear_down(self):
        self.torn = True


class Provider:
    """With room for so many. Who was asked last is done first."""

    def __init__(self, room, fates=()):
        self.room, self.fates = room, defaultdict(list, {name: list(each) for name, each in dict(fates).items()})
        self.begun, self.done = [], []

    def now(self):
        return 0.0

    def places(self):
        return {"n": self.room}

    def start(self, name, avoided):
        self.begun.append(Pretended(name, self.fates[name], self.done))
        return self.begun[-1]

    def wait(self, gangs, seconds):
        return [(gang, ["news"]) for gang in reversed(gangs) if gang.task or not gang.started]


def walks(provider, gangs=None):
    notes = []
    options = RunOptions(gangs=gangs, infra_retries=3, segment_timeout=inf, idle_release=inf)
    return GangWalks(provider, options, notes.append), notes


@pytest.mark.parametrize("gangs, begun", [(None, 2), (1, 1), (3, 3)])
def test_gangs_walk_side_by_side_and_every_ask_is_answered_once(gangs, begun):
    provider = Provider(room=2)
    made, _ = walks(provider, gangs)
    asks = [Once(prompt, number) for number in range(3) for prompt in (CIRCLE, SQUARE, TRIANGLE)]
    for _ in range(2):  # the same gangs
        found = list(made.answers(asks))
        assert dict(found) == {number: ask.answer(None) for number, ask in enumerate(asks)} and len(found) == len(asks)
    assert len(provider.begun) == begun == len({name for name, _ in provider.done})
    made.close()
    assert all(gang.torn for gang in provider.begun)


def test_no_more_gangs_than_asks():
    provider = Provider(room=8)
    assert dict(walks(provider)[0].answers([Once(CIRCLE), Once(SQUARE)])) and len(provider.begun) == 2
    assert list(walks(Provider(room=8))[0].answers([])) == []


def test_a_lost_gang_is_replaced_and_its_walk_repeated():
    provider = Provider(room=1, fates={"gang-1": [None, None, GONE]})
    made, notes = walks(provider)
    assert dict(made.answers([Once(CIRCLE), Once(SQUARE)])) == {0: "a circle 0", 1: "a square 0"}
    assert [(name, ask.prompt) for name, ask in provider.done] == [("gang-1", CIRCLE), ("gang-2", SQUARE)]
    assert [gang.torn for gang in provider.begun] == [True, False]
    assert "gang-1 is lost (rank 1: its process is gone); the walk of 'a square' begins again" in notes


def test_a_walk_that_loses_every_gang_ends_with_prompt_rank_and_cause():
    provider = Provider(room=1, fates={f"gang-{number}": [None, GONE] for number in range(1, 9)})
    said = "the walk of 'a square' .noise 1. failed: rank 1: its process is gone; 4 gangs in a row were lost with it"
    with pytest.raises(FlowcacheError, match=said):
        list(walks(provider)[0].answers([Once(SQUARE)]))
    assert len(provider.begun) == 4


@pytest.mark.parametrize("usable", [True, False])
@pytest.mark.parametrize("kind", ["work", "memory"])
def test_what_would_fail_again_is_not_repeated(kind, usable):
    failure = GangFailure(0, kind, "NotFinite: chunk 1", "Traceback ...", usable)
    made, notes = walks(provider := Provider(room=1, fates={"gang-1": [None, failure]}))
    with pytest.raises(FlowcacheError, match=r"'a circle' .noise 0. failed: rank 0: NotFinite: chunk 1$"):
        list(made.answers([Once(CIRCLE)]))
    assert len(provider.begun) == 1 and notes[-1] == "Traceback ..." and provider.begun[0].torn != usable


def test_windows_stay_with_the_gang_that_keeps_them():
    """Until it is lost, or has walked something else meanwhile."""
    provider = Provider(room=2)
    made, _ = walks(provider)
    prompts = (CIRCLE, SQUARE, TRIANGLE)
    for number in range(3):
        assert dict(made.answers([Row(prompt, number) for prompt in prompts])) == {
            place: f"{prompt.text} {number}" for place, prompt in enumerate(prompts)
        }
    holders = {prompt: {name for name, ask in provider.done if ask.prompt == prompt} for prompt in prompts}
    assert all(len(names) == 1 for names in holders.values()) and len(set.union(*holders.values())) == 2
    (first,) = holders[CIRCLE]
    provider.fates[first].append(GONE)
    assert dict(made.answers([Row(CIRCLE, 3)])) == {0: "a circle 3"}
    assert provider.done[-1][0] != first


def test_gangs_that_never_start_are_an_error():
    provider = Provider(room=1, fates={f"gang-{number}": [GONE] for number in range(1, 9)})
    with pytest.raises(ClusterError, match="3 gangs in a row did not start; the last one: rank 1: its process is gone"):
        list(walks(provider)[0].answers([Once(CIRCLE)]))
