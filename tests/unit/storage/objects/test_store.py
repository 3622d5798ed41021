"""The store's own logic: retries, read-backs, names, and refusals, on a backend that fails as told."""

import os
import pickle
import subprocess
import sys
from itertools import count

import pytest

from flowcache.errors import InputError, StoreError, masked
from flowcache.storage.objects import store as objects
from flowcache.storage.objects.backend import Entry
from flowcache.storage.objects.registry import normalise
from flowcache.storage.objects.store import REFUSED_PAUSES, RETRY_PAUSES, MissingObject, Store


class Scripted:
    """An in-memory backend whose operations first raise the faults in `script`, one a call.

    ("lost", fault) writes and then raises, as a server whose answer is lost; ("raced", bytes) lets another
    writer come first.
    """

    def __init__(self, *script):
        self.held: dict[str, bytes] = {}
        self.script = list(script)
        self.calls: list[str] = []

    def check(self):
        return None

    def _play(self, name, key=None, data=None):
        self.calls.append(name)
        step = self.script.pop(0) if self.script else None
        if isinstance(step, tuple) and step[0] == "lost":
            self.held[key] = data
            raise step[1]
        if isinstance(step, tuple):
            self.held[key] = step[1]
        elif step is not None:
            raise step

    def put(self, key, data):
        self._play("put", key, data)
        self.held[key] = data

    def create(self, key, data):
        self._play("create", key, data)
        if key in self.held:
            raise FileExistsError(key)
        self.held[key] = data

    def get(self, key):
        self._play("get")
        if key not in self.held:
            raise FileNotFoundError(key)
        return self.held[key]

    def size(self, key):
        self._play("size")
        return len(self.held[key]) if key in self.held else None

    def list(self, prefix):
        self._play("list")
        return (Entry(key, len(data)) for key, data in self.held.items() if key.startswith(f"{prefix}/"))

    def delete(self, key):
        self._play("delete")
        self.held.pop(key, None)

    def passing(self, fault):
        return isinstance(fault, TimeoutError)

    def of_machine(self, fault):
        return isinstance(fault, PermissionError)

    def explain(self, fault):
        return str(fault)


@pytest.fixture
def scripted(monkeypatch):
    slept = []
    monkeypatch.setattr(objects.time, "sleep", slept.append)

    def make(*script):
        store = Store("s3://bucket/root", key="user", secret="secret")
        store._backend, store._process = Scripted(*script), os.getpid()
        return store, store._backend, slept

    return make


BUSY, FULL = TimeoutError("busy"), PermissionError("not yours")


def test_what_two_pages_of_a_listing_share_is_listed_once(monkeypatch):
    store = Store("memory://pages")
    store.put("a/k", b"data")
    listed = store.backend.list
    monkeypatch.setattr(store.backend, "list", lambda prefix: [*listed(prefix), *listed(prefix)])
    assert [entry.key for entry in store.list()] == ["a/k"]


