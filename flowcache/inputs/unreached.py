"""Why no server answered, in words: read from what clients of stores raise, and the system below them."""

import os
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from flowcache.errors import first_line

NO_TIME = (9, 10)  # of OpenSSL's verify codes: not yet valid, expired
NO_NAME = (62, 64)  # another host's, another address's
PLAIN = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG")  # what is no TLS
BUNDLE = "AWS_CA_BUNDLE"
PROXY = "HTTPS_PROXY (HTTP_PROXY), or leave the store out of it with NO_PROXY"


class Settings(NamedTuple):
    """Where a client is told what it trusts, and whom it asks."""

    bundle: str
    address: str


S3 = Settings(BUNDLE, "--endpoint-url (AWS_ENDPOINT_URL)")
OTHERS = Settings("SSL_CERT_FILE", "the store's address")


@dataclass(frozen=True)
class Unreached:
    """passing: another try may do better. of_machine: another machine may, by its trust, clock or network."""

    why: str
    passing: bool = True
    of_machine: bool = False


def unreached(fault: BaseException, asked: str = "the server") -> Unreached | None:
    """None where the fault is of another kind: a server answered, or it is a folder's. asked: the endpoint, where the
    fault does not name it."""
    every = list(chain(fault))
    links, at = {type(link).__name__: link for link in every}, _place(every) or asked
    of = S3 if any(type(link).__module__.startswith("botocore") for link in every) else OTHERS
    if found := next((link for link in every if getattr(link, "verify_code", 0)), None):
        return _mistrusted(at, found, of)
    if found := links.get("ClientHttpProxyError"):
        return _refused_by_proxy(at, getattr(found, "status", 0))
    if "HTTPClientError" in links and (wrong := _wrong_bundle(os.environ)):
        return Unreached(wrong, passing=False, of_machine=True)
    broken = [link for link in every if isinstance(link, ssl.SSLError)]
    if reason := next((found for link in broken if (found := getattr(link, "reason", None))), None):
        if reason in PLAIN:
            return Unreached(f"{at} does not speak TLS; take http:// or its other port in {of.address}", passing=False)
        return Unreached(f"TLS with {at} breaks off ({reason})")
    return _unconnected(at, links, of)


def _unconnected(at: str, links: Mapping[str, BaseException], of: Settings) -> Unreached | None:
    look = PROXY if "ProxyConnectionError" in links else of.address
    if any(isinstance(link, socket.gaierror) for link in links.values()):
        return Unreached(f"the host of {at} is not known; look at {look}, or at this machine's DNS", of_machine=True)
    if "ConnectionRefusedError" in links:
        return Unreached(f"nobody listens at {at}; start what should, or look at {look}")
    if "ConnectTimeoutError" in links:
        return Unreached(f"{at} does not take connections; look at {look}, or at a firewall before it")
    if links.keys() & {"EndpointConnectionError", "ProxyConnectionError"}:
        said = next((link.strerror for link in links.values() if isinstance(link, OSError) and link.strerror), "")
        return Unreached(f"no connection to {at}{f' ({said.lower()})' if said else ''}; look at {look}")
    if links.keys() & {"ReadTimeoutError", "FSTimeoutError"}:
        return Unreached(f"{at} takes connections and does not answer in time")
    if "ConnectionClosedError" in links:
        tls = f"; where it speaks TLS, take https:// in {of.address}" if at.startswith("http://") else ""
        return Unreached(f"{at} closes connections without an answer{tls}")
    return None


def chain(fault: BaseException | None) -> Iterator[BaseException]:
    """A fault, what it was made from, and what was being handled when it came."""
    while fault is not None:
        yield fault
        fault = fault.__cause__ or fault.__context__


def _place(links: Iterable[BaseException]) -> str | None:
    """Whose address a client names, without path and credentials."""
    for link in links:
        said = getattr(link, "kwargs", None) or {}
        if isinstance(url := said.get("proxy_url") or said.get("endpoint_url"), str):
            parts = urlsplit(url)
            return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return None


def _mistrusted(at: str, fault: Any, of: Settings) -> Unreached:
    """fault: an SSLCertVerificationError."""
    if fault.verify_code in NO_TIME:
        what, todo = "is not valid now", "renew it there, or set this machine's clock"
    elif fault.verify_code in NO_NAME:
        what, todo = "is another host's", f"take a name that it holds in {of.address}"
    else:
        what = "is not trusted here"
        todo = f"set {of.bundle} to a PEM file of its authority, on every machine that uses the store"
    why = f"the certificate of {at} {what} ({fault.verify_message.rstrip('.')}); {todo}"
    return Unreached(why, passing=False, of_machine=True)


def _refused_by_proxy(at: str, status: int) -> Unreached:
    todo = f"set user and password in {PROXY}" if status == 407 else f"look at {PROXY}"
    return Unreached(f"the proxy {at} answers {status}; {todo}", passing=status >= 500)


def _wrong_bundle(environment: Mapping[str, str]) -> str | None:
    """What is wrong with the authorities that the environment names."""
    file = environment.get(BUNDLE)
    if not file:
        return None
    try:
        ssl.create_default_context(cafile=file)
    except (OSError, ValueError) as fault:  # SSLError, too
        why = (getattr(fault, "strerror", None) or first_line(fault)).lower()
        return f"{BUNDLE} names {file!r}, which holds no certificates that can be read ({why}); name a PEM file"
    return None
