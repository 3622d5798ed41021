"""Child processes under limits: each way to reach one is told, and the next question is answered as before."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from flowcache.errors import UnreadableError
from flowcache.inputs.children import Children, Limits

LIMITS = Limits(memory=400 << 20, cpu=1, wall=100)


def pid() -> Iterator[bytes]:
    yield str(os.getpid()).encode()


def takes(size: int) -> Iterator[bytes]:
    yield str(len(bytearray(size))).encode()


def spins(seconds: float) -> Iterator[bytes]:
    while time.process_time() < seconds:
        pass
    yield b""


def sleeps(seconds: float) -> Iterator[bytes]:
    time.sleep(seconds)
    yield b""


def dies(number: int) -> Iterator[bytes]:
    yield b"first"
    os.kill(os.getpid(), number)


def leaves(code: int) -> Iterator[bytes]:
    os._exit(code)
    yield b""


def fails(error: Exception) -> Iterator[bytes]:
    raise error
    yield b""


def counts(number: int) -> Iterator[bytes]:
    yield from (str(each).encode() for each in range(number))


@pytest.fixture(scope="module")
def one():
    with Children(1) as children:
        yield children


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ((takes, 1 << 30), "needs more than 400 MiB of memory to be read"),
        ((spins, 60.0), "takes more than 1 s of CPU to be read"),
        ((sleeps, 60.0), "takes longer than 2 s to be read"),
        ((dies, signal.SIGSEGV), r"crashes the process that reads it \(SIGSEGV\)"),
        ((dies, signal.SIGABRT), r"crashes the process that reads it \(SIGABRT\)"),
        ((dies, signal.SIGKILL), "was being read when the process that did so was killed"),
        ((leaves, 3), r"crashes the process that reads it \(exit code 3\)"),
        ((fails, UnreadableError("is no such thing")), "is no such thing"),
        ((fails, MemoryError()), "needs more than 400 MiB"),
        ((fails, OSError(28, "No space left on device")), r"cannot be read \(no space left on device\)"),
    ],
)
def test_limits_and_deaths_are_told_and_the_next_question_is_answered(one, question, says):
    with pytest.raises(UnreadableError, match=says) as caught:
        list(one.ask(question[0], replace(LIMITS, wall=2) if question[0] is sleeps else LIMITS, *question[1:]))
    assert caught.value.slow == (question[0] is sleeps)
    assert list(one.ask(counts, LIMITS, 2)) == [b"0", b"1"]


def test_a_fault_of_ours_is_raised_with_its_traceback(one):
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*ZeroDivisionError: of ours"):
        list(one.ask(fails, LIMITS, ZeroDivisionError("of ours")))


def test_a_process_is_used_again(one):
    assert len({b"".join(one.ask(pid, LIMITS)) for _ in range(5)}) == 1


def test_limits_hold_for_each_answer_anew_and_not_while_nobody_asks(one):
    answers = one.ask(counts, Limits(400 << 20, cpu=1, wall=1), 3)
    for expected in (b"0", b"1", b"2"):
        assert next(answers) == expected
        time.sleep(0.6)
    assert next(answers, None) is None


def test_who_leaves_before_the_end_disturbs_nobody(one):
    answers = one.ask(counts, LIMITS, 1_000_000)
    assert next(answers) == b"0"
    answers.close()
    assert list(one.ask(counts, LIMITS, 1)) == [b"0"]


def test_no_more_processes_than_are_asked_for_and_none_is_left():
    with Children(3) as children:
        assert not children._all
        with ThreadPoolExecutor(6) as threads:
            found = set(threads.map(lambda _: b"".join(children.ask(pid, LIMITS)), range(30)))
        assert 1 <= len(found) <= 3
    for number in found:
        with pytest.raises(ProcessLookupError):
            os.kill(int(number), 0)


def test_a_module_in_the_current_folder_is_not_imported(tmp_path, monkeypatch):
    for name in ("pickle.py", "numpy.py", "flowcache.py", "signal.py"):
        (tmp_path / name).write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    with Children(1) as children:
        assert list(children.ask(counts, LIMITS, 1)) == [b"0"]
