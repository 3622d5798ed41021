"""Where the parts of a checkpoint lie: the diffusers layout, and the official ones of both families. No torch."""

from dataclasses import dataclass
from pathlib import Path

from flowcache.errors import InputError, Problem
from flowcache.families.magi.config_file import is_config, read
from flowcache.families.magi.published import SPECIAL_TOKENS, SPECIAL_TOKENS_SOURCE, places

OFFICIAL_VAE = "Wan2.1_VAE.pth"
OFFICIAL_TEXT = "models_t5_umt5-xxl-enc-bf16.pth"
OFFICIAL_TOKENIZER = "google/umt5-xxl"
DIFFUSERS_MARK = "model_index.json"


@dataclass(frozen=True)
class Layout:
    """Paths of a checkpoint's parts; `vae` and `text_encoder` are folders, or .pth files (SkyReels-V2, official).

    config: the file that says the transformer's shape; `transformer`: the folder of its weights. special_tokens: the
    file of those that stand before MAGI-1's captions; None: the model has none.
    """

    name: str
    config: Path
    transformer: Path
    vae: Path
    text_encoder: Path
    tokenizer: Path
    special_tokens: Path | None = None

    def missing(self) -> list[Problem]:
        within = self.config.is_relative_to(self.transformer)
        parts = (self.config if within else self.transformer, self.vae, self.text_encoder, self.tokenizer)
        found = [Problem(str(part), "", f"is missing; the {self.name} layout holds it") for part in dict.fromkeys(parts)
                 if not part.exists()]  # fmt: skip
        if self.special_tokens and not self.special_tokens.exists():
            found.append(Problem(str(self.special_tokens), "", f"is missing; {SPECIAL_TOKENS_SOURCE}"))
        return found

    @property
    def family(self) -> str:
        """By the transformer's config."""
        return "magi" if is_config(self.config) or is_config(self.config, "num_query_groups") else "skyreels"

    @property
    def roots(self) -> list[Path]:
        """The parts' files and folders, none inside another."""
        named = (self.config, self.transformer, self.vae, self.text_encoder, self.tokenizer, self.special_tokens)
        parts = dict.fromkeys(part for part in named if part)
        return [part for part in parts if not any(part.is_relative_to(other) for other in parts if other != part)]


def diffusers(folder: Path) -> Layout:
    transformer, *others = (folder / name for name in ("transformer", "vae", "text_encoder", "tokenizer"))
    special = folder / SPECIAL_TOKENS
    return Layout("diffusers", transformer / "config.json", transformer, *others, special if special.exists() else None)


def skyreels(folder: Path) -> Layout:
    names = (OFFICIAL_VAE, OFFICIAL_TEXT, OFFICIAL_TOKENIZER)
    return Layout("official", folder / "config.json", folder, *(folder / name for name in names))


def magi(file: Path) -> Layout:
    """By an official config file, which says where the parts lie; InputError for a faulty one."""
    found = places(file, read(file))
    return Layout("official", file, tokenizer=found["text_encoder"], **found)


def layout_of(path: Path) -> Layout | None:
    """The layout by what lies at a folder's top, or by a config file; None: no checkpoint.

    InputError where two layouts or two configs of MAGI-1 are mixed, and for a faulty config of it.
    """
    if path.is_file():
        return magi(path) if path.suffix == ".json" else None
    configs = [file.name for file in sorted(path.glob("*.json")) if is_config(file)]
    marks = [mark for mark in ("config.json", OFFICIAL_VAE, OFFICIAL_TEXT) if (path / mark).is_file()]
    is_diffusers = (path / DIFFUSERS_MARK).is_file() or (path / "transformer" / "config.json").is_file()
    held = {
        "diffusers layout": [DIFFUSERS_MARK] if is_diffusers else [],
        "official one of SkyReels-V2": [mark for mark in marks if mark not in configs],
        "official one of MAGI-1": configs,
    }
    found = [f"the {name} ({files[0]})" for name, files in held.items() if files]
    if len(found) > 1:
        raise InputError([Problem(str(path), "", f"mixes two layouts: {found[0]} and {found[1]}")])
    if len(configs) > 1:
        several = f"holds {len(configs)} configs of MAGI-1: {', '.join(configs)}; give one of them by its path"
        raise InputError([Problem(str(path), "", several)])
    if configs:
        return magi(path / configs[0])
    return diffusers(path) if is_diffusers else skyreels(path) if marks else None


def parts_of(path: Path) -> Layout:
    """Where the parts of any checkpoint lie that `registry.find` knows; a bundled one is laid out as for diffusers."""
    return layout_of(path) or diffusers(path)
