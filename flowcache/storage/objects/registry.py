"""Which backend serves which URL."""

import os
import re
from typing import Any

from flowcache.errors import InputError, Problem, StoreError, masked
from flowcache.inputs.output_url import FOLDERS, check_root
from flowcache.masking import split
from flowcache.storage.objects.backend import Backend
from flowcache.storage.objects.schemes import AZURE, GCS, Scheme, scheme_of


def normalise(url: str) -> str:
    """The store's URL without a trailing slash; local folders as absolute paths (workers run elsewhere).

    InputError for what can't be a root.
    """
    check_root(url)
    scheme, rest = split(url)
    if not scheme or scheme in FOLDERS:
        return os.path.abspath(os.path.expanduser(rest))
    found = scheme + rest.rstrip("/")
    if cloud := scheme_of(found):
        bucket = re.split("[/@]", rest)[0]  # of Azure: container@account
        if not re.fullmatch(cloud.bucket_names, bucket):
            message = f"{masked(found)}: {bucket!r} is no valid {cloud.bucket} name; it needs {cloud.bucket_rule}"
            raise InputError([Problem("output", "", message)])
    return found


def connect(url: str, options: dict[str, Any]) -> Backend:
    """The backend of a normalised URL; StoreError where a package is missing, or credentials."""
    if "://" not in url:
        from flowcache.storage.objects.local import LocalBackend

        return LocalBackend(url)
    cloud = scheme_of(url)
    if cloud is None:
        from flowcache.storage.objects.fsspec_backend import RemoteBackend

        return RemoteBackend(url, options)
    try:
        return _cloud(cloud, url, options)
    except ImportError as fault:
        raise StoreError(
            f"{masked(url)}: {cloud.prefixes[0]}:// needs the package {cloud.package}, which cannot be imported "
            f"({fault}); pip install '{cloud.install}'"
        ) from fault


def _cloud(scheme: Scheme, url: str, options: dict[str, Any]) -> Backend:
    """Imported here: the clients load for a second, and those of Google and Azure are extras."""
    if scheme is GCS:
        from flowcache.storage.objects.gcs import GcsBackend

        return GcsBackend(url, options)
    if scheme is AZURE:
        from flowcache.storage.objects.azure import AzureBackend

        return AzureBackend(url, options)
    from flowcache.storage.objects.s3 import S3Backend

    return S3Backend(url, options)
