"""Endpoints that are no S3 server, or one behind a certificate or a proxy that is wrong: each on a local address."""

import io
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from socketserver import TCPServer
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.hostile.servers import Answer, Server, at_work
from tests.soak.proxy import Proxy

HOST = "127.0.0.1"
DAY = timedelta(days=1)


class Pem(NamedTuple):
    """Files: a certificate by itself, and with its key."""

    certificate: Path
    chain: Path


def certificate(folder: Path, host: str = HOST, until: datetime | None = None) -> Pem:
    """One that signs itself, for that host."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    until = until or datetime.now(UTC) + DAY
    try:
        of = x509.IPAddress(ip_address(host))
    except ValueError:
        of = x509.DNSName(host)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(until - 3 * DAY)
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([of]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    text = made.public_bytes(serialization.Encoding.PEM)
    found = Pem(folder / f"{host}.crt", folder / f"{host}.pem")
    found.certificate.write_bytes(text)
    found.chain.write_bytes(text + key.private_bytes(*plain))
    return found


def over_tls(server: TCPServer, pem: Pem) -> ssl.SSLContext:
    """Its context: what is loaded there is shown to later connections."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem.chain)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return context


class TlsProxy(Proxy):
    """Before an S3 server, as one that speaks TLS."""

    def __init__(self, upstream: str, pem: Pem):
        super().__init__(upstream)
        self.context = over_tls(self, pem)

    @property
    def url(self) -> str:
        return super().url.replace("http:", "https:")


@contextmanager
def answering(answer: Answer, pem: Pem | None = None) -> Iterator[Server]:
    """An http server whose every method is `answer`; with a certificate an https one."""
    server = Server(answer, HOST)
    handler: Any = server.RequestHandlerClass

    def head(asked: Any) -> None:
        """Its answer without a body."""
        end = asked.end_headers
        asked.end_headers = lambda: (end(), setattr(asked, "wfile", io.BytesIO()))
        asked.do_GET()

    handler.do_HEAD = head
    for method in ("PUT", "POST", "DELETE", "CONNECT"):
        setattr(handler, f"do_{method}", handler.do_GET)
    if pem:
        over_tls(server, pem)
        server.url = server.url.replace("http:", "https:")
    with at_work(server):
        yield server


@contextmanager
def silent() -> Iterator[str]:
    """HOST:PORT that takes connections and says nothing."""
    with socket.create_server((HOST, 0)) as listener:
        yield f"{HOST}:{listener.getsockname()[1]}"


@contextmanager
def full() -> Iterator[str]:
    """HOST:PORT that takes no connection: its queue is full, and the kernel leaves new ones without an answer."""
    with socket.create_server((HOST, 0), backlog=0) as listener, ExitStack() as held:
        for _ in range(3):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"{HOST}:{listener.getsockname()[1]}"
