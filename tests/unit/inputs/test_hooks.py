"""A run's own functions are bad input, by name, where they can't be had."""

import sys

import pytest

from flowcache.errors import InputError
from flowcache.inputs.hooks import FINISH, WATERMARK, function
from flowcache.inputs.options import RunOptions


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with modules of a user, which is the current one."""
    (tmp_path / "mine.py").write_text("number = 3\ndef mark(frames, where):\n    return frames\n")
    (tmp_path / "broken_mine.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("mine", "broken_mine"):
        sys.modules.pop(name, None)


def test_a_function_of_the_current_folder_is_found(here):
    assert function(WATERMARK, "mine:mark")(7, None) == 7
    assert not RunOptions(watermark="mine:mark", watermark_payload="ours", finish="mine:mark").faults()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing_like_it:mark", "module can't be imported .*No module named 'nothing_like_it'"),
        ("broken_mine:mark", "module can't be imported .*RuntimeError: no licence"),
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
