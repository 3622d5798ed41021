"""Which URLs can be the output root of a run: one that can't hold a night is refused before anything is done."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from flowcache.errors import InputError, Problem
from flowcache.masking import login, masked_url, split

ACCEPTED = "a folder or URL such as s3://bucket/prefix"
FOLDERS = ("file://", "local://")
SERVED = (*FOLDERS, "memory://", "s3://", "s3a://", "gs://", "gcs://", "az://", "abfs://", "abfss://")
# Characters that no name of an object or file should hold: controls, line separators, what UTF-8 can't say.
UNUSABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
ENDPOINT = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\])(?::\d{1,4}|:[1-5]\d{4}|:6[0-5]\d{3})?(?:/[!-~]*)?")
# In bytes: of a folder's name, of its path, of a prefix (keys may have 1,024 bytes)
NAME_LIMIT, PATH_LIMIT, KEY_LIMIT = 255, 3000, 700


def check_root(url: str, typed: bool = False, name: str = "output") -> None:
    """InputError, without the credentials that it may hold, where `url` can't be a root. typed: see `fault`.

    name: what the message calls it.
    """
    found = fault(url, typed)
    if found:
        raise InputError([Problem(name, "", f"{masked_url(url)!r} {found}; accepted: {ACCEPTED}")])


def within_checkpoints(url: str, checkpoints: Iterable[str]) -> list[Problem]:
    """Of a root within the folder of one of them: with a run's files there it is another checkpoint."""
    scheme, rest = split(url)
    if scheme and scheme not in FOLDERS:
        return []
    root = Path(os.path.realpath(os.path.expanduser(rest)))
    found = (each for each in sorted({*checkpoints}) if root.is_relative_to(os.path.realpath(each)))
    why = "which would be another one: it is known by all files of its folder; accepted: an output outside of it"
    return [Problem("output", "", f"{url!r} lies within the checkpoint {each}, {why}") for each in found]


def fault(url: str, typed: bool = False) -> str | None:
    """Why `url` can't be a root, None where it can. typed: on a command line, whose run has processes of its own."""
    if not url.strip():
        return "is empty"
    if re.match(r"[A-Za-z]:[\\/]", url):
        return "begins with a drive of Windows"
    scheme, rest = split(url)
    if scheme and login(scheme, rest):
        return (
            "holds credentials; they belong in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), in a "
            "profile, or with the machine as its instance role"
        )
    if found := UNUSABLE.search(url):
        return f"holds the control character U+{ord(found[0]):04X}"
    if url != url.strip():
        return "begins or ends with a space"
    if not scheme:
        return _too_long(url, folder=True)
    if not scheme.endswith("//"):
        return "has one slash after the colon, where a URL has two and that of a folder three (file:///folder)"
    if scheme not in SERVED:
        return f"has the scheme {scheme}, and served are s3://, gs://, az:// and file://"
    if re.search(r"[?#]", rest):
        return "has a query (such as versionId) or a fragment, which belong to one object and not to what lies below it"
    if scheme in FOLDERS and not rest.startswith("/"):
        return "names a host or a relative folder (file:///folder names neither)"
    if scheme in FOLDERS:
        return _too_long(rest, folder=True)
    if scheme == "memory://" and typed:
        return "lies in the memory of one process and is gone with it"
    if rest and {"", ".", ".."}.intersection(rest.rstrip("/").split("/")):
        return "has a part that is empty (//), '.' or '..', which is lost on the way to some stores and their listings"
    return _too_long(rest, folder=False)


def _too_long(path: str, folder: bool) -> str | None:
    limit = PATH_LIMIT if folder else KEY_LIMIT
    if len(path.encode()) > limit:
        return f"is longer than {limit:,} bytes, which leaves no room for what lies below it"
    if folder and any(len(part.encode()) > NAME_LIMIT for part in path.split("/")):
        return f"has a part of more than {NAME_LIMIT} bytes"
    return None


def check_endpoint(url: str | None) -> None:
    """InputError for an endpoint that is none, or holds a login: clients would send it along, and quote it in what they
    raise."""
    if not url:
        return
    scheme, rest = split(url)
    cure = "accepted: such as https://host:9000, and credentials in the environment or a profile"
    if scheme and login(scheme, rest):
        raise InputError([Problem("endpoint-url", "", f"{masked_url(scheme + rest)!r} holds credentials; {cure}")])
    if scheme not in ("http://", "https://") or not ENDPOINT.fullmatch(rest):
        raise InputError([Problem("endpoint-url", "", f"{masked_url(url)!r} is no address of a server; {cure}")])
