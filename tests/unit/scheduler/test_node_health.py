"""Whose fault a failure is: the policy alone, then the driver over simulated nodes of which some are broken."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.records import Segment
from flowcache.scheduler.ledger import Refused
from flowcache.scheduler.node_health import AVOIDED, IN_A_ROW, NodeHealth
from flowcache.scheduler.protocols import GangFailure
from flowcache.storage.commits import read_commits
from tests.unit.scheduler.studio import ONE_SEGMENT, Studio, request


def segment(video: str) -> Segment:
    return Segment(video, 0, 0, 0, 1, 0, 1)


def test_failures_in_a_row_are_the_nodes_fault():
    nodes = NodeHealth()
    for video in "ab":
        assert not nodes.failed("bad", segment(video), "work", ("bad", "good"), 0.0)
    assert nodes.failed("bad", segment("c"), "work", ("bad", "good"), 0.0) == {("a", 0): 1, ("b", 0): 1, ("c", 0): 1}
    assert nodes.avoided(0.0) == nodes.avoided(AVOIDED - 1) == {"bad"} and not nodes.avoided(AVOIDED)
    assert nodes.failed("bad", segment("d"), "work", ("bad", "good"), 1.0) == {("d", 0): 1}  # was under way there
    nodes.failed("bad", segment("e"), "work", ("bad", "good"), AVOIDED)  # one is enough now, and for twice as long
    assert nodes.avoided(3 * AVOIDED - 1) and not nodes.avoided(3 * AVOIDED)
    nodes.committed("bad")
    assert nodes.trusted("bad") and not nodes.failed("bad", segment("e"), "work", ("bad", "good"), 9e9)


def test_the_only_node_is_never_avoided():
    nodes = NodeHealth()
    for _ in range(9):
        assert not nodes.failed("n", segment("a"), "work", ("n",), 0.0)
    assert not nodes.avoided(0.0)


def test_a_sound_node_that_fails_the_same_video_acquits_the_first():
    nodes = NodeHealth()
    nodes.committed("sound")
    for video in "abcdef":
        nodes.failed("n", segment(video), "work", ("n", "sound"), 0.0)
        nodes.failed("sound", segment(video), "work", ("n", "sound"), 0.0)
    assert not nodes.avoided(0.0) and nodes.trusted("n") and nodes.trusted("sound")


def test_the_store_refuses_a_node_at_once_but_never_the_last_one():
    nodes = NodeHealth()
    assert not nodes.failed("a", segment("x"), "node", ("a", "b"), 0.0)  # it was counted as infra before
    assert nodes.avoided(0.0) == {"a"}
    nodes.failed("b", segment("y"), "node", ("a", "b"), 0.0)
    assert nodes.avoided(0.0) == {"a"}


def test_a_video_that_the_store_refuses_everywhere_speaks_against_no_node():
    nodes, known = NodeHealth(), ("a", "b", "c")
    nodes.failed("a", segment("x"), "node", known, 0.0)
    assert nodes.avoided(0.0) == {"a"}
    for node in "bcabc":
        assert not nodes.failed(node, segment("x"), "node", known, 0.0) and not nodes.avoided(0.0)
        assert nodes.trusted(node)
    nodes.failed("a", segment("y"), "node", known, 0.0)
    assert nodes.avoided(0.0) == {"a"}


events = st.tuples(st.integers(0, 4), st.integers(0, 9), st.sampled_from(["work", "infra", "store", "commit"]))


@given(st.lists(events, max_size=200), st.integers(1, 5))
def test_at_most_half_of_the_nodes_are_avoided_and_no_attempt_is_forgiven_twice(events, count):
    nodes, known, made, forgiven = NodeHealth(), [f"n{i}" for i in range(count)], 0, 0
    for now, (node, video, kind) in enumerate(events):
        if kind == "commit":
            nodes.committed(known[node % count])
        else:
            made += kind == "work"
            found = nodes.failed(known[node % count], segment(f"v{video}"), kind, known, float(now))
            forgiven += found.total()
        assert 2 * len(nodes.avoided(now)) <= count and forgiven <= made


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 6), st.integers(1, 3), st.sampled_from(["work", "infra", "node"]), st.sets(st.integers(0, 29)))
def test_broken_nodes_cost_no_video_and_poisoned_videos_die_by_their_own_budget(count, broken, kind, poisoned):
    """Fewer than half of the nodes fail all they touch at once; up to four videos fail everywhere."""
    broken, poisoned = min(broken, (count - 1) // 2 or 1), {f"v{n:02d}" for n in sorted(poisoned)[:4]}
    tried: dict[str, list[str]] = {}

    def fault_on(node, task):
        tried.setdefault(task.request.id, []).append(node)
        if int(node.removeprefix("node-")) < broken:
            raise GangFailure(0, kind, "the GPU fell off the bus", usable=kind == "work")
        if task.request.id in poisoned:
            raise GangFailure(0, "work", "ValueError: poisoned", usable=True)

    studio = Studio(*(request(f"v{n:02d}", ONE_SEGMENT) for n in range(30)))
    summary = studio.run(size=count, nodes=count, fault_on=fault_on)
    assert set(summary.failed) == poisoned and len(summary.done) == 30 - len(poisoned)
    for letter in read_commits(studio.store).dead_letters.values():
        assert letter.kind == "work" and letter.cause == "ValueError: poisoned"
    if count - broken > 1:
        assert all(len(set(tried[name])) > 1 for name in poisoned)


def test_a_gang_is_moved_off_a_node_that_fails_everything():
    """One gang on two nodes: there is nowhere else to try before the gang itself has moved. One video is poisoned."""

    def fault_on(node, task):
        if node == "node-0":
            raise GangFailure(0, "work", "RuntimeError: CUDA error", usable=False)
        if task.request.id == "v3":
            raise GangFailure(0, "work", "ValueError: poisoned", usable=True)

    studio = Studio(*(request(f"v{n}", ONE_SEGMENT) for n in range(6)))
    summary = studio.run(size=2, nodes=2, gangs=1, fault_on=fault_on)
    assert set(summary.failed) == {"v3"} and len(summary.done) == 5
    assert [gang.node for gang in studio.provider.gangs] == ["node-0"] * IN_A_ROW + ["node-1"]
    assert "node node-0 gets no work for a while: attempts failed there in a row" in " ".join(studio.notes.said)


def test_a_run_whose_only_node_is_refused_by_the_store_ends_without_dead_letters():
    def fault_on(node, task):
        raise GangFailure(0, "node", "StoreError: no S3 credentials found", usable=True)

    studio = Studio(*(request(f"v{n}", ONE_SEGMENT) for n in range(4)))
    with pytest.raises(Refused, match="the store refuses all that is left .* no S3 credentials found"):
        studio.run(fault_on=fault_on)
    assert not read_commits(studio.store).dead_letters
