"""Stand-ins for gcsfs and adlfs: buckets in memory, and the errors that these raise, in their own words.

`test_real_clients.py` checks the real ones where they are installed.
"""

from collections.abc import Callable
from threading import Lock
from types import SimpleNamespace
from typing import Any

from aiohttp import ClientError
from requests.exceptions import RequestException

from flowcache.storage.objects.azure import AzureBackend
from flowcache.storage.objects.cloud import Client, CloudBackend
from flowcache.storage.objects.gcs import GcsBackend
from flowcache.storage.objects.schemes import GCS, scheme_of
from flowcache.storage.objects.store import Store

BUCKETS: dict[str, dict[str, bytes]] = {}  # by scheme and name, as a cloud has them: one for all connections

ONE_STEP = Lock()  # looking and writing, as the cloud does it


class Filesystem:
    """What gcsfs and adlfs share. `faults`: raised by the next calls, one each."""

    def __init__(self, **settings: Any):
        self.settings, self.faults = settings, []

    def _objects(self, path: str) -> tuple[dict[str, bytes] | None, str]:
        if self.faults:
            raise self.faults.pop(0)
        bucket, _, key = path.partition("/")
        return BUCKETS.get(f"{self.cloud}/{bucket}"), key

    def _strip_protocol(self, url: str) -> str:
        place, _, prefix = url.partition("://")[2].partition("/")
        return f"{place.partition('@')[0]}/{prefix}"

    def pipe_file(self, path: str, data: bytes, mode: str, **arguments: Any) -> None:
        assert arguments.pop("timeout") >= 60
        assert set(arguments) == self.takes and all(arguments.values())
        objects, key = self._objects(path)
        if objects is None:
            raise self.no_bucket()
        with ONE_STEP:
            if mode == "create" and key in objects:
                raise FileExistsError(path)
            objects[key] = data

    def cat_file(self, path: str, timeout: float) -> bytes:
        objects, key = self._objects(path)
        if objects is None or key not in objects:
            raise self.no_object(objects)
        return objects[key]

    def info(self, path: str, timeout: float = 0) -> dict[str, Any]:
        objects, key = self._objects(path)
        if objects is None:
            raise self.no_object(objects)
        if key in objects:
            return {"name": path, "type": "file", "size": len(objects[key])}
        if not key or any(name.startswith(f"{key}/") for name in objects):
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    def rm_file(self, path: str, timeout: float) -> None:
        objects, key = self._objects(path)
        if objects is None or objects.pop(key, None) is None:
            raise self.no_object(objects)

    def _below(self, path: str, objects: dict[str, bytes], key: str) -> dict[str, dict[str, Any]]:
        bucket = path.partition("/")[0]
        inside = (name for name in sorted(objects) if name == key or name.startswith(f"{key}/") or not key)
        return {f"{bucket}/{name}": {"type": "file", "size": len(objects[name])} for name in inside}


class HttpError(Exception):
    """As gcsfs.retry's: the code joins the message."""

    def __init__(self, answer: dict[str, Any]):
        self.code = answer["code"]
        self.message = f"{answer['message']}, {self.code}"
        super().__init__(self.message)


class ChecksumError(Exception):
    """As gcsfs.retry's."""


class GoogleAuthError(Exception):
    """As google.auth's; `retryable` of those that say so."""

    retryable = False


class TransportError(GoogleAuthError):
    """As google.auth's."""


