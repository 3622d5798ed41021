"""MAGI-1's captions: each chunk's prompt behind tokens that say how the video is to be and how much of it remains.

Source: `inference/pipeline/prompt_process.py` of the official repository; the tokens are learned embeddings, published
as its `example/assets/special_tokens.npz`.
"""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowcache.families.magi.published import SPECIAL_TOKENS_SOURCE
from flowcache.models.formats import Kind, expect, fault

ARRAY = "other_tokens"
# Rows of the array, in the order in which the official code puts them before a caption, each before the last one.
MARKS = {"static": 2, "dynamic": 3, "borderness": 4, "hq": 1, "3d": 15, "2d": 16}
DURATION = 7  # the row that says "nothing remains"; the next ones: one chunk, two, ...
LONGEST = 7  # chunks that remain; more are told as so many
ROWS = 1 + max(DURATION + LONGEST, *MARKS.values())


@dataclass(frozen=True)
class SpecialTokens:
    """`rows`: [n, dim] in fp32, rounded to fp16 as officially. `marks`: what every caption is marked with.

    duration: also say how many chunks remain. The published runs have both.
    """

    rows: Tensor
    marks: Sequence[str] = ("hq",)
    duration: bool = True

    def before(self, words: Tensor, remaining: int) -> Tensor:
        """[1, L, dim] -> [1, L + marks + 1, dim] in fp32. remaining: chunks after this one to the video's end."""
        at = [row for mark, row in MARKS.items() if mark in self.marks]
        if self.duration:
            at.append(DURATION + min(remaining, LONGEST))
        return torch.cat([self.rows[at[::-1]][None], words.float()], dim=1)


class Captions:
    """Implements `TextEncoder`, whose embeddings end with the prompt here: [1, L, dim].

    words: a prompt's own embeddings [1, L, dim], prepared ahead or not. special: None: for models without such tokens.
    length: a caption is cut to so many tokens, the special ones included.
    """

    def __init__(self, words: Callable[[str], Tensor], special: SpecialTokens | None, length: int = 800):
        self.words, self.special, self.length = words, special, length

    def encode(self, prompt: str) -> Tensor:
        return self.words(prompt).float()[:, : self.length]

    def caption(self, prompt: str, remaining: int) -> Tensor | None:
        """What a chunk sees: [1, L, dim] in fp32, or None for an empty prompt, whose place the null caption takes.

        remaining: chunks after this one to the end of what is rendered.
        """
        if not prompt.strip():
            return None
        words = self.words(prompt)
        told = words.float() if self.special is None else self.special.before(words, remaining)
        return told[:, : self.length]


def read_special_tokens(file: Path, dim: int, **settings: Any) -> SpecialTokens:
    """The published special_tokens.npz. dim: of the caption embeddings. settings: of `SpecialTokens`.

    InputError names what is wrong with the file.
    """
    if not file.exists():
        raise fault(file, f"is missing; {SPECIAL_TOKENS_SOURCE}")
    expect(file, (Kind.ZIP,), "an .npz of arrays")  # numpy takes all else for a pickle, and advises to run it
    try:
        with np.load(file, allow_pickle=False) as arrays:
            rows = arrays[ARRAY]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise fault(file, f"can't be read as arrays without code: {error}") from None
    except KeyError:
        raise fault(file, "is missing", ARRAY) from None
    if rows.ndim != 2 or rows.shape[1] != dim or len(rows) < ROWS or rows.dtype.kind != "f":
        accepted = f"floats [{ROWS} or more, {dim}]"
        raise fault(file, f"is {rows.dtype} {list(rows.shape)}; accepted: {accepted}", ARRAY)
    return SpecialTokens(torch.from_numpy(rows.astype(np.float16)).float(), **settings)
