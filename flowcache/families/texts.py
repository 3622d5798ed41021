"""What of a prompt its model's text encoder will see, before anything is loaded but a tokenizer."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

from flowcache.families.known import family
from flowcache.families.settings import config_of
from flowcache.records import ModelSpec, RenderRequest

# What cleaning leaves alone, so often that the rest need not be tried.
PLAIN = re.compile(r"(?:[a-z]{3,}[\s,.]+[a-z]{0,2}[\s,.]*){3}")
HAN = re.compile(r"[\u31c0-\u9fff]")  # what MAGI-1's cleaning removes of Chinese and Japanese
ENOUGH = 0.5  # of the letters


class SeenTexts:
    """Of one model."""

    def __init__(self, spec: ModelSpec):
        self.spec, self.family = spec, family(spec.family)

    def fault(self, text: str, request: RenderRequest) -> str | None:
        """What is not seen of a text of the request, as a sentence without its subject; None: all is. InputError for a
        damaged tokenizer."""
        cleaned = text
        if HAN.search(text) or not PLAIN.search(text):
            cleaned = self.family.cleaned(text)
            letters, left = _letters(text), _letters(cleaned)
            if not left:
                return f"is empty once {self.spec.name} has cleaned it, as officially; accepted: text in English"
            if left < letters * ENOUGH or (HAN.search(text) and not HAN.search(cleaned)):
                kept = f"keeps {left:,} of its {letters:,} letters once {self.spec.name} has cleaned it"
                return f"{kept}, as officially; accepted: text in English"
        room = self.family.text_room(self.config, request)
        if len(cleaned.encode()) < room or self.tokenizer is None:  # a token is a byte at least
            return None
        tokens = len(self.tokenizer(self.family.cleaned(text)).input_ids)
        if tokens <= room:
            return None
        return f"has {tokens:,} tokens, of which {self.spec.name} sees {room:,}; accepted: a shorter text"

    @cached_property
    def config(self) -> Any:
        return config_of(self.spec)

    @cached_property
    def tokenizer(self) -> Any:
        """None: the family has none that is known here."""
        from flowcache.models.text import load_tokenizer

        folder = self.family.layout(Path(self.spec.path)).tokenizer
        return folder and load_tokenizer(folder)


def _letters(text: str) -> int:
    return sum(map(str.isalnum, text))
