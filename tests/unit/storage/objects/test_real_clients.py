"""gcsfs and adlfs themselves, against a server that answers as told: each is skipped where it is not installed.

What `clouds.py` pretends is what these raise; and they send one request a try, with the condition of a create.
"""

import json
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flowcache.errors import StoreError
from flowcache.storage.objects import store as objects
from flowcache.storage.objects.store import MissingObject, Store

KEY = "c2VjcmV0" * 8  # base64, as Azure's are


@dataclass
class Server:
    """Answers every request alike; `fault`: with "half" the body, or a "reset"."""

    port: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    fault: str = ""
    sent: bytes = b""  # the last request's body
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # method, path, headers

    def google(self, status: int, message: str) -> None:
        """Refuse as Google does."""
        body = json.dumps({"error": {"code": status, "message": message, "errors": []}}).encode()
        self.answer(status, {"Content-Type": "application/json"}, body)

    def azure(self, status: int, code: str) -> None:
        """Refuse as Azure does."""
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>Words.\nRequestId:1</Message></Error>'.encode()
        self.answer(status, {"Content-Type": "application/xml", "x-ms-error-code": code}, body)

    def answer(self, status: int, headers: dict[str, str], body: bytes, fault: str = "") -> None:
        self.seen.clear()
        self.status, self.headers, self.body, self.fault = status, headers, body, fault


def handler_of(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            return None

        def answer(self) -> None:
            server.sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.seen.append((self.command, self.path, dict(self.headers)))
            self.close_connection = bool(server.fault)
            if server.fault == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                return
            self.send_response(server.status)
            missing = 10 if server.fault == "half" else 0
            for name, value in {**server.headers, "Content-Length": str(len(server.body) + missing)}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(server.body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()
    serving = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(told))
    told.port = serving.server_address[1]
    threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True).start()
    yield told
    serving.shutdown()
    serving.server_close()


@pytest.fixture
def google(server, monkeypatch) -> Store:
    pytest.importorskip("gcsfs", reason="needs gcsfs: pip install 'flowcache[gcs]'")
    monkeypatch.setattr(objects, "RETRY_PAUSES", (0.01,))
    monkeypatch.setattr(objects, "REFUSED_PAUSES", ())
    return Store("gs://bucket/night", endpoint_url=f"http://127.0.0.1:{server.port}", token="anon")


@pytest.fixture
def azure(server, monkeypatch) -> Store:
    pytest.importorskip("adlfs", reason="needs adlfs: pip install 'flowcache[azure]'")
    monkeypatch.setattr(objects, "RETRY_PAUSES", (0.01,))
    monkeypatch.setattr(objects, "REFUSED_PAUSES", ())
    place = f"BlobEndpoint=http://127.0.0.1:{server.port}/account"
    return Store("az://bucket/night", connection_string=f"AccountName=account;AccountKey={KEY};{place}")


def refusal(call, *arguments) -> StoreError:
    with pytest.raises(StoreError) as caught:
        call(*arguments)
    return caught.value


@pytest.mark.parametrize(
    ("status", "message", "passing", "of_machine", "words"),
    [
        (503, "Words.", True, False, "503: Words."),
        (502, "Words.", True, False, "ProxyError"),
        (429, "Words.", True, False, "429: Words."),
        (412, "Words.", True, False, "its place was taken, and then nothing was there"),
        (401, "Invalid Credentials", False, True, "the Google credentials are not accepted (401): Invalid Credentials"),
        (403, "x lacks it.", False, True, "lack the right for this in bucket 'bucket': x lacks it."),
        (404, "Words.", False, False, "bucket 'bucket' does not exist; create it first"),
        (400, "an invalid name", False, False, "400: an invalid name"),
        (400, "Words.", False, False, "400: Words."),
    ],
)
def test_what_google_refuses(google, server, status, message, passing, of_machine, words):
    server.google(status, message)
    told = refusal(google.put, "k", b"v")
    assert (told.passing, told.of_machine) == (passing, of_machine) and str(told).endswith(words)
    assert len(server.seen) == (2 if passing else 1)  # of two tries


@pytest.mark.parametrize(
    ("status", "code", "passing", "of_machine", "words"),
    [
        (503, "ServerBusy", True, False, "ServerBusy: Words."),
        (500, "OperationTimedOut", True, False, "OperationTimedOut: Words."),
        (400, "Md5Mismatch", True, False, "Md5Mismatch: Words."),
        (412, "ConditionNotMet", True, False, "ConditionNotMet: Words."),
        (409, "BlobAlreadyExists", True, False, "its place was taken, and then nothing was there"),
        (401, "NoAuthenticationInformation", False, True, "are not accepted (NoAuthenticationInformation): Words."),
        (403, "AuthenticationFailed", False, True, "credentials are not accepted (AuthenticationFailed): Words."),
        (403, "AuthorizationFailure", False, True, "lack the right for this in container 'bucket': Words."),
        (404, "ContainerNotFound", False, False, "container 'bucket' does not exist; create it first"),
        (400, "InvalidResourceName", False, False, "InvalidResourceName: Words."),
    ],
)  # fmt: skip
def test_what_azure_refuses(azure, server, status, code, passing, of_machine, words):
    server.azure(status, code)
    told = refusal(azure.put, "k", b"v")
    assert (told.passing, told.of_machine) == (passing, of_machine) and str(told).endswith(words)
    assert len(server.seen) == (2 if passing else 1)  # of two tries


