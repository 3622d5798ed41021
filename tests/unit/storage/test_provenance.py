"""C2PA manifests, in a video and beside it."""

import io
import json

import pytest

from flowcache.errors import InputError
from flowcache.export.film import find
from flowcache.storage import layout
from flowcache.storage.joined import join_video
from flowcache.storage.keys import foreign
from flowcache.storage.media import AI_MADE
from flowcache.storage.provenance import claim, credential, fault_of, sidecar, signed
from flowcache.storage.repair import repair
from flowcache.storage.verify import verify
from tests.unit.storage.signers import KEYS, signer

c2pa = pytest.importorskip("c2pa")


@pytest.fixture(scope="module")
def someone():
    return signer()


def made(store, name="cat"):
    film = find(store, [name]).films[0]
    return join_video(store, name), claim(film.request, film.markers, film.model_digest, "1.0")


@pytest.mark.parametrize("algorithm", list(KEYS))
def test_signed_by_every_kind_of_key(studio, algorithm):
    mp4, said = made(studio.store)
    of = signer(algorithm)
    inside = signed(mp4, said, credential(of.chain, of.key))
    assert fault_of(inside) is None and fault_of(inside, None, of.authority.encode()) is None
    assert fault_of(inside, None, signer().authority.encode()) == "signingCredential.untrusted"


def test_what_is_claimed(studio, someone):
    mp4, said = made(studio.store)
    beside = sidecar(mp4, said, credential(someone.chain, someone.key))
    assert fault_of(mp4, beside) is None
    with c2pa.Reader("video/mp4", io.BytesIO(mp4), beside) as reader:
        found = reader.get_active_manifest()
    created, ours = (
        next(one["data"] for one in found["assertions"] if one["label"] == label)
        for label in ("c2pa.actions.v2", "io.flowcache.video")
    )
    assert created["actions"][0]["digitalSourceType"] == AI_MADE and created["actions"][0]["when"].endswith("Z")
    assert ours["model_digest"] == "d" * 64 and len(ours["prompt_sha256"]) == 64 and ours["frames"] == 24
    assert "a cat moves" not in json.dumps(found) and someone.key.split("\n")[1] not in beside.decode("latin-1")


def test_a_mark_in_the_frames_is_claimed(studio, someone):
    film = find(studio.store, ["cat"]).films[0]
    said = claim(film.request, film.markers, film.model_digest, "1.0", "mine:mark")
    mp4 = join_video(studio.store, "cat")
    beside = sidecar(mp4, said, credential(someone.chain, someone.key))
    assert fault_of(mp4, beside) is None
    with c2pa.Reader("video/mp4", io.BytesIO(mp4), beside) as reader:
        (found,) = (one["data"]["actions"] for one in reader.get_active_manifest()["assertions"]
                    if one["label"] == "c2pa.actions.v2")  # fmt: skip
    assert [one["action"] for one in found] == ["c2pa.created", "c2pa.watermarked.unbound"]
    assert found[1]["softwareAgent"]["name"] == "mine:mark" and film.watermark is None


def test_one_bit_of_the_video_or_of_the_claim_is_enough(studio, someone):
    mp4, said = made(studio.store)
    beside = sidecar(mp4, said, credential(someone.chain, someone.key))
    other = bytearray(mp4)
    other[-30] ^= 1
    assert fault_of(bytes(other), beside) == "assertion.bmffHash.mismatch"
    digit = beside.index(b"prompt_sha256") + len("prompt_sha256") + 10
    forged = beside[:digit] + bytes([beside[digit] ^ 1]) + beside[digit + 1 :]
    assert fault_of(mp4, forged)
    assert "can't be read" in (fault_of(mp4, b"nonsense") or "")


@pytest.mark.parametrize(
    ("chain", "key", "said"),
    [
        (None, "k", "--sign-cert.*is not given.*FLOWCACHE_SIGN_CERT"),
        ("c", None, "--sign-key.*is not given"),
        ("no/such/file", "k", "--sign-cert.*can't be read"),
        ("-----BEGIN nonsense", "k", "don't sign"),
        ("c", "-----BEGIN nonsense", "--sign-key.*can't be read; accepted: an EC"),
        ("c", "another", "don't sign"),
    ],
)
def test_what_is_no_certificate_with_its_key(someone, chain, key, said):
    texts = {"c": someone.chain, "k": someone.key, "another": signer().key}
    with pytest.raises(InputError, match=said) as told:
        credential(texts.get(chain, chain), texts.get(key, key))
    assert someone.key.split("\n")[1] not in str(told.value)


def test_from_files(tmp_path, someone):
    for name, text in (("cert.pem", someone.chain), ("key.pem", someone.key)):
        (tmp_path / name).write_text(text)
    found = credential(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    assert found == credential(someone.chain, someone.key) and "BEGIN" not in repr(found)


def put(store, someone, name="cat"):
    mp4, said = made(store, name)
    store.put(layout.signature_key(name), sidecar(mp4, said, credential(someone.chain, someone.key)))


def test_verify_checks_sidecars_and_repair_takes_bad_ones_away(studio, someone):
    store = studio.store
    put(store, someone)
    assert verify(store).sound and not foreign(store.list())
    assert verify(store, anchors=someone.authority.encode()).sound
    wrong = verify(store, anchors=signer().authority.encode()).problems
    assert [one.key for one in wrong] == [layout.signature_key("cat")]
    store.put(layout.signature_key("dog"), store.get(layout.signature_key("cat")))
    problems = verify(store).problems
    assert [(one.video_id, one.key) for one in problems] == [("dog", layout.signature_key("dog"))]
    assert "does not hold (assertion.bmffHash.mismatch" in str(problems[0])
    assert repair(store).withdrawn == {} and verify(store).sound
    assert store.exists(layout.signature_key("cat")) and not store.exists(layout.signature_key("dog"))
