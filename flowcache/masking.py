"""What a message may show: no credentials, wherever a URL can hold them.

Text is read as words, and these as what they may be made of: URLs (login, path with parameters, query, fragment), pairs
of a name and a value, and the values of the environment's secrets. A URL ends where the quote before it closes, else
with its word. Where it can be read in two ways, the one that hides more is taken. Other text is left as it is.
"""

import os
import re
import string
from collections.abc import Mapping
from functools import cache
from urllib.parse import quote

HIDDEN = "***"
SCHEME = string.ascii_letters + string.digits + "+.-"
CLOSED_BY = {"'": "'", '"': '"', "`": "`", "<": ">"}  # quotes that may stand around a URL or a value
CLOSING = "'\"`>)]},.;:!"  # what may follow one and is no part of it
LOCAL = ("file:", "local:")  # whose third slash begins a path
CONTAINERS = ("az:", "abfs:", "abfss:")  # whose container@account is no login
# As parameters, fields and headers are called that hold a credential: in lower case, without - and _.
NAMED = frozenset(
    "sig signature xamzsignature xgoogsignature credential xamzcredential xgoogcredential token accesstoken idtoken "
    "refreshtoken authtoken sastoken xamzsecuritytoken sessiontoken awssessiontoken jwt password passwd pwd secret "
    "clientsecret awssecretaccesskey secretaccesskey secretkey awsaccesskeyid accesskeyid googleaccessid apikey "
    "accountkey accesskey sharedaccesskey sharedaccesssignature xapikey hftoken passphrase".split()
)
SLASHES, PAIR = re.compile(r"(?:\\?/)+"), re.compile("(?<![A-Za-z0-9_.-])([A-Za-z0-9_.-]+)(['\"]?)([=:])(?=.)")
SIGNS = (
    "//",
    ":/",
    ":\\/",
    "=",
    "':",
    '":',
    "uthorization:",
    "UTHORIZATION:",
    "x-",
    "X-",
)  # of a URL, a pair or a header
HEADERS = ("authorization:", "proxy-authorization:")  # a scheme and a credential follow
# A variable of the environment is a secret where a part of its name ends with one of the first, as in PGPASSWORD, or is
# one of the second, unless it says where one lies.
ENDS = ("SECRET", "TOKEN", "PASSWORD", "PASSWD", "PASSPHRASE", "APIKEY")
SECRETS = frozenset("KEY PASS SAS CONNECTION".split())
PLACES = frozenset("PATH FILE DIR URL URI HOST PORT NAME".split())
TOGETHER = 50  # URLs in one word, as a list of them; what comes after these is hidden
LEAST = 8  # characters of a secret that is told from ordinary words
IDENTIFIER = "ID"  # last part of a name, as in AWS_ACCESS_KEY_ID: no secret by itself, and left where it is a mere word


def masked(text: str) -> str:
    """`text` without credentials, as messages, logs and documents that people read may show it."""
    for secret in known():
        text = text.replace(secret, HIDDEN)
    if not any(sign in text for sign in SIGNS):
        return text
    parts, hide = re.split(r"(\s+)", text), 0  # hide: so many of the next words
    for place in range(0, len(parts), 2):
        word = parts[place]
        if word:
            parts[place] = _hidden(word) if hide else _word(word)
            hide = max(hide - 1, _announced(word))
    return "".join(parts)


@cache
def known() -> tuple[str, ...]:
    """The secrets of this process's environment."""
    return secrets_of(os.environ)


