"""A run's own functions are bad input, by name, where they can't be had."""

import signal
import sys
from asyncio import CancelledError
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flowcache.errors import InputError
from flowcache.inputs.hooks import FINISH, WATERMARK, Exited, function, lent
from flowcache.inputs.options import RunOptions

MUTE = "class Mute(Exception):\n    def __str__(self):\n        raise ValueError\nraise Mute\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with modules of a user, which is the current one."""
    (tmp_path / "mine.py").write_text("number = 3\ndef mark(frames, where):\n    return frames\n")
    (tmp_path / "ends_mine.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "stops_mine.py").write_text("raise KeyboardInterrupt('no')\n")
    (tmp_path / "mute_mine.py").write_text(MUTE)
    (tmp_path / "loud_mine.py").write_text(
        "import os\nprint('loud')\nos.chdir('/')\ndef mark(frames, where):\n    pass\n"
    )
    (tmp_path / "later_mine.py").write_text("async def waits(video):\n    pass\ndef yields(video):\n    yield\n")
    (tmp_path / "broken_mine.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("mine", "broken_mine", "ends_mine", "stops_mine", "mute_mine", "loud_mine", "later_mine"):
        sys.modules.pop(name, None)


def test_a_function_of_the_current_folder_is_found(here):
    assert function(WATERMARK, "mine:mark")(7, None) == 7
    assert not RunOptions(watermark="mine:mark", watermark_payload="ours", finish="mine:mark").faults()


def test_a_module_neither_prints_among_our_output_nor_leaves_its_folder(here, capsys):
    assert function(FINISH, "loud_mine:mark") and Path.cwd() == here
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "loud\n")


def test_a_folder_that_was_removed_is_searched_by_nobody(here, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert function(FINISH, "os:listdir")


def test_ray_may_still_end_the_process(here):
    end = SystemExit(1)
    end.ray_terminate_msg = "The process receives a SIGTERM."
    with pytest.raises(SystemExit), lent():
        raise end


class Own(BaseException):
    pass


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit, SystemExit, CancelledError, Own])
def test_what_is_raised_to_end_a_process_is_a_failure_in_every_thread(kind):
    def call() -> type[BaseException]:
        try:
            with lent():
                raise kind("so")
        except BaseException as error:  # noqa: BLE001 (whatever comes out)
            assert kind.__name__ in str(error) or "sys.exit('so')" in str(error)
            return type(error)

    with ThreadPoolExecutor(1) as pool:
        assert call() is pool.submit(call).result() is Exited


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_it_is_meant_to_and_handlers_stay(number):
    def handler(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(number, handler)
    try:
        with pytest.raises(KeyboardInterrupt), lent(), lent():
            signal.raise_signal(number)
        assert signal.getsignal(number) is handler
        with pytest.raises(Exited), lent():
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_IGN)
        with lent():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing_like_it:mark", "module can't be imported .*No module named 'nothing_like_it'"),
        ("broken_mine:mark", "module can't be imported .*RuntimeError: no licence"),
        ("ends_mine:mark", "module can't be imported .*it called sys.exit\\(0\\)"),
        ("stops_mine:mark", "module can't be imported .*it raised KeyboardInterrupt \\(no\\)"),
        ("mute_mine:mark", "module can't be imported .*Mute: Mute"),
        ("later_mine:waits", "asynchronous or a generator: called, it would do nothing"),
        ("later_mine:yields", "asynchronous or a generator: called, it would do nothing"),
        ("mine:other", "mine has no function other"),
        ("mine:number", "mine has no function number"),
        ("mine", "got 'mine'; accepted: module:function"),
        ("mine.py:mark:x", "accepted: module:function"),
        ("../mine:mark", "accepted: module:function"),
    ],
)
@pytest.mark.parametrize("option", [WATERMARK, FINISH])
def test_what_can_not_be_called_is_named(here, option, name, said):
    with pytest.raises(InputError, match=said) as caught:
        function(option, name)
    (problem,) = caught.value.problems
    assert problem.file == option
    options = RunOptions(watermark=name) if option == WATERMARK else RunOptions(finish=name)
    assert options.faults() == [problem]


def test_an_adapter_needs_its_package_and_a_payload_needs_a_mark(here, monkeypatch):
    (fault,) = RunOptions(watermark="trustmark").faults()
    assert "whose package trustmark is not installed" in fault.message
    (here / "trustmark.py").write_text("raise ImportError('the driver need not have what it imports')")
    monkeypatch.syspath_prepend(str(here))
    assert not RunOptions(watermark="trustmark").faults()
    (fault,) = RunOptions(watermark_payload="ours").faults()
    assert (fault.file, "without --watermark" in fault.message) == ("--watermark-payload", True)
