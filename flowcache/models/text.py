"""Prompts to embeddings, with a UMT5 encoder."""

from pathlib import Path

import torch
from torch import Tensor

from flowcache.models.base import TextEncoder


class UMT5TextEncoder:
    """Implements `TextEncoder`. Every prompt is encoded on its own, so that what it gives depends on nothing else."""

    def __init__(self, model, tokenizer, text_len: int):
        self.model, self.tokenizer, self.text_len = model, tokenizer, text_len

    @torch.no_grad()
    def encode(self, prompt: str) -> Tensor:
        """[1, text_len, dim] in fp32, zero after the prompt's end; longer prompts are cut."""
        ids = self.tokenizer(" ".join(prompt.split()), max_length=self.text_len, truncation=True).input_ids
        tokens = torch.tensor([ids], device=self.model.device)
        hidden = self.model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
        return torch.nn.functional.pad(hidden.float(), (0, 0, 0, self.text_len - len(ids)))


def load_text_encoder(
    folder_text_encoder: str | Path,
    folder_tokenizer: str | Path,
    text_len: int,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> TextEncoder:
    """The text encoder of a checkpoint, from its two folders as transformers writes them."""
    from transformers import AutoTokenizer, UMT5EncoderModel

    model = UMT5EncoderModel.from_pretrained(folder_text_encoder, dtype=dtype, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder_tokenizer, local_files_only=True)
    return UMT5TextEncoder(model.to(device).eval().requires_grad_(False), tokenizer, text_len)
