"""A proxy before an S3 server that spoils what it is told to, or requests at random."""

import http.client
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from tests.soak import spoils
from tests.soak.spoils import Answer, Spoil

FAULTS = ("500", "503", "lost request", "lost answer", "half an answer", "slow")
BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


@dataclass(frozen=True)
class Asked:
    """A request: put, create (put if absent), get, head, list or delete; of a listing the key is its prefix."""

    operation: str
    key: str  # below the bucket


Judge = Callable[[Asked], Spoil | None]


class Proxy(ThreadingHTTPServer):
    """Passes on what `judge` has nothing against."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, upstream: str, judge: Judge = lambda asked: None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream, self.judge = urlsplit(upstream), judge
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def start(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def handle_error(self, request, client_address) -> None:
        """A client that hung up is no news."""


class FaultyProxy(Proxy):
    """Spoils a share `rate` of the requests, drawn from `seed`; `given` counts them by kind."""

    def __init__(self, upstream: str, seed: int, rate: float):
        super().__init__(upstream, self.fault)
        self.rate = rate
        self.given: Counter[str] = Counter()
        self.requests = 0
        self._draw = random.Random(seed)

    def fault(self, asked: Asked) -> Spoil | None:
        with self.lock:
            self.requests += 1
            if self._draw.random() >= self.rate:
                return None
            fault = self._draw.choice(FAULTS)
            self.given[fault] += 1
            return spoils.BY_NAME[fault]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        spoil = self.server.judge(self.asked()) or spoils.nothing
        spoil(self, body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815 (the names that http.server calls)

    def asked(self) -> Asked:
        url = urlsplit(self.path)
        query, key = parse_qs(url.query), unquote(url.path).lstrip("/").partition("/")[2]
        if "list-type" in query:
            return Asked("list", query.get("prefix", [""])[0])
        operation = self.command.lower()
        return Asked("create" if operation == "put" and self.headers.get("If-None-Match") else operation, key)

    def upstream(self, body: bytes, path: str | None = None, without: tuple[str, ...] = ()) -> Answer:
        """The server's answer; the Host header stays the client's, since it is signed."""
        where = self.server.upstream
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
        try:
            connection.putrequest(self.command, path or self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect", *without):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())
        except (OSError, http.client.HTTPException):  # the server is down
            return Answer(502, [], spoils.error("BadGateway"))
        finally:
            connection.close()

    def head(self, answer: Answer, length: int | None = None) -> None:
        """Status and headers. length: of the body, where it is not the true one; -1 for none."""
        self.send_response(answer.status)
        told = str(len(answer.data) if length is None else length)
        for name, value in answer.headers:
            if name.lower() not in BY_HOP:
                self.send_header(name, value)
            elif name.lower() == "content-length" and self.command == "HEAD":
                told = value
        if length != -1:
            self.send_header("Content-Length", told)
        self.end_headers()

    def answer(self, answer: Answer) -> None:
        self.head(answer)
        if self.command != "HEAD" and answer.status not in (204, 304):
            self.wfile.write(answer.data)

    def hang_up(self) -> None:
        self.close_connection = True

    def log_message(self, format: str, *values) -> None:
        """Silent: there are thousands of requests."""
