"""Objects on S3 and what speaks its protocol (AWS, Ceph, MinIO, ...), through s3fs."""

import base64
import errno
import hashlib
from collections.abc import Iterator
from typing import Any

from aiohttp import ClientError as BrokenAnswer
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
)
from s3fs import S3FileSystem

from flowcache.inputs.unreached import chain as handled
from flowcache.storage.objects.backend import Entry
from flowcache.storage.objects.cloud import ANSWER, Answer, Client, CloudBackend, chain
from flowcache.storage.objects.schemes import S3

CLIENT = Client(
    S3FileSystem,
    answers=(ClientError, BotoCoreError),
    broken=(HTTPClientError, ConnectionError, IncompleteReadError, BrokenAnswer),
    credentials=(NoCredentialsError, PartialCredentialsError, CredentialRetrievalError),
)
# Pages in a row that show no later key, after which a listing has no end: a bucket with versions has empty ones too,
# where many objects in a row were deleted.
IDLE = 2000
SOCKETS = {"connect_timeout": 10, "read_timeout": 30}  # seconds for a connection, and without a byte
CONNECTIONS = 64  # parallel requests of one process; botocore's default of 10 throttles reading many markers


class S3Backend(CloudBackend):
    """s3fs without its caches and its own retries."""

    scheme = S3

    def __init__(self, url: str, options: dict[str, Any]):
        super().__init__(url, options, CLIENT)
        self.fs.retries = 1
        self._sums = True  # whether the server's ETags may be the MD5 of what was sent (not where it encrypts)

    def settings(self, options: dict[str, Any]) -> dict[str, Any]:
        config = {
            "max_pool_connections": CONNECTIONS,
            "request_checksum_calculation": "when_required",  # several S3-compatible stores refuse the new default
            "response_checksum_validation": "when_required",
            "retries": {"total_max_attempts": 1},
            **SOCKETS,
            **options.get("config_kwargs", {}),
        }
        return {**super().settings(options), "config_kwargs": config}

    def put(self, key: str, data: bytes) -> None:
        self._send(key, data, mode="overwrite")

    def create(self, key: str, data: bytes) -> None:
        """Always one request (S3 takes 5 GiB): Ceph 16.2 ignores If-None-Match when a multipart upload completes."""
        self._send(key, data, mode="create")

    def _send(self, key: str, data: bytes, mode: str) -> None:
        """In one request, with the sum by which the server refuses (BadDigest) what arrived otherwise.

        An answer without that sum may be somebody else's, such as a proxy's page: then it is read back.
        """
        answer = self._pipe(key, data, mode=mode, ContentMD5=base64.b64encode(md5(data)).decode())
        if self._sums and answer.get("ETag", "").strip('"') != md5(data).hex():
            if self.get(key) != data:
                raise OSError(errno.EREMOTEIO, "it took what was sent and holds something else")
            self._sums = False

    def read(self, key: str) -> bytes:
        """One request: s3fs's default asks for the size first, and may mix two versions of a large object."""
        return self.fs.cat_file(self._path(key), max_concurrency=1, **self.reading)

    def size(self, key: str) -> int | None:
        try:
            return self._ask("head_object", Key=self._path(key).partition("/")[2])["ContentLength"]
        except FileNotFoundError:
            return None

    def list(self, prefix: str) -> Iterator[Entry]:
        """Page by page, each in its time."""
        folder = f"{self._path(prefix) if prefix else self.root}/".partition("/")[2]
        skipped = len(self.root.partition("/")[2])
        start = skipped + 1 if skipped else 0
        token: dict[str, str] = {}
        seen = {""}  # tokens: a proxy may send them around in a circle
        last, idle = "", 0  # the highest key so far, and pages in a row that went no further
        while True:
            page = self._ask("list_objects_v2", Prefix=folder, **token)
            for found in page.get("Contents", ()):
                if not found["Key"].startswith(folder):
                    raise OSError(errno.EREMOTEIO, "it lists what was not asked for")
                if not found["Key"].endswith("/"):  # what consoles leave to mark a folder
                    yield Entry(found["Key"][start:], found["Size"])
            if page.get("IsTruncated") is False:
                return
            highest = max((found["Key"] for found in page.get("Contents", ())), default="")
            last, idle = max(last, highest), 0 if highest > last else idle + 1
            following = page.get("NextContinuationToken", "")
            if following in seen or idle > IDLE:
                raise OSError(errno.EREMOTEIO, "its listing does not come to an end")
            seen.add(following)
            token = {"ContinuationToken": following}

    def _ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        return self.fs.call_s3(method, Bucket=self.bucket, timeout=ANSWER, **arguments)

    def answer(self, fault: BaseException | None) -> Answer | None:
        # botocore asks without end where a redirect names no region
        if any(isinstance(link, RecursionError) for link in handled(fault)):
            return Answer(301, "PermanentRedirect")
        for link in chain(fault):
            if isinstance(link, ClientError):
                error, sent = link.response.get("Error", {}), link.response.get("ResponseMetadata", {})
                status = sent.get("HTTPStatusCode", 0)
                return Answer(status, str(error.get("Code") or status), error.get("Message", ""))
        return None

    def explain(self, fault: Exception) -> str:
        if isinstance(fault, CredentialRetrievalError):
            return f"{type(fault).__name__}: {fault}"
        return super().explain(fault)


def md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()
