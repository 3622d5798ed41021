"""The quality guard: what strays is given up by all ranks alike, and rendered within the next larger budget."""

from dataclasses import replace

import pytest
import torch

from flowcache.cache.fixed_steps import Calibration, Seen
from flowcache.families.registry import load_model
from flowcache.families.settings import resolve_policy, settings_of
from flowcache.inputs.segments import plan
from flowcache.records import RenderRequest, Shot
from flowcache.storage.objects.store import Store
from flowcache.worker.task import Again, Raised, WorkerSettings
from flowcache.worker.worker import RankWorker, Task

LARGE, SMALL = 1e3, 1e-3  # what calibration saw, beside which nothing strays and everything does


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return load_model("tiny-skyreels")


def request(guidance=1.0, **policy):
    """A window of two chunks."""
    shots = (Shot("a red circle", 21),)
    named = {"name": "flowcache", **(policy if policy.get("reuse") is False else {"budget": 0.5, **policy})}
    return RenderRequest("v", shots, 64, 64, 12, 1, guidance, 4, "tiny-skyreels", named)


def made(model, budget, computed, largest):
    """largest: that was seen of each jump; None: nobody looked."""
    asked = request()
    at = settings_of(asked, model.spec).plan(model.spec.chunk, resolve_policy(asked.policy, model.spec)).conditions
    seen = () if largest is None else (Seen(largest, largest, 0.0),) * (len(computed) - 1)
    nothing = ((),) * len(computed)
    return Calibration(budget, at, computed, nothing, nothing, seen, seen, None if largest is None else 1e-3)


@pytest.fixture
def play(model, tmp_path, monkeypatch):
    """play(calibrations, raised, **policy) -> what rank 0 yields; `assist` of the same has ended well."""
    worker = RankWorker(Store(str(tmp_path)), WorkerSettings("run", "hash"), "gang", 0, 1)

    def play(calibrations, raised=None, **policy):
        own = replace(model, spec=replace(model.spec, calibrations=tuple(calibrations)))
        monkeypatch.setattr(worker, "_load", lambda name, frugal=False: own)
        (segment,) = plan(request(**policy), own.spec)
        task = Task(request(**policy), segment, None, True, raised=raised)
        worker.assist(task)
        return list(worker.render(task))

    return play


def committed(store, events):
    *chunks, marker = events
    return [store.get(chunk.key) for chunk in chunks], marker


def test_what_strays_is_rendered_within_the_next_larger_budget_then_with_every_step(model, play, tmp_path):
    three = [made(model, 0.5, (0, 2), SMALL), made(model, 0.8, (0, 1, 3), LARGE), made(model, 0.7, (0, 1, 2), SMALL)]
    (first,) = play(three, quality_floor=1.0)
    assert isinstance(first, Again) and first.chunk == 0 and first.ratio > 1
    assert (first.raised.budget, first.raised.repeats) == (0.7, 1) and first.raised.forwards > 0
    assert play(three, quality_floor=1.0) == [first]  # the same each time, so a killed run comes to the same
    (second,) = play(three, first.raised, quality_floor=1.0)
    assert (second.raised.budget, second.raised.repeats) == (0.8, 2)
    assert second.raised.forwards > first.raised.forwards
    *chunks, marker = play(three, second.raised, quality_floor=1.0)
    assert marker.chunks == tuple(chunks) and chunks[0].decisions == "1101"
    assert (marker.budget, marker.repeats, marker.predicted_error, marker.calibrated_guidance) == (0.8, 2, 1e-3, 1.0)
    assert marker.dropped_forwards == second.raised.forwards and 0 < chunks[0].residual_ratio < 1
    assert marker.policy == request(quality_floor=1.0).policy  # as it was asked for
    again, _ = committed(Store(str(tmp_path)), play(three, second.raised, quality_floor=1.0))
    assert again == [Store(str(tmp_path)).get(chunk.key) for chunk in chunks]


def test_in_the_end_every_step_is_kept_whatever_it_shows(model, play):
    only = [made(model, 0.5, (0, 2), SMALL)]
    (end,) = play(only, quality_floor=1.0)
    assert end.raised.budget == 1.0 and end.raised.words == "with every step"
    *chunks, marker = play(only, end.raised, quality_floor=1.0)
    assert (marker.budget, marker.repeats, marker.predicted_error) == (1.0, 1, None)
    assert {chunk.decisions for chunk in chunks} == {"1111"} and chunks[0].residuals is None


def test_a_budget_without_a_calibration_is_kept(model, play):
    *_, marker = play([made(model, 0.5, (0, 2), SMALL)], Raised(0.9, 1, 5), quality_floor=1.0)
    assert (marker.budget, marker.repeats, marker.dropped_forwards) == (0.9, 1, 5)
    assert marker.chunks[0].residuals and marker.chunks[0].residual_ratio is None


@pytest.mark.parametrize(
    ("largest", "floor"), [(SMALL, None), (LARGE, 1.0), (None, 1e-3), (0.05, 100.0)], ids=lambda each: str(each)
)
def test_nothing_is_repeated_where_none_is_asked_for_or_nobody_can_tell(model, play, largest, floor):
    policy = {} if floor is None else {"quality_floor": floor}
    *chunks, marker = play([made(model, 0.5, (0, 2), largest)], **policy)
    assert (marker.budget, marker.repeats, marker.dropped_forwards) == (0.5, 0, 0)
    assert all(len(chunk.residuals) == 1 for chunk in chunks)
    assert {chunk.residual_ratio is None for chunk in chunks} == {largest is None}


def test_a_calibration_of_another_guidance_is_named_and_judges_nothing(model, play):
    fitted = made(model, 0.5, (0, 2), SMALL)
    fitted = replace(fitted, conditions=replace(fitted.conditions, guidance=2.0))
    *chunks, marker = play([fitted], guidance=3.0, quality_floor=1.0)
    assert (marker.budget, marker.calibrated_guidance, marker.predicted_error, marker.repeats) == (0.5, 2.0, None, 0)
    assert {chunk.decisions for chunk in chunks} == {"1010/1010"}
    assert all(chunk.residuals and chunk.residual_ratio is None for chunk in chunks)


def test_without_a_budget_nothing_of_it_is_said(model, play):
    *chunks, marker = play([], reuse=False)
    assert {marker.budget, marker.repeats, marker.dropped_forwards, chunks[0].residuals} == {None}
