"""Local folders: whole files or none, whatever breaks in between."""

import errno
import os
import socket as socketlib
import stat
from pathlib import Path

import pytest

from flowcache.errors import StoreError
from flowcache.storage.objects import local
from flowcache.storage.objects import store as objects
from flowcache.storage.objects.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "out"))


def names(store) -> list[str]:
    return sorted(name for _, _, files in os.walk(store.url) for name in files)


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("write", ["put", "create"])
@pytest.mark.parametrize("step", ["write_durably", "replace_or_link"])
def test_a_failed_write_leaves_nothing(store, monkeypatch, write, step):
    if step == "write_durably":
        monkeypatch.setattr(local, "write_durably", full_disk)
    else:
        monkeypatch.setattr(local.os, "replace" if write == "put" else "link", full_disk)
    with pytest.raises(StoreError, match=r"out/a/k: No space left on device; make room there"):
        getattr(store, write)("a/k", b"data")
    assert names(store) == []


@pytest.mark.parametrize("write", ["put", "create"])
def test_a_killed_write_is_invisible(store, monkeypatch, write):
    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    for step in ("write_durably", "sync_folder"):
        monkeypatch.setattr(local, step, kill)
        with pytest.raises(Killed):
            getattr(store, write)(f"a/{step}", b"data")
        monkeypatch.undo()
    visible = [entry.key for entry in store.list()]
    assert visible == ["a/sync_folder"] and store.get("a/sync_folder") == b"data"
    assert all(name.startswith(".") for name in names(store) if name != "sync_folder")


def test_without_hard_links_creates_are_exclusive_too(store, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(local.os, "link", unsupported)
    store.probe()
    assert store.create("k", b"mine")
    assert not store.create("k", b"theirs")
    assert names(store) == ["k"] and store.get("k") == b"mine"


def test_an_overwrite_never_shows_a_mixture(store):
    """A reader that opened the old object goes on reading the old one."""
    store.put("k", b"old" * 1000)
    with open(store.uri("k"), "rb") as reader:
        store.put("k", b"new")
        assert reader.read() == b"old" * 1000
    assert store.get("k") == b"new"


def test_links_that_lead_nowhere_and_folders_that_are_not_for_us_hide_nothing(store, tmp_path):
    store.put("a/k", b"data")
    (tmp_path / "out/a/loop").symlink_to("loop")
    (tmp_path / "out/dangling").symlink_to("nowhere")
    (tmp_path / "out/through").symlink_to("a/k/below")
    for folder in ("lost+found", ".Trash-0", "a/.snapshot"):
        (tmp_path / "out" / folder).mkdir()
        (tmp_path / "out" / folder / "k").write_text("not ours")
    assert [entry.key for entry in store.list()] == [entry.key for entry in store.list("a")] == ["a/k"]
    assert store.leftovers(2e9) == []


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for url in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(StoreError, match=r"/file is a file, and a folder is needed$"):
            Store(str(url)).probe()


def test_a_folder_that_cannot_be_made_is_named():
    with pytest.raises(StoreError, match=r"^cannot write to /proc/flowcache/out: "):
        Store("/proc/flowcache/out").probe()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_named(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(StoreError, match="Permission denied"):
        Store(str(tmp_path)).probe()


def test_the_probe_leaves_nothing_visible(store):
    store.probe()
    assert names(store) == []


def test_passing_faults_of_network_mounts_are_tried_again(store, monkeypatch):
    monkeypatch.setattr("flowcache.storage.objects.store.time.sleep", lambda seconds: None)
    faults = [OSError(errno.ESTALE, "Stale file handle"), OSError(errno.EIO, "Input/output error")]
    real = local.write_durably

    def flaky(file, data):
        if faults:
            raise faults.pop()
        real(file, data)

    monkeypatch.setattr(local, "write_durably", flaky)
    store.put("k", b"v")
    assert store.get("k") == b"v" and names(store) == ["k"]


def test_a_full_disk_is_its_machines_fault(store, monkeypatch):
    def full(file, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(local, "write_durably", full)
    with pytest.raises(StoreError, match="No space left") as caught:
        store.put("k", b"v")
    assert caught.value.of_machine and not caught.value.passing


def fifo(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def socket(path):
    with socketlib.socket(socketlib.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize("made", [fifo, device, socket, os.mkdir])
def test_what_is_no_file_is_not_there_and_is_told_where_it_is_in_the_way(store, tmp_path, monkeypatch, made):
    monkeypatch.setattr(objects, "REFUSED_PAUSES", ())
    store.put("a/other", b"data")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    made(Path("out/a/k"))
    assert [entry.key for entry in store.list()] == ["a/other"]
    assert store.find("a/k") is None and not store.exists("a/k")
    with pytest.raises(StoreError, match="something that is no file is in its place; remove it"):
        store.create("a/k", b"data")
