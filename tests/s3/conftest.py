"""The stores that these tests run on: a folder, memory, moto's S3 server, a real Ceph gateway, and stand-ins of gcsfs
and adlfs.

The Ceph ones need what `tools/ceph-s3 start FOLDER` prints in the environment (FLOWCACHE_TEST_S3_ENDPOINT
and the AWS keys), gcsfs and adlfs themselves a server as docs/storage.md says; without it they are skipped.
"""

import logging
import os
import uuid
from dataclasses import dataclass
from functools import cached_property

import pytest
import s3fs

from flowcache.scheduler import store_writer
from flowcache.storage.objects import store as objects
from flowcache.storage.objects.store import Store
from tests.soak.proxy import Proxy
from tests.unit.storage.objects.clouds import cloud_store

CEPH = "FLOWCACHE_TEST_S3_ENDPOINT"
CLOUDS = {
    "gs": ("gcsfs", "FLOWCACHE_TEST_GCS_ENDPOINT", "endpoint_url"),
    "az": ("adlfs", "FLOWCACHE_TEST_AZURE_CONNECTION", "connection_string"),
}


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


def served(scheme: str) -> Store:
    """An empty root on a server of Google's or Azure's protocol, through gcsfs or adlfs."""
    package, variable, option = CLOUDS[scheme]
    pytest.importorskip(package, reason=f"needs {package}, an extra of flowcache")
    if variable not in os.environ:
        pytest.skip(f"needs a server of {scheme}://: {variable} in the environment")
    store = Store(f"{scheme}://flowcache-{uuid.uuid4().hex[:12]}/night 1", **{option: os.environ[variable]})
    store.backend.fs.mkdir(store.backend.bucket)
    return store


@pytest.fixture(params=["moto", "ceph"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["local", "memory", "moto", "ceph", "gs", "az", "gs server", "az server"])
def store(request, tmp_path):
    if request.param in ("gs", "az"):
        return cloud_store(f"{request.param}://flowcache-{uuid.uuid4().hex[:12]}/night 1")
    if request.param.endswith(" server"):
        return served(request.param.removesuffix(" server"))
    if request.param == "local":
        return Store(str(tmp_path / "out" / "night 1"))
    if request.param == "memory":
        return Store(f"memory://{uuid.uuid4().hex}/night 1")
    return request.getfixturevalue(request.param).store()


@pytest.fixture
def quick(monkeypatch):
    """Nothing waits before it asks again."""
    monkeypatch.setattr(objects, "RETRY_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(objects, "REFUSED_PAUSES", (0.0,))
    monkeypatch.setattr(objects, "LOOK_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(store_writer, "PAUSES", (0.05,))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def proxy(moto):
    """Before moto's server, to spoil what is asked of it."""
    made = Proxy(moto.endpoint).start()
    yield made
    made.shutdown()
