"""Where media may lie: what leads to private and local addresses is refused, by whatever name and redirect."""

import gzip
import io
import socket

import pytest
from PIL import Image

from flowcache.errors import MediaError, UnreadableError
from flowcache.inputs import web
from flowcache.inputs.sandbox import Sandbox
from tests.hostile.servers import drips, drips_headers, leads, sends, serving, silent

PRIVATE = """
    0.0.0.0 10.1.2.3 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 168.63.129.16 169.254.169.254 169.254.170.2
    172.16.0.1 192.0.0.192 192.0.2.1 192.168.0.1 198.18.0.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 :: ::1
    ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::7f00:1
    2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:db8::1 2002:7f00:1:: 2002:a9fe:a9fe:: fc00::1 fd00:ec2::254 fe80::1%eth0
    fec0::1 ff02::1 192.88.99.1 3fff::1
""".split()
PUBLIC = "1.1.1.1 8.8.8.8 52.95.110.1 2606:4700:4700::1111 64:ff9b::808:808 ::ffff:8.8.8.8".split()
LOCAL = (
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0", "localhost", "[::1]",
    "[::ffff:127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]", "user:pw@127.0.0.1", "\N{CIRCLED DIGIT ONE}27.0.0.1",
)  # fmt: skip


@pytest.fixture(scope="module")
def strict():
    with Sandbox(most=1) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def lenient():
    with Sandbox(private=True, most=1) as sandbox:
        yield sandbox


def png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(data, "PNG")
    return data.getvalue()


def fetched(url: str, limit: int = 1 << 20, private: bool = False, seconds: float = 20) -> bytes:
    file = io.BytesIO()
    web.fetch(url, file, limit, private, seconds)
    return file.getvalue()


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_is_known(address):
    assert not web.is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_known(address):
    assert web.is_public(address)


@pytest.mark.parametrize("host", LOCAL)
def test_no_way_to_write_a_local_address_leads_there(strict, host):
    with serving(sends(png())) as server:
        with pytest.raises(MediaError, match="no public address; accepted|no URL that can be opened|be reached"):
            strict.probe(f"http://{host}:{server.server_port}/a.png", "image", "")
        assert server.asked == []


def test_with_the_option_local_servers_are_asked(lenient):
    with serving(sends(png())) as server, serving(leads(f"{server.url}/b.png")) as first:
        assert lenient.probe(f"{server.url}/a.png", "image", "").width == 8
        assert lenient.probe(f"{first.url}/a.png", "image", "").width == 8
        assert lenient.image(f"{first.url}/a.png", 8, 8).shape == (1, 8, 8, 3)
        assert server.asked == ["/a.png", "/b.png", "/b.png"]
        with pytest.raises(MediaError, match="--allow-private-media"), Sandbox(most=1) as sandbox:
            sandbox.image(f"{server.url}/a.png", 8, 8)


def test_every_redirect_is_checked_again(monkeypatch):
    """127.0.0.1 stands for a public address, 127.0.0.2 for a private one."""
    monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.1")
    with serving(sends(b"secret"), "127.0.0.2") as private, serving(leads(f"{private.url}/x")) as last:
        with serving(leads(f"{last.url}/y")) as first, pytest.raises(UnreadableError, match=r"leads to 127\.0\.0\.2"):
            fetched(first.url)
        assert last.asked == ["/y"] and private.asked == []


def test_what_a_name_means_is_checked_where_it_is_used(monkeypatch):
    """DNS answers that change between check and use, and names of metadata services."""
    answers = [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2", "127.0.0.1"]]

    def looked_up(host, port, *more, **also):
        found = answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    with serving(sends(b"x")) as public, serving(sends(b"secret"), "127.0.0.2") as private:
        at = f"http://metadata.google.internal:{public.server_port}/"
        assert fetched(at) == b"x"
        with pytest.raises(UnreadableError, match=r"leads to 127\.0\.0\.2"):
            fetched(at)
        assert fetched(at) == b"x"  # of several addresses only those that are public
        assert private.asked == []


def test_no_proxy_of_the_environment_takes_the_check_away(monkeypatch):
    with serving(sends(b"secret")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with pytest.raises(UnreadableError):
            fetched("http://127.0.0.1:9/")
        assert proxy.asked == []


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (sends(b"", 404), "does not exist"),
        (sends(b"", 403), "access denied"),
        (sends(b"", 500), "the server answers 500"),
        (sends(b"", 206), "the server answers 206"),
        (leads("file:///etc/passwd"), "redirected to something else than http"),
        (leads("ftp://127.0.0.1/x"), "redirected to something else than http"),
        (leads("/again"), "redirected more than 5 times"),
        (leads("http://[::1"), "no URL"),
        (sends(b"x" * (2 << 20)), "larger than 1 MiB"),
        (sends(b"x", Content_Length=str(1 << 40)), "larger than 1 MiB"),
        (sends(b"x", Content_Length="10"), "breaks off|be reached"),
        (sends(gzip.compress(bytes(1 << 26)), Content_Encoding="gzip"), "compressed"),
        (sends(b"x", Content_Encoding="br"), "compressed"),
        (sends(b"x", X="y" * 100_000), "broken"),
    ],
)
def test_what_a_server_may_answer(answer, says):
    with serving(answer) as server, pytest.raises(UnreadableError, match=says):
        fetched(server.url, private=True)


@pytest.mark.parametrize(
    ("answer", "says"), [(silent, "does not come"), (drips, "too slowly"), (drips_headers, "does not come")]
)
def test_servers_that_are_too_slow_are_given_up(monkeypatch, impatient, answer, says):
    monkeypatch.setattr(web, "QUIET", 0.5)
    with serving(answer) as server, pytest.raises(UnreadableError, match=says) as caught:
        fetched(server.url, private=True, seconds=2)
    assert caught.value.slow


def test_a_host_that_is_too_slow_again_and_again_is_not_asked_any_more(monkeypatch):
    from flowcache.inputs import sandbox as module

    monkeypatch.setitem(module.LIMITS, "image", module.Limits(1 << 30, 10, 1))
    monkeypatch.setattr(module, "FETCH_SECONDS", 1)
    with Sandbox(private=True, most=2) as sandbox, serving(silent) as server, serving(sends(png())) as other:
        for number in range(3):
            with pytest.raises(MediaError, match="takes longer than 2 s"):
                sandbox.probe(f"{server.url}/{number}", "image", "")
        with pytest.raises(MediaError, match="its host was too slow 3 times in a row"):
            sandbox.probe(f"{server.url}/4", "image", "")
        assert sandbox.probe(f"{other.url}/4", "image", "").width == 8
        assert len(server.asked) == 3
