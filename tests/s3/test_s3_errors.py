"""Faults of a real S3 server, in words that a person understands."""

import subprocess
import sys
import time

import pytest

from flowcache.errors import StoreError
from flowcache.storage.objects import s3
from flowcache.storage.objects import store as objects
from flowcache.storage.objects.store import Store


def refusal(url: str, **options) -> str:
    with pytest.raises(StoreError) as caught:
        Store(url, **options).probe()
    return str(caught.value)


def test_a_missing_bucket(server):
    message = refusal("s3://no-such-bucket-here/x", **server.options())
    assert message == (
        "cannot write to s3://no-such-bucket-here/x: bucket 'no-such-bucket-here' does not exist; create it first"
    )


def test_reading_from_a_missing_bucket_is_not_finding_nothing(server):
    store = Store("s3://no-such-bucket-here/x", **server.options())
    for read in (store.get, store.find, store.list):
        with pytest.raises(StoreError, match="bucket 'no-such-bucket-here' does not exist"):
            read("a")


def test_wrong_credentials(ceph):
    options = {**ceph.options(), "key": "nobody", "secret": "top-secret"}
    message = refusal(f"s3://{ceph.bucket()}/x", **options)
    assert "the S3 credentials are not accepted" in message
    assert "top-secret" not in message


def test_a_bucket_of_somebody_else(ceph):
    message = refusal(f"s3://{ceph.bucket()}/x", endpoint_url=ceph.endpoint, anon=True)
    assert "access denied" in message


def test_no_credentials(moto, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    message = refusal("s3://some-bucket/x", endpoint_url=moto.endpoint)
    assert "no S3 credentials found; set AWS_ACCESS_KEY_ID" in message


def test_an_unreachable_server_is_given_up_soon(monkeypatch):
    monkeypatch.setattr(objects, "RETRY_PAUSES", (0.01, 0.01))
    begun = time.monotonic()
    message = refusal("s3://some-bucket/x", endpoint_url="http://127.0.0.1:9", key="k", secret="s")
    assert "nobody listens at http://127.0.0.1:9; start what should" in message
    assert time.monotonic() - begun < 10


FORK = """
import os, sys
from flowcache.storage.objects.store import Store
store = Store(sys.argv[1], endpoint_url=sys.argv[2], key=sys.argv[3], secret=sys.argv[4])
store.put("k", b"parent")
child = os.fork()
if child == 0:
    store.put("child", store.get("k"))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(store.get("child").decode())
"""


def test_a_store_works_on_both_sides_of_a_fork(moto):
    """A fork takes the connection's thread away; the child must connect anew instead of waiting for it."""
    arguments = [f"s3://{moto.bucket()}/x", moto.endpoint, moto.key, moto.secret]
    forked = subprocess.run([sys.executable, "-c", FORK, *arguments], capture_output=True, text=True, timeout=60)
    assert (forked.stdout, forked.returncode) == ("parent\n", 0), forked.stderr


def test_a_lost_answer_to_a_create_is_still_a_win(server):
    store = server.store()
    sent = store.backend.create

    def lose_the_answer(key, data):
        sent(key, data)
        raise ConnectionResetError("the answer never came")

    store.backend.create = lose_the_answer
    assert store.create("marker", b"mine")
    assert not store.create("marker", b"other")


def test_an_upload_that_was_damaged_on_the_way_is_sent_again(ceph, monkeypatch):
    """The first sum does not fit the bytes, as if these had changed after it was taken."""
    sums = iter([s3.md5(b"something else")])
    right = s3.md5
    monkeypatch.setattr(s3, "md5", lambda data: next(sums, None) or right(data))
    store = ceph.store()
    store.put("k", b"whole")
    assert store.get("k") == b"whole" and next(sums, "used") == "used"
