"""Tells a web server of a run's events as standardwebhooks.com has it: signed, tried again, beside the run."""

import base64
import binascii
import hashlib
import hmac
import http.client
import json
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from flowcache.errors import InputError, Problem, first_line, masked
from flowcache.masking import login, split
from flowcache.progress.events import RunEvent
from flowcache.progress.messages import Messages

SECRET = "FLOWCACHE_WEBHOOK_SECRET"  # variable of the environment; "whsec_" and base64, or any text
ROOM = 1000  # events that wait; what comes beyond is counted as lost
TIMEOUT = 10.0  # seconds for an answer
PAUSES = (1.0, 4.0, 15.0)  # seconds before the second, third ... try
LINGER = 15.0  # seconds that what waits gets once the run has ended
AGAIN = (408, 425, 429)  # of 4xx, what may pass


class Webhook:
    """A listener; who listens there never delays the run. url: of an operator who is trusted, so at any address."""

    def __init__(self, url: str, secret: bytes):
        self.url, self.secret = url, secret
        self.told = self.sent = 0
        self.cause = ""  # of the last loss
        self._messages = Messages()
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(ROOM)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._deliver, name="webhook", daemon=True)
        self._thread.start()

    def on(self, event: RunEvent) -> None:
        message = self._messages.of(event)
        if not message:
            return
        self.told += 1
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            self.cause = self.cause or "it is too slow"

    def close(self) -> str | None:
        """Wait a little for what is left; what was lost, in words."""
        try:
            self._waiting.put(None, timeout=LINGER)
        except queue.Full:
            self.cause = self.cause or "it is too slow"
        else:
            self._thread.join(LINGER)
        self._over.set()
        lost = self.told - self.sent
        if not lost:
            return None
        said = f"{lost} of {self.told} events were not delivered"
        return f"webhook at {place(self.url)}: {said}; the last cause: {self.cause or 'it did not answer in time'}"

    def _deliver(self) -> None:
        while not self._over.is_set() and (message := self._waiting.get()) is not None:
            self.sent += self._tried(message["id"], json.dumps(message, ensure_ascii=False).encode())

    def _tried(self, name: str, body: bytes) -> bool:
        """Whether the server took it, at last."""
        for pause in (*PAUSES, None):
            try:
                self._post(name, body)
                return True
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.cause = masked(first_line(error))
                code = error.code if isinstance(error, urllib.error.HTTPError) else 500
                if pause is None or (code < 500 and code not in AGAIN) or self._over.wait(pause):
                    return False
        return False

    def _post(self, name: str, body: bytes) -> None:
        """OSError or HTTPException where it is not taken."""
        headers = {"Content-Type": "application/json", **signed(self.secret, name, int(time.time()), body)}
        request = urllib.request.Request(self.url, body, headers, method="POST")
        urllib.request.build_opener(Stay).open(request, timeout=TIMEOUT).close()


class Stay(urllib.request.HTTPErrorProcessor):
    """A redirect is a refusal: what is signed for one address is not for another."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        if response.status < 300:
            return response
        raise urllib.error.HTTPError(request.full_url, response.status, response.reason, response.headers, response)

    https_response = http_response


def signed(secret: bytes, name: str, at: int, body: bytes) -> dict[str, str]:
    """The headers of a message. name: the same for every try of it; at: unix seconds."""
    text = b".".join([name.encode(), str(at).encode(), body])
    signature = base64.b64encode(hmac.new(secret, text, hashlib.sha256).digest()).decode()
    return {"webhook-id": name, "webhook-timestamp": str(at), "webhook-signature": f"v1,{signature}"}


def place(url: str) -> str:
    """What a message may show of the address: its path may be a secret."""
    return urlsplit(url).hostname or "?"


def checked(url: str, environment: Mapping[str, str]) -> bytes:
    """The secret for that address. InputError for an address that is none, or where there is no secret."""
    scheme, rest = split(url)
    accepted = "accepted: http://host/path or https://host/path"
    if login(scheme, rest):
        raise InputError([Problem("webhook", "", f"holds credentials before the host; {accepted}, and {SECRET}")])
    try:
        known = scheme in ("http://", "https://") and urlsplit(url).hostname and urlsplit(url).port != 0
    except ValueError:
        known = False
    if not known or not url.isprintable() or " " in url:
        raise InputError([Problem("webhook", "", f"is no address of a web server; {accepted}")])
    secret = environment.get(SECRET, "")
    if not secret:
        raise InputError([Problem("webhook", "", f"needs a secret to sign with, in the environment as {SECRET}")])
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise InputError([Problem("webhook", "", f"{SECRET} is no base64 after whsec_; accepted: that")]) from None


@contextmanager
def webhook(url: str | None, environment: Mapping[str, str], tell: Callable[[str], None]) -> Iterator[list[Webhook]]:
    """The listener for that address, if there is one. tell: is told once what was lost."""
    if url is None:
        yield []
        return
    hook = Webhook(url, checked(url, environment))
    try:
        yield [hook]
    finally:
        lost = hook.close()
        if lost:
            tell(lost)
