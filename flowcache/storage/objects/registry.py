"""Which backend serves which URL."""

import os
from typing import Any

from flowcache.errors import StoreError, masked
from flowcache.inputs.output_url import check_root
from flowcache.storage.objects.store import Backend


def normalise(url: str) -> str:
    """The store's URL without a trailing slash; local folders as absolute paths (workers run elsewhere).

    InputError for what can't be a root.
    """
    if not url:
        raise StoreError("the output URL is empty; give a folder or a URL like s3://bucket/prefix")
    check_root(url)
    scheme, separator, rest = url.partition("://")
    if not separator or scheme in ("file", "local"):
        path = rest if separator else url
        return os.path.abspath(os.path.expanduser(path))
    return f"{scheme}://{rest.rstrip('/')}"


def connect(url: str, options: dict[str, Any]) -> Backend:
    """The backend of a normalised URL; StoreError for a scheme that nothing here speaks."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        from flowcache.storage.objects.local import LocalBackend

        return LocalBackend(url)
    if scheme in ("s3", "s3a"):
        from flowcache.storage.objects.s3 import S3Backend

        return S3Backend(url, options)
    from flowcache.storage.objects.fsspec_backend import RemoteBackend, supported

    if not supported(scheme):
        raise StoreError(
            f"{masked(url)}: unknown kind of storage {scheme!r}; give a folder, s3://bucket/prefix, "
            "or another scheme that an installed fsspec package serves (gs://, az://, ...)"
        )
    try:
        return RemoteBackend(url, options)
    except (ImportError, ValueError) as fault:
        raise StoreError(f"{masked(url)}: {fault}") from fault
