"""Which faults of S3 pass, and what a person is told, without a server."""

import errno
from itertools import count

import pytest
from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from s3fs.errors import translate_boto_error

from flowcache.storage.objects.s3 import IDLE, S3Backend


@pytest.fixture(scope="module")
def backend():
    return S3Backend("s3://bucket/prefix", {"key": "k", "secret": "s", "endpoint_url": "http://127.0.0.1:9"})


def fault(code: str, status: int, message: str = "") -> Exception:
    """The exception as s3fs raises it: translated, with the server's answer as its cause."""
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(ClientError(answer, "PutObject"))


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (fault("SlowDown", 503), True),
        (fault("InternalError", 500), True),
        (fault("Whatever", 502), True),
        (fault("TooManyRequests", 429), True),
        (fault("RequestTimeout", 400), True),
        (fault("ConditionalRequestConflict", 409), True),
        (fault("PreconditionFailed", 412), True),
        (ReadTimeoutError(endpoint_url="http://x"), True),
        (EndpointConnectionError(endpoint_url="http://x"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (fault("AccessDenied", 403), False),
        (fault("NoSuchBucket", 404), False),
        (fault("InvalidBucketName", 400), False),
        (NoCredentialsError(), False),
        (PermissionError("no"), False),
    ],
)
def test_which_faults_pass(backend, error, passing):
    assert backend.passing(error) is passing


@pytest.mark.parametrize(
    ("error", "of_machine"),
    [
        (NoCredentialsError(), True),
        (CredentialRetrievalError(provider="iam-role", error_msg="no answer"), True),
        (fault("AccessDenied", 403), True),
        (fault("ExpiredToken", 400), True),
        (fault("RequestTimeTooSkewed", 403), True),
        (OSError(errno.ENOSPC, "no space left"), True),
        (fault("NoSuchBucket", 404), False),
        (fault("InternalError", 500), False),
        (fault("InvalidRequest", 400), False),
        (ConnectionResetError(), False),
    ],
)
def test_which_faults_another_machine_may_not_have(backend, error, of_machine):
    assert backend.of_machine(error) is of_machine


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (fault("NoSuchBucket", 404), "bucket 'bucket' does not exist; create it first"),
        (fault("SignatureDoesNotMatch", 403), "the S3 credentials are not accepted (SignatureDoesNotMatch)"),
        (fault("AccessDenied", 403), "access denied: these credentials lack the right for this in bucket 'bucket'"),
        (fault("QuotaExceeded", 403, "no space"), "QuotaExceeded: no space; make room there, or raise the quota"),
        (fault("Odd", 400), "the server answered Odd"),
        (NoCredentialsError(), "no S3 credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the "
         "machine a profile or a role"),
        (TimeoutError("slow"), "TimeoutError: slow"),
    ],
)  # fmt: skip
def test_what_a_person_is_told(backend, error, words):
    assert backend.explain(error) == words


def test_retries_and_caches_of_the_client_are_off(backend):
    assert backend.fs.retries == 1 and not backend.fs.dircache.use_listings_cache
    assert backend.fs.config_kwargs["request_checksum_calculation"] == "when_required"


def page(key: str, following: str | None = None) -> dict:
    more = {} if following is None else {"NextContinuationToken": following}
    return {"Contents": [{"Key": key, "Size": 1}], "IsTruncated": following is not None, **more}


@pytest.mark.parametrize(
    ("pages", "why"),
    [
        ({None: page("prefix/a", "")}, "does not come to an end"),
        ({None: page("prefix/a", "1"), "1": page("prefix/b", "1")}, "does not come to an end"),
        ({None: page("prefix/a", "1"), "1": page("prefix/b", "2"), "2": page("prefix/c", "1")}, "does not come"),
        ({None: page("prefix/a", "1"), "1": page("other/b")}, "lists what was not asked for"),
        ({None: page("prefix-2/a")}, "lists what was not asked for"),
    ],
)  # fmt: skip
def test_a_listing_that_goes_astray_is_no_answer(backend, monkeypatch, pages, why):
    monkeypatch.setattr(backend, "_ask", lambda method, Prefix, ContinuationToken=None: pages[ContinuationToken])  # noqa: N803
    with pytest.raises(OSError, match=why) as told:
        list(backend.list(""))
    assert backend.passing(told.value)


def test_a_listing_whose_pages_go_no_further_comes_to_an_end(backend, monkeypatch):
    tokens = map(str, count())
    monkeypatch.setattr(backend, "_ask", lambda *_, **__: page("prefix/a", next(tokens)))
    with pytest.raises(OSError, match="does not come to an end"):
        list(backend.list(""))
    assert int(next(tokens)) < 2 * IDLE


def test_a_refusal_without_words_is_told_by_its_status(backend):
    error = ClientError(
        {"Error": {"Code": "", "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "PutObject"
    )
    assert backend.explain(error) == "the server answered 400"
