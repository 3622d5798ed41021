"""Objects on S3 and what speaks its protocol (AWS, Ceph, MinIO, ...), through s3fs."""

import base64
import errno
import hashlib
import re
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

from flowcache.errors import StoreError, masked
from flowcache.storage.objects.fsspec_backend import RemoteBackend

PASSING_CODES = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted"}
PASSING_CODES |= {"ConditionalRequestConflict", "Throttling", "ThrottlingException"}
PASSING_CODES |= {"BadDigest"}  # damaged on the way
PASSING_CODES |= {"PreconditionFailed"}  # reaches us only where nothing was found: the other writer is not done yet
UNKNOWN_CODES = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
FORBIDDEN_CODES = {"AccessDenied", "403"}
OF_MACHINE_CODES = UNKNOWN_CODES | FORBIDDEN_CODES | {"RequestTimeTooSkewed"}  # the last one: its clock is wrong
NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError)
ONE_REQUEST = 5 << 30  # bytes
CONNECTIONS = 64  # parallel requests of one process; botocore's default of 10 throttles reading many markers


class S3Backend(RemoteBackend):
    """s3fs without its caches and its own retries: Store alone decides what is tried again."""

    faults = (OSError, BotoCoreError, ClientError, BrokenAnswer)

    def __init__(self, url: str, options: dict[str, Any]):
        super().__init__(url, options)
        self.bucket = self.root.partition("/")[0]
        self.fs.retries = 1

    def settings(self, options: dict[str, Any]) -> dict[str, Any]:
        config = {
            "max_pool_connections": CONNECTIONS,
            "request_checksum_calculation": "when_required",  # several S3-compatible stores refuse the new default
            "response_checksum_validation": "when_required",
            "retries": {"total_max_attempts": 1},
            **options.get("config_kwargs", {}),
        }
        return {**super().settings(options), "config_kwargs": config}

    def check(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]", self.bucket):
            raise StoreError(
                f"{masked(self.url)}: {self.bucket!r} is no valid bucket name; it needs at least 3 characters "
                "(letters, digits, dots and dashes): s3://bucket/prefix"
            )

    def put(self, key: str, data: bytes) -> None:
        self._send(key, data, mode="overwrite")

    def create(self, key: str, data: bytes) -> None:
        """Always one request (S3 takes 5 GiB): Ceph 16.2 ignores If-None-Match when a multipart upload completes."""
        self._send(key, data, mode="create")

    def _send(self, key: str, data: bytes, mode: str) -> None:
        """In one request, with the sum by which the server refuses (BadDigest) what arrived otherwise."""
        self.fs.pipe_file(self._path(key), data, mode=mode, chunksize=ONE_REQUEST, ContentMD5=md5(data))

    def get(self, key: str) -> bytes:
        """One request: s3fs's default asks for the size first, and may mix two versions of a large object."""
        try:
            return self.fs.cat_file(self._path(key), max_concurrency=1)
        except FileNotFoundError as fault:
            if self.absent(fault):
                raise
            raise OSError(errno.ENXIO, "no such bucket") from fault

    def sign(self, key: str, seconds: int) -> str:
        return self.fs.sign(self._path(key), expiration=seconds)

    def absent(self, fault: FileNotFoundError) -> bool:
        cause = client_error(fault)
        return cause is None or code_of(cause) != "NoSuchBucket"

    def passing(self, fault: Exception) -> bool:
        cause = client_error(fault)
        if cause is not None:
            status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return status >= 500 or status == 429 or code_of(cause) in PASSING_CODES
        broken = (HTTPClientError, ConnectionError, IncompleteReadError, BrokenAnswer)
        return isinstance(fault, broken) or super().passing(fault)

    def of_machine(self, fault: Exception) -> bool:
        cause = client_error(fault)
        if cause is not None:
            return code_of(cause) in OF_MACHINE_CODES
        return isinstance(fault, (*NO_CREDENTIALS, CredentialRetrievalError)) or super().of_machine(fault)

    def explain(self, fault: Exception) -> str:
        cause = client_error(fault)
        if isinstance(fault, NO_CREDENTIALS):
            return (
                "no S3 credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine "
                "a profile or a role"
            )
        if cause is None:
            return f"{type(fault).__name__}: {fault}"
        code, message = code_of(cause), cause.response["Error"].get("Message", "")
        if code == "NoSuchBucket":
            return f"bucket {self.bucket!r} does not exist; create it first"
        if code in UNKNOWN_CODES:
            return f"the S3 credentials are not accepted ({code})"
        if code in FORBIDDEN_CODES:
            return f"access denied: these credentials lack the right for this in bucket {self.bucket!r}"
        return f"{code}: {message}" if message else f"the server answered {code}"


def md5(data: bytes) -> str:
    """As the header Content-MD5 has it."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def client_error(fault: BaseException | None) -> ClientError | None:
    """The server's answer behind an exception that s3fs translated, None where no server answered."""
    for link in chain(fault):
        if isinstance(link, ClientError):
            return link
    return None


def chain(fault: BaseException | None) -> Iterator[BaseException]:
    while fault is not None:
        yield fault
        fault = fault.__cause__


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
