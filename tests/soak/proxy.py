"""A proxy before an S3 server that spoils requests at random: refused, lost on the way there or back, late, cut off."""

import http.client
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("500", "503", "lost request", "lost answer", "half an answer", "slow")
ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>spoilt by the proxy</Message></Error>'
CODES = {"500": "InternalError", "503": "SlowDown"}
BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


class FaultyProxy(ThreadingHTTPServer):
    """Spoils a share `rate` of the requests, drawn from `seed`; `given` counts them by kind. `stuck`: by the end of a
    path, what an object holds and keeps holding, whatever is done to it."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, upstream: str, seed: int, rate: float):
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream, self.rate = urlsplit(upstream), rate
        self.given: Counter[str] = Counter()
        self.requests = 0
        self.stuck: dict[str, bytes] = {}
        self._draw, self._lock = random.Random(seed), threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def start(self) -> "FaultyProxy":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def fault(self) -> str | None:
        with self._lock:
            self.requests += 1
            if self._draw.random() >= self.rate:
                return None
            fault = self._draw.choice(FAULTS)
            self.given[fault] += 1
            return fault

    def handle_error(self, request, client_address) -> None:
        """A client that hung up is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        stuck = next((data for end, data in self.server.stuck.items() if urlsplit(self.path).path.endswith(end)), None)
        if stuck is not None and self.command != "POST":
            return self.hold_on_to(stuck)
        fault = self.server.fault()
        if fault in CODES:
            return self.answer(int(fault), [], ERROR.format(code=CODES[fault]).encode())
        if fault == "lost request":
            return self.hang_up()
        if fault == "slow":
            time.sleep(1.0)
        try:
            status, headers, data = self.upstream(body)
        except (OSError, http.client.HTTPException):  # the server is down
            return self.answer(502, [], ERROR.format(code="BadGateway").encode())
        if fault == "lost answer":
            return self.hang_up()
        self.answer(status, headers, data, cut=fault == "half an answer")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815 (the names that http.server calls)

    def hold_on_to(self, data: bytes) -> None:
        if self.command == "PUT":
            return self.answer(412, [], ERROR.format(code="PreconditionFailed").encode())
        if self.command == "DELETE":
            return self.answer(204, [], b"")
        self.answer(200, [("content-length", str(len(data)))], data)

    def upstream(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """The server's answer; the Host header stays the client's, since it is signed."""
        where = self.server.upstream
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def answer(self, status: int, headers: list[tuple[str, str]], data: bytes, cut: bool = False) -> None:
        self.send_response(status)
        length = str(len(data))
        for name, value in headers:
            if name.lower() not in BY_HOP:
                self.send_header(name, value)
            elif name.lower() == "content-length" and self.command == "HEAD":
                length = value
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True

    def log_message(self, format: str, *values) -> None:
        """Silent: there are thousands of requests."""
