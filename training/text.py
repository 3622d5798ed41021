"""The tiny text encoder before training: a word-level tokenizer and a two-layer UMT5."""

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

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


def build_encoder(vocab_size: int, dim: int = 96) -> UMT5EncoderModel:
    """Each head starts out looking at one neighbour (offsets -2, -1, +1, +2).

    With the default init a model of this size stays a bag of words, which mixes up two colours.
    """
    config = UMT5Config(
        vocab_size=vocab_size, d_model=dim, d_kv=dim // 4, d_ff=2 * dim, num_layers=2, num_heads=4, dropout_rate=0.0,
        pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    encoder = UMT5EncoderModel(config)
    half = config.relative_attention_num_buckets // 2
    buckets = (2, 1, half + 1, half + 2)  # of the offsets -2, -1, +1, +2
    for block in encoder.encoder.block:
        bias = block.layer[0].SelfAttention.relative_attention_bias.weight
        with torch.no_grad():
            bias.zero_()
            for head, bucket in enumerate(buckets):
                bias[bucket, head] = 4.0
    return encoder


def encode_batch(
    encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerFast, prompts: list[str], length: int
) -> Tensor:
    """[B, length, dim], zero after each prompt's end."""
    batch = tokenizer(prompts, padding="max_length", max_length=length, return_tensors="pt")
    hidden = encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    return hidden * batch.attention_mask[..., None]
