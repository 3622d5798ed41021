"""Web servers that don't do as they should, each on a local address of its own."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """`asked`: the paths of all requests."""

    daemon_threads = True

    def __init__(self, answer: Answer, host: str):
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                try:
                    answer(self)
                except OSError:
                    self.close_connection = True  # who asked has left

            def log_message(self, *said):
                pass

        super().__init__((host, 0), Handler)
        self.url = f"http://{host}:{self.server_port}"

    def handle_error(self, *about):
        pass


@contextmanager
def at_work(server: Server) -> Iterator[Server]:
    """It answers until it is left."""
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def serving(answer: Answer, host: str = "127.0.0.1") -> Iterator[Server]:
    with at_work(Server(answer, host)) as server:
        yield server


def sends(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(body)), **named}.items():
            to.send_header(name, value)
        to.end_headers()
        to.wfile.write(body)

    return answer


def leads(target: str) -> Answer:
    return sends(b"", 302, Location=target)


def silent(to: BaseHTTPRequestHandler) -> None:
    time.sleep(60)


def drips(to: BaseHTTPRequestHandler) -> None:
    """A byte now and then, for ever."""
    to.send_response(200)
    to.end_headers()
    while True:
        to.wfile.write(b"x")
        time.sleep(0.05)


def drips_headers(to: BaseHTTPRequestHandler) -> None:
    to.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        to.wfile.write(b"X: y\r\n")
        time.sleep(0.05)
