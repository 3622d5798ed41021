"""A manifest on S3 is planned with the endpoint that render takes."""

import json

import pytest

from flowcache.cli.main import main
from flowcache.storage.objects.store import Store


def test_the_endpoint_reaches_the_manifest(moto, monkeypatch, capsys):
    bucket = moto.bucket()
    row = {"prompt": "a red circle moving right on a blue background", "frames": 21, "steps": 2}
    Store(f"s3://{bucket}", **moto.options()).put("night.jsonl", json.dumps(row).encode())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto.secret)
    asked = ["plan", f"s3://{bucket}/night.jsonl", "--endpoint-url", moto.endpoint, "--json"]
    monkeypatch.setattr("sys.argv", ["flowcache", *asked])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and json.loads(capsys.readouterr().out)["videos"] == 1
