"""Commands that are told to end: no traceback, a sensible code, nothing by halves."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flowcache.storage.objects.store import Store
from tests.unit.storage.samples import Studio, request

INT, TERM, HUP, QUIT = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT
WAITS = {  # for a store that takes connections and says nothing
    "status": ["status", "s3://bucket/night"],
    "follow": ["status", "s3://bucket/night", "--follow"],
    "verify": ["verify", "s3://bucket/night"],
    "export": ["export", "s3://bucket/night", "--to", "films"],
    "plan": ["plan", "s3://bucket/rows.jsonl"],
    "render": ["render", "rows.jsonl", "--output", "s3://bucket/night"],
}

READERS = [["status"], ["export", "--to", "films"]] + [
    pytest.param(words, marks=pytest.mark.slow) for words in (["status", "--follow"], ["verify"], ["links"])
]


def heeding() -> None:
    """A test run by nohup, or behind an &, hands down that these are ignored."""
    for number in (INT, HUP, QUIT):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def at_work(tmp_path):
    """at_work(words) -> the process, once it waits for the store."""
    (tmp_path / "rows.jsonl").write_text('{"id": "cat", "prompt": "a red circle"}\n')
    begun = list[subprocess.Popen]()
    with socket.create_server(("127.0.0.1", 0)) as store:
        store.settimeout(120)
        endpoint = f"http://127.0.0.1:{store.getsockname()[1]}"
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "word", "AWS_EC2_METADATA_DISABLED": "true"}
        environment = os.environ | keys | {"PYTHONPATH": str(Path.cwd())}

        def begin(words: list[str]) -> subprocess.Popen:
            line = [sys.executable, "-m", "flowcache.cli", *words, "--endpoint-url", endpoint]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            place = {"cwd": tmp_path, "env": environment, "start_new_session": True, "preexec_fn": heeding}
            begun.append(subprocess.Popen(line, **place, **pipes))
            held.append(store.accept()[0])
            return begun[-1]

        held = list[socket.socket]()
        yield begin
        for process in begun:
            process.kill()
            process.communicate()
        for connection in held:
            connection.close()


@pytest.mark.parametrize(
    "numbers", [[INT], [INT, INT], [TERM], [HUP], [QUIT]], ids=lambda numbers: "-".join(one.name for one in numbers)
)
@pytest.mark.parametrize("name", ["status", "render", *(pytest.param(name, marks=pytest.mark.slow) for name in
                                  ("plan", "follow", "verify", "export"))])  # fmt: skip
def test_a_command_that_waits_ends_without_a_traceback(at_work, tmp_path, name, numbers):
    process = at_work(WAITS[name])
    for number in numbers:
        process.send_signal(number)
    out, said = process.communicate(timeout=60)
    assert "Traceback" not in said and "KeyboardInterrupt" not in said and not out, said
    by_itself = {130} | ({1} if name == "render" else set())
    assert process.returncode in ((by_itself | {-INT}) if INT in numbers else {-numbers[0]})
    if process.returncode == 1:
        assert said == "error: stopped; what is committed stays, and the same command goes on from there\n"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_ctrl_c_among_the_imports_is_quiet():
    """Whatever is imported when it comes."""
    code = """
import signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "flowcache.cli.bench":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
from flowcache.cli.__main__ import main
main()
"""
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, preexec_fn=heeding)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = Store(str(tmp_path_factory.mktemp("run") / "out"))
    Studio(made, tuple(request(f"v{number}", 1) for number in range(6))).run()
    return made.url


@pytest.mark.parametrize("words", READERS, ids=" ".join)
def test_a_reader_that_leaves_ends_a_command_quietly(root, tmp_path, words):
    """As head does; what export has written is whole, and the same command goes on."""
    line = [sys.executable, "-m", "flowcache.cli", words[0], root, *words[1:]]
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        line, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment, timeout=120
    )
    os.close(writing)
    assert done.returncode in (0, 1, 2) and "Traceback" not in done.stderr, done.stderr
    if words[0] == "export":
        again = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
        assert again.returncode == 0, again.stderr
        assert len(list((tmp_path / "films").glob("*.mp4"))) == 6
