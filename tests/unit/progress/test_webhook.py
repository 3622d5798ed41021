"""A web server is told of a run: signed, tried again, and never at the run's expense."""

import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from flowcache.api import preview, render, start
from flowcache.cli.main import app
from flowcache.errors import InputError
from flowcache.progress import webhook as module
from flowcache.progress.events import RunBegan, RunOver, SegmentCommitted, VideoBegan, VideoDead, VideoDone
from flowcache.progress.webhook import SECRET, checked, webhook

KEY = {SECRET: "whsec_" + base64.b64encode(b"k" * 24).decode()}


class Server(ThreadingHTTPServer):
    """Answers with `answers` in turn, the last one again: a status, or a function that is called."""

    daemon_threads = True

    def __init__(self, *answers):
        self.answers, self.got, self.tries = list(answers), [], 0
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/hook?token=abc"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tries += 1
        answer = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        if callable(answer):
            answer = answer()
        if answer == 200:
            self.server.got.append((dict(self.headers), body))
        self.send_response(answer)
        if answer == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *said):
        pass


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(module, "PAUSES", (0.01, 0.01, 0.01))
    started = []

    def start(*answers):
        started.append(Server(*answers))
        return started[-1]

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


EVENTS = (
    RunBegan("0123456789abcdef", ()),
    SegmentCommitted("cat", 0, 5),
    VideoDone("cat"),
    VideoDone("old", new=False),
    VideoDead("dog", "s3://key:secret@host/x is gone"),
    RunOver(3, ""),
)


def told(url: str, events=EVENTS) -> list[str]:
    lost = []
    with webhook(url, KEY, lost.append) as hooks:
        for event in events:
            hooks[0].on(event)
    return lost


def test_each_event_is_signed_as_the_standard_says(serve):
    server = serve(200)
    assert told(server.url) == []
    names = []
    for headers, body in server.got:
        found = {name.lower(): value for name, value in headers.items()}
        signed = f"{found['webhook-id']}.{found['webhook-timestamp']}.".encode() + body
        wanted = base64.b64encode(hmac.new(b"k" * 24, signed, hashlib.sha256).digest()).decode()
        assert found["webhook-signature"] == f"v1,{wanted}" and abs(time.time() - int(found["webhook-timestamp"])) < 600
        message = json.loads(body)
        assert message["run"] == "0123456789abcdef" and message["id"] == found["webhook-id"]
        names.append((message["event"], message.get("video")))
    assert names == [("run started", None), ("video done", "cat"), ("video dead", "dog"), ("run ended", None)]
    assert b"secret" not in b"".join(body for _, body in server.got)


def test_what_fails_is_tried_again_under_the_same_id(serve):
    server = serve(500, 429, 200)
    assert told(server.url, EVENTS[:1]) == [] and server.tries == 3 and len(server.got) == 1


@pytest.mark.parametrize("answer, tries", [(500, 4), (404, 1), (302, 1)])
def test_what_stays_refused_is_counted_and_said_once_without_the_path(serve, answer, tries):
    server = serve(answer)
    (lost,) = told(server.url, EVENTS[:1])
    assert "1 of 1 events were not delivered" in lost and str(answer) in lost and server.tries == tries
    assert "hook" not in lost.removeprefix("webhook") and "abc" not in lost


def test_a_server_that_is_silent_delays_nothing(serve, monkeypatch):
    monkeypatch.setattr(module, "ROOM", 3)
    monkeypatch.setattr(module, "LINGER", 0.2)
    hold = threading.Event()
    server = serve(lambda: 200 if hold.wait(60) else 500)
    lost = []
    with webhook(server.url, KEY, lost.append) as hooks:
        for number in range(50):
            hooks[0].on(VideoDone(str(number)))  # of these the first one is under way for ever
    hold.set()
    assert lost and lost[0].startswith("webhook at 127.0.0.1: 50 of 50 events were not delivered"), lost


@pytest.mark.parametrize("url", ["ftp://host/x", "http://", "http://user:word@host/x", "http://host:0/", "host/x", ""])
def test_addresses_that_are_none_are_refused(url):
    with pytest.raises(InputError, match="accepted: http://host/path") as error:
        checked(url, KEY)
    assert "word" not in str(error.value)


def test_there_must_be_a_secret_that_can_be_read():
    assert checked("https://host/x", {SECRET: "plain"}) == b"plain"
    for environment, why in (({}, "needs a secret"), ({SECRET: "whsec_?"}, "no base64")):
        with pytest.raises(InputError, match=why):
            checked("https://host/x", environment)


def test_a_run_in_the_background_tells_it_too(tmp_path, monkeypatch):
    server = Server(200)
    monkeypatch.setenv(SECRET, KEY[SECRET])

    def renders(store, record, requests, specs, options, progress, *rest):
        progress.on(RunBegan(record.run_id, tuple(VideoBegan(one.id, 1, 1, 0, 0, dead=False) for one in requests)))
        for one in requests:
            progress.on(VideoDone(one.id))
        return "summary"

    monkeypatch.setattr("flowcache.api.run", renders)
    rows = [{"id": "cat", "prompt": "a red circle"}]
    run = start(rows, output=str(tmp_path / "out"), webhook=server.url)
    assert [video.video_id for video in run] == ["cat"] and run.wait() == "summary"
    told = [json.loads(body) for _, body in server.got]
    assert [one["video"] for one in told if "video" in one] == ["cat"]


@pytest.mark.parametrize("call", [preview, render, start])
def test_a_dry_run_refuses_what_a_start_does(tmp_path, monkeypatch, call):
    rows = [{"id": "cat", "prompt": "a red circle"}]
    monkeypatch.setenv(SECRET, KEY[SECRET])
    for url in ("host", "https://host:0/x", "https://key:word@host/x", "ftp://host/x"):
        with pytest.raises(InputError, match="^webhook: "):
            call(rows, output=str(tmp_path / "out"), webhook=url)
    monkeypatch.delenv(SECRET)
    with pytest.raises(InputError, match=f"webhook: needs a secret.*{SECRET}"):
        call(rows, output=str(tmp_path / "out"), webhook="https://host/x")
    assert not (tmp_path / "out").exists()


def test_render_with_dry_run_says_it_too(tmp_path, monkeypatch):
    monkeypatch.delenv(SECRET, raising=False)
    (tmp_path / "m.jsonl").write_text('{"id": "cat", "prompt": "a red circle"}\n')
    command = ["render", str(tmp_path / "m.jsonl"), "--output", str(tmp_path / "out"), "--webhook", "https://host/x"]
    done = CliRunner().invoke(app, [*command, "--dry-run"])
    assert isinstance(done.exception, InputError) and SECRET in str(done.exception)
    monkeypatch.setenv(SECRET, KEY[SECRET])
    assert CliRunner().invoke(app, [*command, "--dry-run"]).exit_code == 0
