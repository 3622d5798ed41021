"""No credential comes through, wherever in a text and a URL it stands; other text does."""

import string
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowcache import masking
from flowcache.masking import masked, masked_url, secrets_of

MARK = "hunter2"  # in the middle of every secret, so that no part of one comes through unnoticed
# Of a URL within a text no space and no quote: they end it.
WITHIN = "".join(sorted(set(string.printable) - set(string.whitespace) - set("'\"`<>")))
VALUE = "".join(sorted(set(WITHIN) - set("&")))  # in a query & begins the next parameter
SCHEMES = st.sampled_from(["s3", "s3a", "gs", "https", "http", "abfss", "redis", "S3"])
PATHS = st.sampled_from(["", "/", "/key", "/a/b.png", "/photo@2x.png", "/v=1/x", "/a:b"])
HOSTS = st.sampled_from(["bucket", "host:9000", "10.0.0.1:80", "[::1]:80", "s3.eu-west-1.amazonaws.com"])
NAMES = st.sampled_from(["sig", "X-Amz-Signature", "X-Amz-Security-Token", "X-Goog-Signature", "jwt", "anything"])
WORDS = st.lists(st.sampled_from(["cannot", "read:", "(see", "row 3:", "a=b", "x/y", "//", "100%", "it's"]), max_size=4)
AROUND = st.sampled_from([("", ""), ("'", "'"), ('"', '"'), ("<", ">"), ("(", ")"), ("url=", ","), ("", ": refused")])


def secrets(letters: str) -> st.SearchStrategy[str]:
    around = st.text(letters, max_size=8)
    return st.builds(lambda before, after: f"{before}{MARK}{after}", around, around)


def text_with(url: str, before: list[str], after: list[str], around: tuple[str, str]) -> str:
    return " ".join([*before, around[0] + url + around[1], *after])


TEXTS = {"before": WORDS, "after": WORDS, "around": AROUND}


@given(SCHEMES, st.sampled_from(["", "AKIA", "me@firm"]), secrets(WITHIN), HOSTS, PATHS, st.fixed_dictionaries(TEXTS))
@example("s3", "AKIA", f"a/{MARK}", "bucket", "", {"before": [], "after": [], "around": ("", "")})
@example("s3", "AKIA", f"12/{MARK}", "bucket", "", {"before": [], "after": [], "around": ("", "")})
def test_a_password_never_shows(scheme, user, secret, host, path, text):
    for slashes in (f"{scheme}://", f"{scheme}:/", "//"):
        assert MARK not in masked(text_with(f"{slashes}{user}:{secret}@{host}{path}", **text))


@given(
    SCHEMES,
    st.text(string.ascii_letters + string.digits + "._~!$*+-%", max_size=9),
    HOSTS,
    st.fixed_dictionaries(TEXTS),
)
def test_a_token_in_place_of_a_user_never_shows(scheme, rest, host, text):
    if scheme != "abfss":  # there it is the container
        assert MARK not in masked(text_with(f"{scheme}://{MARK}{rest}@{host}/x", **text))


@given(SCHEMES, HOSTS, PATHS, st.sampled_from("?#;"), NAMES, secrets(WITHIN), st.fixed_dictionaries(TEXTS))
def test_a_parameter_query_or_fragment_never_shows(scheme, host, path, sign, name, secret, text):
    assert MARK not in masked(text_with(f"{scheme}://{host}{path}{sign}{name}={secret}", **text))
    assert MARK not in masked(text_with(f"{scheme}://{host}{path}{sign}a=b&{name}={secret}&c=d", **text))


@given(SCHEMES, HOSTS, NAMES, secrets(VALUE), st.sampled_from("?#;&"), st.fixed_dictionaries(TEXTS))
def test_what_follows_a_space_in_a_url_never_shows(scheme, host, name, secret, sign, text):
    if sign == "?" or name != "anything":
        assert MARK not in masked(text_with(f"{scheme}://{host}/my file{sign}{name}={secret}", **text))
        assert MARK not in masked(text_with(f"/only/the path{sign}{name}={secret}", **text))


