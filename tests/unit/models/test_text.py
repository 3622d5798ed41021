import json

import pytest
import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import T5Config, T5EncoderModel, UMT5EncoderModel

from flowcache.bench.shapes import vocabulary
from flowcache.errors import InputError
from flowcache.models.prompts import clean_magi
from flowcache.models.text import EncodedTexts, load_text_encoder, load_tokenizer, text_part
from tests.published import official_text
from training.text import build_tokenizer, build_umt5, encode_batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    torch.manual_seed(0)
    tokenizer = build_tokenizer(vocabulary())
    build_umt5(len(tokenizer), dim=32).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture
def text(folder):
    return load_text_encoder(folder / "text_encoder", folder / "tokenizer", 16)


def words_in(embedding):
    """Positions that are not zero."""
    return int(embedding[0].abs().sum(-1).count_nonzero())


def test_zero_after_the_end(text):
    embedding = text.encode("a red circle moving right")
    assert embedding.shape == (1, 16, 32) and embedding.dtype == torch.float32
    assert words_in(embedding) == 6  # five words and the end
    assert (embedding[0, 6:] == 0).all()


def test_empty_prompt_is_its_end_alone(text):
    assert words_in(text.encode("")) == 1


def test_long_prompts_are_cut(text):
    assert words_in(text.encode("red " * 50)) == 16


def test_spelling_does_not_matter(text):
    assert torch.equal(text.encode("a red circle on blue"), text.encode("  A red\ncircle, on BLUE. "))


def test_order_of_words_matters(text):
    a, b = text.encode("a red circle on a blue background"), text.encode("a blue circle on a red background")
    assert (a[0, 1] - b[0, 5]).abs().max() > 0.1  # "red" in two places


def test_independent_of_what_was_encoded_before(folder, text):
    prompts = ["a red circle", "an orange star bouncing on black", ""]
    for prompt in prompts:
        fresh = load_text_encoder(folder / "text_encoder", folder / "tokenizer", 16)
        assert torch.equal(text.encode(prompt), fresh.encode(prompt))


def test_as_in_training(folder, text):
    """What was trained in batches is what single prompts get."""
    prompts = ["a red circle", "an orange star bouncing on black", ""]
    batch, _ = encode_batch(text.model, text.tokenizer, prompts, 16)
    for row, prompt in zip(batch, prompts, strict=True):
        assert torch.allclose(row, text.encode(prompt)[0], atol=1e-5)


def test_official_files_give_the_same(folder, text, tmp_path):
    torch.save(official_text(text.model.state_dict()), tmp_path / "enc.pth")
    official = load_text_encoder(tmp_path / "enc.pth", folder / "tokenizer", 16)
    theirs = UMT5EncoderModel.from_pretrained(folder / "text_encoder").eval()
    for prompt in ("a red circle moving right", ""):
        tokens = text.tokenizer(prompt, return_tensors="pt", padding="max_length", max_length=16)
        with torch.no_grad():
            expected = theirs(**tokens).last_hidden_state * tokens.attention_mask[..., None]
        assert torch.equal(official.encode(prompt), text.encode(prompt))
        assert torch.allclose(official.encode(prompt), expected, atol=1e-5)


def test_prompts_are_cleaned_before_they_are_encoded(folder, text):
    for prompt in ("a&amp;nbsp;red circle", "a re&#100; circle"):
        assert torch.equal(text.encode(prompt), text.encode("a red circle"))
    magi = load_text_encoder(folder / "text_encoder", folder / "tokenizer", 16, clean=clean_magi)
    assert torch.equal(magi.encode("a <b>red</b> circle (image.png)"), text.encode("a red circle"))


@pytest.mark.parametrize("keep", [True, False])
def test_each_text_is_encoded_once(text, keep):
    opened, encoded = [], []

    class Counting:
        def words(self, prompt):
            encoded.append(prompt)
            return text.words(prompt)

    def open_encoder():
        opened.append(True)
        return Counting()

    texts = EncodedTexts(open_encoder, 16, keep)
    texts.prepare(["a red circle", "", "a red circle"])
    assert texts.encoder is None or keep
    assert torch.equal(texts.encode("a red circle"), text.encode("a red circle"))
    assert torch.equal(texts.encode("a blue star"), text.encode("a blue star"))  # not announced
    assert torch.equal(texts.tokens("a red circle"), text.encode("a red circle")[:, :4])
    assert encoded == ["a red circle", "", "a blue star"] and len(opened) == (1 if keep else 2)


@pytest.fixture(scope="module")
def t5(folder, tmp_path_factory):
    """A T5 encoder as transformers writes it, and the same in two .bin shards as the T5-XXL of MAGI-1 is published."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=128, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    model = T5EncoderModel(config).eval().requires_grad_(False)
    plain, shards = tmp_path_factory.mktemp("t5"), tmp_path_factory.mktemp("t5_shards")
    model.save_pretrained(plain)
    (shards / "config.json").write_text((plain / "config.json").read_text())
    state = model.state_dict()
    names = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(sorted(state))}
    for file in set(names.values()):
        torch.save({name: state[name] for name in state if names[name] == file}, shards / file)
    (shards / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    return model, plain, shards


def test_t5_is_read_from_safetensors_and_from_shards_of_torch(folder, t5):
    model, *folders = t5
    for path in folders:
        loaded = load_text_encoder(path, folder / "tokenizer", 16, clean=clean_magi)
        ids = loaded.tokenizer("a red circle", return_tensors="pt", padding="max_length", max_length=16)
        expected = model(ids.input_ids, attention_mask=ids.attention_mask).last_hidden_state[:, :4]
        assert isinstance(loaded.model, T5EncoderModel)
        assert torch.allclose(loaded.words("A red circle."), expected, atol=1e-6)


def test_damaged_t5_is_named(t5, tmp_path):
    _, _, shards = t5
    for file in shards.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    second = tmp_path / "pytorch_model-00002-of-00002.bin"
    state = torch.load(second)
    name = sorted(state)[0]
    torch.save(state | {name: torch.zeros(7)}, second)
    (problem,) = text_part(tmp_path).problems()
    assert problem.file == str(second) and problem.field == name and "has shape [7]" in problem.message
    second.unlink()
    with pytest.raises(InputError, match="00002-of-00002.bin: is missing"):
        text_part(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="is 'bert'; accepted: umt5, t5"):
        text_part(tmp_path)


def test_a_tokenizer_may_be_a_sentencepiece_model_alone(tmp_path):
    """As MAGI-1's T5-XXL is published: spiece.model and no tokenizer.json."""
    sentences = [f"a {colour} circle moving {way}" for colour in ("red", "blue") for way in ("left", "right")] * 20
    SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_prefix=str(tmp_path / "spiece"), vocab_size=40, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 100}')
    ids = load_tokenizer(tmp_path)("a red circle", max_length=800, truncation=True).input_ids
    assert ids[-1] == 1 and SentencePieceProcessor(str(tmp_path / "spiece.model")).decode(ids[:-1]) == "a red circle"
