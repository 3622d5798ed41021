"""The forwards that a plan counts are those that are rendered: every policy of both families, by one rank and two."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from flowcache.families.known import family
from flowcache.families.registry import find, load_model
from flowcache.families.settings import resolve_policy
from flowcache.inputs.segments import plan
from flowcache.parallel.apply import shard
from flowcache.parallel.mesh import arrange
from flowcache.planner.price import cost_model, window
from flowcache.records import ModelSpec, RenderRequest, Segment, Shot
from flowcache.worker.renderer import SegmentRenderer

COMPUTED, REUSED = {"threshold": 0, "ret_steps": 1000}, {"threshold": 100, "ret_steps": 1}
KEPT = {"keep": "compressed", "chunks": 1}
FRAMES = {"tiny-skyreels": (33, 24), "tiny-magi": (48, 24)}  # of two shots, the second of which continues the first


def policies(name: str) -> dict[str, dict[str, Any]]:
    """Each as it is declared: with all steps computed and with all reused that may be, with all K/V and with some."""
    found = {}
    for declared in family(find(name).family).policies:
        ends = {"computed": COMPUTED, "reused": REUSED} if "threshold" in declared.settings else {"": {}}
        for end, told in ends.items():
            for kept in ({}, {"kv": KEPT}) if "kv" in declared.settings else ({},):
                found[f"{declared.name} {end} {'some' if kept else 'all'}"] = {"name": declared.name, **told, **kept}
    return found


CASES = [(name, label) for name in FRAMES for label in policies(name)]


def asked(name: str, label: str) -> tuple[RenderRequest, ModelSpec, tuple[Segment, ...]]:
    spec, prompts = find(name), ("a red circle moving right", "a red circle growing")
    shots = tuple(Shot(prompt, frames, cut=False) for prompt, frames in zip(prompts, FRAMES[name], strict=True))
    request = RenderRequest("v", shots, 64, 64, 12, 1, 3.0, 4, model=name, policy=policies(name)[label])
    return request, spec, plan(request, spec)


def forwards(group: dist.ProcessGroup | None, name: str, label: str) -> list[int]:
    """Of each segment; nothing is decoded, and what comes before a segment is drawn at random."""
    torch.set_num_threads(1)
    model = load_model(name)
    if group:
        transformer = shard(model.transformer, arrange(group, model.transformer.kv_heads))
        model = replace(model, transformer=transformer, kv_sharding=transformer.kv_sharding())
    request, spec, segments = asked(name, label)
    counts = []
    for segment in segments:
        size = spec.channels, spec.overlap, 64 // spec.space_stride, 64 // spec.space_stride
        before = None if segment.after is None else torch.randn(size, generator=torch.Generator().manual_seed(1))
        renderer, seen = SegmentRenderer(model, request, segment, before), []
        renderer._heed = seen.append
        assert len(list(renderer.finished())) == segment.chunks
        counts.append(sum(visit.decision.compute for visit in seen))
    return counts


def planned(name: str, label: str, ranks: int) -> list[int]:
    request, spec, segments = asked(name, label)
    costs, policy = cost_model({name: spec}), resolve_policy(request.policy, spec)
    prices = [costs.price(window(request, segment, spec), policy, ranks) for segment in segments]
    return [(price.least if "reused" in label else price.most).forwards for price in prices]


def check(pool, name: str, label: str) -> None:
    expected = planned(name, label, 1)
    assert forwards(None, name, label) == expected
    assert planned(name, label, 2) == expected
    assert pool(2, forwards, name, label) == [expected, expected]


@pytest.mark.long
@pytest.mark.parametrize(("name", "label"), [("tiny-skyreels", "paper reused some"), ("tiny-magi", "off  all")])
def test_what_is_planned_is_rendered(pool, name, label):
    check(pool, name, label)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "label"), CASES)
def test_what_is_planned_is_rendered_whatever_the_policy(pool, name, label):
    check(pool, name, label)
