"""Signed links: they play without credentials, end to end, and are refused where nothing can sign."""

import urllib.error
import urllib.request
import uuid

import pytest

from flowcache.errors import InputError, StoreError
from flowcache.storage.links import links
from flowcache.storage.media import decode
from flowcache.storage.objects.store import Store
from tests.unit.storage.samples import Studio, request


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def test_a_link_plays_the_whole_video_without_credentials(server):
    store = server.store()
    Studio(store, (request("cat", 2),)).run()
    found = links(store, ["cat"], 3600)
    lines = fetch(found["cat"]).decode().splitlines()
    (init,) = [line.split('"')[1] for line in lines if line.startswith("#EXT-X-MAP")]
    chunks = [line for line in lines if not line.startswith("#")]
    assert len(chunks) == 4 and lines[-1] == "#EXT-X-ENDLIST"
    assert sum(1 for _ in decode(fetch(init), map(fetch, chunks))) == 16
    assert server.secret not in "\n".join([found["cat"], *lines])


def test_a_changed_link_is_refused(ceph):
    store = ceph.store()
    Studio(store, (request("cat", 1),)).run()
    url = links(store, ["cat"], 3600)["cat"]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        fetch(url[:-4] + ("AAAA" if not url.endswith("AAAA") else "BBBB"))


def test_what_has_no_links(moto):
    with pytest.raises(InputError, match="cannot sign links; accepted: an output on S3"):
        links(Store(f"memory://{uuid.uuid4().hex}"), ["cat"], 60)
    with pytest.raises(InputError, match="accepted: 1 to 604800"):
        links(moto.store(), ["cat"], 8 * 24 * 3600)
    with pytest.raises(StoreError, match="holds no chunks of video cat"):
        links(moto.store(), ["cat"], 60)
