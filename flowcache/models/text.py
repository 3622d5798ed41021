"""Prompts to embeddings, with a UMT5 encoder: from transformers' files or models_t5_umt5-xxl-enc-bf16.pth."""

import html
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from flowcache.models.part import Part
from flowcache.models.tensors import fault, in_folder, in_pth

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


class UMT5TextEncoder:
    """Implements `TextEncoder`. Every prompt is encoded on its own, so that what it gives depends on nothing else."""

    def __init__(self, model, tokenizer, text_len: int):
        self.model, self.tokenizer, self.text_len = model, tokenizer, text_len

    @torch.no_grad()
    def encode(self, prompt: str) -> Tensor:
        """[1, text_len, dim] in fp32, zero after the prompt's end; longer prompts are cut."""
        return padded(self.words(prompt), self.text_len)

    @torch.no_grad()
    def words(self, prompt: str) -> Tensor:
        """[1, tokens, dim] in the encoder's precision, for the prompt's tokens alone."""
        ids = self.tokenizer(clean(prompt), max_length=self.text_len, truncation=True).input_ids
        tokens = torch.tensor([ids], device=self.model.device)
        return self.model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state


class EncodedTexts:
    """Implements `TextEncoder`: each distinct text is encoded once.

    open_encoder: loads the encoder when it is first needed. keep: hold on to it; else it leaves the device after each
    `prepare`. Embeddings wait on the CPU, of a prompt's own tokens alone (8 KiB each for UMT5-XXL in bfloat16).
    A text that was not prepared is encoded when it comes, with the same result.
    """

    def __init__(self, open_encoder: Callable[[], UMT5TextEncoder], text_len: int, keep: bool = False):
        self.open_encoder, self.text_len, self.keep = open_encoder, text_len, keep
        self.encoder: UMT5TextEncoder | None = None
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
        self.prepare([prompt])
        return padded(self.words[prompt], self.text_len)


def clean(prompt: str) -> str:
    """As the official code: HTML entities resolved (twice, as there), white space single; without its use of ftfy."""
    return " ".join(html.unescape(html.unescape(prompt)).split())


def padded(words: Tensor, text_len: int) -> Tensor:
    return torch.nn.functional.pad(words.float(), (0, 0, 0, text_len - words.shape[1]))


def load_text_encoder(
    path: str | Path,
    folder_tokenizer: str | Path,
    text_len: int,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> UMT5TextEncoder:
    """The text encoder of a checkpoint: its folder as transformers writes it, or the official .pth; and tokenizer.

    InputError names each damaged tensor.
    """
    tokenizer = load_tokenizer(Path(folder_tokenizer))
    return UMT5TextEncoder(text_part(Path(path)).load(device, dtype), tokenizer, text_len)


def load_tokenizer(folder: Path):
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise fault(folder, f"holds no tokenizer: {str(error).splitlines()[0]}") from None


def text_part(path: Path) -> Part:
    """A UMT5 encoder: an official .pth file, or a folder as transformers writes it."""
    from transformers import UMT5Config, UMT5EncoderModel

    if path.is_dir():
        stored, rename = in_folder(path), _kept
        config = _read_config(path / "config.json")
    else:
        stored, rename = in_pth(path), transformers_name
        config = _config_of({entry.name: entry.shape for entry in stored}, path)
    try:
        with torch.device("meta"):
            module = UMT5EncoderModel(UMT5Config(**config))
    except (TypeError, ValueError, AttributeError) as error:
        raise fault(path, f"is no UMT5 config: {error}") from None
    return Part(path, module, stored, rename, TIED)


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


def _read_config(path: Path) -> dict:
    try:
        config = json.loads(path.read_text())
        if not isinstance(config, dict):
            raise ValueError("not an object")
    except OSError as error:
        raise fault(path, f"can't be read: {error.strerror}") from None
    except ValueError as error:
        raise fault(path, f"is no UMT5 config: {error}") from None
    return config


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
