"""Objects on Google Cloud Storage, through gcsfs."""

from inspect import unwrap
from json import JSONDecodeError
from typing import Any

from flowcache.errors import StoreError, masked
from flowcache.storage.objects.cloud import Answer, Client, CloudBackend, chain
from flowcache.storage.objects.schemes import GCS


def gcsfs_client() -> Client:
    """gcsfs; ImportError where it is not installed."""
    from aiohttp import ClientError
    from gcsfs.core import GCSFileSystem  # without the calls by gRPC of the class that gcsfs registers
    from gcsfs.retry import ChecksumError, HttpError, NonRetryableError
    from google.auth.exceptions import GoogleAuthError, TransportError
    from requests.exceptions import RequestException

    class OneTry(GCSFileSystem):
        """gcsfs without its own six tries of each request, which take half a minute."""

        async def _request(self, *args: Any, **kwargs: Any) -> Any:
            return await unwrap(GCSFileSystem._request)(self, *args, **kwargs)

    return Client(
        OneTry,
        answers=(HttpError, ValueError),  # ValueError: the message of the refusal says that something is invalid
        broken=(ClientError, RequestException, TransportError, ChecksumError, JSONDecodeError),
        credentials=(GoogleAuthError, NonRetryableError),
        no_signature=(AttributeError,),
    )


class GcsBackend(CloudBackend):
    """gcsfs says 404, 403 and 412 by Python's own exceptions, and everything else by HttpError."""

    scheme = GCS

    def __init__(self, url: str, options: dict[str, Any], client: Client | None = None):
        super().__init__(url, options, client or gcsfs_client())
        if self.fs.credentials.credentials is None and self.fs.on_google and options.get("token") != "anon":
            raise StoreError(f"{masked(url)}: {GCS.no_credentials}", of_machine=True)  # gcsfs would go on as nobody

    def get(self, key: str) -> bytes:
        """404 stands for a missing object and a missing bucket alike."""
        return self.read(key)

    def passing(self, fault: Exception) -> bool:
        """So does a token that could not be renewed for a reason that passes, which gcsfs calls a 401."""
        below = chain(fault.__cause__)
        renewable = any(isinstance(link, self.client.broken) or getattr(link, "retryable", False) for link in below)
        return renewable or super().passing(fault)

    def answer(self, fault: BaseException | None) -> Answer | None:
        for link in chain(fault):
            if isinstance(link, FileNotFoundError):
                return Answer(404, "404")
            code, (what, _, why) = getattr(link, "code", None), str(link).partition("\n")
            if isinstance(link, self.client.answers) and code:
                return Answer(int(code), str(code), str(link).removesuffix(f", {code}"))
            if isinstance(link, (OSError, ValueError)) and what.startswith(("Forbidden:", "Bad Request:")):
                status = 403 if what.startswith("Forbidden:") else 400
                return Answer(status, str(status), why)
        return None
