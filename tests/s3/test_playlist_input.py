"""A run's own video in a bucket, as the start of another: its chunks come by the bucket's endpoint and rights."""

import pytest

from flowcache.errors import MediaError
from flowcache.inputs.sandbox import Sandbox
from flowcache.storage import layout
from tests.unit.storage.samples import FPS, Studio, request


def test_the_playlist_and_all_that_it_names_come_from_the_bucket(moto):
    store = moto.store()
    Studio(store, (request("cat", 2),)).run()
    url = store.uri(layout.playlist_key("cat"))
    with Sandbox(moto.options(), most=1) as sandbox:
        found = sandbox.probe(url, "video", "")
        assert (found.frames, found.url) == (16, url)
        assert sandbox.clip(url, 9, FPS, 32, 16, sha256=found.sha256).shape == (9, 16, 32, 3)
        chunk = next(entry.key for entry in store.list("media/cat") if "/00001." in entry.key)
        store.delete(chunk)
        with pytest.raises(MediaError) as caught:
            sandbox.probe(url, "video", "")
    assert str(caught.value) == f"names {chunk.rpartition('/')[2]}, which does not exist"
    assert moto.secret not in str(caught.value)
