"""The stores that these tests run on: a folder, memory, moto's S3 server, and a real Ceph gateway.

The Ceph ones need what `tools/ceph-s3 start FOLDER` prints in the environment (FLOWCACHE_TEST_S3_ENDPOINT
and the AWS keys); without it they are skipped.
"""

import os
import uuid
from dataclasses import dataclass
from functools import cached_property

import pytest
import s3fs

from flowcache.storage.objects.store import Store

CEPH = "FLOWCACHE_TEST_S3_ENDPOINT"


@dataclass
class Server:
    """An S3 endpoint and what a Store needs to reach it."""

    endpoint: str
    key: str
    secret: str

    def options(self) -> dict:
        return {"endpoint_url": self.endpoint, "key": self.key, "secret": self.secret}

    def bucket(self) -> str:
        name = f"flowcache-{uuid.uuid4().hex[:12]}"
        s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False, **self.options()).mkdir(name)
        return name

    def store(self) -> Store:
        """An empty root in the server's one bucket."""
        return Store(f"s3://{self.shared}/{uuid.uuid4().hex}/night 1", **self.options())

    @cached_property
    def shared(self) -> str:
        return self.bucket()


@pytest.fixture(scope="session")
def moto():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield Server(f"http://{host}:{port}", "key", "secret")
    server.stop()


@pytest.fixture(scope="session")
def ceph():
    if CEPH not in os.environ:
        pytest.skip(f"needs a Ceph gateway: tools/ceph-s3 start FOLDER, and {CEPH} in the environment")
    return Server(os.environ[CEPH], os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])


@pytest.fixture(params=["moto", "ceph"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["local", "memory", "moto", "ceph"])
def store(request, tmp_path):
    if request.param == "local":
        return Store(str(tmp_path / "out" / "night 1"))
    if request.param == "memory":
        return Store(f"memory://{uuid.uuid4().hex}/night 1")
    return request.getfixturevalue(request.param).store()