class Gcsfs(Filesystem):
    """A 404 is Python's own error without a word about what was missing; a missing bucket cannot be listed."""

    cloud, on_google = "gs", True
    takes = {"chunksize", "consistency", "content_type", "fixed_key_metadata"}

    def __init__(self, token: str | None = "key.json", **settings: Any):
        super().__init__(**settings)
        self.credentials = SimpleNamespace(credentials=None if token in (None, "anon") else token)

    def no_bucket(self) -> Exception:
        return FileNotFoundError("https://storage.googleapis.com/upload/storage/v1/b/bucket/o")

    def no_object(self, objects: dict[str, bytes] | None) -> Exception:
        return FileNotFoundError("b/bucket/o/k")

    def find(self, path: str, detail: bool, timeout: float) -> dict[str, dict[str, Any]]:
        objects, key = self._objects(path)
        if objects is None:
            raise FileNotFoundError("b/bucket/o")
        return self._below(path, objects, key)

    def sign(self, path: str, expiration: int, version: str) -> str:
        if self.credentials.credentials == "token":
            raise AttributeError("you need a private key to sign credentials")
        return f"https://storage.googleapis.com/{path}?X-Goog-Expires={expiration}&v={version}"


class AzureError(Exception):
    """As azure.core's, and the classes below; a code, where there is one, from the server."""

    def __init__(self, message: str, status: int | None = None, code: str | None = None):
        self.status_code, self.error_code = status, code
        super().__init__(f"{message}\nRequestId:1\nErrorCode:{code}" if code else message)


class ServiceRequestError(AzureError):
    """No connection."""


class HttpResponseError(AzureError):
    """The server refused."""


class ResourceNotFoundError(HttpResponseError):
    """404."""


class ClientAuthenticationError(HttpResponseError):
    """401, 403, and credentials that were not found, without a code."""


class DecodeError(HttpResponseError):
    """An answer in another language, or half of one."""


class Adlfs(Filesystem):
    """Names what is missing below Python's error; lists a missing container as an empty one, an object by its name."""

    cloud = "az"
    takes = {"validate_content", "content_settings"}

    def __init__(self, account_key: str | None = "key", **settings: Any):
        super().__init__(**settings)
        self.key = account_key
        if settings.get("connection_string") == "":
            raise ValueError("unable to connect to account for Must provide either a connection_string or account_name")

    def no_bucket(self) -> Exception:
        return ResourceNotFoundError("The specified container does not exist.", 404, "ContainerNotFound")

    def no_object(self, objects: dict[str, bytes] | None) -> Exception:
        fault = FileNotFoundError(2, "No such file or directory")
        gone = ResourceNotFoundError("The specified blob does not exist.", 404, "BlobNotFound")
        fault.__cause__ = self.no_bucket() if objects is None else gone
        return fault

    def find(self, path: str, detail: bool, timeout: float) -> dict[str, dict[str, Any]] | list[str]:
        objects, key = self._objects(path)
        if objects and key in objects:
            return [path]
        return self._below(path, objects or {}, key)

    def sign(self, path: str, expiration: int) -> str:
        if self.key is None:
            raise ValueError("Either user_delegation_key or account_key must be provided.")
        return f"https://account.blob.core.windows.net/{path}?se={expiration}"


GCSFS = Client(
    Gcsfs,
    answers=(HttpError, ValueError),
    broken=(ClientError, RequestException, TransportError, ChecksumError),
    credentials=(GoogleAuthError,),
    no_signature=(AttributeError,),
)
ADLFS = Client(
    Adlfs,
    answers=(HttpResponseError,),
    broken=(ServiceRequestError, DecodeError, ClientError, ValueError),
    credentials=(ClientAuthenticationError,),
    no_signature=(ValueError,),
)


def backend_of(url: str, options: dict[str, Any]) -> CloudBackend:
    """The real backend over a stand-in."""
    made: Callable[..., CloudBackend] = GcsBackend if scheme_of(url) is GCS else AzureBackend
    return made(url, options, GCSFS if made is GcsBackend else ADLFS)


class CloudStore(Store):
    """A store over a stand-in."""

    @property
    def backend(self) -> CloudBackend:
        if self._backend is None:
            self._backend = backend_of(self.url, self.options)
        return self._backend


def cloud_store(url: str, **options: Any) -> CloudStore:
    """Its bucket is there, and empty."""
    scheme, _, rest = url.partition("://")
    BUCKETS[f"{scheme}/{rest.partition('/')[0]}"] = {}
    return CloudStore(url, **options)
