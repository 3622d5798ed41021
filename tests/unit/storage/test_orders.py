"""What is refused before a command is written, and what comes along with one."""

import pytest

from flowcache.errors import InputError, NoRun, ObjectError
from flowcache.storage import layout
from flowcache.storage.control import LAST, Taken, acknowledge, read_log
from flowcache.storage.objects.store import Store
from flowcache.storage.orders import became, manifest_of, order
from flowcache.storage.ownership import take
from flowcache.storage.runs import begin_run
from tests.unit.storage.samples import Studio, request


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "out"))
    begin_run(store, Studio(store, (request("cat", 2), request("dog", 1))).record())
    return store


def test_where_nothing_was_rendered_there_is_nobody_to_tell(tmp_path):
    with pytest.raises(NoRun, match="holds no run") as error:
        order(Store(str(tmp_path)), "pause")
    assert error.value.exit_code == 2 and not list(tmp_path.iterdir())


def test_unknown_ids_are_named_with_those_that_are_alike(store):
    with pytest.raises(InputError) as error:
        order(store, "cancel", ["cat", "cta", *(f"x{number}" for number in range(9))])
    lines = str(error.value).splitlines()
    assert "'cta' names no video of run" in lines[0] and "did you mean 'cat'?" in lines[0] and len(lines) == 6
    assert lines[-1].endswith("5 more name no video of it either") and not store.list(layout.CONTROL)


def test_a_finished_run_takes_none(store):
    store.put(layout.SUCCESS, b"{}")
    with pytest.raises(InputError, match="holds a finished run .*: all its 2 videos are done"):
        order(store, "pause")


def test_stop_needs_somebody_who_is_there(store):
    run = begin_run(store, Studio(store, (request("cat", 2), request("dog", 1))).record())
    with take(store, run, "render") as hold:
        assert order(store, "stop").number == 1
    with pytest.raises(InputError, match="has no driver at work: the driver on .* has ended"):
        order(store, "stop")
    assert order(store, "pause").number == 2 and became(store, order(store, "resume"), 60) is None  # not waited for
    acknowledge(store, Taken(1, hold.name, "it", 1.0, "obeyed", "yes"))
    assert became(store, read_log(store).commands[0], 0).message == "yes"


@pytest.mark.parametrize("name", ["~nobody-of-that-name/x.jsonl", "a\0b"])
def test_a_name_that_is_no_file_is_said_to_be(store, name):
    with pytest.raises(InputError, match="add: manifest: .* can't be read"):
        order(store, "add", manifest=name)
    assert not store.list(layout.CONTROL)


def test_no_command_is_written_where_no_driver_would_see_it(store):
    store.put(f"{layout.CONTROL}/{LAST}.json", b"{}")
    with pytest.raises(ObjectError, match=f"{LAST}.json leaves no number to another command"):
        order(store, "pause")
    assert len(store.list(layout.CONTROL)) == 1


def test_a_manifest_is_sent_along_and_a_url_is_not(store, tmp_path):
    more = tmp_path / "more.jsonl"
    more.write_text('{"prompt": "p"}\n')
    command = order(store, "add", manifest=str(more))
    assert command.name == str(more)
    more.unlink()
    with manifest_of(store, command) as place:
        assert place.endswith(".jsonl") and open(place).read() == '{"prompt": "p"}\n'
    with manifest_of(store, order(store, "add", manifest="s3://bucket/more.csv")) as place:
        assert place == "s3://bucket/more.csv"


@pytest.mark.parametrize(
    ("manifest", "why"),
    [("none.csv", "can't be read"), ("https://host/x?sig=abc", "holds credentials"), ("empty.csv", "is empty")],
)
def test_manifests_that_can_not_be_sent(store, tmp_path, monkeypatch, manifest, why):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError, match=why) as error:
        order(store, "add", manifest=manifest)
    assert "abc" not in str(error.value) and not read_log(store).commands