def secrets_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Values that are secrets, as they are and as URLs write them; the longest first."""
    found: set[str] = set()
    for name, value in environment.items():
        parts = name.upper().split("_")
        word = parts[-1] == IDENTIFIER and value.isalpha()  # as of a store at home: texts are full of it
        secret = any(part.endswith(ENDS) or part in SECRETS for part in parts)
        if secret and parts[-1] not in PLACES and not word:
            fields = [field.partition("=") for field in value.split(";")]  # of a connection string
            found |= {secret for field, sign, secret in fields if sign and _plain(field) in NAMED} or {value}
    found |= {quote(secret, safe="") for secret in found}
    return tuple(sorted((secret for secret in found if len(secret) >= LEAST), key=len, reverse=True))


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _announced(word: str) -> int:
    """How many of the next words this one says are credentials: `Authorization:`, or `"secret":` of a JSON document."""
    name = word.strip("{[(,'\"").lower()
    plain = name.replace("'", "").replace('"', "")
    if plain in HEADERS:
        return 2
    if plain.startswith(HEADERS) or (plain.startswith("x-") and plain[-1:] == ":" and _plain(plain[:-1]) in NAMED):
        return 1
    return int(word[-2:] in ("':", '":') and _plain(name[:-2]) in NAMED)


def masked_url(url: str) -> str:
    """What is a URL as a whole, spaces and quotes in it included."""
    scheme, rest = split(url)
    return scheme + _url(scheme, rest) if scheme else masked(url)


def split(url: str) -> tuple[str, str]:
    """("s3://", "bucket/prefix"), the scheme in lower case as its case means nothing; ("", path) of what is no URL."""
    found = re.match(r"([^/]*:/{1,2})(.*)", url, re.DOTALL)
    return (found[1].lower(), found[2]) if found else ("", url)


def login(scheme: str, rest: str) -> str:
    """user or user:secret before a host. A secret may hold slashes and more, so it reaches to the last @."""
    within = rest if scheme.lower().startswith(LOCAL) else rest.lstrip("/\\")  # a slash too many hides nothing
    authority, before = re.split("[/?#;]", within, maxsplit=1)[0], rest.rpartition("@")[0]
    allowed = scheme.lower().rstrip("/") in CONTAINERS and ":" not in authority
    return before if ":" in authority or ("@" in authority and not allowed) else ""


def _word(word: str) -> str:
    """A word in which URLs and pairs may stand, one after the other."""
    shown, at, start, slashes, looks = [], 0, -1, -1, 0
    while at < len(word):
        if start < at:
            start, slashes = _first_url(word, at)
        value = _first_pair(word, at, start)
        end = _end(word, start if value < 0 else value)
        if value < 0:
            rest = word[slashes:end]
            hidden = _url(word[start:slashes], rest)
            if hidden == rest and looks < TOGETHER:  # nothing is hidden: another URL or a pair may stand within
                looks, end, hidden = looks + 1, slashes, ""
            shown += [word[at:slashes], HIDDEN if hidden == rest != "" else hidden]
        else:
            shown += [word[at:value], _hidden(word[value:end])]
        at = end
    return "".join(shown)


def _end(word: str, start: int) -> int:
    """Of what begins there: where the quote around it closes, if there is one, else the word's."""
    quoted = CLOSED_BY.get(word[start : start + 1])
    closing = quoted or CLOSED_BY.get(word[start - 1 : start])
    end = word.find(closing, start + 1) if closing else -1
    return len(word) if end < 0 else end + bool(quoted)


def _first_url(word: str, at: int) -> tuple[int, int]:
    """From there on, where a URL begins and where its slashes end: one after a scheme, or two. Else the word's end."""
    for found in SLASHES.finditer(word, at):
        place = found.start()
        if word[max(0, place - 1) : place] == ":" and word[max(0, place - 3) : place - 1].isalnum():
            start = place - 1
            while start > at and word[start - 1] in SCHEME:
                start -= 1
            return start, found.end()
        if len(found[0]) > 1 and (not place or word[place - 1] in "'\"`<([{=,:"):
            return place, found.end()
    return len(word), len(word)


def _first_pair(word: str, at: int, end: int) -> int:
    """Where the value begins that has a credential's name, or one of a query without the URL before it; -1: nowhere."""
    for found in PAIR.finditer(word, at, end):
        name, quoted, sign = found.groups()
        of_query = sign == "=" and word[max(0, found.start() - 1) : found.start()] == "?"
        if of_query or (_plain(name) in NAMED and (quoted or sign == "=")):  # name: value is ordinary text
            return found.end()
    return -1


def _url(scheme: str, rest: str) -> str:
    """What comes after the scheme and the slashes."""
    before, shown = login(scheme, rest), ""
    _, colon, port = re.split("[/?#;]", rest, maxsplit=1)[0].rpartition(":")
    cut_off = colon and not before and rest[0] != "[" and not re.fullmatch(r"\d*\W*", port)  # [: an IPv6 address
    if cut_off or re.search("[?#;]", before):  # of the password, or the login ended before and this is a query
        return HIDDEN
    if before:
        shown, rest = f"{HIDDEN}@", rest[len(before) + 1 :]
    for found in re.finditer("[?#;]", rest):
        told = rest[found.end() :].rstrip(CLOSING)
        if told and (found[0] != ";" or "=" in told):
            return f"{shown}{rest[: found.end()]}{HIDDEN}{rest[found.end() + len(told) :]}"
    return shown + rest


def _hidden(value: str) -> str:
    """A value, without the quotes around it and what may follow."""
    end = value.rfind(CLOSED_BY.get(value[:1], value), 1)
    if end > 0:
        return value[0] + HIDDEN + value[end:]
    return HIDDEN + value[len(value.rstrip(CLOSING)) :]
