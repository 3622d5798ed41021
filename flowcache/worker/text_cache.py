"""Texts of a run: each distinct one is encoded once and lies in the store, where every rank finds it."""

from collections.abc import Iterable
from dataclasses import dataclass

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from flowcache.records import RenderRequest
from flowcache.storage import layout
from flowcache.storage.documents import sha256
from flowcache.storage.objects.store import Store
from flowcache.storage.texts import BLANK, fault_of, seal


def texts_of(requests: Iterable[RenderRequest]) -> dict[str, list[str]]:
    """By model, the distinct texts that its requests ask for, in their order."""
    found: dict[str, dict[str, None]] = {}
    for request in requests:
        known = found.setdefault(request.model, {})
        known.update(dict.fromkeys([request.negative_prompt] if request.guidance > 1 else []))
        known.update(dict.fromkeys(shot.prompt for shot in request.shots))
    return {model: list(texts) for model, texts in found.items()}


@dataclass(frozen=True)
class TextCache:
    """Implements `text.EmbeddingStore` for one checkpoint at one precision ("bfloat16"): an object a text, by its hash.

    Holds [1, tokens, dim] of a text's own tokens: 8 KiB each for UMT5-XXL in bfloat16.
    """

    store: Store
    digest: str  # of the checkpoint
    precision: str

    def key(self, text: str) -> str:
        return layout.text_key(self.digest, self.precision, sha256(text.encode()))

    def missing(self, texts: Iterable[str]) -> list[str]:
        there = {entry.key for entry in self.store.list(layout.text_folder(self.digest, self.precision))}
        return [text for text in texts if self.key(text) not in there]

    def put(self, text: str, words: Tensor) -> bool:
        """Whether these words are there now. The first ones stay: another GPU's may differ in the last bits."""
        key = self.key(text)
        return self.store.create(key, seal(save({"words": words.contiguous()}, {"key": key, "sha256": BLANK})))

    def find(self, text: str) -> Tensor | None:
        """None too where it is damaged: it is taken away, to be encoded anew."""
        key = self.key(text)
        data = self.store.find(key)
        if data is None:
            return None
        try:
            if fault_of(data, key) is None:
                return load(data)["words"]
        except (SafetensorError, KeyError):
            pass  # of a version that sealed none
        if self.store.find(key) == data:  # else another rank has put it anew
            self.store.delete(key)
        return None
