"""`flowcache sign`, `export --sign` and `verify --anchors`, as they are typed."""

import json
import sys

import pytest

from flowcache.cli.main import main
from flowcache.storage import layout
from flowcache.storage.objects.store import Store
from flowcache.storage.provenance import fault_of
from tests.unit.storage.samples import Studio, request
from tests.unit.storage.signers import signer

pytest.importorskip("c2pa")


@pytest.fixture(scope="module")
def someone():
    return signer()


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, someone):
    """run(word, ...) -> exit code, standard output and errors, of a run of two videos, with a signer at hand."""
    monkeypatch.chdir(tmp_path)
    Studio(Store("out"), (request("cat", 1), request("dog", 1))).run()
    for name, text in (("cert.pem", someone.chain), ("key.pem", someone.key), ("ca.pem", someone.authority)):
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("FLOWCACHE_SIGN_CERT", "cert.pem")
    monkeypatch.setenv("FLOWCACHE_SIGN_KEY", someone.key)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["flowcache", *words])
        try:
            main()
        except SystemExit as ended:
            return ended.code or 0, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return call


def test_each_video_is_signed_once(run):
    assert run("sign", "out", "cat")[:2] == (0, "1 videos signed\n")
    before = Store("out").get(layout.signature_key("cat"))
    assert json.loads(run("sign", "out", "--json")[1]) == {"signed": ["dog"], "signed_before": ["cat"]}
    assert Store("out").get(layout.signature_key("cat")) == before
    assert run("verify", "out", "--anchors", "ca.pem")[0] == 0
    run("sign", "out", "--again")
    assert Store("out").get(layout.signature_key("cat")) != before and run("verify", "out")[0] == 0


def test_a_damaged_video_is_not_signed_and_the_others_are(run):
    Store("out").put(layout.init_key("cat"), b"somebody else's")
    code, said, told = run("sign", "out")
    assert code == 1 and said.startswith("1 videos signed") and "1 videos not signed: " in told
    assert Store("out").exists(layout.signature_key("dog"))


def test_an_export_that_is_signed_is_another_one_and_is_not_made_twice(run, tmp_path, someone):
    assert run("export", "out")[0] == run("export", "out", "--sign")[0] == 0
    first = (tmp_path / "export" / "cat.mp4").read_bytes()
    assert fault_of(first, None, someone.authority.encode()) is None
    assert "2 files were there already" in run("export", "out", "--sign")[1]
    assert (tmp_path / "export" / "cat.mp4").read_bytes() == first


@pytest.mark.parametrize("words", [("sign", "out"), ("export", "out", "--sign")])
def test_without_a_signer_nothing_is_begun(run, monkeypatch, tmp_path, words):
    monkeypatch.delenv("FLOWCACHE_SIGN_KEY")
    code, _, told = run(*words)
    assert code == 2 and "--sign-key: is not given" in told and not (tmp_path / "export").exists()


def test_what_is_no_authority(run, tmp_path):
    (tmp_path / "none.pem").write_text("x")
    for name in ("none.pem", "missing.pem"):
        code, _, told = run("verify", "out", "--anchors", name)
        assert code == 2 and "--anchors" in told


def test_where_the_library_is_missing_verify_says_what_it_did_not_check(run, monkeypatch):
    run("sign", "out")
    monkeypatch.setattr("flowcache.storage.signatures.find_spec", lambda name: None)
    code, _, told = run("verify", "out")
    assert code == 0 and "not checked: 2 signatures; pip install 'flowcache[provenance]'" in told
