"""What a calibration asks, answered by two ranks as by one; lost windows are walked again to the same place."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist

from flowcache.cache.fixed_steps import Calibration
from flowcache.families.registry import load_model
from flowcache.parallel.apply import shard
from flowcache.parallel.mesh import arrange
from flowcache.sampling.fitting import fit
from flowcache.worker.asks import Fit, Nudged, Record, Result, Shown
from flowcache.worker.walking import Walking
from flowcache.worker.windows import Prompt, Windows

PROMPTS = Prompt("a red circle moving right on a blue background", 1), Prompt("a white square growing", 2)
NEAR = 1e-3  # as in test_segments.py


def walking(name: str, group: dist.ProcessGroup | None = None) -> Walking:
    """Of windows of two chunks and a few steps."""
    torch.set_num_threads(1)
    model = load_model(name)
    spec = replace(model.spec, steps=4, window=2 * model.spec.chunk, ar_step=2, calibrations=())
    if not group:
        return Walking(replace(model, spec=spec))
    transformer = shard(model.transformer, arrange(group, model.transformer.kv_heads))
    spread = replace(model, spec=spec, transformer=transformer, kv_sharding=transformer.kv_sharding())
    return Walking(spread, shows=dist.get_rank(group) == 0)


def fitted(made: Walking, records: list[dict[str, np.ndarray]], lost: bool = False) -> Calibration:
    """To where the records have come. lost: the windows are, after every ask."""
    windows = Windows(made.spec, "off")
    bare = Calibration(0.6, windows.conditions(), (0, 2), ((), ()), ((), ()))

    def ask(row, first, later, to):
        found = []
        for prompt, record in zip(PROMPTS, records, strict=True):
            goals = {chunk: torch.tensor(record[f"latents/{chunk}/{step}"]) for chunk, step in to.items()}
            by = Walking(made.model) if lost else made
            found.append(by.answer(Fit(prompt, replace(bare, first=first, later=later), 2, row, goals)))
        return found

    first, later = fit(windows.plan(0.6, bare, 2), ask)
    return replace(bare, first=first, later=later)


def answered(
    group, name: str, records=None
) -> tuple[list[dict[str, np.ndarray]], list[np.ndarray], Calibration, list[Shown]]:
    """records: of one rank, which all fit to; None: its own."""
    made = walking(name, group)
    own = [{key: value.numpy() for key, value in made.answer(Record(prompt, 2, "off")).items()} for prompt in PROMPTS]
    calibration = fitted(made, records or own)
    bare = replace(calibration, first=((), ()), later=((), ()))
    results = [made.answer(Result(PROMPTS[0], 0.6, each, 2)) for each in (None, bare)]
    others = [made.answer(Nudged(PROMPTS[0], 1))["latents"].numpy(), *(latents.numpy() for latents, _ in results)]
    return own, others, calibration, [shown for _, shown in results]


@pytest.mark.parametrize("name", ["tiny-skyreels", "tiny-magi"])
def test_two_ranks_answer_as_one_does(pool, name):
    records, others, calibration, shown = answered(None, name)
    assert any((*calibration.first, *calibration.later))
    found = pool(2, answered, name, records)
    assert found[1][0] == [{}, {}]  # nobody looks at what rank 1 has seen
    for own, record in zip(found[0][0], records, strict=True):
        assert own.keys() == record.keys()
        for key in record:
            np.testing.assert_allclose(own[key], record[key], atol=NEAR, rtol=NEAR)
    assert found[0][3] == found[1][3]
    assert all(chunk and all(chunk) for window in shown for chunk in window)
    for own, window in zip(found[0][3], shown, strict=True):
        for chunk, other in zip(own, window, strict=True):
            assert chunk == pytest.approx(other, rel=NEAR)
    for each in found:
        for own, other in zip(each[1], others, strict=True):
            np.testing.assert_allclose(own, other, atol=NEAR, rtol=0)
        for table, other in ((each[2].first, calibration.first), (each[2].later, calibration.later)):
            for own, expected in zip(table, other, strict=True):
                assert own == pytest.approx(expected, rel=1e-2, abs=1e-3)


def test_windows_that_are_lost_come_to_the_same_coefficients():
    made = walking("tiny-skyreels")
    records = [{key: x.numpy() for key, x in made.answer(Record(prompt, 2, "off")).items()} for prompt in PROMPTS]
    found = fitted(made, records)
    assert any((*found.first, *found.later)) and fitted(made, records, lost=True) == found == fitted(made, records)
    made.answer(Nudged(PROMPTS[0], None))
    assert not made._fits  # their memory is free
