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


def class_name(file: Path) -> object:
    """What diffusers writes into model_index.json and configs; None: it says none, or can't be read."""
    return value(file, "_class_name")


def value(file: Path, key: str) -> object:
    """What a JSON object says of a key; None: nothing, or it can't be read."""
    try:
        return read_object(file).get(key)
    except InputError:
        return None  # whoever reads the file says so


def kv_heads(config: Path) -> int:
    """Heads with keys and values of their own by a transformer's config, in any published layout."""
    raw = read_object(config, "transformer config")
    raw = raw["model_config"] if isinstance(raw.get("model_config"), dict) else raw
    names = [name for name in ("num_query_groups", "num_attention_heads", "num_heads") if raw.get(name) is not None]
    if not names:
        raise InputError([Problem(str(config), "", "is no transformer config: it has no num_attention_heads")])
    if type(raw[names[0]]) is not int or raw[names[0]] < 1:
        given = f"got {str(raw[names[0]])[:60]!r}"
        raise InputError([Problem(str(config), names[0], f"{given}; accepted: a whole number above 0")])
    return raw[names[0]]
