"""Ranks are killed and stopped while the others wait for them in a collective; gangs don't disturb one another."""

import itertools
import random
import signal
import sys
from collections import Counter

import pytest
import ray

import flowcache
from flowcache.inputs.options import RunOptions
from flowcache.runtime import gang
from tests.fault.outcome import outcome
from tests.fault.victims import Fault, Noted, exchanges, leftovers, struck, victims

PROMPT = "a red circle moving right on a blue background"
SKYREELS = {"id": "skyreels", "prompt": PROMPT, "frames": 69, "steps": 2, "seed": 1, "policy": "paper"}  # two segments
MAGI = SKYREELS | {"id": "magi", "frames": 48, "steps": 4, "model": "tiny-magi", "policy": "flowcache"}
KILL, STOP = signal.SIGKILL, signal.SIGSTOP
HOW = {KILL: "its process is gone", STOP: "its process does not answer"}
DEADLINE = 8.0  # seconds of an exchange
SPARE = 6.0  # seconds to ask the ranks (3 of them, where one is silent), on a busy machine


@pytest.fixture(scope="module")
def wide():
    """A Ray with room for a gang of four or two of two. Yields its address."""
    from ray.cluster_utils import Cluster

    ours = [sys.modules[name] for name in (__name__, "tests.fault.victims", "tests.listening")]
    for module in ours:
        ray.cloudpickle.register_pickle_by_value(module)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    yield made.address
    made.shutdown()
    for module in ours:
        ray.cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture
def render(wide, tmp_path, monkeypatch):
    """render(name, rows, faults, ...) -> Noted: a run to its end into tmp_path / name."""

    def call(name: str, rows: list[dict], faults: list[Fault] = (), ranks: int = 2, gangs: int = 1) -> Noted:
        folder = tmp_path / f"{name}-notes"
        folder.mkdir()
        monkeypatch.setattr(gang, "RankActor", victims(list(faults), folder))
        noted = Noted()
        options = RunOptions(
            address=wide, gang=ranks, gangs=gangs, exchange_timeout=DEADLINE, infra_retries=len(faults)
        )
        summary = flowcache.render(rows, output=str(tmp_path / name), options=options, progress=noted)
        assert summary.exit_code == 0, noted.told
        assert leftovers(folder, wide) == []
        noted.struck, noted.exchanges = struck(folder), exchanges(folder)
        return noted

    return call


def check_noticed(noted: Noted, faults: list[Fault]) -> dict[signal.Signals, list[float]]:
    """Each fault struck once, and was noticed in time for what it was; how many seconds that took, by signal."""
    waits: dict[signal.Signals, list[float]] = {KILL: [], STOP: []}
    assert len(noted.struck) == len(noted.told) == len(faults), noted.told
    for video in {fault.video for fault in faults}:
        given = sorted((when, faults[i]) for i, when in noted.struck.items() if faults[i].video == video)
        told = [failure for failure in noted.told if failure[2] == video]
        for (struck_at, fault), (told_at, cause, _, rank) in zip(given, told, strict=True):
            assert rank == fault.rank and HOW[fault.number] in cause, (fault, cause)
            waits[fault.number].append(told_at - struck_at)
    assert max(waits[KILL], default=0) < SPARE and max(waits[STOP], default=0) < DEADLINE + SPARE
    return waits


def test_a_rank_lost_in_a_collective_is_noticed_and_neither_bytes_nor_neighbours_change(render, tmp_path):
    """Two gangs of two; each video has a twin that nothing is done to."""
    faults = [Fault("skyreels", 1, 30, KILL, sends=True), Fault("magi", 0, 12, STOP)]
    twins = [{**row, "id": f"{row['id']}-twin"} for row in (SKYREELS, MAGI)]
    noted = render("out", [SKYREELS, MAGI, *twins], faults, gangs=2)
    check_noticed(noted, faults)  # no twin's segment failed, either
    media = outcome(tmp_path / "out")["media"]
    for row in (SKYREELS, MAGI):
        assert media[f"media/{row['id']}"] == media[f"media/{row['id']}-twin"]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("row", [SKYREELS, MAGI], ids=lambda row: row["id"])
def test_any_rank_killed_or_stopped(render, tmp_path, ranks, row):
    """Three ranks split the history of both models; two their heads."""
    most = render("undisturbed", [row], ranks=ranks).exchanges[row["id"]]
    ways = list(itertools.product(range(ranks), (KILL, STOP), (False, True)))
    faults = [
        Fault(row["id"], rank, i * most // len(ways), number, sends) for i, (rank, number, sends) in enumerate(ways)
    ]
    check_noticed(render("disturbed", [row], faults, ranks=ranks), faults)
    assert outcome(tmp_path / "disturbed") == outcome(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        Fault("", 0, -1, KILL),
        Fault("", 0, -1, KILL, late=1),  # who is not there yet is not the one to blame
        Fault("", 1, -1, KILL),
        Fault("", 1, -1, STOP),
    ],
    ids=str,
)
def test_a_rank_lost_while_its_gang_starts(render, fault):
    """Before any video: no segment's budget is touched."""
    noted = render("out", [SKYREELS], [fault])
    (told_at, message) = next(note for note in noted.notes if "did not start" in note[1])
    assert f"rank {fault.rank}: {HOW[fault.number]}" in message
    assert told_at - noted.struck[0] < (0 if fault.number == KILL else DEADLINE) + SPARE
    assert noted.told == []


@pytest.mark.slow
def test_fifty_in_a_row(render, tmp_path):
    """At random collectives of random ranks: every fourth one is a stop."""
    seed = random.SystemRandom().randrange(10**6)
    sys.stderr.write(f"seed {seed}\n")
    draw = random.Random(seed)
    rows = [{**row, "id": f"{row['id']}-{i}", "seed": i} for i in range(5) for row in (SKYREELS, MAGI)]
    numbers = [STOP if i % 4 == 3 else KILL for i in range(50)]
    most = render("undisturbed", rows).exchanges
    calls = {row["id"]: draw.sample(range(most[row["id"]]), 5) for row in rows}  # no two in one
    faults = [
        Fault(video, draw.randrange(2), calls[video].pop(), number, draw.random() < 0.5)
        for video, number in zip([row["id"] for row in rows] * 5, numbers, strict=True)
    ]
    waits = check_noticed(render("disturbed", rows, faults), faults)
    assert Counter(fault.number for fault in faults) == {number: len(found) for number, found in waits.items()}
    for number, found in waits.items():
        mean = sum(found) / len(found)
        line = (
            f"{number.name}: {len(found)}, noticed after {min(found):.2f} to {max(found):.2f} s, {mean:.2f} on average"
        )
        sys.stderr.write(f"{line}\n")
    assert outcome(tmp_path / "disturbed") == outcome(tmp_path / "undisturbed")
