"""A plain MP4 is written where the endpoint says, whatever the output is."""

import pytest

from flowcache.cli.main import main
from flowcache.storage.objects.store import Store
from tests.unit.storage.samples import Studio, request


def test_the_endpoint_is_for_what_is_written_too(moto, tmp_path, monkeypatch):
    Studio(Store(str(tmp_path / "out")), (request("cat", 1),)).run()
    films = f"s3://{moto.shared}/films"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto.secret)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    asked = ["export", str(tmp_path / "out"), "--to", films, "--endpoint-url", moto.endpoint]
    monkeypatch.setattr("sys.argv", ["flowcache", *asked])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and Store(films, **moto.options()).exists("cat.mp4")
