"""`flowcache stop` tells drivers, nobody else, and waits for them."""

import os
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from flowcache.cli import stop as module
from flowcache.cli.main import app

DRIVER = """
import os, signal, sys, time
def told(*_):
    time.sleep(0.5)
    os._exit(5)
signal.signal(signal.SIGTERM, told)
if os.fork() == 0:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(99))
    time.sleep(60)
    os._exit(0)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def start(tmp_path):
    """start(program's name, *arguments): a process that forks, and takes half a second to end."""
    started = []

    def run(name, *arguments):
        program = tmp_path / name
        program.write_text(DRIVER)
        process = subprocess.Popen([sys.executable, str(program), *arguments], stdout=subprocess.PIPE)
        assert process.stdout and process.stdout.readline() == b"ready\n"
        started.append(process)
        return process

    yield run
    for process in started:
        subprocess.run(["pkill", "-9", "-P", str(process.pid)], check=False)
        process.kill()
        process.wait()


@pytest.fixture
def only(monkeypatch):
    """Of this machine's processes those of this test: others may be at work."""

    def these(*processes):
        wanted, renders = {process.pid for process in processes}, module.renders
        entries = [module.PROCESSES / name for name in os.listdir(module.PROCESSES) if name.isdecimal()]
        children = {int(entry.name) for entry in entries if module.parent(entry) in wanted}
        monkeypatch.setattr(module, "renders", lambda entry: int(entry.name) in wanted | children and renders(entry))

    return these


def test_drivers_are_told_and_waited_for(start, only):
    driver, other = start("flowcache", "render", "--job", "night.yaml"), start("flowcache", "status", "render")
    only(driver, other)
    assert module.drivers() == [driver.pid]  # neither the child that it forked nor the other command
    begin = time.monotonic()
    done = CliRunner().invoke(app, ["stop"])
    assert done.exit_code == 0 and "1 stopped" in done.output and time.monotonic() - begin >= 0.5
    assert driver.wait(10) == 5 and other.poll() is None


def test_the_shell_that_runs_a_driver_is_none(start, only):
    shell = subprocess.Popen(["sh", "-c", "sleep 60; flowcache render x"])
    try:
        only(shell)
        assert module.drivers() == []
        done = CliRunner().invoke(app, ["stop", "--linger", "60"])
        assert done.exit_code == 0 and "nothing runs here" in done.output  # and nobody lingers
    finally:
        shell.kill()
        shell.wait()


def test_what_has_another_network_is_another_pods(start, only, monkeypatch):
    driver = start("flowcache", "render")
    only(driver)
    network = module.network
    monkeypatch.setattr(module, "network", lambda entry: "net:[1]" if entry.name == "self" else network(entry))
    assert module.drivers() == []


def test_without_proc_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "PROCESSES", tmp_path / "proc")
    done = CliRunner().invoke(app, ["stop"])
    assert done.exit_code and "needs Linux" in str(done.exception)
