from dataclasses import fields
from typing import get_args

from flowcache.progress.events import RunEvent, Together, VideoBegan
from tests.unit.progress.played import EVENTS, play

PLAIN = {str, int, bool, tuple[VideoBegan, ...]}


class Told:
    def __init__(self, told: list):
        self.told = told

    def on(self, event):
        self.told.append((self, event))


def test_together_passes_every_event_on_in_order():
    told = []
    first, second = Told(told), Told(told)
    play(Together(first, second))
    assert told == [(listener, event) for event in EVENTS for listener in (first, second)]


def test_the_run_that_is_played_has_every_kind_of_event():
    assert {type(event) for event in EVENTS} == set(get_args(RunEvent))


def test_events_are_plain_data_that_nobody_changes():
    for kind in (*get_args(RunEvent), VideoBegan):
        assert kind.__dataclass_params__.frozen
        kinds = {field.type for field in fields(kind)}
        assert all(found in PLAIN or set(map(type, get_args(found))) == {str} for found in kinds), kind
