"""Shape of the toy's transformer, and what it takes. No torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from flowcache.errors import InputError, Problem


@dataclass(frozen=True)
class ToyConfig:
    family: ClassVar[str] = "toy"
    dim: int
    heads: int
    channels: int = 3
    layers: int = 1
    text_dim: int = 8
    text_len: int = 16
    patch: tuple[int, int, int] = (1, 1, 1)

    @property
    def kv_heads(self) -> int:
        return self.heads

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


def read_config(file: Path) -> ToyConfig:
    try:
        return ToyConfig(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError([Problem(str(file), "", f"is no shape of a toy: {error}")]) from None


def block_flops(config: ToyConfig, tokens: int, seen: int) -> int:
    return 8 * tokens * config.dim**2 + 4 * tokens * seen * config.dim


def text_flops(config: ToyConfig) -> int:
    return 2 * config.text_len * config.text_dim * config.dim


def embed_flops(config: ToyConfig, tokens: int) -> int:
    return 2 * tokens * config.dim * config.channels


def head_flops(config: ToyConfig, tokens: int) -> int:
    return 2 * tokens * config.dim * config.channels


def kv_bytes(config: ToyConfig, tokens: int, element: int) -> int:
    return 2 * tokens * config.dim * element


def working_bytes(config: ToyConfig, tokens: int) -> int:
    return 8 * tokens * config.dim * 2


def reuse_bytes(
    config: ToyConfig, tokens: int, ranks: int, kv_branches: int, chunks_in_flight: int, element: int
) -> int:
    """The last velocity."""
    return chunks_in_flight * tokens * config.channels * 4
