"""Google and Azure: which faults pass, what a person is told, links, and what is refused at once; without a server.

The errors are those that gcsfs and adlfs raise; see `clouds.py`.
"""

import sys

import pytest
from aiohttp import ClientPayloadError
from fsspec.spec import AbstractFileSystem
from requests.exceptions import ConnectionError as Unreachable
from requests.exceptions import ProxyError

from flowcache.errors import InputError, StoreError
from flowcache.storage.links import links
from flowcache.storage.objects import store as objects
from flowcache.storage.objects.schemes import SCHEMES
from flowcache.storage.objects.store import Store
from tests.unit.storage.objects.clouds import (
    ChecksumError,
    ClientAuthenticationError,
    DecodeError,
    GoogleAuthError,
    HttpError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    TransportError,
    backend_of,
    cloud_store,
)
from tests.unit.storage.samples import Studio, request

URLS = {"gs": "gs://bucket/night", "az": "az://bucket/night"}


@pytest.fixture
def patient(monkeypatch):
    monkeypatch.setattr(objects.time, "sleep", lambda seconds: None)


def http(code: int, message: str = "Words.") -> HttpError:
    return HttpError({"code": code, "message": message})


def azure(status: int, code: str) -> HttpResponseError:
    return HttpResponseError("Words.", status, code)


def below(cause: Exception, fault: Exception) -> Exception:
    fault.__cause__ = cause
    return fault


class Retryable(GoogleAuthError):
    retryable = True


FORBIDDEN = OSError("Forbidden: b/bucket/o\nx does not have storage.objects.create access.")

# scheme, error, whether it passes, whether it lies with the machine, what a person is told
FAULTS = [
    ("gs", http(503), True, False, "503: Words."),
    ("gs", http(429), True, False, "429: Words."),
    ("gs", http(408), True, False, "408: Words."),
    ("gs", HttpError({"code": "500", "message": ""}), True, False, "the server answered 500"),
    ("gs", ProxyError(), True, False, "ProxyError"),  # which is how gcsfs says 502
    ("gs", ClientPayloadError("half an answer"), True, False, "ClientPayloadError: half an answer"),
    ("gs", ChecksumError("MD5 checksum failed"), True, False, "ChecksumError: MD5 checksum failed"),
    ("gs", TransportError("no metadata server"), True, False, "TransportError: no metadata server"),
    ("gs", TimeoutError(), True, False, "TimeoutError"),
    ("gs", FileExistsError("k"), True, False, "its place was taken, and then nothing was there"),
    ("gs", http(400), False, False, "400: Words."),
    ("gs", ValueError("Bad Request: b/bucket/o\nan invalid argument"), False, False, "400: an invalid argument"),
    ("gs", http(401), False, True, "the Google credentials are not accepted (401): Words."),
    ("gs", below(Retryable(), http(401)), True, True, "the Google credentials are not accepted (401): Words."),
    ("gs", below(GoogleAuthError(), http(401)), False, True, "the Google credentials are not accepted (401): Words."),
    ("gs", FORBIDDEN, False, True, "access denied: these credentials lack the right for this in bucket 'bucket': "
     "x does not have storage.objects.create access."),
    ("gs", GoogleAuthError("none"), False, True, "no usable Google credentials found; set GOOGLE_APPLICATION_CREDENTI"),
    ("az", azure(503, "ServerBusy"), True, False, "ServerBusy: Words."),
    ("az", azure(500, "OperationTimedOut"), True, False, "OperationTimedOut: Words."),
    ("az", azure(400, "Md5Mismatch"), True, False, "Md5Mismatch: Words."),
    ("az", azure(412, "ConditionNotMet"), True, False, "ConditionNotMet: Words."),
    ("az", ServiceRequestError("Cannot connect"), True, False, "ServiceRequestError: Cannot connect"),
    ("az", DecodeError("Not enough data", 200), True, False, "DecodeError: Not enough data"),
    ("az", HttpResponseError("Response payload is not completed", 206), True, False, "HttpResponseError: Response"),
    ("az", ValueError("Required header is missing"), True, False, "ValueError: Required header is missing"),
    ("az", FileExistsError("k"), True, False, "its place was taken, and then nothing was there"),
    ("az", azure(400, "InvalidResourceName"), False, False, "InvalidResourceName: Words."),
    ("az", HttpResponseError("Gone wrong", 404), False, False, "404: Gone wrong"),
    ("az", ClientAuthenticationError("Words.", 403, "AuthenticationFailed"), False, True,
     "the Azure credentials are not accepted (AuthenticationFailed): Words."),
    ("az", azure(403, "AuthorizationPermissionMismatch"), False, True,
     "access denied: these credentials lack the right for this in container 'bucket': Words."),
    ("az", ClientAuthenticationError("No token\nTried:"), False, True, "no usable Azure account or credentials found"),
    ("az", ResourceNotFoundError("Words.", 404, "ContainerNotFound"), False, False,
     "container 'bucket' does not exist; create it first"),
]  # fmt: skip


