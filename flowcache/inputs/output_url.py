"""Which URLs can be the output root of a run: one that can't hold a night is refused before anything is done."""

import re

from flowcache.errors import InputError, Problem

ACCEPTED = "a folder or URL such as s3://bucket/prefix"
URL = re.compile(r"([^/]*:/{1,2})(.*)", re.DOTALL)  # scheme with its slashes, and the rest
AZURE = ("az://", "abfs://", "abfss://")  # their container@account is no login


def check_root(url: str, typed: bool = False) -> None:
    """InputError, without the credentials that it may hold, where `url` can't be a root. typed: see `fault`."""
    found = fault(url, typed)
    if found:
        raise InputError([Problem("output", "", f"{without_secrets(url)!r} {found}; accepted: {ACCEPTED}")])


def fault(url: str, typed: bool = False) -> str | None:
    """Why `url` can't be a root, None where it can. typed: on a command line, whose run has processes of its own."""
    if re.match(r"[A-Za-z]:[\\/]", url):
        return "begins with a drive of Windows"
    scheme, rest = split(url)
    if not scheme:
        return None
    if holds_login(scheme, rest):
        return (
            "holds credentials; they belong in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), in a "
            "profile, or with the machine as its instance role"
        )
    if not scheme.endswith("//"):
        return "has one slash after the colon, where a URL has two and that of a folder three (file:///folder)"
    if re.search(r"[?#]", rest):
        return "has a query (such as versionId) or a fragment, which belong to one object and not to what lies below it"
    if scheme in ("file://", "local://"):
        return None if rest.startswith("/") else "names a host or a relative folder (file:///folder names neither)"
    if scheme == "memory://" and typed:
        return "lies in the memory of one process and is gone with it"
    if rest and {"", ".", ".."}.intersection(rest.rstrip("/").split("/")):
        return "has a part that is empty (//), '.' or '..', which is lost on the way to some stores and their listings"
    return None


def without_secrets(url: str) -> str:
    """`url` as a message may show it. A secret may hold slashes, so a login reaches to the last @."""
    scheme, rest = split(url)
    if not scheme:
        return url
    if holds_login(scheme, rest):
        rest = f"***@{rest.rpartition('@')[2]}"
    return scheme + re.sub(r"([?#]).*", r"\1***", rest, flags=re.DOTALL)


def holds_login(scheme: str, rest: str) -> bool:
    """user@ or user:secret@ before the first slash, which the secret may hold too."""
    authority = re.split(r"[/?#]", rest)[0]
    return "@" in rest and (":" in authority or ("@" in authority and scheme not in AZURE))


def split(url: str) -> tuple[str, str]:
    """("s3://", "bucket/prefix"); ("", path) of what is no URL."""
    found = URL.match(url)
    return (found[1], found[2]) if found else ("", url)
