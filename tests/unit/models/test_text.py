import pytest
import torch
from transformers import UMT5EncoderModel

from flowcache.models.text import EncodedTexts, clean, load_text_encoder
from tests.published import official_text
from training.shapes import vocabulary
from training.text import build_encoder, build_tokenizer, encode_batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    torch.manual_seed(0)
    tokenizer = build_tokenizer(vocabulary())
    build_encoder(len(tokenizer), dim=32).save_pretrained(folder / "text_encoder")
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
    batch = encode_batch(text.model, text.tokenizer, prompts, 16)
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


def test_html_and_space_are_cleaned():
    assert clean(" a &amp;lt;b&gt;\n\tc &quot;d&quot; ") == 'a <b> c "d"'


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
    assert encoded == ["a red circle", "", "a blue star"] and len(opened) == (1 if keep else 2)