@pytest.mark.parametrize("client", ["google", "azure"])
@pytest.mark.parametrize(
    ("call", "fault"),
    [
        *(("put", "half"), ("put", "reset"), ("put", "page"), ("get", "half"), ("get", "reset")),
        *(("list", "reset"), ("exists", "reset"), ("delete", "half"), ("delete", "reset")),
    ],
)
def test_an_answer_that_breaks_off_passes(request, server, client, call, fault):
    store, status = request.getfixturevalue(client), {"put": 201, "delete": 202, "get": 206}.get(call, 200)
    server.answer(status, {"Content-Range": "bytes 0-29/30"}, b"<html>a proxy's page", fault)
    told = refusal(getattr(store, call), "k", *([b"v"] if call == "put" else []))
    assert told.passing and not told.of_machine, told


@pytest.mark.parametrize("client", ["google", "azure"])
def test_nobody_there_passes_and_is_found_out_soon(request, server, client):
    store = request.getfixturevalue(client)
    store.options = json.loads(json.dumps(store.options).replace(f":{server.port}", ":9"))
    for call in (store.list, lambda: store.get("k"), lambda: store.put("k", b"v"), lambda: store.exists("k")):
        told = refusal(call)
        assert told.passing and not told.of_machine
    assert KEY not in str(told)


def test_google_is_asked_to_create_where_nothing_is(google, server):
    server.google(412, "Words.")
    with pytest.raises(FileExistsError):
        google.backend.create("k.m4s", b"v")
    assert "ifGenerationMatch=0" in server.seen[0][1]
    assert b"Content-Type: video/mp4" in server.sent and b'"cacheControl": "max-age=31536000, immutable"' in server.sent


def test_azure_is_asked_to_create_where_nothing_is(azure, server):
    server.azure(409, "BlobAlreadyExists")
    with pytest.raises(FileExistsError):
        azure.backend.create("k.m3u8", b"v" * (65 << 20))  # larger than what adlfs would send in one request
    ((method, path, headers),) = server.seen
    assert (method, path, headers["If-None-Match"]) == ("PUT", "/account/bucket/night/k.m3u8", "*")
    assert "Content-MD5" in headers
    told = headers["x-ms-blob-content-type"], headers["x-ms-blob-cache-control"]
    assert told == ("application/vnd.apple.mpegurl", "no-cache")


def test_missing_objects_and_containers(google, azure, server):
    server.azure(404, "BlobNotFound")
    for store in (google, azure):
        with pytest.raises(MissingObject):
            store.get("k")
        assert store.find("k") is None and not store.exists("k")
        store.delete("k")
    server.azure(404, "ContainerNotFound")
    for store in (google, azure):
        assert "bucket' does not exist; create it first" in str(refusal(store.list))
    assert "container 'bucket' does not exist" in str(refusal(azure.get, "k"))


def test_azure_without_account_or_with_a_broken_one(monkeypatch):
    pytest.importorskip("adlfs", reason="needs adlfs: pip install 'flowcache[azure]'")
    for name in ("CONNECTION_STRING", "ACCOUNT_NAME", "ACCOUNT_KEY", "SAS_TOKEN", "CLIENT_ID"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    for options in ({}, {"connection_string": "AccountKey=top-secret"}):
        told = refusal(Store("az://bucket/night", **options).list)
        assert "no usable Azure account or credentials found; set AZURE_STORAGE_CONNECTION_STRING" in str(told)
        assert told.of_machine and "top-secret" not in str(told)
    signed = Store("az://bucket/night", account_name="account", account_key="y")
    assert "no usable Azure account or credentials found" in str(refusal(signed.get, "k"))


def test_google_links_are_signed_by_a_key_and_by_nothing_else(google, tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from google.oauth2.credentials import Credentials

    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key = rsa.generate_private_key(65537, 2048).private_bytes(*form).decode()
    account = {"type": "service_account", "private_key": key, "client_email": "a@p.iam.gserviceaccount.com"}
    (tmp_path / "key.json").write_text(json.dumps({**account, "token_uri": "http://127.0.0.1:9/token"}))
    google.options["token"] = str(tmp_path / "key.json")
    url = google.sign("media/cat/init.mp4", 3600)
    assert "/bucket/night/media/cat/init.mp4?X-Goog-Algorithm=GOOG4-RSA-SHA256" in url and "X-Goog-Expires=3600" in url
    google.options["token"], google._backend = Credentials("token"), None
    told = str(refusal(google.sign, "k", 3600))
    assert "these Google credentials hold no private key to sign with" in told


def test_azure_links_are_signed_by_a_key_and_by_nothing_else(azure):
    assert "/account/bucket/night/k?" in azure.sign("k", 3600) and "&sp=r&" in azure.sign("k", 3600)
    anonymous = Store("az://bucket/night", account_name="account", anon=True)
    assert "links are signed with the account's key, and there is none" in str(refusal(anonymous.sign, "k", 3600))
