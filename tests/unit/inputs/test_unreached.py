"""What clients raise, in words. Over real connections: tests/s3/test_unreached.py."""

import socket
import ssl

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)

from flowcache.inputs.unreached import unreached

AT = {"endpoint_url": "https://host:9000/bucket/key?x=1", "error": "no"}


def after(fault: BaseException, *below: BaseException) -> BaseException:
    """The fault as it comes of those below it."""
    links = [fault, *below]
    for link, cause in zip(links, links[1:], strict=False):
        link.__context__ = cause
    return fault


def verified(code: int) -> ssl.SSLError:
    fault = ssl.SSLCertVerificationError(1, "certificate verify failed")
    fault.verify_code, fault.verify_message = code, "so it says."
    return fault


def broken(reason: str) -> ssl.SSLError:
    fault = ssl.SSLError(1, reason)
    fault.reason = reason
    return fault


@pytest.mark.parametrize(
    ("fault", "said", "passing", "of_machine"),
    [
        (
            after(SSLError(**AT), verified(18)),
            "host:9000 is not trusted here (so it says); set AWS_CA_BUNDLE",
            False,
            True,
        ),
        (after(SSLError(**AT), verified(20)), "is not trusted here (so it says); set AWS_CA_BUNDLE", False, True),
        (
            after(ValueError(), verified(20)),
            "of the server is not trusted here (so it says); set SSL_CERT",
            False,
            True,
        ),
        (after(SSLError(**AT), verified(10)), "is not valid now (so it says); renew it", False, True),
        (after(SSLError(**AT), verified(62)), "is another host's (so it says); take a name", False, True),
        (after(SSLError(**AT), broken("WRONG_VERSION_NUMBER")), "https://host:9000 does not speak TLS", False, False),
        (after(SSLError(**AT), broken("UNEXPECTED_EOF")), "TLS with https://host:9000 breaks off", True, False),
        (
            after(EndpointConnectionError(**AT), socket.gaierror(-2, "?")),
            "host of https://host:9000 is not known",
            True,
            True,
        ),
        (
            after(EndpointConnectionError(**AT), ConnectionRefusedError(111, "no")),
            "nobody listens at https://host:9000",
            True,
            False,
        ),
        (
            after(EndpointConnectionError(**AT), OSError(113, "No route")),
            "to https://host:9000 (no route); look",
            True,
            False,
        ),
        (EndpointConnectionError(**AT), "no connection to https://host:9000; look at --endpoint-url", True, False),
        (ConnectTimeoutError(**AT), "https://host:9000 does not take connections", True, False),
        (ReadTimeoutError(**AT), "https://host:9000 takes connections and does not answer", True, False),
        (ConnectionClosedError(**AT), "https://host:9000 closes connections without an answer", True, False),
        (ConnectionClosedError(endpoint_url="http://h/x", error=""), "where it speaks TLS, take https://", True, False),
        (
            ProxyConnectionError(proxy_url="http://me:word@proxy:8080", error=""),
            "to http://proxy:8080; look at HTTPS_PROXY",
            True,
            False,
        ),
    ],
)
def test_each_has_its_sentence(fault, said, passing, of_machine):
    found = unreached(fault)
    assert found is not None and said in found.why and "word" not in found.why and "bucket" not in found.why
    assert (found.passing, found.of_machine) == (passing, of_machine)


@pytest.mark.parametrize(
    "fault",
    [FileNotFoundError(2, "x"), PermissionError(), ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject"),
     HTTPClientError(error="no"), ValueError(), MemoryError()],
)  # fmt: skip
def test_what_is_no_connection_is_not_spoken_of(fault, monkeypatch):
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    assert unreached(fault) is None
