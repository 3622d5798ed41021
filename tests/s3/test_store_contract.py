"""What every kind of store must do alike."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from flowcache.errors import StoreError
from flowcache.storage.objects.store import Entry, MissingObject


def test_objects_come_back_and_go(store):
    store.probe()
    assert store.list() == []
    store.put("a/b", b"1")
    store.put("a/b", b"22")
    assert store.get("a/b") == b"22"
    assert store.exists("a/b") and not store.exists("a") and not store.exists("a/c")
    store.delete("a/b")
    store.delete("a/b")
    assert store.find("a/b") is None
    with pytest.raises(MissingObject, match="a/b does not exist"):
        store.get("a/b")


def test_listing_is_sorted_recursive_and_hides_dotted_names(store):
    for key in ("v/b/2", "v/a/1", "v/a/.unfinished", "vv/x", "top"):
        store.put(key, key.encode())
    assert store.list("v") == store.list("v/") == [Entry("v/a/1", 5), Entry("v/b/2", 5)]
    assert [entry.key for entry in store.list()] == ["top", "v/a/1", "v/b/2", "vv/x"]
    assert store.list("nothing/here") == store.list("top") == []


def test_create_keeps_the_first_and_knows_its_own(store):
    assert store.create("k", b"mine")
    assert store.create("k", b"mine")  # as after a lost response
    assert not store.create("k", b"theirs")
    assert store.get("k") == b"mine"
    with pytest.raises(StoreError, match="must not be empty"):
        store.create("empty", b"")
    assert not store.exists("empty")


def test_creating_a_large_object_is_exclusive_too(ceph):
    store, data = ceph.store(), bytes(101 << 20)  # from 100 MiB s3fs would send parts, which Ceph does not guard
    assert store.create("large", data)
    assert not store.create("large", data[:-1] + b"x")
    assert store.get("large")[-1] == 0


def test_one_of_many_threads_wins(store):
    for round in range(3):
        with ThreadPoolExecutor(8) as pool:
            wins = list(pool.map(lambda i, key=f"race/{round}": (store.create(key, b"%d" % i), i), range(8)))
        assert [i for won, i in wins if won] == [int(store.get(f"race/{round}"))]


def test_a_pickled_store_reaches_the_same_objects(store):
    store.put("k", b"v")
    assert pickle.loads(pickle.dumps(store)).get("k") == b"v"


@pytest.mark.parametrize("call", ["put", "create"])
def test_players_are_told_what_an_object_is_and_for_how_long(moto, call):
    store = moto.store()
    for key, kind, keeps in (
        ("media/a/00000.01.m4s", "video/mp4", "max-age=31536000, immutable"),
        ("media/a/index.m3u8", "application/vnd.apple.mpegurl", "no-cache"),
        ("media/a/master.m3u8", "application/vnd.apple.mpegurl", "no-cache"),
        ("media/a/init.mp4", "video/mp4", "no-cache"),
        ("_commits/a/00000.json", "application/json", "no-cache"),
        ("meta/chunks/run=0123456789abcdef/part-00000.parquet", "application/vnd.apache.parquet", "no-cache"),
        ("_events/0123456789abcdef/00001.jsonl", "application/jsonl", "no-cache"),
        ("_state/a/00000.01.safetensors", "application/octet-stream", "no-cache"),
        ("_SUCCESS", "application/json", "no-cache"),
    ):
        getattr(store, call)(key, b"x")
        path = f"{store.backend.root}/{key}".partition("/")[2]
        told = store.backend.fs.call_s3("head_object", Bucket=store.backend.bucket, Key=path)
        assert (told["ContentType"], told["CacheControl"]) == (kind, keeps)
