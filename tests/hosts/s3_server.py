"""An S3 server (moto) that knows its users by their keys, compares their clocks with its own as AWS does, and can hold
back what one host writes. `python -m tests.hosts.s3_server PORT LOG`.

POST /_hold?from=ADDRESS&match=TEXT: from then on such PUT requests wait until POST /_release. LOG gets a line for each
request that writes, when it was answered.
"""

import json
import re
import sys
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

KEY, SECRET = "AKIAHOSTSTESTS", "only/for+these-tests"
SKEW = 900.0  # seconds that AWS bears
ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'


def refusal(environment: dict[str, Any]) -> str | None:
    """The code by which a request is refused, as AWS would."""
    signed = re.search(r"Credential=([^/,]*)/", environment.get("HTTP_AUTHORIZATION", ""))
    if not signed:
        return "AccessDenied"
    if signed[1] != KEY:
        return "InvalidAccessKeyId"
    sent = datetime.strptime(environment["HTTP_X_AMZ_DATE"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return "RequestTimeTooSkewed" if abs(sent.timestamp() - time.time()) > SKEW else None


class Watched:
    """The server as others reach it."""

    def __init__(self, log: Path):
        self.served = DomainDispatcherApplication(create_backend_app)
        self.log, self._lock = log, threading.Lock()
        self._held: list[tuple[str, str]] = []
        self._release = threading.Event()

    def __call__(self, environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        path, method, host = environment["PATH_INFO"], environment["REQUEST_METHOD"], environment["REMOTE_ADDR"]
        if path in ("/_hold", "/_release"):
            return self._told(path, parse_qs(environment["QUERY_STRING"]), start)
        code = refusal(environment)
        if code:
            start("403 Forbidden", [("Content-Type", "application/xml")])
            return [ERROR.format(code=code).encode()]
        if method not in ("PUT", "POST", "DELETE"):
            return self.served(environment, start)
        if (host, True) in [(one, text in path) for one, text in self._held]:
            self._note(host, method, path, "held")
            self._release.wait()
        statuses: list[str] = []

        def answered(status: str, *rest: Any) -> Any:
            statuses.append(status)
            return start(status, *rest)

        body = list(self.served(environment, answered))
        self._note(host, method, path, *statuses)
        return body

    def _told(self, path: str, query: dict[str, list[str]], start: Any) -> list[bytes]:
        if path == "/_hold":
            self._release.clear()
            self._held.append((query["from"][0], query["match"][0]))
        else:
            self._held.clear()
            self._release.set()
        start("200 OK", [("Content-Type", "text/plain")])
        return [b"so be it\n"]

    def _note(self, host: str, method: str, path: str, status: str) -> None:
        line = json.dumps({"from": host, "method": method, "path": path, "status": status})
        with self._lock, self.log.open("a") as log:
            log.write(line + "\n")


if __name__ == "__main__":
    run_simple("0.0.0.0", int(sys.argv[1]), Watched(Path(sys.argv[2])), threaded=True)
