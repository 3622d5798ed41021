"""Texts are encoded once and found again, without Ray."""

import pytest
import torch
from safetensors.torch import save

from flowcache.families.registry import find, load_texts
from flowcache.models.text import EncodedTexts, StoredTexts
from flowcache.records import RenderRequest, Shot
from flowcache.runtime.text_encoding import BATCH, encode_share
from flowcache.storage.objects.store import Store
from flowcache.storage.texts import SEAL, fault_of
from flowcache.worker.text_cache import TextCache, texts_of

MODEL = "tiny-skyreels"


def request(model, *prompts, guidance=6.0):
    shots = tuple(Shot(prompt, 9) for prompt in prompts)
    return RenderRequest("v", shots, 64, 64, 12, 1, guidance, 2, model, {"name": "off"}, negative_prompt="bad")


def test_every_distinct_text_once_in_the_order_of_the_requests():
    requests = [request("a", "one", "two"), request("b", "one", guidance=1.0), request("a", "two", "three")]
    assert texts_of(requests) == {"a": ["bad", "one", "two", "three"], "b": ["one"]}


@pytest.fixture
def embeddings(tmp_path):
    torch.set_num_threads(1)
    return TextCache(Store(str(tmp_path)), find(MODEL).digest, "float32")


def opened():
    raise AssertionError("an encoder was opened")


def test_what_was_encoded_ahead_is_what_the_encoder_gives(embeddings):
    texts = ["a red circle", "", "a blue square moving up"]
    assert list(encode_share(embeddings, MODEL, "cpu", "auto", 1, texts)) == [3]
    encoder = load_texts(MODEL)
    stored = StoredTexts(embeddings, EncodedTexts(opened, encoder.text_len))
    assert all(torch.equal(stored.encode(text), encoder.encode(text)) for text in texts)
    with pytest.raises(AssertionError, match="an encoder was opened"):
        stored.encode("a green square")


def test_what_one_rank_encodes_the_others_find(embeddings):
    first = load_texts(MODEL)
    given = StoredTexts(embeddings, first).encode("a green square")
    assert torch.equal(StoredTexts(embeddings, EncodedTexts(opened, first.text_len)).encode("a green square"), given)
    assert first.words == {}  # a rank keeps none: there may be 100,000


def test_ranks_that_encode_together_go_on_with_the_first_result(embeddings, monkeypatch):
    encoder, first = load_texts(MODEL), torch.full((1, 3, 32), 0.5)
    prepare = encoder.prepare

    def outrun(texts):
        prepare(texts)
        embeddings.put("a red circle", first)  # by another rank

    monkeypatch.setattr(encoder, "prepare", outrun)
    assert torch.equal(StoredTexts(embeddings, encoder).encode("a red circle")[:, :3], first)


def test_what_is_there_is_not_encoded_again(embeddings):
    texts = [f"a red circle {'very ' * number}" for number in range(BATCH + 3)]
    assert list(encode_share(embeddings, MODEL, "cpu", "auto", 1, texts[: BATCH + 1])) == [BATCH, 1]
    assert embeddings.missing(texts) == texts[BATCH + 1 :]
    assert list(encode_share(embeddings, MODEL, "cpu", "auto", 1, texts)) == [2]
    assert list(encode_share(embeddings, MODEL, "cpu", "auto", 1, texts)) == [] and embeddings.missing(texts) == []


def test_other_weights_and_precisions_have_shelves_of_their_own(embeddings):
    list(encode_share(embeddings, MODEL, "cpu", "auto", 1, ["a red circle"]))
    for other in (
        TextCache(embeddings.store, "0" * 64, "float32"),
        TextCache(embeddings.store, embeddings.digest, "bfloat16"),
    ):
        assert other.missing(["a red circle"]) == ["a red circle"] and other.find("a red circle") is None


WORDS = torch.arange(6.0).reshape(1, 2, 3)


def flipped(data: bytes, bit: int) -> bytes:
    return bytes(byte ^ (1 << bit % 8) if place == bit // 8 else byte for place, byte in enumerate(data))


def test_no_flipped_bit_and_no_cut_is_ever_used(embeddings):
    assert embeddings.put("a", WORDS) and torch.equal(embeddings.find("a"), WORDS)
    key = embeddings.key("a")
    data = embeddings.store.get(key)
    bad = [flipped(data, bit) for bit in range(0, len(data) * 8, 3)] + [data[:end] for end in range(1, len(data), 7)]
    for damaged in bad:
        assert fault_of(damaged, key), damaged
    for damaged in [*bad[::40], b"damaged", save({"words": -WORDS}, {"sha256": SEAL.search(data)[1].decode()})]:
        embeddings.store.put(key, damaged)
        assert embeddings.find("a") is None and not embeddings.store.exists(key)
    given = StoredTexts(embeddings, load_texts(MODEL)).encode("a")
    embeddings.store.put(key, b"damaged")
    assert torch.equal(StoredTexts(embeddings, load_texts(MODEL)).encode("a"), given)
    assert fault_of(embeddings.store.get(key), key) is None


def test_texts_of_older_versions_are_used(embeddings):
    embeddings.store.put(embeddings.key("a"), save({"words": WORDS}))
    assert torch.equal(embeddings.find("a"), WORDS)
