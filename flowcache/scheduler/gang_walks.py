"""What a calibration asks of walks is handed to gangs, until all is answered."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flowcache.errors import FlowcacheError
from flowcache.inputs.options import RunOptions
from flowcache.scheduler.gang_pool import GangPool
from flowcache.scheduler.protocols import GangFailure, GangProvider, WalkGang
from flowcache.worker.walking import A, Ask
from flowcache.worker.windows import Prompt

WATCH_EVERY = 1.0  # seconds between two looks for stalls and for room in the cluster


class GangWalks:
    """Implements `walking.Walks`: of the options, `gangs` walk side by side, and for each ask `infra_retries` that are
    lost with it are made anew. note: tells the operator."""

    def __init__(self, provider: GangProvider[Any], options: RunOptions, note: Callable[[str], None]):
        self.provider, self.options, self.note = provider, options, note
        self.pool: GangPool[WalkGang] = GangPool(provider, options, note)
        self._holders: dict[Prompt, str] = {}  # names of gangs that keep the prompts' windows

    def answers(self, asks: Sequence[Ask[A]]) -> Iterator[tuple[int, A]]:
        """See `walking.Walks`. FlowcacheError names prompt, rank and cause where a walk fails for good; ClusterError
        where no gang comes up."""
        waiting, under_way = list(range(len(asks))), dict[str, int]()  # by the gang's name
        lost = Counter[int]()
        while waiting or under_way:
            self.pool.adjust(len(waiting))
            self._hand_out(asks, waiting, under_way)
            for gang, said in self._news():
                if not isinstance(said, GangFailure):
                    for answer in said:
                        yield under_way.pop(gang.name), answer
                    continue
                if not said.usable:
                    self.pool.lost(gang, said)
                if (number := under_way.pop(gang.name, None)) is not None:
                    lost[number] += 1
                    self._check(asks[number], said, lost[number])
                    self.note(f"{gang.name} is lost ({said}); the walk of {asks[number].prompt.text!r} begins again")
                    waiting.insert(0, number)

    def close(self) -> None:
        self.pool.disband()

    def _hand_out(self, asks: Sequence[Ask[A]], waiting: list[int], under_way: dict[str, int]) -> None:
        """Each idle gang gets the first one that waits, but for windows that another gang keeps."""
        there = {gang.name for gang in self.pool.gangs}
        self._holders = {prompt: name for prompt, name in self._holders.items() if name in there}
        for gang in self.pool.gangs:
            idle = gang.started and gang.task is None
            number = next((one for one in waiting if self._suits(gang.name, asks[one])), None) if idle else None
            if number is None:
                continue
            ask = asks[number]
            waiting.remove(number)
            under_way[gang.name] = number
            if ask.stays:
                self._holders[ask.prompt] = gang.name
            gang.assign(ask)

    def _suits(self, gang: str, ask: Ask[A]) -> bool:
        return not ask.stays or self._holders.get(ask.prompt, gang) == gang

    def _news(self) -> Iterator[tuple[WalkGang, list[Any] | GangFailure]]:
        """Of gangs with news: their answers, or what has happened to them."""
        for gang, news in self.provider.wait(self.pool.gangs, WATCH_EVERY):
            try:
                yield gang, gang.poll(news)
            except GangFailure as failure:
                yield gang, failure
        for gang in [*self.pool.gangs]:
            if failure := self.pool.overdue(gang):
                yield gang, failure

    def _check(self, ask: Ask[A], failure: GangFailure, times: int) -> None:
        """FlowcacheError where another try is not worth it."""
        if failure.kind == "infra" and times <= self.options.infra_retries:
            return
        if failure.log:
            self.note(failure.log)
        tried = f"; {times} gangs in a row were lost with it" if times > 1 else ""
        raise FlowcacheError(f"the walk of {ask.prompt.text!r} (noise {ask.prompt.seed}) failed: {failure}{tried}")
