"""The tiny text encoders before training: a word-level tokenizer, and a UMT5 or T5 of two layers."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

SPECIAL = ("<pad>", "</s>", "<unk>")


def build_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """Lower-cases, drops punctuation, one token per word, `</s>` at the end."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate((*SPECIAL, *words))}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"[^a-z0-9]+"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )


def build_umt5(vocab_size: int, dim: int = 96) -> UMT5EncoderModel:
    """As SkyReels-V2 has it: each layer has a position bias of its own."""
    encoder = UMT5EncoderModel(UMT5Config(**shape_of(vocab_size, dim)))
    for block in encoder.encoder.block:
        look_around(block.layer[0].SelfAttention.relative_attention_bias)
    return encoder


def build_t5(vocab_size: int, dim: int = 96) -> T5EncoderModel:
    """As MAGI-1 has it: the first layer's position bias serves all."""
    encoder = T5EncoderModel(T5Config(**shape_of(vocab_size, dim), feed_forward_proj="gated-gelu"))
    look_around(encoder.encoder.block[0].layer[0].SelfAttention.relative_attention_bias)
    return encoder


def shape_of(vocab_size: int, dim: int) -> dict[str, int | float]:
    return {
        "vocab_size": vocab_size, "d_model": dim, "d_kv": dim // 4, "d_ff": 2 * dim, "num_layers": 2, "num_heads": 4,
        "dropout_rate": 0.0, "pad_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip


def look_around(bias: nn.Embedding) -> None:
    """Each of four heads starts out looking at one neighbour (offsets -2, -1, +1, +2).

    With the default init a model of this size stays a bag of words, which mixes up two colours.
    """
    half = bias.num_embeddings // 2
    with torch.no_grad():
        bias.weight.zero_()
        for head, bucket in enumerate((2, 1, half + 1, half + 2)):  # of those offsets
            bias.weight[bucket, head] = 4.0


def encode_batch(
    encoder: nn.Module, tokenizer: PreTrainedTokenizerFast, prompts: list[str], length: int
) -> tuple[Tensor, Tensor]:
    """[B, length, dim], zero after each prompt's end; and which tokens are its own [B, length]."""
    batch = tokenizer(prompts, padding="max_length", max_length=length, return_tensors="pt")
    hidden = encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    return hidden * batch.attention_mask[..., None], batch.attention_mask.bool()


def save_text(encoder: nn.Module, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Into `text_encoder` (fp16) and `tokenizer`, as transformers names things."""
    encoder.half().save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    path = folder / "tokenizer" / "tokenizer_config.json"  # a class name that older transformers know too
    write_json(path, json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"})


def take_encoder(encoder: nn.Module, folder: Path) -> None:
    """The weights of what `save_text` wrote."""
    stored = type(encoder).from_pretrained(folder / "text_encoder", dtype=torch.float32, local_files_only=True)
    encoder.load_state_dict(stored.state_dict())


def write_json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
