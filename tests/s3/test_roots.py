"""Roots below which an S3 server takes everything and lists nothing, or keeps one object under every name."""

import json
import sys

import pytest

from flowcache.cli.main import main
from flowcache.errors import StoreError
from flowcache.storage.objects import store as objects
from tests.unit.scheduler.studio import Studio, request

LYING = ["s3://{bucket}//night", "s3://{bucket}/night?versionId=null"]


@pytest.mark.parametrize("root", LYING)
def test_the_command_line_refuses_them_before_work(moto, root, monkeypatch, capsys, tmp_path):
    url, manifest = root.format(bucket=moto.bucket()), tmp_path / "night.jsonl"
    manifest.write_text('{"prompt": "a red circle", "frames": 9}\n')
    command = ["flowcache", "render", manifest, "--output", url, "--endpoint-url", moto.endpoint, "--json"]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    with pytest.raises(SystemExit) as ended:
        main()
    told = json.loads(capsys.readouterr().out)
    assert ended.value.code == told["exit_code"] == 2
    (problem,) = told["problems"]
    assert problem["field"] == "output" and "accepted: a folder or URL" in problem["message"]


def test_the_probe_refuses_one_object_under_every_name_too(server, monkeypatch):
    """Were such a URL let through."""
    monkeypatch.setattr(objects, "LOOK_PAUSES", (0.1,))
    store = server.store()
    store.url = LYING[1].format(bucket=server.shared)
    with pytest.raises(StoreError, match=rf"s3://{server.shared}/"):
        store.probe()


def test_a_run_on_s3_is_done_when_its_listings_say_so(server, monkeypatch):
    monkeypatch.setattr(objects, "LOOK_PAUSES", (0.1,))
    studio = Studio(request("a"), request("b"), store=server.store())
    whole = studio.store.backend.list
    studio.store.backend.list = lambda prefix: (e for e in whole(prefix) if "/a/" not in e.key)
    with pytest.raises(StoreError, match="video a: 0 of 2 segments, not marked done, no playlist"):
        studio.run()
    assert not studio.store.exists("_SUCCESS")
    studio.store.backend.list = whole
    summary = studio.run()
    assert (summary.exit_code, summary.done, studio.store.exists("_SUCCESS")) == (0, ("a", "b"), True)
