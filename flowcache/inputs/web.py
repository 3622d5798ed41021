"""http:// and https:// of people one doesn't know: only to public addresses, within deadlines, to a size."""

import asyncio
import ipaddress
import socket
import time
from functools import partial
from typing import IO, Any

import aiohttp

from flowcache.errors import UnreadableError
from flowcache.inputs.limits import BLOCK, check_size

QUIET = 30.0  # seconds without a byte after which a server is given up
LEAST = 16 << 10  # bytes a second on average, from QUIET on: a server that sends a byte now and then holds up nobody
REDIRECTS = 5
NETS = (
    "192.0.0.0/24",
    "192.88.99.0/24",
    "168.63.129.16/32",
    "3fff::/20",
    "64:ff9b:1::/48",
    "fec0::/10",
    "2001::/32",
    "2002::/16",
)
# Not for media either: protocols' own, Azure's services at an address that looks public, gateways, tunnels.
OTHERS = [ipaddress.ip_network(net) for net in NETS]
CARRIERS = [ipaddress.ip_network(net) for net in ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "::/96")]
STATUS = {401: "cannot be read (access denied)", 403: "cannot be read (access denied)", 404: "does not exist"}
BUSY = (408, 425, 429)  # of what is no 5xx
STATUS |= {410: "does not exist"}


def is_public(text: str) -> bool:
    """Whether an address belongs to the internet at large; an IPv6 one that stands for an IPv4 one, as that does."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if any(address in net for net in CARRIERS):
        address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    special = address.is_private or address.is_multicast or address.is_reserved or not address.is_global
    return not special and not any(address in net for net in OTHERS)


def fetch(url: str, file: IO[bytes], limit: int, private: bool, seconds: float) -> None:
    """Write what lies at `url` to `file`. UnreadableError. private: also from addresses that are not public."""
    asyncio.run(_fetch(url, file, limit, private, seconds))


async def _fetch(url: str, file: IO[bytes], limit: int, private: bool, seconds: float) -> None:
    refused: list[str] = []
    # Every connection is made by `_socket`, of a redirect as well, and to the very address that it has seen.
    connector = aiohttp.TCPConnector(socket_factory=partial(_socket, private, refused))
    timeout = aiohttp.ClientTimeout(total=seconds, connect=QUIET, sock_connect=QUIET / 3, sock_read=QUIET)
    headers = {"Accept-Encoding": "identity", "User-Agent": "flowcache"}
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector, timeout=timeout, headers=headers, auto_decompress=False, trust_env=False
            ) as session,
            session.get(url, max_redirects=REDIRECTS) as answer,
        ):
            await _written(answer, file, limit)
    except TimeoutError as error:
        said = f"does not come (no answer for {QUIET:.0f} s, or not all of it in {seconds:.0f} s)"
        raise UnreadableError(said, slow=True, away=True) from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _told(error, refused) from error


def _socket(private: bool, refused: list[str], place: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, address = place
    if not private and not is_public(address[0]):
        refused.append(address[0])
        raise PermissionError(f"{address[0]} is no public address")
    return socket.socket(family, kind, protocol)


async def _written(answer: aiohttp.ClientResponse, file: IO[bytes], limit: int) -> None:
    if answer.status != 200:
        said = STATUS.get(answer.status, f"cannot be read (the server answers {answer.status})")
        raise UnreadableError(said, away=answer.status >= 500 or answer.status in BUSY)
    if (packed := answer.headers.get("Content-Encoding", "identity").lower()) != "identity":
        raise UnreadableError(f"comes compressed ({packed[:20]!r}), which was not asked for")
    begun, size = time.monotonic(), 0
    check_size(answer.content_length or 0, limit)
    async for block in answer.content.iter_chunked(BLOCK):
        size += len(block)
        check_size(size, limit)
        took = time.monotonic() - begun
        if took > QUIET and size < LEAST * took:
            raise UnreadableError(f"comes too slowly ({size:,} bytes in {took:.0f} s)", slow=True)
        file.write(block)


def _told(error: Exception, refused: list[str]) -> UnreadableError:
    if refused:
        return UnreadableError(
            f"leads to {refused[0]}, which is no public address; accepted: public ones, or --allow-private-media"
        )
    if isinstance(error, aiohttp.TooManyRedirects):
        return UnreadableError(f"is redirected more than {REDIRECTS} times")
    if isinstance(error, aiohttp.NonHttpUrlRedirectClientError):
        return UnreadableError("is redirected to something else than http:// or https://")
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return UnreadableError("is no URL that can be opened")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return UnreadableError("cannot be reached (its certificate or TLS is not accepted)")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return UnreadableError("cannot be reached (its host is not known)", away=True)
    if isinstance(error, aiohttp.ClientConnectionError) and not isinstance(error, aiohttp.ServerDisconnectedError):
        return UnreadableError("cannot be reached", away=True)
    said = f"cannot be read ({type(error).__name__}: the server's answer is broken or breaks off)"
    return UnreadableError(said, away=True)
