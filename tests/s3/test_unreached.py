"""An endpoint that can't be reached or believed: the store's fault, said in one sentence with what to set, soon."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from flowcache.cli.main import main
from flowcache.inputs import urls
from flowcache.storage.commits import list_commits
from flowcache.storage.objects import s3
from tests.hostile.servers import sends
from tests.s3.nights import Night, where
from tests.s3.wires import DAY, TlsProxy, answering, certificate, full, silent
from tests.soak import spoils
from tests.time_limit import within

HTML = sends(b"<html><body>Sign in</body></html>", Content_Type="text/html")
LOGIN = sends(b"<html>Who are you?</html>", 407, Proxy_Authenticate='Basic realm="x"', Content_Type="text/html")
BROKEN = sends(b"<html>bad gateway</html>", 502, Content_Type="text/html")
MOVED = sends(spoils.error("PermanentRedirect"), 301, Content_Type="application/xml")
SET_ENDPOINT, SET_PROXY = "--endpoint-url (AWS_ENDPOINT_URL)", "HTTPS_PROXY (HTTP_PROXY)"


class Reached(NamedTuple):
    """endpoint: what somebody asks; environment: what he has set."""

    endpoint: str
    environment: dict[str, str] = {}


Wire = Callable[[Path], AbstractContextManager[Reached]]


@contextmanager
def unknown_authority(folder: Path) -> Iterator[Reached]:
    with answering(HTML, certificate(folder)) as server:
        yield Reached(server.url)


@contextmanager
def expired(folder: Path) -> Iterator[Reached]:
    pem = certificate(folder, until=datetime.now(UTC) - DAY)
    with answering(HTML, pem) as server:
        yield Reached(server.url, {"AWS_CA_BUNDLE": str(pem.certificate)})


@contextmanager
def early(folder: Path) -> Iterator[Reached]:
    pem = certificate(folder, until=datetime.now(UTC) + 9 * DAY)
    with answering(HTML, pem) as server:
        yield Reached(server.url, {"AWS_CA_BUNDLE": str(pem.certificate)})


@contextmanager
def other_name(folder: Path) -> Iterator[Reached]:
    pem = certificate(folder, "s3.example")
    with answering(HTML, pem) as server:
        yield Reached(server.url, {"AWS_CA_BUNDLE": str(pem.certificate)})


@contextmanager
def no_bundle(folder: Path) -> Iterator[Reached]:
    with answering(HTML, certificate(folder)) as server:
        yield Reached(server.url, {"AWS_CA_BUNDLE": str(folder / "nowhere.pem")})


@contextmanager
def odd_bundle(folder: Path) -> Iterator[Reached]:
    (folder / "odd.pem").write_text("no certificate\n")
    with answering(HTML, certificate(folder)) as server:
        yield Reached(server.url, {"AWS_CA_BUNDLE": str(folder / "odd.pem")})


@contextmanager
def plain_behind_https(folder: Path) -> Iterator[Reached]:
    with answering(HTML) as server:
        yield Reached(server.url.replace("http:", "https:"))


@contextmanager
def tls_behind_http(folder: Path) -> Iterator[Reached]:
    with answering(HTML, certificate(folder)) as server:
        yield Reached(server.url.replace("https:", "http:"))


@contextmanager
def no_such_host(folder: Path) -> Iterator[Reached]:
    yield Reached("https://no-such-host.invalid:9000")


@contextmanager
def closed(folder: Path) -> Iterator[Reached]:
    with silent() as address:
        pass
    yield Reached(f"http://{address}")


@contextmanager
def hanging(folder: Path) -> Iterator[Reached]:
    with full() as address:
        yield Reached(f"http://{address}")


@contextmanager
def mute(folder: Path) -> Iterator[Reached]:
    with silent() as address:
        yield Reached(f"http://{address}")


@contextmanager
def mute_tls(folder: Path) -> Iterator[Reached]:
    with silent() as address:
        yield Reached(f"https://{address}")


def proxied(answer, endpoint: str) -> Wire:
    @contextmanager
    def wire(folder: Path) -> Iterator[Reached]:
        with answering(answer) as server:
            yield Reached(
                endpoint, dict.fromkeys(("http_proxy", "https_proxy"), f"http://me:top-secret@{server.url[7:]}")
            )

    return wire


@contextmanager
def no_proxy_there(folder: Path) -> Iterator[Reached]:
    with silent() as address:
        pass
    yield Reached("https://s3.example", {"https_proxy": f"http://{address}"})


@contextmanager
def elsewhere(folder: Path) -> Iterator[Reached]:
    with answering(MOVED) as server:
        yield Reached(server.url)


WIRES: dict[Wire, tuple[str, ...]] = {
    unknown_authority: ("is not trusted here (self-signed certificate)", "set AWS_CA_BUNDLE to a PEM file"),
    expired: ("is not valid now (certificate has expired)", "renew it there, or set this machine's clock"),
    early: ("is not valid now (certificate is not yet valid)", "this machine's clock"),
    other_name: ("is another host's", "not valid for '127.0.0.1'", SET_ENDPOINT),
    no_bundle: ("AWS_CA_BUNDLE names", "nowhere.pem', which holds no certificates", "no such file"),
    odd_bundle: ("AWS_CA_BUNDLE names", "odd.pem', which holds no certificates", "name a PEM file"),
    plain_behind_https: ("does not speak TLS; take http://", SET_ENDPOINT),
    tls_behind_http: ("closes connections without an answer; where it speaks TLS, take https://", SET_ENDPOINT),
    no_such_host: ("the host of https://no-such-host.invalid:9000 is not known", SET_ENDPOINT, "DNS"),
    closed: ("nobody listens at http://127.0.0.1:", SET_ENDPOINT),
    hanging: ("does not take connections", SET_ENDPOINT, "firewall"),
    mute: ("takes connections and does not answer in time",),
    mute_tls: ("https://127.0.0.1:",),
    proxied(LOGIN, "https://s3.example"): ("the proxy http://127.0.0.1:", "answers 407; set user and pass", SET_PROXY),
    proxied(BROKEN, "https://s3.example"): ("the proxy http://127.0.0.1:", "answers 502; look at", SET_PROXY),
    proxied(LOGIN, "http://s3.example"): ("answered 407; a proxy asks who you are: set user and pass",),
    proxied(BROKEN, "http://s3.example"): ("502: Bad Gateway",),
    no_proxy_there: ("nobody listens at http://127.0.0.1:", SET_PROXY),
    elsewhere: ("PermanentRedirect", "in another region", "set AWS_DEFAULT_REGION, or --endpoint-url"),
}  # fmt: skip
COMMANDS = {
    "status": ["status", "s3://some-bucket/night"],
    "follow": ["status", "s3://some-bucket/night", "--follow"],
    "verify": ["verify", "s3://some-bucket/night"],
    "repair": ["repair", "s3://some-bucket/night"],
    "report": ["report", "s3://some-bucket/night"],
    "gc": ["gc", "s3://some-bucket/night"],
    "links": ["links", "s3://some-bucket/night"],
    "export": ["export", "s3://some-bucket/night", "--to", "films"],
    "pause": ["pause", "s3://some-bucket/night"],
    "stop": ["stop", "s3://some-bucket/night"],
    "cancel": ["cancel", "s3://some-bucket/night", "cat"],
    "plan": ["plan", "s3://some-bucket/rows.jsonl"],
    "plan a folder": ["plan", "s3://some-bucket/rows/"],
    "plan a picture": ["plan", "pictured.jsonl"],
    "plan like": ["plan", "rows.jsonl", "--like", "s3://some-bucket/night"],
    "render": ["render", "rows.jsonl", "--output", "s3://some-bucket/night"],
    "dry run": ["render", "rows.jsonl", "--output", "s3://some-bucket/night", "--dry-run"],
    "render a picture": ["render", "pictured.jsonl", "--output", "out", "--keep-going"],
}
READS = "plan", "plan a folder", "plan a picture", "render a picture"  # in a process of their own, with s3fs's tries


@pytest.fixture
def asked(tmp_path, monkeypatch, capsys, quick):
    """asked(reached, words) -> exit code and what was said."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"id": "cat", "prompt": "a red circle"}\n')
    (tmp_path / "pictured.jsonl").write_text('{"id": "cat", "prompt": "a", "image": "s3://some-bucket/cat.png"}\n')
    for name in ("AWS_CA_BUNDLE", "AWS_PROFILE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    for name, value in {"connect_timeout": 0.5, "read_timeout": 1.0}.items():
        monkeypatch.setitem(s3.SOCKETS, name, value)
        monkeypatch.setitem(urls.S3["config_kwargs"], name, value)

    def call(reached: Reached, words: list[str]) -> tuple[int, str]:
        for name, value in reached.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["flowcache", *words, "--endpoint-url", reached.endpoint])
        code: object = 0
        with within(100):
            try:
                main()
            except SystemExit as ended:
                code = ended.code
        said = capsys.readouterr()
        assert not said.out
        return int(str(code)), said.err

    return call


