"""MAGI-1's captions: each chunk's prompt behind tokens that say how the video is to be and how much of it remains;
and its negative prompt, which is tokens before the null caption.

Source: `inference/pipeline/prompt_process.py` of the official repository; the tokens are learned embeddings, published
as its `example/assets/special_tokens.npz`.
"""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowcache.families.magi.published import SPECIAL_TOKENS_SOURCE
from flowcache.families.magi.tokens import (
    ARRAY,
    BORDERNESS,
    MARKS,
    NEGATIVE_ARRAYS,
    OFFICIAL,
    REMAINING,
    TRANSITION,
)
from flowcache.models.formats import Kind, expect, fault
from flowcache.records import RenderRequest

LIMIT = 200_000_000  # bytes of special tokens; published are 2 million

DURATION = 7  # the row that says "nothing remains"; the next ones: one chunk, two, ...
LONGEST = 7  # chunks that remain; more are told as so many
ROWS = 1 + max(DURATION + LONGEST, *MARKS.values())


@dataclass(frozen=True)
class SpecialTokens:
    """`rows`: [n, dim] in fp32, rounded to fp16 as officially. `marks`: what every caption is marked with.

    duration: also say how many chunks remain. The published runs have both. negative: [4, dim], what stands before the
    null caption in a negative prompt; None: the model has none.
    """

    rows: Tensor
    marks: Sequence[str] = ("hq",)
    duration: bool = True
    negative: Tensor | None = None

    def named(self, names: Sequence[str]) -> "SpecialTokens":
        """With other marks, of `tokens.NAMES` in any order."""
        return replace(self, marks=names, duration=REMAINING in names)

    def before(self, words: Tensor, remaining: int) -> Tensor:
        """[1, L, dim] -> [1, L + marks + 1, dim] in fp32. remaining: chunks after this one to the video's end."""
        at = [row for mark, row in MARKS.items() if mark in self.marks]
        if self.duration:
            at.append(DURATION + min(remaining, LONGEST))
        return torch.cat([self.rows[at[::-1]][None], words.float()], dim=1)


class Captions:
    """Implements `TextEncoder`, whose embeddings end with the prompt here: [1, L, dim].

    words: a prompt's own embeddings [1, L, dim], prepared ahead or not. special: None: for models without such tokens.
    length: a caption is cut to so many tokens, the special ones included. against: what has no caption sees the
    negative prompt.
    """

    def __init__(
        self, words: Callable[[str], Tensor], special: SpecialTokens | None, length: int = 800, against: bool = False
    ):
        self.words, self.special, self.length, self.against = words, special, length, against

    def of(self, request: RenderRequest) -> "Captions":
        """As a request wants its captions to be."""
        names, special = request.special_tokens, self.special
        if names is not None and special is not None:
            special = special.named(names)
        return Captions(self.words, special, self.length, request.negative_prompt == OFFICIAL)

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

    def negative(self, null: Tensor) -> Tensor | None:
        """What is seen in place of the null caption [1, L, dim]: as many tokens, the negative ones first; None: it.

        Source: `_process_null_embeddings` (video_generate.py). ValueError for a model without such tokens.
        """
        if not self.against:
            return None
        if self.special is None or self.special.negative is None:
            raise ValueError("this model has no tokens for a negative prompt")
        return torch.cat([self.special.negative[None].to(null), null], dim=1)[:, : null.shape[1]]


def read_special_tokens(file: Path, dim: int, **settings: Any) -> SpecialTokens:
    """The published special_tokens.npz. dim: of the caption embeddings. settings: of `SpecialTokens`.

    InputError names what is wrong with the file.
    """
    if not file.exists():
        raise fault(file, f"is missing; {SPECIAL_TOKENS_SOURCE}")
    expect(file, (Kind.ZIP,), "an .npz of arrays")  # numpy takes all else for a pickle, and advises to run it
    try:
        with zipfile.ZipFile(file) as packed:
            size = sum(entry.file_size for entry in packed.infolist())
        if size > LIMIT:
            raise fault(file, f"unpacks to {size:,} bytes; accepted: {LIMIT:,} at most")
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in (ARRAY, *NEGATIVE_ARRAYS) if name in arrays}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise fault(file, f"can't be read as arrays without code: {error}") from None
    if ARRAY not in found:
        raise fault(file, "is missing", ARRAY)
    rows = {name: _rows(file, name, array, dim, ROWS if name == ARRAY else 1) for name, array in found.items()}
    return SpecialTokens(rows[ARRAY], negative=_negative(rows), **settings)


def _rows(file: Path, name: str, rows: np.ndarray, dim: int, least: int) -> Tensor:
    if rows.ndim != 2 or rows.shape[1] != dim or len(rows) < least or rows.dtype.kind != "f":
        accepted = f"floats [{least} or more, {dim}]"
        raise fault(file, f"is {rows.dtype} {list(rows.shape)}; accepted: {accepted}", name)
    if not np.isfinite(rows).all():
        raise fault(file, "holds numbers that are not finite", name)
    return torch.from_numpy(rows.astype(np.float16)).float()


def _negative(rows: Mapping[str, Tensor]) -> Tensor | None:
    """Each token goes before those that were there: the one named last in the official list stands first."""
    if any(name not in rows for name in NEGATIVE_ARRAYS):
        return None
    caption, logo = (rows[name][:1] for name in NEGATIVE_ARRAYS)
    other = rows[ARRAY]
    return torch.cat([other[BORDERNESS][None], other[TRANSITION][None], logo, caption])
