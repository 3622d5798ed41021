"""The texts of a window as the model takes them, of the chunks under way alone."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from flowcache.models.base import VideoModel
from flowcache.sampling.records import Texts


class Captions:
    """For each kind of text and each of `chunks` chunks what `VideoModel.text` makes of it."""

    def __init__(self, model: VideoModel, texts: Texts, chunks: int, kinds: Collection[str]):
        """ValueError where a text of the `kinds` in use is missing, or captions are not as many as chunks."""
        if "negative" in kinds and texts.negative is None:
            raise ValueError("this guidance needs negative text embeddings")
        captions = [texts.positive] * chunks if isinstance(texts.positive, Tensor) else list(texts.positive)
        if len(captions) != chunks:
            raise ValueError(f"{len(captions)} captions for a window of {chunks} chunks")
        uncaptioned = any(caption is None for caption in captions)
        null = model.null_caption if uncaptioned or "null" in kinds else None
        self.model = model
        self.sources: dict[str, list[Tensor | None]] = {
            "caption": [null if caption is None else caption for caption in captions],
            "negative": [texts.negative] * chunks,
            "null": [null] * chunks,
            "dropped": [None] * chunks,  # the model is told so
        }
        self.made: dict[tuple[int, ...], Any] = {}  # by the embeddings' ids

    @property
    def of_one_length(self) -> bool:
        """Whether captions and negative text can stand in one batch."""
        given = (*self.sources["caption"], *self.sources["negative"])
        return len({text.shape[1] for text in given if text is not None}) == 1

    def take(self, kinds: Sequence[str], chunk: int) -> Any:
        """A chunk's texts as a batch; computed once for each that is under way."""
        sources = [self.sources[kind][chunk] for kind in kinds]
        key = tuple(map(id, sources))
        if key not in self.made:
            together = None if sources[0] is None else torch.cat(sources).to(self.model.device)
            self.made[key] = self.model.text(together)
        return self.made[key]

    def keep(self, needed: Collection[tuple[str, int]]) -> None:
        """Forget all but these (kind, chunk)."""
        ids = {id(self.sources[kind][chunk]) for kind, chunk in needed}
        self.made = {key: text for key, text in self.made.items() if ids.issuperset(key)}