def is_one_sentence(said: str, parts: tuple[str, ...]) -> None:
    assert said.startswith("error: ") and said.count("\n") == 1, said
    assert all(part in said for part in parts), said
    assert "Traceback" not in said and "top-secret" not in said and len(said) < 600


@pytest.mark.parametrize("wire", WIRES)
def test_each_is_told_in_a_sentence(asked, tmp_path, wire):
    with wire(tmp_path) as reached:
        code, said = asked(reached, COMMANDS["status"])
    assert code == 1
    is_one_sentence(said, ("s3://some-bucket/night", *WIRES[wire]))


@pytest.mark.parametrize("name", COMMANDS)
def test_so_does_every_command(asked, tmp_path, name):
    """A certificate that nobody trusts will not pass by itself: what had not begun says so, too."""
    with unknown_authority(tmp_path) as reached:
        code, said = asked(reached, COMMANDS[name])
    assert code == (2 if name == "render" else 1), said
    is_one_sentence(said, ("s3://some-bucket/", *WIRES[unknown_authority]))
    assert ("nothing was begun" in said) == (name in READS)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix not in (".crt", ".pem")) == [
        "pictured.jsonl",
        "rows.jsonl",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", ["plan", "plan a picture", "render", "pause", "verify"])
def test_every_command_over_every_wire(asked, tmp_path, name, wire):
    with wire(tmp_path) as reached:
        code, said = asked(reached, COMMANDS[name])
    assert code in (1, 2), said
    is_one_sentence(said, ("s3://some-bucket/",))
    if name not in READS:
        is_one_sentence(said, WIRES[wire])


@pytest.mark.parametrize(
    "endpoint",
    ["localhost:9000", "http//x", "ftp://host", "https://", "http://ho st", "http://[::1", "http://host:99999", "x"],
)
def test_what_is_no_endpoint_is_refused_before_anything(asked, endpoint):
    code, said = asked(Reached(endpoint), COMMANDS["status"])
    assert code == 2
    is_one_sentence(said, ("endpoint-url: ", "is no address of a server; accepted: such as https://host:9000"))


@pytest.fixture
def night(moto, tmp_path, monkeypatch, quick):
    pem = certificate(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(pem.certificate))
    proxy = TlsProxy(moto.endpoint, pem)
    proxy.start()
    yield Night(moto, proxy)
    proxy.shutdown()
    proxy.server_close()


def test_a_trusted_certificate_is_all_that_it_takes(night):
    assert night.run() == (0, "")
    assert len(list_commits(night.direct).done) == 4


@pytest.mark.parametrize("spoil", [spoils.half, spoils.lost_answer], ids=["in the body", "before the answer"])
def test_tls_that_breaks_off_costs_no_video(night, spoil):
    assert night.run(where("put get create list", "", spoil, times=2, after=25)) == (0, "")
    ended, told = Night.run(night, where("put create get", "/v1/", spoil))
    assert (ended, told) == (0, "")  # all is there


def test_tls_that_breaks_off_for_one_video_for_good(night):
    ended, told = night.run(where("put create get", "/v1/", spoils.lost_request))
    assert ended == 1 and "closes connections without an answer" in told, told
    night.unblamed()
    assert night.run() == (0, "") and list_commits(night.direct).done == {"v0", "v1", "v2", "v3"}


def test_a_certificate_that_expires_under_work(night, tmp_path):
    """Connections that are open go on; who comes anew is shown the other one."""
    (tmp_path / "old").mkdir()
    old, new = certificate(tmp_path / "old", until=datetime.now(UTC) - DAY), tmp_path / "127.0.0.1.pem"

    def renew(handler, body: bytes) -> None:
        night.proxy.context.load_cert_chain(old.chain)
        handler.hang_up()

    ended, told = night.run(where("put create get head list delete", "", renew, after=25))
    assert ended == 1 and "the certificate of https://127.0.0.1:" in told, told
    night.unblamed()
    night.proxy.context.load_cert_chain(new)
    assert night.run() == (0, "") and list_commits(night.direct).done == {"v0", "v1", "v2", "v3"}
