"""A run of the real driver on S3 behind a proxy, over gangs that write what workers write."""

import copy
import os
import re
import uuid
from collections.abc import Callable
from functools import cache
from urllib.parse import quote

from flowcache.errors import FlowcacheError
from flowcache.storage.commits import read_commits, read_state
from flowcache.storage.objects.s3 import S3Backend
from flowcache.storage.objects.store import Store
from flowcache.worker.text_cache import TextCache
from tests.soak.proxy import Asked, Judge, Proxy
from tests.soak.spoils import Spoil
from tests.unit.scheduler.studio import Studio, request, sound

FRAMES = {"v0": 9, "v1": 69, "v2": 9, "v3": 9}  # v1 has a second segment, which reads the state of the first one


class Night:
    """One root, seen through the proxy by who works, and directly by who looks."""

    def __init__(self, server, proxy: Proxy):
        self.proxy = proxy
        self.proxy.judge = lambda asked: None
        root = f"s3://{server.shared}/{uuid.uuid4().hex}/night 1"
        self.direct, self.store = (connected(root, url, server.options()) for url in (server.endpoint, proxy.url))
        self.studio = Studio(*(request(name, frames) for name, frames in FRAMES.items()), store=self.store)

    def run(self, judge: Judge = lambda asked: None, **options) -> tuple[int, str]:
        """The exit code and what was told."""
        self.proxy.judge = judge
        settings = {"infra_retries": 2, "retries": 0, "patience": 1.0, "fault": self.reads, **options}
        try:
            return self.studio.run(size=2, **settings).exit_code, ""
        except FlowcacheError as error:
            return error.exit_code, str(error)
        finally:
            self.proxy.judge = lambda asked: None

    def reads(self, task) -> None:
        """What a worker reads: a text, and the state that its segment continues."""
        TextCache(self.store, "d" * 64, "float32").find(f"the text of {task.request.id}")
        if task.parent:
            read_state(self.store, task.parent)

    def path(self, key: str) -> str:
        return "/" + quote(f"{self.direct.url.removeprefix('s3://')}/{key}")

    def outcome(self) -> dict:
        """Of a sound store, whose bytes are those that its markers say."""
        sound(self.direct)
        commits = read_commits(self.direct)
        media = {name: [c.sha256 for m in found for c in m.chunks] for name, found in commits.markers.items()}
        return {"media": media, "done": commits.done, "success": self.direct.exists("_SUCCESS")}

    def unblamed(self) -> None:
        assert not self.direct.list("_dead_letter")


@cache
def client(bucket: str, endpoint: str, key: str, secret: str) -> S3Backend:
    """A second of CPU each."""
    return S3Backend(f"s3://{bucket}", {"endpoint_url": endpoint, "key": key, "secret": secret})


def connected(root: str, endpoint: str, options: dict) -> Store:
    """A store over a client that all of an endpoint share."""
    store = Store(root, **{**options, "endpoint_url": endpoint})
    backend = copy.copy(client(root.split("/")[2], endpoint, options["key"], options["secret"]))
    backend.url, backend.root = root, root.removeprefix("s3://")
    store._backend, store._process = backend, os.getpid()
    return store


def where(operations: str, pattern: str, spoil: Spoil, times: int = 1 << 30, after: int = 0) -> Judge:
    """Spoils the requests of these kinds whose keys match, so many of them, the first `after` left alone."""
    kinds, wanted, seen = operations.split(), re.compile(pattern), [0]

    def judge(asked: Asked) -> Spoil | None:
        if asked.operation not in kinds or not wanted.search(asked.key):
            return None
        seen[0] += 1
        return spoil if after < seen[0] <= after + times else None

    return judge


def once_each(operations: str, pattern: str, spoil: Spoil) -> Judge:
    """Spoils the first request of each of these kinds for each key that matches."""
    kinds, wanted, seen = operations.split(), re.compile(pattern), set[Asked]()

    def judge(asked: Asked) -> Spoil | None:
        if asked.operation not in kinds or not wanted.search(asked.key) or asked in seen:
            return None
        seen.add(asked)
        return spoil

    return judge


def first(*judges: Callable[[Asked], Spoil | None]) -> Judge:
    return lambda asked: next((spoil for judge in judges if (spoil := judge(asked))), None)
