"""What S3, Google Cloud Storage and Azure have in common: refusals with a code, faults that pass, signatures."""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flowcache.errors import StoreError, first_line, masked
from flowcache.inputs.unreached import Unreached, unreached
from flowcache.storage.objects.backend import advised
from flowcache.storage.objects.fsspec_backend import RemoteBackend
from flowcache.storage.objects.schemes import Scheme

ANSWER = 60.0  # seconds in which a request without much to send is answered
READ = 300.0  # seconds in which an object is read
LISTED = 3600.0  # seconds in which a folder of any size is listed
SLOWEST = 100_000  # bytes a second
REFUSING = {501, 505, 507, 510, 511}  # of 5xx: what will not pass by itself


@dataclass(frozen=True)
class Client:
    """A filesystem package, and what it raises beside OSError, by what that means."""

    filesystem: Callable[..., Any]
    answers: tuple[type[Exception], ...]  # the server refused: `answer` says how
    broken: tuple[type[Exception], ...]  # no answer, or half of one: passes
    credentials: tuple[type[Exception], ...]  # none found, or none that can be used
    no_signature: tuple[type[Exception], ...] = ()  # of `sign`, where the credentials cannot do it


@dataclass(frozen=True)
class Answer:
    """How a server refused."""

    status: int  # of HTTP
    code: str  # the server's own word for it
    message: str = ""


class CloudBackend(RemoteBackend):
    """Objects in a bucket, through a client whose own retries are off: Store alone decides what is tried again."""

    scheme: Scheme
    reading, listing = {"timeout": READ}, {"timeout": LISTED}  # fsspec's: sockets alone never end what drips

    def __init__(self, url: str, options: dict[str, Any], client: Client):
        self.client = client
        try:
            super().__init__(url, options)
        except Exception as fault:
            detail = type(fault).__name__ if isinstance(fault, OSError) else first_line(fault)  # requests': the token
            message = f"{masked(url)}: {self.scheme.no_credentials} ({masked(detail)})"
            raise StoreError(message, of_machine=True) from fault
        self.bucket = self.root.partition("/")[0]

    def within(self, size: int = 0) -> dict[str, Any]:
        return {"timeout": ANSWER + size / SLOWEST}

    def open_filesystem(self, settings: dict[str, Any]) -> Any:
        return self.client.filesystem(skip_instance_cache=True, **settings)

    def put(self, key: str, data: bytes) -> None:
        self._pipe(key, data, mode="overwrite")

    def create(self, key: str, data: bytes) -> None:
        self._pipe(key, data, mode="create")

    def _pipe(self, key: str, data: bytes, **how: Any) -> Any:
        """In one request; the filesystem's answer."""
        how |= {**self.scheme.upload, **self.scheme.headers(key), **self.within(len(data))}
        return self.fs.pipe_file(self._path(key), data, **how)

    def get(self, key: str) -> bytes:
        try:
            return self.read(key)
        except FileNotFoundError as fault:
            if self.absent(fault):
                raise
            raise OSError(errno.ENXIO, f"no such {self.scheme.bucket}") from fault

    def read(self, key: str) -> bytes:
        """FileNotFoundError where the object or its bucket is missing."""
        return super().get(key)

    def sign(self, key: str, seconds: int) -> str:
        try:
            return self.fs.sign(self._path(key), expiration=seconds, **self.scheme.signing)
        except self.client.no_signature as fault:
            raise StoreError(f"cannot sign {masked(self.url)}/{key}: {self.scheme.no_signature}") from fault
        except NotImplementedError:  # fsspec's, of clients that know no links
            return super().sign(key, seconds)

    def answer(self, fault: BaseException | None) -> Answer | None:
        """The server's answer behind an exception that the filesystem translated; None where no server answered."""
        raise NotImplementedError

    def absent(self, fault: FileNotFoundError) -> bool:
        answer = self.answer(fault)
        return answer is None or answer.code not in self.scheme.missing

    def passing(self, fault: Exception) -> bool:
        if found := self._unreached(fault):
            return found.passing
        if isinstance(fault, self.client.broken):
            return True
        answer = self.answer(fault)
        if answer is not None:
            busy = answer.status >= 500 and answer.status not in REFUSING
            return busy or answer.status in (408, 429) or answer.code in self.scheme.passing
        # FileExistsError reaches us only where nothing was found: the other writer is not done yet
        return isinstance(fault, FileExistsError) or self._unusable(fault) or super().passing(fault)

    def _unreached(self, fault: Exception) -> Unreached | None:
        if self.answer(fault) or self._lacks_credentials(fault):
            return None
        return unreached(fault, getattr(self.fs, "endpoint_url", None) or "the server")

    def _unusable(self, fault: Exception) -> bool:
        """Neither a refusal nor the system's word: the client came upon an answer that it could not read."""
        return not isinstance(fault, (OSError, *self.client.answers, *self.client.credentials))

    def of_machine(self, fault: Exception) -> bool:
        if found := self._unreached(fault):
            return found.of_machine
        answer = self.answer(fault)
        if answer is not None:
            return answer.code in self.scheme.unknown | self.scheme.forbidden | self.scheme.of_machine
        return self._lacks_credentials(fault) or super().of_machine(fault)

    def _lacks_credentials(self, fault: Exception) -> bool:
        return isinstance(fault, self.client.credentials) and not isinstance(fault, self.client.broken)

    def explain(self, fault: Exception) -> str:
        scheme, answer = self.scheme, self.answer(fault)
        if found := self._unreached(fault):
            return found.why
        if answer is None and self._lacks_credentials(fault):
            return f"{scheme.no_credentials} ({first_line(fault)})" if scheme.says_why else scheme.no_credentials
        if answer is None and isinstance(fault, FileExistsError):
            return "its place was taken, and then nothing was there"
        if answer is None:
            words = f"{type(fault).__name__}: {first_line(fault)}" if str(fault) else type(fault).__name__
            return advised(words, fault)
        why = f": {answer.message}" if scheme.says_why and answer.message else ""
        if answer.code in scheme.missing:
            return f"{scheme.bucket} {self.bucket!r} does not exist; create it first"
        if answer.code in scheme.unknown:
            return f"the {scheme.name} credentials are not accepted ({answer.code}){why}"
        if answer.code in scheme.forbidden:
            return f"access denied: these credentials lack the right for this in {scheme.bucket} {self.bucket!r}{why}"
        words = f"{answer.code}: {answer.message}" if answer.message else f"the server answered {answer.code}"
        todo = scheme.advice.get(answer.code) or scheme.advice.get(str(answer.status))
        return f"{words.rstrip('.')}; {todo}" if todo else words


def chain(fault: BaseException | None) -> Iterator[BaseException]:
    """A fault and what it was translated from."""
    while fault is not None:
        yield fault
        fault = fault.__cause__
