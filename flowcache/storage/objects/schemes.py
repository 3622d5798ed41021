"""The cloud storages that URLs can name, and how they differ: plain data, for which no client library is loaded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowcache.storage.objects import headers
from flowcache.storage.objects.backend import ROOM

ONE_REQUEST = 5 << 30  # bytes; an upload in parts is not exclusive everywhere


def codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


ELSEWHERE = "the bucket is in another region or at another address: set AWS_DEFAULT_REGION, or --endpoint-url"
CLOCK = "set this machine's clock"
PROXY = "a proxy asks who you are: set user and password in HTTP_PROXY, or leave the store out of it with NO_PROXY"
LACKING = "the server has no such operation; take a store such as AWS S3, Ceph or MinIO"


def advice(**by_words: str) -> Mapping[str, str]:
    """By code, where each argument is a sentence's codes."""
    sentences = {"room": ROOM, "elsewhere": ELSEWHERE, "clock": CLOCK, "lacking": LACKING, "proxy": PROXY}
    return {code: sentences[name] for name, text in by_words.items() for code in text.split()}


@dataclass(frozen=True)
class Scheme:
    """One cloud's storage. Its codes are those of the server's refusals: they say what passes sooner than others, which
    machine may fare better, and what a person is told. Whose fault it is never hangs on them: it is the store's.
    """

    name: str  # as a person calls it
    prefixes: tuple[str, ...]  # of its URLs, before ://
    package: str  # the filesystem below it
    install: str  # what pip installs that with
    bucket: str  # what it calls a bucket
    bucket_names: str  # regular expression
    bucket_rule: str
    upload: Mapping[str, Any]  # arguments of pipe_file, by which data goes in one request and damage is noticed
    headers: Callable[[str], Mapping[str, Any]]  # more of them, for an object of this key: its type, how long it keeps
    no_credentials: str  # what a person is told who has none
    missing: frozenset[str]  # there is no such bucket
    unknown: frozenset[str]  # the credentials are not accepted
    forbidden: frozenset[str]  # they lack a right
    passing: frozenset[str] = frozenset()  # another try may do better
    of_machine: frozenset[str] = frozenset()  # beside unknown and forbidden
    advice: Mapping[str, str] = field(default_factory=dict)  # by code or status: what a person can do
    says_why: bool = True  # its messages about credentials tell a person more than the codes
    no_signature: str = ""  # what a person is told whose credentials cannot sign; those of S3 always can
    signing: Mapping[str, Any] = field(default_factory=dict)  # arguments of sign


S3 = Scheme(
    name="S3",
    prefixes=("s3", "s3a"),
    package="s3fs",
    install="flowcache",
    bucket="bucket",
    bucket_names=r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]",
    bucket_rule="at least 3 characters (letters, digits, dots and dashes): s3://bucket/prefix",
    upload={"chunksize": ONE_REQUEST},  # and the sum of the data
    headers=headers.of_s3,
    no_credentials=(
        "no S3 credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine "
        "a profile or a role"
    ),
    missing=codes("NoSuchBucket"),
    unknown=codes(
        "InvalidAccessKeyId SignatureDoesNotMatch ExpiredToken InvalidToken TokenRefreshRequired InvalidSecurity 401"
    ),
    forbidden=codes("AccessDenied AllAccessDisabled AccountProblem 403"),
    # BadDigest: damaged on the way; PreconditionFailed is asked about only where nothing was found: the other writer
    # is not done yet
    passing=codes(
        "SlowDown RequestTimeout InternalError ServiceUnavailable OperationAborted ConditionalRequestConflict "
        "Throttling ThrottlingException BadDigest PreconditionFailed"
    ),
    of_machine=codes("RequestTimeTooSkewed RequestExpired"),  # its clock is wrong
    advice=advice(
        room="QuotaExceeded XMinioStorageFull XMinioAdminBucketQuotaExceeded InsufficientStorage 507",
        elsewhere="PermanentRedirect TemporaryRedirect Redirect AuthorizationHeaderMalformed "
        "IllegalLocationConstraintException 301 302 307 308",
        clock="RequestTimeTooSkewed RequestExpired",
        lacking="MethodNotAllowed NotImplemented 405 501",
        proxy="407",
    ),
    says_why=False,
)

GCS = Scheme(
    name="Google",
    prefixes=("gs", "gcs"),
    package="gcsfs",
    install="flowcache[gcs]",
    bucket="bucket",
    bucket_names=r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]",
    bucket_rule="3 to 222 lowercase letters, digits, dots, dashes and underscores: gs://bucket/prefix",
    upload={"chunksize": ONE_REQUEST, "consistency": "md5"},
    headers=headers.of_google,
    no_credentials=(
        "no usable Google credentials found; set GOOGLE_APPLICATION_CREDENTIALS to a key file, run "
        "`gcloud auth application-default login`, or give the machine a service account"
    ),
    no_signature=(
        "these Google credentials hold no private key to sign with; set GOOGLE_APPLICATION_CREDENTIALS to the key "
        "file of a service account"
    ),
    missing=codes("404"),
    unknown=codes("401"),
    forbidden=codes("403"),
    advice=advice(room="507"),
    signing={"version": "v4"},
)

AZURE = Scheme(
    name="Azure",
    prefixes=("az", "abfs", "abfss"),
    package="adlfs",
    install="flowcache[azure]",
    bucket="container",
    bucket_names=r"\$(?:root|web)|(?=.{3,63}$)[a-z0-9]+(?:-[a-z0-9]+)*",
    bucket_rule="3 to 63 lowercase letters, digits and single dashes: az://container/prefix",
    upload={"validate_content": True},
    headers=headers.of_azure,
    no_credentials=(
        "no usable Azure account or credentials found; set AZURE_STORAGE_CONNECTION_STRING, or "
        "AZURE_STORAGE_ACCOUNT_NAME and either AZURE_STORAGE_ACCOUNT_KEY or an identity (`az login`, a managed one)"
    ),
    no_signature=(
        "links are signed with the account's key, and there is none; set AZURE_STORAGE_ACCOUNT_KEY or "
        "AZURE_STORAGE_CONNECTION_STRING"
    ),
    missing=codes("ContainerNotFound"),
    unknown=codes("AuthenticationFailed InvalidAuthenticationInfo NoAuthenticationInformation 401"),
    forbidden=codes(
        "AuthorizationFailure AuthorizationPermissionMismatch AuthorizationProtocolMismatch "
        "AuthorizationResourceTypeMismatch AuthorizationServiceMismatch AuthorizationSourceIPMismatch "
        "InsufficientAccountPermissions KeyBasedAuthenticationNotPermitted PublicAccessNotPermitted 403"
    ),
    advice=advice(room="507"),
    passing=codes("Md5Mismatch ConditionNotMet ContainerBeingDeleted"),
)

SCHEMES = (S3, GCS, AZURE)


def scheme_of(url: str) -> Scheme | None:
    """The cloud storage that serves `url`; None for folders and memory."""
    prefix, separator, _ = url.partition("://")
    return next((scheme for scheme in SCHEMES if separator and prefix in scheme.prefixes), None)
