"""Formats are told apart by structure, and a wrong file is told what it is."""

import os
import re
import signal
import socket
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from flowcache.errors import InputError
from flowcache.families.registry import find, folder_digest
from flowcache.models.formats import HEAD, HEADER_LIMIT, Kind, recognise
from flowcache.models.tensors import in_folder, in_pth, in_safetensors, read
from tests.weights_files import BAD, LORA, SOUND, STATE, saved, with_header

SHORTEST = len(with_header(0)) - 16
GOOD = {"model.safetensors": SOUND, "zip.pth": saved(STATE), "legacy.pth": saved(STATE, new=False)}


def look(file: Path) -> list:
    return in_safetensors(file) if file.suffix == ".safetensors" else in_pth(file)


def told(file: Path, content: bytes) -> str:
    file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        look(file)
    (problem,) = caught.value.problems
    assert problem.file == str(file)
    return problem.message


@pytest.fixture
def impatient():
    """What takes 5 seconds has stopped for good."""

    def stop(*_):
        raise AssertionError("it waits, or reads without end")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", GOOD)
def test_good_files_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(GOOD[name])
    found = {entry.name: tensor for entry, tensor in read(look(tmp_path / name), "cpu")}
    assert found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


@given(st.integers(SHORTEST, 1200))
@example(128)
@example(128 + 256)
@example(HEAD)
@example(0x80 + 0x0200)  # begins as a pickle of protocol 2 does
@settings(deadline=None)
def test_headers_of_every_length_are_read(tmp_path_factory, length):
    file = tmp_path_factory.mktemp("lengths") / "model.safetensors"
    file.write_bytes(with_header(length))
    assert [(entry.name, entry.shape) for entry in in_safetensors(file)] == [("a", (2,))]


@given(st.integers(2, HEADER_LIMIT))
@example(int.from_bytes(b"PK\3\4", "little"))  # begins as a zip archive does
def test_a_header_is_one_whatever_its_length_spells(length):
    head = length.to_bytes(8, "little") + b'{"a":'
    assert recognise(head, 8 + length) is Kind.SAFETENSORS
    assert recognise(head, 7 + length) is Kind.CUT


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.title)
def test_bad_files_are_told_what_they_are(tmp_path, bad):
    message = told(tmp_path / bad.file, bad.content)
    assert re.search(bad.says, message)
    assert "weights_only" not in message and message.isprintable() and len(message) < 200


@pytest.mark.parametrize("name", GOOD)
def test_a_file_cut_anywhere_is_never_called_code(tmp_path, name):
    """Up to 32 bytes a file may be too short to be known."""
    for size in range(0, len(GOOD[name]), 1 if len(GOOD[name]) < 1000 else 13):
        message = told(tmp_path / name, GOOD[name][:size])
        assert "cut short" in message or size < 32
        assert "more than tensors" not in message


@pytest.mark.parametrize("name", GOOD)
@given(data=st.data())
@settings(deadline=None, max_examples=200)
def test_damage_anywhere_is_an_input_error_if_any(tmp_path_factory, name, data):
    content = bytearray(GOOD[name])
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("damage") / name
    file.write_bytes(content)
    try:
        look(file)
    except InputError as error:
        assert [problem.file for problem in error.problems] == [str(file)]


def test_an_adapter_within_a_model_is_left_to_the_model(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(save(STATE | {"c": torch.ones(1), **LORA}))
    assert len(in_safetensors(tmp_path / "model.safetensors")) == 5


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"])
def test_an_index_that_is_none_is_told_what_it_is(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(InputError, match="index.json: is (empty|a Git LFS pointer)"):
        in_folder(tmp_path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as place:
        place.bind(str(path))


ODD = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a socket": make_socket,
}


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("name", ["model.safetensors", "vae.pth"])
def test_only_regular_files_are_opened(tmp_path, monkeypatch, impatient, what, name):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    ODD[what](Path(name))
    with pytest.raises(InputError, match=f"{name}: is {what}; accepted: a regular file"):
        look(Path(name))
    if what != "a folder":
        with pytest.raises(InputError, match=f"{name}: is {what}"):
            folder_digest(tmp_path)
    if name == "model.safetensors":
        with pytest.raises(InputError, match=f"{name}: is {what}"):
            in_folder(Path())


def test_a_folder_is_known_without_the_folders_that_are_named_as_files(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(SOUND)
    before = folder_digest(tmp_path)
    (tmp_path / "old.bin").mkdir()
    folder_digest.cache_clear()
    assert folder_digest(tmp_path) == before


def test_a_link_to_nothing_is_missing(tmp_path):
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blob")
    for look_at in (in_folder, folder_digest):
        with pytest.raises(InputError, match="model.safetensors: is missing"):
            look_at(tmp_path)


def test_links_to_files_are_followed(tmp_path):
    """As in a download cache of Hugging Face."""
    (tmp_path / "blob").write_bytes(SOUND)
    (tmp_path / "model.safetensors").symlink_to("blob")
    assert len(in_folder(tmp_path)) == 2


def test_a_single_file_given_as_the_model_is_called_that(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(SOUND)
    with pytest.raises(InputError, match="model.safetensors' is no model but a single file: give "):
        find(str(tmp_path / "model.safetensors"))


def test_an_index_that_is_nested_deep_is_refused(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map":' + "[" * 5000 + "]" * 5000 + "}")
    with pytest.raises(InputError, match="is no index of shards: maximum recursion depth"):
        in_folder(tmp_path)
