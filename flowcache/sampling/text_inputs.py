"""The texts of a window as the model takes them, of the chunks under way alone."""

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor

from flowcache.models.base import DropsCaptions, VideoModel
from flowcache.models.upload import uploaded
from flowcache.sampling.plan import TextKind
from flowcache.sampling.records import Texts

Named = tuple[TextKind, int]  # kind of text, chunk
Source = tuple[int, bool]  # id of the embeddings, and whether the model is told that the caption was dropped


class TextInputs:
    """For each kind of text and each of `chunks` chunks what `VideoModel.text` makes of it."""

    def __init__(self, model: VideoModel, texts: Texts, chunks: int, kinds: Collection[TextKind]):
        """ValueError where a text of the `kinds` in use is missing, or captions are not as many as chunks."""
        if "negative" in kinds and texts.negative is None:
            raise ValueError("this guidance needs negative text embeddings")
        captions = [texts.positive] * chunks if isinstance(texts.positive, Tensor) else list(texts.positive)
        if len(captions) != chunks:
            raise ValueError(f"{len(captions)} captions for a window of {chunks} chunks")
        uncaptioned = any(caption is None for caption in captions)
        wanted = uncaptioned or "null" in kinds
        null = model.null_caption if wanted or "dropped" in kinds else None
        if wanted and null is None:
            raise ValueError("a caption is missing, and this model has learned nothing that takes its place")
        instead = None if null is None else texts.negative
        null = null if instead is None else instead
        self.model = model
        self.sources: dict[TextKind, list[Tensor | None]] = {
            "caption": [null if caption is None else caption for caption in captions],
            "negative": [texts.negative] * chunks,
            "null": [null] * chunks,
            "dropped": [instead] * chunks,  # the model is told so
        }
        self.made: dict[Source, Any] = {}

    def take(self, names: Sequence[Named]) -> list[Any]:
        """Of the rows of a batch, or one where all see the same; each is computed once while it is under way."""
        alike = len({self._source(*name) for name in names}) == 1
        return [self._made(*name) for name in (names[:1] if alike else names)]

    def _source(self, kind: TextKind, chunk: int) -> Source:
        return id(self.sources[kind][chunk]), kind == "dropped"

    def _made(self, kind: TextKind, chunk: int) -> Any:
        key, source = self._source(kind, chunk), self.sources[kind][chunk]
        if key not in self.made:
            seen = None if source is None else uploaded(source, self.model.device)
            if kind == "dropped" and seen is not None and isinstance(self.model, DropsCaptions):
                self.made[key] = self.model.dropped(seen)
            else:
                self.made[key] = self.model.text(seen)
        return self.made[key]

    def keep(self, needed: Collection[Named]) -> None:
        """Forget all but these."""
        kept = {self._source(kind, chunk) for kind, chunk in needed}
        self.made = {key: text for key, text in self.made.items() if key in kept}
