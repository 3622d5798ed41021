"""A night on an S3 server is steered through its store: each command is taken once, obeyed and audited, whatever the
server hides or loses. Who has no credentials for it steers nothing."""

import io
import json
import threading
import time
from collections import defaultdict

import pyarrow.parquet as pq
import pytest

from flowcache.cli.main import main
from flowcache.errors import StoreError
from flowcache.scheduler import inbox
from flowcache.storage import layout
from flowcache.storage.commits import list_commits, read_stopped
from flowcache.storage.control import Taken, caller, read_log
from flowcache.storage.events import read_events
from flowcache.storage.objects.store import Store
from flowcache.storage.orders import at_work, became, order
from flowcache.storage.runs import read_run
from flowcache.storage.status import status
from tests.s3.nights import Night, once_each, where
from tests.soak import spoils
from tests.soak.proxy import Asked, Judge, Proxy
from tests.unit.scheduler.studio import ONE_SEGMENT, Studio, brings, request, sound

PATIENCE = 240.0  # seconds for a machine with other work
SEEN = 6  # looks of a driver after which it has seen what was told, also where listings lag
ANY = 1 << 30
NAMES = [f"v{number}" for number in range(6)]


class Behind:
    """Listings as they were some requests ago."""

    def __init__(self, requests: int):
        self.requests, self.answers = requests, defaultdict(list)

    def __call__(self, handler, body: bytes) -> None:
        answers = self.answers[handler.path]
        answers.append(handler.upstream(body))
        handler.answer(answers[max(len(answers) - 1 - self.requests, 0)])


LIES = {  # what is done to requests for commands and what became of them
    "nothing": lambda: lambda asked: None,
    "listings that lag": lambda: where("list", "_control", Behind(3)),
    "writes whose answers are lost": lambda: once_each("create put", "_control/", spoils.lost_answer),
    "requests that are lost": lambda: once_each("create put get", "_control/", spoils.lost_request),
    "answers that are cut": lambda: once_each("get list", "_control", spoils.half),
}
QUICK = ("writes whose answers are lost",)


class Operated:
    """A driver in a thread of its own over one simulated gang, and somebody who tells it what to do; both through the
    proxy. `begun`: segments that the gang was given, in order."""

    def __init__(self, night: Night, lie: Judge):
        self.night, self.lie, self.looks = night, lie, 0
        self.begun: list[tuple[str, int]] = []
        self._seen = 0  # looks that the gang waits for before it works
        self._free = ANY  # so many segments may be finished
        night.proxy.judge = self.judge

    def judge(self, asked: Asked):
        self.looks += asked.operation == "list" and asked.key.rstrip("/").endswith("_control")
        return self.lie(asked)

    def start(self) -> None:
        self.ends, self.failure = None, None
        self.thread = threading.Thread(target=self._drive, daemon=True)
        self.thread.start()

    def _drive(self) -> None:
        rows = brings(request("more", ONE_SEGMENT))
        try:
            self.ends = self.night.studio.run(fault=self.work, plan_rows=rows, patience=30.0, infra_retries=2)
        except BaseException as failure:  # noqa: BLE001 (told in `ended`)
            self.failure = failure

    def work(self, task) -> None:
        number = len(self.begun)
        self.begun.append((task.request.id, task.segment.index))
        self.until(lambda: self.looks >= self._seen and number < self._free)

    def until(self, holds) -> None:
        limit = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < limit, "it did not come"
            time.sleep(0.02)

    def tell(self, verb, *videos, alone: bool = False, **more) -> Taken:
        """Told and taken. Meanwhile the gang finishes nothing before its driver has seen it; alone: and after that what
        it has begun, but nothing else until more is told, or the end is waited for."""
        self._seen, self._free = ANY, len(self.begun) if alone else ANY
        command = order(self.night.store, verb, videos, **more)
        self._seen = self.looks + SEEN
        taken = became(self.night.store, command, PATIENCE)
        assert taken and taken.outcome == "obeyed", (command, taken)
        return taken

    def idle(self) -> bool:
        """Whether nothing is begun though the driver has looked for more to do."""
        before, looks = len(self.begun), self.looks
        self.until(lambda: self.looks >= looks + SEEN)
        return len(self.begun) == before

    def ended(self):
        self._free = ANY
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive() and self.failure is None, self.failure
        return self.ends


@pytest.fixture
def night(server, quick, monkeypatch):
    monkeypatch.setattr(inbox, "LOOK", 0.05)
    proxy = Proxy(server.endpoint).start()
    made = Night(server, proxy)
    made.studio = Studio(*(request(name) for name in NAMES), store=made.store)
    yield made
    proxy.shutdown()


@pytest.mark.parametrize("lie", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in LIES])
def test_each_command_is_taken_once_obeyed_and_written_down(night, lie, tmp_path):
    (tmp_path / "more.jsonl").write_text('{"id": "more"}\n')
    run = Operated(night, LIES[lie]())
    run._seen = ANY
    run.start()
    run.until(lambda: run.begun)

    assert run.tell("pause").message == "no segment is started until the run is resumed"
    assert run.idle() and status(night.direct).paused
    under_way = {name for name, _ in run.begun}
    assert "v4" not in under_way
    assert run.tell("cancel", "v5").message == "cancelled: v5"
    assert run.tell("skip", "v4").message == "skipped: v4"
    assert run.tell("prioritise", "v3", priority=9).message == "of priority 9: v3"
    assert "1 added" in run.tell("add", manifest=str(tmp_path / "more.jsonl")).message
    before = len(run.begun)
    run.tell("resume")
    run.until(lambda: len(run.begun) > before)
    assert run.begun[before] == ("v3", 0)
    assert "nothing more is started" in run.tell("stop").message
    end = run.ended()
    assert end.exit_code == 5 and "(stop)" in end.stopped and "(stop)" in read_stopped(night.direct).why

    run.start()  # who comes next obeys them all once more, but for the stop
    end = run.ended()
    assert end.exit_code == 0 and set(end.done) == {*NAMES, "more"} - {"v4", "v5"}
    assert set(end.cancelled) == {"v4", "v5"} and not {"v4", "v5"} & {name for name, _ in run.begun}
    waits = order(night.store, "resume", ["v4", "v5"])
    assert became(night.store, waits, 0) is None
    for _ in range(5):  # a driver may be through before a listing shows the command
        run.start()
        if run.ended().done and not read_log(night.direct).pending:
            break
    night.proxy.judge = lambda asked: None
    audited(night, ["pause", "cancel", "skip", "prioritise", "add", "resume", "stop", "resume"])