@pytest.mark.parametrize(("scheme", "error", "passing", "of_machine", "words"), FAULTS)
@pytest.mark.parametrize("call", ["put", "exists", "list", "delete"])
def test_every_fault_becomes_a_store_error_and_is_tried_again_where_it_passes(
    patient, scheme, error, passing, of_machine, words, call
):
    store = cloud_store(URLS[scheme])
    script = store.backend.fs.faults = [error] * 99
    with pytest.raises(StoreError) as caught:
        getattr(store, call)("k", *([b"v"] if call == "put" else []))
    told = caught.value
    assert (told.passing, told.of_machine) == (passing, of_machine)
    assert words in str(told).partition("/k: " if call != "list" else ": ")[2]
    assert told.__cause__ is error
    assert 99 - len(script) == 1 + len(objects.RETRY_PAUSES if passing else objects.REFUSED_PAUSES)


@pytest.mark.parametrize(("scheme", "error"), [("gs", http(503)), ("az", azure(503, "ServerBusy"))])
def test_a_fault_that_passed_is_nothing(patient, scheme, error):
    store = cloud_store(URLS[scheme])
    store.backend.fs.faults = [error, error]
    store.put("k", b"v")
    store.backend.fs.faults = [error]
    assert store.get("k") == b"v"
    store.backend.fs.faults = [error]
    assert store.create("marker", b"mine") and not store.create("marker", b"theirs")


@pytest.mark.parametrize("scheme", URLS)
def test_a_missing_bucket_is_named(scheme):
    store, word = cloud_store(URLS[scheme]), {"gs": "bucket", "az": "container"}[scheme]
    store.url = store.url.replace("bucket", "typo")
    refused = [store.probe, store.list, lambda: store.put("k", b"v"), lambda: store.create("k", b"v")]
    if scheme == "az":  # Google's answer to a read says no more than 404
        refused.append(lambda: store.get("k"))
    for call in refused:
        with pytest.raises(StoreError, match=f"{word} 'typo' does not exist; create it first"):
            call()


def test_an_empty_container_whose_credentials_may_not_ask_about_it_is_empty():
    store = cloud_store("az://bucket/night")
    filesystem = store.backend.fs
    filesystem.info = lambda path: (_ for _ in ()).throw(azure(403, "AuthorizationPermissionMismatch"))
    assert store.list() == []
    filesystem.info = lambda path: (_ for _ in ()).throw(azure(404, "AccountGone"))
    with pytest.raises(StoreError, match="AccountGone"):
        store.list()


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("gs://ab/x", "'ab' is no valid bucket name; it needs 3 to 222 lowercase letters"),
        ("gs://Night/x", "'Night' is no valid bucket name"),
        ("az://ab/x", "'ab' is no valid container name; it needs 3 to 63 lowercase letters"),
        ("az://a--b/x", "'a--b' is no valid container name"),
        ("az://night_1/x", "'night_1' is no valid container name"),
    ],
)
def test_a_bad_name_is_refused_before_anything_is_tried(url, rule):
    with pytest.raises(InputError, match=rule):
        cloud_store(url)


@pytest.mark.parametrize("url", ["gs://my_night.x-1/a", "az://night-1/a", "az://$root/a", "az://abc"])
def test_good_names_are_taken(url):
    cloud_store(url).probe()


def test_google_without_credentials_is_refused_instead_of_asked_as_nobody():
    with pytest.raises(StoreError, match="^gs://bucket: no usable Google credentials found; set GOOGLE_APPL") as caught:
        backend_of("gs://bucket", {"token": None})
    assert caught.value.of_machine and not caught.value.passing
    assert backend_of("gs://bucket", {"token": "anon"}).fs.credentials.credentials is None


