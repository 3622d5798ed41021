"""Prompts to embeddings, with UMT5 (Wan, SkyReels-V2) or T5 (MAGI-1).

From transformers' files (safetensors, or .bin as the T5-XXL of MAGI-1) or models_t5_umt5-xxl-enc-bf16.pth.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from flowcache.models.base import WordEncoder
from flowcache.models.build import built
from flowcache.models.json_files import check_files, read_object
from flowcache.models.part import Part
from flowcache.models.prompts import clean_wan
from flowcache.models.tensors import fault, in_folder, in_pth

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DECODER = ("decoder.", "lm_head.")  # of a T5 that was saved as a whole
EMBEDDING = "shared.weight"
TIED = {EMBEDDING: "encoder.embed_tokens.weight", "encoder.embed_tokens.weight": EMBEDDING}

# Official (Wan) -> transformers, inside a block. Unlike T5, UMT5 has a position bias in every layer.
BLOCK = {
    "norm1.": "layer.0.layer_norm.",
    "attn.": "layer.0.SelfAttention.",
    "pos_embedding.embedding.": "layer.0.SelfAttention.relative_attention_bias.",
    "norm2.": "layer.1.layer_norm.",
    "ffn.gate.0.": "layer.1.DenseReluDense.wi_0.",
    "ffn.fc1.": "layer.1.DenseReluDense.wi_1.",
    "ffn.fc2.": "layer.1.DenseReluDense.wo.",
}


class T5TextEncoder:
    """Implements `TextEncoder`. Every prompt is encoded on its own, so that what it gives depends on nothing else.

    clean: what is done to a prompt first.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        text_len: int,
        clean: Callable[[str], str] = clean_wan,
    ):
        self.model, self.tokenizer, self.text_len, self.clean = model, tokenizer, text_len, clean

    @torch.no_grad()
    def encode(self, prompt: str) -> Tensor:
        """[1, text_len, dim] in fp32, zero after the prompt's end; longer prompts are cut."""
        return padded(self.words(prompt), self.text_len)

    @torch.no_grad()
    def words(self, prompt: str) -> Tensor:
        """[1, tokens, dim] in the encoder's precision, for the prompt's tokens alone."""
        ids = self.tokenizer(self.clean(prompt), max_length=self.text_len, truncation=True).input_ids
        tokens = torch.tensor([ids], device=self.model.device)
        return self.model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state


class EncodedTexts:
    """Implements `TextEncoder`: each distinct text is encoded once.

    open_encoder: loads the encoder when it is first needed. keep: hold on to it; else it leaves the device after each
    `prepare`. Embeddings wait on the CPU, of a prompt's own tokens alone (8 KiB each for UMT5-XXL in bfloat16).
    A text that was not prepared is encoded when it comes, with the same result.
    """

    def __init__(self, open_encoder: Callable[[], WordEncoder], text_len: int, keep: bool = False):
        self.open_encoder, self.text_len, self.keep = open_encoder, text_len, keep
        self.encoder: WordEncoder | None = None
        self.words: dict[str, Tensor] = {}

    def prepare(self, texts: Iterable[str]) -> None:
        """Encode those that are new."""
        new = [text for text in dict.fromkeys(texts) if text not in self.words]
        if not new:
            return
        encoder = self.encoder or self.open_encoder()
        for text in new:
            self.words[text] = encoder.words(text).cpu()
        self.encoder = encoder if self.keep else None

    def encode(self, prompt: str) -> Tensor:
        return padded(self.tokens(prompt), self.text_len)

    def tokens(self, prompt: str) -> Tensor:
        """[1, tokens, dim] on the CPU, in the encoder's precision: the prompt's own tokens alone."""
        self.prepare([prompt])
        return self.words[prompt]


class EmbeddingStore(Protocol):
    """Where embeddings outlive a process: [1, tokens, dim] by text."""

    def find(self, text: str) -> Tensor | None: ...

    def put(self, text: str, words: Tensor) -> bool:
        """Whether these words are there now, and not those that somebody else put first."""
        ...


