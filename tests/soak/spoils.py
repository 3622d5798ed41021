"""What a proxy does to a request. Each takes its handler and the request's body."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

XML = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
CODES = {500: "InternalError", 503: "SlowDown"}


@dataclass
class Answer:
    """A server's, or what is given in its place."""

    status: int
    headers: list[tuple[str, str]]
    data: bytes


Spoil = Callable[[Any, bytes], None]  # answers a request: gets its `proxy.Handler` and its body


def error(code: str, message: str = "spoilt by the proxy") -> bytes:
    return XML.format(code=code, message=message).encode() if code else b""


def nothing(handler, body: bytes) -> None:
    handler.answer(handler.upstream(body))


def refuse(status: int, code: str) -> Spoil:
    """Answered so, and not passed on."""
    return page(status, error(code), "application/xml")


def page(status: int, data: bytes, kind: str = "text/html") -> Spoil:
    """Somebody else's words, as those of a gateway or a login."""
    return lambda handler, body: handler.answer(Answer(status, [("Content-Type", kind)], data))


def lost_request(handler, body: bytes) -> None:
    handler.hang_up()


def lost_answer(handler, body: bytes) -> None:
    handler.upstream(body)
    handler.hang_up()


def half(handler, body: bytes) -> None:
    answer = handler.upstream(body)
    handler.head(answer)
    if handler.command != "HEAD" and answer.status not in (204, 304):
        handler.wfile.write(answer.data[: len(answer.data) // 2])
    handler.hang_up()


def late(handler, body: bytes) -> None:
    time.sleep(1.0)
    nothing(handler, body)


def length(change: Callable[[int], int]) -> Spoil:
    """A Content-Length that is not the body's; of the body no more than that is sent."""

    def spoil(handler, body: bytes) -> None:
        answer = handler.upstream(body)
        told = max(change(len(answer.data)), 0)
        handler.head(answer, told)
        handler.wfile.write(answer.data[:told])
        handler.hang_up()

    return spoil


def cut_chunks(handler, body: bytes) -> None:
    """A chunked body that breaks off within a chunk."""
    answer = handler.upstream(body)
    handler.send_response(answer.status)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"%x\r\n" % (len(answer.data) + 8) + answer.data[: len(answer.data) // 2])
    handler.hang_up()


def drip(seconds: float) -> Spoil:
    """The answer's body byte by byte, so many seconds each."""

    def spoil(handler, body: bytes) -> None:
        answer = handler.upstream(body)
        handler.head(answer, None if answer.data else 60)
        for place in range(len(answer.data) or 60):
            handler.wfile.write(answer.data[place : place + 1] or b"x")
            handler.wfile.flush()
            time.sleep(seconds)

    return spoil


def body_of(other: Callable[[], str]) -> Spoil:
    """What lies at another path."""
    return lambda handler, body: handler.answer(handler.upstream(body, other()))


def unconditional(handler, body: bytes) -> None:
    """The server no longer knows If-None-Match."""
    handler.answer(handler.upstream(body, without=("if-none-match",)))


def swallowed(etag: str = "") -> Spoil:
    """A write is said to be done, and is not."""
    headers = [("ETag", etag)] if etag else []
    return lambda handler, body: handler.answer(Answer(200, headers, b""))


def tagged(etag: str) -> Spoil:
    """The right answer with another ETag."""

    def spoil(handler, body: bytes) -> None:
        answer = handler.upstream(body)
        answer.headers = [(name, value) for name, value in answer.headers if name.lower() != "etag"]
        answer.headers.append(("ETag", etag))
        handler.answer(answer)

    return spoil


class Frozen:
    """Answers as the first time that it was asked for the same."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}

    def __call__(self, handler, body: bytes) -> None:
        if handler.path not in self.answers:
            self.answers[handler.path] = handler.upstream(body)
        handler.answer(self.answers[handler.path])


BY_NAME = {
    **{str(status): refuse(status, code) for status, code in CODES.items()},
    "lost request": lost_request,
    "lost answer": lost_answer,
    "half an answer": half,
    "slow": late,
}