def test_ctrl_c_in_a_probe_waits_for_nothing_more(scripted):
    store, backend, slept = scripted(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        store.probe()
    assert backend.calls == ["put"] and not slept


def test_a_store_that_never_answered_is_given_up_soon_and_one_that_did_later(scripted, monkeypatch):
    """Each try takes longer than one is waited for whose address may be wrong."""
    clock = count(0.0, objects.FIRST_LIMIT + 1)
    monkeypatch.setattr(objects.time, "monotonic", lambda: next(clock))
    store, backend, slept = scripted(BUSY, BUSY, None, BUSY, BUSY)
    with pytest.raises(StoreError, match="busy"):
        store.get("k")
    assert backend.calls == ["get"] and not slept
    backend.script.pop(0)
    assert store.find("k") is None  # an answer
    store.put("k", b"v")
    assert backend.calls == ["get"] * 2 + ["put"] * 3


def test_passing_faults_are_tried_again_with_growing_pauses(scripted):
    store, backend, slept = scripted(BUSY, BUSY, BUSY)
    store.put("k", b"v")
    assert backend.calls == ["put"] * 4 and backend.held == {"k": b"v"}
    assert slept == list(RETRY_PAUSES[:3]) == sorted(slept)


@pytest.mark.parametrize("call", ["get", "exists", "list", "delete", "put"])
def test_after_the_last_try_the_error_names_object_and_cause(scripted, call):
    store, backend, slept = scripted(*[BUSY] * 99)
    with pytest.raises(StoreError, match=r"s3://bucket/root/k: busy$") as caught:
        getattr(store, call)("k", *([b"v"] if call == "put" else []))
    assert len(backend.calls) == len(RETRY_PAUSES) + 1 and len(slept) == len(RETRY_PAUSES)
    assert caught.value.__cause__ is BUSY
    assert "secret" not in str(caught.value)


def test_lasting_faults_are_tried_again_once(scripted):
    store, backend, slept = scripted(FULL)
    store.put("k", b"v")
    assert backend.calls == ["put", "put"] and slept == list(REFUSED_PAUSES)


def test_of_lasting_faults_the_second_one_is_told(scripted):
    store, backend, slept = scripted(FULL, FULL)
    with pytest.raises(StoreError, match="cannot write s3://.*/k: not yours") as caught:
        store.put("k", b"v")
    assert backend.calls == ["put"] * 2 and slept == list(REFUSED_PAUSES)
    assert caught.value.of_machine and not caught.value.passing
    assert vars(pickle.loads(pickle.dumps(caught.value))) == vars(caught.value)  # it crosses Ray


def test_a_create_whose_answer_was_lost_is_won(scripted):
    store, backend, _ = scripted(("lost", BUSY))
    assert store.create("k", b"mine")
    assert backend.calls == ["create", "get"]


def test_a_create_that_came_second_is_lost_whatever_the_error(scripted):
    for error in (BUSY, FULL, OSError(22, "PreconditionFailed")):
        store, backend, _ = scripted(error)
        backend.held["k"] = b"theirs"
        assert not store.create("k", b"mine")
        assert backend.held["k"] == b"theirs"


def test_a_create_that_failed_with_nothing_there_is_tried_again(scripted):
    store, backend, _ = scripted(BUSY, None, ("lost", BUSY))
    assert store.create("k", b"mine")
    assert backend.calls == ["create", "get", "create", "get"]  # the second answer was lost as well: read back


def test_a_create_that_is_refused_with_nothing_there_is_an_error(scripted):
    store, _, _ = scripted(FULL, None, FULL)
    with pytest.raises(StoreError, match="cannot create .*/k: not yours"):
        store.create("k", b"mine")


def test_missing_objects_are_not_errors_of_the_store(scripted):
    store, backend, slept = scripted()
    with pytest.raises(MissingObject, match=r"^s3://bucket/root/k does not exist$"):
        store.get("k")
    assert store.find("k") is None and not store.exists("k") and not slept


def test_the_probe_says_when_exclusive_creates_are_ignored(scripted, monkeypatch):
    store, backend, _ = scripted()
    store.probe()
    assert backend.held == {}
    backend.create = backend.put
    with pytest.raises(StoreError, match="ignores exclusive creates"):
        store.probe()
    assert backend.held == {}


def test_the_probe_shows_the_first_error_and_not_that_of_its_clean_up(scripted):
    store, backend, _ = scripted(FULL, FULL, OSError("delete failed too"))
    with pytest.raises(StoreError, match=r"^cannot write to s3://bucket/root: not yours$"):
        store.probe()
    assert backend.calls == ["put", "put", "delete"]


def test_credentials_in_the_url_are_refused_and_show_nowhere():
    with pytest.raises(InputError, match=r"s3://\*\*\*@bucket/root' holds credentials; they belong in the environment"):
        Store("s3://user:secret@bucket/root")
    assert masked("no 'https://a:b@c/d' and gs://e:f@g") == "no 'https://***@c/d' and gs://***@g"
    assert masked("/home/a@b") == "/home/a@b"


def test_storage_options_show_nowhere_and_travel(tmp_path):
    store = Store("s3://bucket/x", key="id", secret="top")
    assert "top" not in repr(store)
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.url, copy.options, copy._backend) == (store.url, {"key": "id", "secret": "top"}, None)


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("/a/b/", "/a/b"),
        ("file:///a/b", "/a/b"),
        ("FILE:///a/B", "/a/B"),
        ("S3://bucket/P", "s3://bucket/P"),
        ("/a/./b/../c", "/a/c"),
        ("s3://bucket/p/", "s3://bucket/p"),
        ("s3://bucket", "s3://bucket"),
        ("memory://x", "memory://x"),
    ],
)
def test_urls_are_normalised(url, normal):
    assert normalise(url) == Store(url).url == normal


def test_relative_folders_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Store("out").url == f"{tmp_path}/out"
    assert Store("~/out").url.endswith("/out") and "~" not in Store("~/out").url


@pytest.mark.parametrize("key", ["../x", "a//b", "/etc/x", "a/./b", "a/", "", "a\\b", "a\nb", "a/.."])
def test_a_key_cannot_leave_the_root(scripted, key):
    store, backend, _ = scripted()
    for call in (store.get, store.exists, store.delete, lambda k: store.put(k, b"x"), lambda k: store.create(k, b"x")):
        with pytest.raises(StoreError, match="no valid object key"):
            call(key)
    assert backend.calls == []


def test_reading_a_store_loads_no_heavy_package(tmp_path):
    """`flowcache status` must answer at once."""
    script = (
        "import sys, flowcache.storage.status, flowcache.storage.commits\n"
        "from flowcache.storage.objects.store import Store; Store(sys.argv[1]).list()\n"
        "print([name for name in ('torch', 'ray', 'av', 'pyarrow', 'numpy', 'fsspec') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