def audited(night: Night, verbs: list[str]) -> None:
    """Each has one answer, one event and one row of the table, and the run is whole."""
    log, run = read_log(night.direct), read_run(night.direct)
    assert [one.verb for one in log.commands] == verbs and [one.number for one in log.commands] == [*range(1, 9)]
    assert len(log.taken) == len(verbs) and {one.outcome for one in log.taken.values()} == {"obeyed"}
    told = [one["command"] for one in read_events(night.direct, set()) if one["event"] == "command taken"]
    assert sorted(told) == sorted(str(one) for one in log.commands)
    rows = pq.read_table(io.BytesIO(night.direct.get(layout.commands_key(run.run_id)))).to_pylist()
    assert [(row["number"], row["command"]) for row in rows] == [*enumerate(verbs, 1)]
    assert {row["by"] for row in rows} == {caller()} and all("the driver on" in row["taken_by"] for row in rows)
    assert len({row["taken_by"] for row in rows[:7]}) == 1  # of three drivers the first one, and the last one
    assert len({one.holder for one in log.taken.values()}) == 2 and rows[4]["videos"] == ["more"]
    assert len(list_commits(night.direct).done) == 7 == sound(night.direct)["done"]
    assert night.direct.exists(layout.SUCCESS)


def test_a_segment_under_way_is_ended_and_goes_on_when_it_is_wanted(night, monkeypatch):
    run = Operated(night, LIES["listings that lag"]())
    run._seen = ANY
    run.start()
    run.until(lambda: run.begun)
    first = run.begun[0][0]
    for verb in ("cancel", "resume", "cancel", "resume"):
        run.tell(verb, first, alone=True)
    assert set(run.ended().done) == set(NAMES) and sound(night.direct)["done"] == len(NAMES)


@pytest.fixture
def stranger(monkeypatch, tmp_path):
    """Somebody without any credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))


def said(monkeypatch, capsys, *words: str) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["flowcache", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out + captured.err


COMMANDS = [["pause"], ["resume"], ["stop"], ["cancel", "cat"], ["skip", "cat"], ["prioritise", "3", "cat"]]


def stopped(store: Store) -> Store:
    """It holds a run of one video, of which a driver that was told to stop has rendered the first segment."""

    def fault(task) -> None:
        command = order(store, "stop")
        assert became(store, command, PATIENCE)

    assert Studio(request("cat"), store=store).run(fault=fault).exit_code == 5
    return store


@pytest.fixture
def root(server, monkeypatch):
    monkeypatch.setattr(inbox, "LOOK", 0.05)
    return stopped(server.store())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_without_credentials_nobody_steers(server, root, stranger, monkeypatch, capsys, command):
    before = root.list()
    verb, *ids = command
    code, words = said(monkeypatch, capsys, verb, root.url, *ids, "--endpoint-url", server.endpoint, "--wait", "0")
    assert code == 1 and "no S3 credentials found; set AWS_ACCESS_KEY_ID" in words and root.list() == before


def test_who_may_read_all_of_it_may_not_steer(ceph, stranger):
    """The bucket is open to readers; moto asks nobody for credentials."""
    bucket = ceph.bucket()
    store = stopped(Store(f"s3://{bucket}/night", **ceph.options()))
    rights = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:ListBucket"]}
    rights["Resource"] = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    policy = json.dumps({"Version": "2012-10-17", "Statement": [rights]})
    store.backend.fs.call_s3("put_bucket_policy", Bucket=bucket, Policy=policy)
    reader = Store(store.url, endpoint_url=ceph.endpoint, anon=True)
    before = store.list()
    assert status(reader).commands[0].command.startswith("command 1 (stop)")
    with pytest.raises(StoreError, match="access denied") as told:
        order(reader, "cancel", ["cat"])
    assert told.value.exit_code == 1 and store.list() == before


def test_status_shows_what_waits_and_who_took_the_others(server, root, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
    order(root, "prioritise", ["cat"], 3)
    driver = at_work(root)
    monkeypatch.setenv("COLUMNS", "400")
    code, words = said(monkeypatch, capsys, "status", root.url, "--endpoint-url", server.endpoint)
    assert code == 0 and "1 command not taken yet" in words
    (waits,) = [line for line in words.splitlines() if line.strip().startswith("command 2 (prioritise 3 cat)")]
    (taken,) = [line for line in words.splitlines() if line.strip().startswith("command 1 (stop)")]
    assert "nobody yet" in waits and "pending" in waits and caller() in waits
    assert str(driver) in taken and "obeyed: " in taken
    _, told = said(monkeypatch, capsys, "status", root.url, "--endpoint-url", server.endpoint, "--json")
    assert [one["outcome"] for one in json.loads(told)["commands"]] == ["obeyed", None]