@given(st.sampled_from(["s3://", "S3:/", "https://"]), st.text(max_size=5), st.text(max_size=5), st.sampled_from("@?#"))
def test_of_a_url_alone_nothing_shows_whatever_is_in_it(scheme, before, after, place):
    secret = f"{before}{MARK}{after}"
    url = f"{scheme}AKIA:{secret}@bucket/x" if place == "@" else f"{scheme}bucket/x{place}{secret}"
    assert MARK not in masked_url(url)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no 's3://AKIA:a/b@bucket/key', and gs://e:f@g", "no 's3://***@bucket/key', and gs://***@g"),
        ("//user:pw@host/x refused", "//***@host/x refused"),
        ("see 'https://host/a b?sig=abc', row 3", "see 'https://host/a b?sig=***', row 3"),
        ("https://host/x#token=abc.", "https://host/x#***."),
        ("https://host/x;jwt=abc/e", "https://host/x;***"),
        ("(https://acc.blob.core.windows.net/c/b?sv=1&sig=abc)", "(https://acc.blob.core.windows.net/c/b?***)"),
        ('{"image":"https://h/a?sig=x","secret":"abc","n":1}', '{"image":"https://h/a?***","secret":"***","n":1}'),
        ("{'key': 'x', 'secret': 'abc'}", "{'key': 'x', 'secret': '***'}"),
        ("retries exceeded with url: /b/k?X-Amz-Signature=abc", "retries exceeded with url: /b/k?X-Amz-Signature=***"),
        ("Authorization: Bearer abc.def said", "Authorization: *** *** said"),
        ("AWS4-HMAC-SHA256 Credential=AKIA/x, Signature=abc", "AWS4-HMAC-SHA256 Credential=***, Signature=***"),
        ("AccountName=me;AccountKey=abc==;EndpointSuffix=x", "AccountName=me;AccountKey=***"),
        ("https://user:abc", "https://***"),  # cut off before its @
        ("s3:///AKIA:abc@bucket/x", "s3:///***@bucket/x"),
        ("https://h/x,https://u:abc@h/y", "https://h/x,https://***@h/y"),
        ("https://h/x,sig=abc", "https://h/x,sig=***"),
        (r"https:\/\/u:abc@h\/x", r"https:\/\/***@h\/x"),
        ("x-amz-security-token: abc and more", "x-amz-security-token: *** and more"),
        ("Authorization:Bearer abc", "Authorization:Bearer ***"),
    ],
)  # fmt: skip
def test_what_is_left_is_of_use(text, shown):
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "row 1: image: 'a.png' is no file; accepted: a path or URL",
        "cannot read s3://bucket/night/a@b.png: access denied; tokens=2048, key=3, it took 3s;retries=2",
        "does https://host/x exist? yes=no, 12:30 // a comment",
        "az://container@account/prefix and abfss://c@a.dfs.core.windows.net/p",
        "https://cdn.example/photo@2x.png, http://127.0.0.1:5000: refused, http://[::1]:80/x, http://[fe80::a1]/x",
        "/home/me@host/x, C:/Users/me, me@example.org, git@host:repo, a//b, ../x, file:///tmp/x",
        "Traceback (most recent call last):\n  File \"/x/y.py\", line 3, in f\n    token = 3\nKeyError: 'sig'\n",
        "signature: (a, b); password: not accepted; 'token' is no field",
        "",
    ],
)
def test_ordinary_text_stays_as_it_is(text):
    assert masked(text) == text


@given(st.text(string.ascii_letters + string.digits + " \n\t.,;!()[]{}'\"-+*%$^|~\\", max_size=60))
def test_text_without_urls_and_pairs_stays_as_it_is(text):
    assert masked(text) == text


@given(st.text(max_size=80))
def test_masking_twice_is_masking_once(text):
    assert masked(masked(text)) == masked(text)


def test_secrets_of_the_environment_are_told_by_their_names():
    found = secrets_of(
        {
            "AWS_SECRET_ACCESS_KEY": "abc/def+ghi",
            "AWS_SESSION_TOKEN": "session-token",
            "AZURE_STORAGE_CONNECTION_STRING": "AccountName=public-name;AccountKey=azure-key==;EndpointSuffix=x.net",
            "RAY_AUTH_TOKEN_PATH": "/home/me/token-file",
            "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token-file",
            "GOOGLE_APPLICATION_CREDENTIALS": "/etc/google.json",
            "HOME": "/home/somebody",
            "PWD": "/home/somebody",
            "PGPASSWORD": "postgres-password",
            "DB_PASS": "other-password",
            "MYTOKEN": "written-in-one",
            "KEYBOARD": "us-international",
            "SHORT_TOKEN": "true",
            "AWS_ACCESS_KEY_ID": "flowcache",
        }
    )
    aws, azure = {"abc/def+ghi", "abc%2Fdef%2Bghi", "session-token"}, {"azure-key==", "azure-key%3D%3D"}
    assert set(found) == aws | azure | {"postgres-password", "other-password", "written-in-one"}


def test_an_access_key_is_hidden_unless_it_is_a_word_that_texts_are_full_of():
    assert secrets_of({"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE00001"}) == ("AKIAEXAMPLE00001",)
    assert secrets_of({"AWS_ACCESS_KEY_ID": "flowcache"}) == ()


def test_what_quotes_the_environment_shows_no_secret(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalr/hunter2+key")
    masking.known.cache_clear()
    try:
        assert (
            masked("cannot sign with wJalr/hunter2+key, nor wJalr%2Fhunter2%2Bkey") == "cannot sign with ***, nor ***"
        )
    finally:
        monkeypatch.undo()
        masking.known.cache_clear()


@pytest.mark.parametrize("part", ["/", "a=b:", "a/://", '"https://h/?a",', "://", "sig='a'", "a"])
def test_long_texts_take_no_longer_for_each_letter(part):
    begun = time.process_time()
    masked(part * (200_000 // len(part)))
    assert time.process_time() - begun < 5