class StoredTexts:
    """Implements `TextEncoder` with what is stored; the rest is encoded here, and stored for others."""

    def __init__(self, embeddings: EmbeddingStore, encoder: EncodedTexts):
        self.embeddings, self.encoder = embeddings, encoder

    def encode(self, prompt: str) -> Tensor:
        return padded(self.tokens(prompt), self.encoder.text_len)

    def tokens(self, prompt: str) -> Tensor:
        """As `EncodedTexts.tokens`. None is kept in memory: there may be 100,000."""
        words = self.embeddings.find(prompt)
        if words is None:
            words = self.encoder.tokens(prompt)
            del self.encoder.words[prompt]
            if not self.embeddings.put(prompt, words):
                first = self.embeddings.find(prompt)
                words = words if first is None else first
        return words


def padded(words: Tensor, text_len: int) -> Tensor:
    return torch.nn.functional.pad(words.float(), (0, 0, 0, text_len - words.shape[1]))


def load_text_encoder(
    path: str | Path,
    folder_tokenizer: str | Path,
    text_len: int,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    clean: Callable[[str], str] = clean_wan,
) -> T5TextEncoder:
    """The text encoder of a checkpoint: its folder as transformers writes it, or the official .pth; and tokenizer.

    InputError names each damaged tensor.
    """
    tokenizer = load_tokenizer(Path(folder_tokenizer))
    return T5TextEncoder(text_part(Path(path)).load(device, dtype), tokenizer, text_len, clean)


def load_tokenizer(folder: Path, known: int | None = None) -> "PreTrainedTokenizerBase":
    """InputError for none, and for one of more tokens than the encoder knows."""
    from transformers import AutoTokenizer

    check_files(folder)
    try:  # without the last word transformers asks on the terminal whether to run the code that a folder brings
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever is odd in its files, and in the config beside them
        said = " ".join(str(error).split())[:160]
        raise fault(folder, f"holds no tokenizer: {said}") from error
    if known is not None and len(found) > known:
        raise fault(folder, f"has {len(found):,} tokens, the text encoder knows {known:,}: they are not of one model")
    return found


def text_part(path: Path) -> Part:
    """A T5 or UMT5 encoder in a folder as transformers writes it, by its config; or UMT5's official .pth file."""
    from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

    kinds = {"umt5": (UMT5EncoderModel, UMT5Config), "t5": (T5EncoderModel, T5Config)}
    if path.is_dir():
        config = read_object(path / "config.json", "config of a text encoder")
        kind = config.pop("model_type", "umt5")
        if kind not in [*kinds]:  # compared, as it may be anything
            raise fault(path / "config.json", f"is {kind!r}; accepted: {', '.join(kinds)}", "model_type")
        whole = in_folder(path, _suffix(path))
        stored, rename = [entry for entry in whole if not entry.name.startswith(DECODER)], _kept
    else:
        stored, rename, kind = in_pth(path), transformers_name, "umt5"
        config = _config_of({entry.name: entry.shape for entry in stored}, path)
    make_model, make_config = kinds[kind]
    file = path / "config.json" if path.is_dir() else path
    module = built(lambda: make_model(make_config(**config)), file, config)
    return Part(path, module, stored, rename, TIED)


def _suffix(folder: Path) -> str:
    """What the weights' file names end with: .bin where there is nothing else."""
    return ".bin" if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors*")) else ".safetensors"


def _kept(name: str) -> str:
    return name


def transformers_name(name: str) -> str:
    """The transformers name of a tensor of the official file."""
    match = re.match(r"blocks\.(\d+)\.", name)
    if not match:
        return {"token_embedding.weight": EMBEDDING, "norm.weight": "encoder.final_layer_norm.weight"}.get(name, name)
    rest = name[match.end() :]
    for old, new in BLOCK.items():
        if rest.startswith(old):
            return f"encoder.block.{match[1]}.{new}{rest[len(old) :]}"
    return name


def _config_of(shapes: dict[str, tuple[int, ...]], file: Path) -> dict:
    """The shape of an official encoder, read off its tensors."""
    try:
        vocabulary, dim = shapes["token_embedding.weight"]
        buckets, heads = shapes["blocks.0.pos_embedding.embedding.weight"]
        inner, hidden = shapes["blocks.0.attn.q.weight"][0], shapes["blocks.0.ffn.fc1.weight"][0]
    except (KeyError, ValueError, IndexError) as error:
        raise fault(file, f"is no UMT5 encoder, which holds the tensors named: {error}") from None
    layers = 1 + max(int(name.split(".")[1]) for name in shapes if re.match(r"blocks\.\d+\.", name))
    return {
        "vocab_size": vocabulary,
        "d_model": dim,
        "d_kv": inner // heads,
        "d_ff": hidden,
        "num_layers": layers,
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
    }
