"""Which backend serves which URL."""

import os
from typing import Any

from flowcache.errors import StoreError, masked
from flowcache.inputs.output_url import check_root
from flowcache.storage.objects.backend import Backend
from flowcache.storage.objects.schemes import AZURE, GCS, Scheme, scheme_of


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
    if "://" not in url:
        from flowcache.storage.objects.local import LocalBackend

        return LocalBackend(url)
    cloud = scheme_of(url)
    if cloud is None:
        return _other(url, options)
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


def _other(url: str, options: dict[str, Any]) -> Backend:
    from flowcache.storage.objects.fsspec_backend import RemoteBackend, supported

    scheme = url.partition("://")[0]
    if not supported(scheme):
        raise StoreError(
            f"{masked(url)}: unknown kind of storage {scheme!r}; give a folder, s3://bucket/prefix, "
            "gs://bucket/prefix, az://container/prefix, or another scheme that an installed fsspec package serves"
        )
    try:
        return RemoteBackend(url, options)
    except (ImportError, ValueError) as fault:
        raise StoreError(f"{masked(url)}: {fault}") from fault