def test_azure_without_an_account_is_told_what_to_set():
    with pytest.raises(StoreError, match=r"^az://bucket: no usable Azure .*_CONNECTION_STRING.*\(unable to conn"):
        backend_of("az://bucket", {"connection_string": ""})


def test_a_client_that_cannot_be_made_says_nothing_secret():
    backend = backend_of("gs://bucket", {})

    def unreachable(**settings):
        raise Unreachable("Max retries exceeded with url: /tokeninfo?access_token=top-secret")

    client = type(backend.client)(unreachable, (), (Unreachable,), ())
    with pytest.raises(StoreError, match=r"\(ConnectionError\)$"):
        type(backend)("gs://bucket", {"token": "top-secret"}, client)


def test_azure_takes_its_account_from_the_url_and_no_endpoint():
    backend = backend_of("abfss://bucket@account.dfs.core.windows.net/a@b", {})
    assert (backend.fs.settings["account_name"], backend.root) == ("account", "bucket/a@b")
    assert backend_of("az://bucket/a@b", {}).fs.settings == {
        "use_listings_cache": False,
        "skip_instance_cache": True,
        "anon": False,
    }
    with pytest.raises(StoreError, match="Azure's endpoint is a part of AZURE_STORAGE_CONNECTION_STRING"):
        backend_of("az://bucket", {"endpoint_url": "http://127.0.0.1"})


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_a_package_that_is_not_there_is_named_with_what_brings_it(monkeypatch, scheme):
    package, extra = {"gs": ("gcsfs", "gcs"), "az": ("adlfs", "azure")}[scheme]
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.core", None)
    with pytest.raises(StoreError) as caught:
        Store(f"{scheme}://bucket/x").probe()
    said = str(caught.value)
    assert said.startswith(f"{scheme}://bucket/x: {scheme}:// needs the package {package}, which cannot be imported (")
    assert said.endswith(f"; pip install 'flowcache[{extra}]'")


def test_every_scheme_is_served_by_one():
    prefixes = [prefix for scheme in SCHEMES for prefix in scheme.prefixes]
    assert len(prefixes) == len(set(prefixes))


@pytest.mark.parametrize("scheme", URLS)
def test_a_video_has_a_link_in_which_every_address_is_signed(scheme):
    store = cloud_store(URLS[scheme])
    Studio(store, (request("cat", 2),)).run()
    found = links(store, ["cat"], 3600)["cat"]
    (key,) = [entry.key for entry in store.list("_links")]
    lines = store.get(key).decode().splitlines()
    signed = [line for line in lines if not line.startswith("#")]
    signed += [line.split('"')[1] for line in lines if line.startswith("#EXT-X-MAP")]
    assert len(signed) == 5
    for url in (found, *signed):
        assert url.startswith("https://") and "3600" in url


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("gs://bucket/night", {"token": "token"}, "hold no private key to sign with; set GOOGLE"),
        ("az://bucket/night", {"account_key": None}, "the account's key, and there is none; set AZURE"),
    ],
)
def test_credentials_that_cannot_sign_are_told(url, options, words):
    store = cloud_store(url, **options)
    Studio(store, (request("cat", 1),)).run()
    with pytest.raises(StoreError, match=f"^cannot sign {url}/media/cat/init.mp4: .*{words}"):
        links(store, ["cat"], 3600)


def test_a_client_that_knows_no_links_is_no_traceback(monkeypatch):
    """As fsspec's own filesystems: a store that somebody adds need not do more."""
    store = cloud_store("gs://bucket/night")
    monkeypatch.setattr(type(store.backend.fs), "sign", AbstractFileSystem.sign)
    with pytest.raises(StoreError, match="cannot sign links; accepted: s3://"):
        store.sign("k", 60)


def test_what_is_no_cloud_signs_nothing(tmp_path):
    for store in (Store(str(tmp_path)), Store("memory://night")):
        with pytest.raises(StoreError, match="cannot sign links; accepted: s3://, gs://, az://$"):
            store.sign("k", 60)
        with pytest.raises(InputError, match="cannot sign links; accepted: an output on S3 .*, Google .* or Azure "):
            links(store, ["cat"], 60)
