"""Where the parts of a checkpoint lie. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flowcache.errors import InputError, Problem
from flowcache.models.json_files import read_object

DIFFUSERS, DIFFUSERS_MARK = "diffusers layout", "model_index.json"


@dataclass(frozen=True)
class Extra:
    """A further file that a model needs. source: what to do where it is missing, a sentence's end."""

    path: Path
    source: str


@dataclass(frozen=True)
class Layout:
    """Paths of a checkpoint's parts; `vae` and `text_encoder` are folders, or files. None: it has no such part.

    root: by which it is named: its folder, or a config file. config: the file that says the transformer's shape;
    `transformer`: the folder of its weights.
    """

    name: str
    root: Path
    config: Path
    transformer: Path
    vae: Path
    text_encoder: Path | None = None
    tokenizer: Path | None = None
    extras: tuple[Extra, ...] = ()

    def missing(self) -> list[Problem]:
        within = self.config.is_relative_to(self.transformer)
        parts = (self.config if within else self.transformer, self.vae, self.text_encoder, self.tokenizer)
        found = [Problem(str(part), "", f"is missing; the {self.name} layout holds it") for part in dict.fromkeys(parts)
                 if part and not part.exists()]  # fmt: skip
        lost = [extra for extra in self.extras if not extra.path.exists()]
        return found + [Problem(str(extra.path), "", f"is missing; {extra.source}") for extra in lost]

    def texts(self) -> tuple[Path, Path]:
        """The text encoder and its tokenizer; InputError where it has none."""
        if self.text_encoder is None or self.tokenizer is None:
            raise InputError([Problem(str(self.root), "", f"has no text encoder: the {self.name} layout holds none")])
        return self.text_encoder, self.tokenizer

    @property
    def roots(self) -> list[Path]:
        """The parts' files and folders, none inside another."""
        named = (self.config, self.transformer, self.vae, self.text_encoder, self.tokenizer)
        parts = dict.fromkeys(part for part in (*named, *(extra.path for extra in self.extras)) if part)
        return [part for part in parts if not any(part.is_relative_to(other) for other in parts if other != part)]


def diffusers(folder: Path, extras: tuple[Extra, ...] = ()) -> Layout:
    """That of bundled checkpoints, too."""
    transformer, vae, text, tokenizer = (folder / name for name in ("transformer", "vae", "text_encoder", "tokenizer"))
    return Layout("diffusers", folder, transformer / "config.json", transformer, vae, text, tokenizer, extras)


def diffusers_marks(folder: Path) -> list[str]:
    """What says at a folder's top that it is laid out so."""
    found = (folder / DIFFUSERS_MARK).is_file() or (folder / "transformer" / "config.json").is_file()
    return [DIFFUSERS_MARK] if found else []


def check_unmixed(path: Path, marks: Mapping[str, Sequence[str]]) -> None:
    """marks: layout -> files at a folder's top that say so. InputError where there are two layouts."""
    found = [f"the {name} ({files[0]})" for name, files in marks.items() if files]
    if len(found) > 1:
        raise InputError([Problem(str(path), "", f"mixes two layouts: {found[0]} and {found[1]}")])


def kv_heads(config: Path) -> int:
    """Heads with keys and values of their own by a transformer's config, in any published layout."""
    raw = read_object(config, "transformer config")
    try:
        raw = raw.get("model_config", raw)
        return raw.get("num_query_groups") or raw.get("num_attention_heads") or raw["num_heads"]
    except (KeyError, AttributeError) as error:
        raise InputError([Problem(str(config), "", f"is no transformer config: {error!r}")]) from None
