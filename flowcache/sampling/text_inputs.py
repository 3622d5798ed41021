"""The texts of a window as the model takes them, of the chunks under way alone."""

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor

from flowcache.models.base import VideoModel
from flowcache.models.upload import uploaded
from flowcache.sampling.plan import TextKind
from flowcache.sampling.records import Texts

Named = tuple[TextKind, int]  # kind of text, chunk


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
        null = model.null_caption if wanted else None
        if wanted and null is None:
            raise ValueError("a caption is missing, and this model has learned nothing that takes its place")
        self.model = model
        self.sources: dict[TextKind, list[Tensor | None]] = {
            "caption": [null if caption is None else caption for caption in captions],
            "negative": [texts.negative] * chunks,
            "null": [null] * chunks,
            "dropped": [None] * chunks,  # the model is told so
        }
        self.made: dict[int, Any] = {}  # by the embeddings' ids

    def take(self, names: Sequence[Named]) -> list[Any]:
        """Of the rows of a batch, or one where all see the same; each is computed once while it is under way."""
        sources = [self.sources[kind][chunk] for kind, chunk in names]
        alike = all(source is sources[0] for source in sources)
        return [self._made(source) for source in (sources[:1] if alike else sources)]

    def _made(self, source: Tensor | None) -> Any:
        if id(source) not in self.made:
            self.made[id(source)] = self.model.text(None if source is None else uploaded(source, self.model.device))
        return self.made[id(source)]

    def keep(self, needed: Collection[Named]) -> None:
        """Forget all but these."""
        ids = {id(self.sources[kind][chunk]) for kind, chunk in needed}
        self.made = {key: text for key, text in self.made.items() if key in ids}
